"""The vision tower and the projector as an mmproj GGUF: tensors, and the keys that the native side reads.

Tensor names and `clip.*` keys are upstream's (tools/mtmd/clip-impl.h); `aim.*` keys are ours:

aim.preprocess               "onevision" or "clip-center-crop"
aim.image_token, aim.video_token      what the chat template writes where media go
aim.vision.max_tiles         9 of anyres_max_9: tiles above this are shrunk bilinearly (LLaVA-OneVision)
aim.vision.resample          PIL's number of the resampling filter for images, aim.video.resample for frames
aim.video.n_frames           frames sampled from a video
aim.vision.shortest_edge, aim.vision.crop_size, aim.vision.do_center_crop, aim.vision.do_pad     LLaVA-1.5
"""

from collections.abc import Iterator, Mapping

import gguf

from .checkpoint import TensorRef
from .errors import ConvertError
from .plan import Need, Planned, fulfil
from .spec import ModelSpec
from .towers import VisionSpec
from .types import FILE_TYPES, is_quantized, vision_type

PROJECTORS = {"llava_onevision": "llava_onevision", "llava": "mlp"}
PREPROCESS = {"llava_onevision": "onevision", "llava": "clip-center-crop"}

LAYER = {
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}


def vision_needs(spec: ModelSpec) -> Iterator[tuple[Need, str]]:
    """Every tensor with its name in the GGUF."""
    v, d_text = spec.vision, spec.text.n_embd
    yield from embedding_needs(v)
    for il in range(v.n_layer):
        shapes = layer_shapes(v)
        for theirs, ours in LAYER.items():
            at = f"vision.encoder.layers.{il}.{theirs}."
            yield Need(at + "weight", shapes[theirs]), f"v.blk.{il}.{ours}.weight"
            yield Need(at + "bias", shapes[theirs][:1]), f"v.blk.{il}.{ours}.bias"
    for i, width in ((0, v.n_embd), (2, d_text)):
        yield Need(f"projector.{i}.weight", (d_text, width)), f"mm.{i}.weight"
        yield Need(f"projector.{i}.bias", (d_text,)), f"mm.{i}.bias"
    if spec.family == "llava_onevision":
        yield Need("newline", (d_text,)), "v.image_newline"


def embedding_needs(v: VisionSpec) -> Iterator[tuple[Need, str]]:
    at, clip = "vision.embeddings.", v.kind == "clip"
    yield Need(at + "patch_embedding.weight", (v.n_embd, 3, v.patch_size, v.patch_size)), "v.patch_embd.weight"
    if not clip:
        yield Need(at + "patch_embedding.bias", (v.n_embd,)), "v.patch_embd.bias"
    yield Need(at + "position_embedding.weight", (v.n_patches + clip, v.n_embd)), "v.position_embd.weight"
    if clip:
        yield Need(at + "class_embedding", (v.n_embd,)), "v.class_embd"
        yield Need("vision.pre_layrnorm.weight", (v.n_embd,)), "v.pre_ln.weight"
        yield Need("vision.pre_layrnorm.bias", (v.n_embd,)), "v.pre_ln.bias"


def layer_shapes(v: VisionSpec) -> dict[str, tuple[int, ...]]:
    d, ff = v.n_embd, v.n_ff
    norm, square = (d,), (d, d)
    return {
        "layer_norm1": norm,
        "layer_norm2": norm,
        "self_attn.q_proj": square,
        "self_attn.k_proj": square,
        "self_attn.v_proj": square,
        "self_attn.out_proj": square,
        "mlp.fc1": (ff, d),
        "mlp.fc2": (d, ff),
    }


def plan_vision(spec: ModelSpec, tensors: Mapping[str, TensorRef], wanted: gguf.GGMLQuantizationType) -> list[Planned]:
    """What to write for tower and projector, in order. Raises ConvertError for missing and misshapen tensors."""
    v = spec.vision
    if spec.family == "llava" and v.n_ff == v.n_embd:
        # clip.cpp takes a square ffn of an "mlp" model for one of the files that had up and down swapped
        raise ConvertError(
            f"a CLIP tower whose ffn is as wide as its rows ({v.n_ff}) cannot be told apart by llama.cpp"
        )
    named = {need.name: name for need, name in vision_needs(spec)}
    pairs = fulfil([need for need, _ in vision_needs(spec)], tensors)
    return [Planned(named[need.name], ref, vision_type(named[need.name], ref.shape, wanted)) for need, ref in pairs]


def is_unused_layer(spec: ModelSpec, name: str) -> bool:
    """Layers behind the hidden state that the projector reads never run, so they are not written."""
    if not name.startswith("vision.encoder.layers."):
        return False
    return spec.vision.n_layer <= int(name.split(".")[3]) < spec.vision.n_layer_full


def vision_metadata(writer: gguf.GGUFWriter, spec: ModelSpec, name: str, wanted: gguf.GGMLQuantizationType) -> None:
    v = spec.vision
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_name(name)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(PROJECTORS[spec.family])
    writer.add_vision_use_gelu(v.activation == "gelu")  # neither gelu nor silu means quick_gelu
    writer.add_vision_use_silu(v.activation == "silu")
    writer.add_vision_image_size(v.image_size)
    writer.add_vision_patch_size(v.patch_size)
    writer.add_vision_embedding_length(v.n_embd)
    writer.add_vision_feed_forward_length(v.n_ff)
    writer.add_vision_projection_dim(spec.text.n_embd)
    writer.add_vision_block_count(v.n_layer)
    writer.add_vision_head_count(v.n_head)
    writer.add_vision_attention_layernorm_eps(v.eps)
    writer.add_vision_image_mean(list(spec.preprocess.mean))
    writer.add_vision_image_std(list(spec.preprocess.std))
    writer.add_file_type(FILE_TYPES[wanted])
    if is_quantized(wanted):
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if spec.family == "llava_onevision":
        onevision_metadata(writer, spec)
    else:
        # models/llava.cpp runs block_count - 1 layers unless told which hidden state is wanted
        writer.add_array("clip.vision.feature_layer", [v.n_layer])
        llava_metadata(writer, spec)
    aim_metadata(writer, spec)


def onevision_metadata(writer: gguf.GGUFWriter, spec: ModelSpec) -> None:
    p = spec.preprocess
    writer.add_array(
        "clip.vision.image_grid_pinpoints", [side for h, w in p.pinpoints for side in (w, h)]
    )  # clip: w, h
    writer.add_string("clip.vision.mm_patch_merge_type", "spatial_unpad")
    writer.add_uint32("aim.vision.max_tiles", p.max_tiles)


def llava_metadata(writer: gguf.GGUFWriter, spec: ModelSpec) -> None:
    p = spec.preprocess
    writer.add_uint32("aim.vision.shortest_edge", p.shortest_edge or 0)
    writer.add_uint32("aim.vision.crop_size", spec.vision.image_size)
    writer.add_bool("aim.vision.do_center_crop", p.crop)
    writer.add_bool("aim.vision.do_pad", p.pad_square)


def aim_metadata(writer: gguf.GGUFWriter, spec: ModelSpec) -> None:
    p = spec.preprocess
    writer.add_string("aim.preprocess", PREPROCESS[spec.family])
    writer.add_uint32("aim.vision.resample", p.resample)
    writer.add_uint32("aim.video.resample", p.video_resample)
    writer.add_uint32("aim.video.n_frames", p.n_frames)
    writer.add_string("aim.image_token", spec.image_token)
    if spec.video_token:
        writer.add_string("aim.video_token", spec.video_token)
