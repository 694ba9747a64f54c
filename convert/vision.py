"""The vision tower and the projector as an mmproj GGUF: which tensors are written, and the keys every family has.

Tensor names and `clip.*` keys are upstream's (tools/mtmd/clip-impl.h); `aim.*` keys are ours:

aim.preprocess               how pictures become tiles; a family's own word
aim.image_token, aim.video_token      what the chat template writes where media go
aim.vision.resample          PIL's number of the resampling filter for images, aim.video.resample for frames
aim.video.n_frames           frames sampled from a video
aim.origin                   a mark of the checkpoint, in both of its files

Keys that only some families have are listed in their files.
"""

from collections.abc import Mapping

import gguf

from .checkpoint import TensorRef
from .families.base import Family
from .plan import Planned, fulfil
from .types import FILE_TYPES, is_quantized, vision_type


def plan_vision(model: Family, tensors: Mapping[str, TensorRef], wanted: gguf.GGMLQuantizationType) -> list[Planned]:
    """What to write for tower and projector, in order. Raises ConvertError for missing and misshapen tensors."""
    named = {need.name: name for need, name in model.vision_needs()}
    pairs = fulfil([need for need, _ in model.vision_needs()], tensors)
    return [Planned(named[need.name], ref, vision_type(named[need.name], ref.shape, wanted)) for need, ref in pairs]


def is_unused_layer(model: Family, name: str) -> bool:
    """Layers behind the hidden state that the projector reads never run, so they are not written."""
    if not name.startswith("vision.encoder.layers."):
        return False
    return model.vision.n_layer <= int(name.split(".")[3]) < model.vision.n_layer_full


def vision_metadata(writer: gguf.GGUFWriter, model: Family, name: str, wanted: gguf.GGMLQuantizationType) -> None:
    v = model.vision
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_name(name)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(model.projector)
    writer.add_vision_use_gelu(v.activation == "gelu")  # neither gelu nor silu means quick_gelu
    writer.add_vision_use_silu(v.activation == "silu")
    writer.add_vision_image_size(v.image_size)
    writer.add_vision_patch_size(v.patch_size)
    writer.add_vision_embedding_length(v.n_embd)
    writer.add_vision_feed_forward_length(v.n_ff)
    writer.add_vision_projection_dim(model.text.n_embd)
    writer.add_vision_block_count(v.n_layer)
    writer.add_vision_head_count(v.n_head)
    writer.add_vision_attention_layernorm_eps(v.eps)
    writer.add_vision_image_mean(list(model.preprocess.mean))
    writer.add_vision_image_std(list(model.preprocess.std))
    writer.add_file_type(FILE_TYPES[wanted])
    if is_quantized(wanted):
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    model.metadata(writer)
    aim_metadata(writer, model)


def aim_metadata(writer: gguf.GGUFWriter, model: Family) -> None:
    p = model.preprocess
    writer.add_string("aim.preprocess", model.pictures)
    writer.add_uint32("aim.vision.resample", p.resample)
    writer.add_uint32("aim.video.resample", p.video_resample)
    writer.add_uint32("aim.video.n_frames", p.n_frames)
    writer.add_string("aim.image_token", model.image_token)
    if model.video_token:
        writer.add_string("aim.video_token", model.video_token)
