"""Vision towers: the kinds there are, their shapes read from configs, and the tensors they must have.

A kind is an encoder that several families share, as text.py's architectures are language models that several share.
Both kinds are plain ViTs; they differ in the class token and in what comes with it. Numbers that configs leave out are
here too; tests/test_convert_configs.py holds them against transformers. Which kind a family has, and which hidden
state its projector reads, is the family's business.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ConvertError, Unsupported
from .plan import Need

ACTIVATIONS = {"gelu_pytorch_tanh": "gelu", "gelu": "gelu", "quick_gelu": "quick_gelu", "silu": "silu"}
LAYER = {  # transformers' names inside a layer, and upstream's (tools/mtmd/clip-impl.h)
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}


@dataclass(frozen=True)
class TowerKind:
    """One kind of tower. `defaults`: of its config class, for sparse configs. `mean`, `std`: its image processor's.

    `class_token`: a row in front of the patches, a norm before the layers, and a patch kernel without bias.
    """

    name: str
    defaults: Mapping[str, Any]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    class_token: bool

    @property
    def model_type(self) -> str:
        """transformers' name of it."""
        return f"{self.name}_vision_model"


SIGLIP = TowerKind(
    name="siglip",
    defaults={
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 16,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    },
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    class_token=False,
)
CLIP = TowerKind(
    name="clip",
    defaults={
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 32,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    },
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    class_token=True,
)

# towers that the authors' releases name without describing them
KNOWN_TOWERS: dict[str, dict[str, Any]] = {
    "siglip-so400m-patch14-384": {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    },
    "clip-vit-large-patch14-336": {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
    },
}


@dataclass(frozen=True)
class VisionSpec:
    """A vision tower. `n_layer` layers are run: those up to the hidden state that the projector reads."""

    kind: TowerKind
    image_size: int
    patch_size: int
    n_embd: int
    n_ff: int
    n_layer: int
    n_layer_full: int
    n_head: int
    eps: float
    activation: str

    @property
    def n_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2  # one row of pixels may be left over: 384 = 27 x 14 + 6


# --- configs ----------------------------------------------------------------------------------------------------------


def read_vision(config: Mapping[str, Any], kind: TowerKind, layer: object, family: str) -> VisionSpec:
    """The tower of `config`, which must be of `kind`. `layer`: the hidden state that is read, as configs write it."""
    found = config.get("model_type")
    full = {"siglip": SIGLIP.model_type, "clip": CLIP.model_type}  # a checkpoint of both halves, text and vision
    if found is not None and full.get(str(found), found) != kind.model_type:
        raise Unsupported(f"{family} with a {full.get(str(found), found)} vision tower is not supported")
    c = {**kind.defaults, **{k: v for k, v in config.items() if v is not None}}
    n_full = int(c["num_hidden_layers"])
    return VisionSpec(
        kind=kind,
        image_size=int(c["image_size"]),
        patch_size=int(c["patch_size"]),
        n_embd=int(c["hidden_size"]),
        n_ff=int(c["intermediate_size"]),
        n_layer=n_layers_run(layer, n_full),
        n_layer_full=n_full,
        n_head=int(c["num_attention_heads"]),
        eps=float(c["layer_norm_eps"]),
        activation=ACTIVATIONS[c["hidden_act"]],
    )


def n_layers_run(layer: object, n_full: int) -> int:
    """Layers before the hidden state that is read. State 0 is the embedding, state i the output of layer i.

    No norm follows: both towers hand out hidden states from before post_layernorm (transformers
    `capture_outputs(tie_last_hidden_states=False)` in modeling_siglip.py and modeling_clip.py).
    """
    if isinstance(layer, list) and len(layer) == 1:
        layer = layer[0]
    if not isinstance(layer, int):
        raise Unsupported(f"features of several vision layers ({layer}) are not supported")
    n_run = layer if layer >= 0 else n_full + 1 + layer
    if not 0 < n_run <= n_full:
        raise ConvertError(
            f"config.json selects vision layer {layer} of a tower with {n_full} layers; it must be one of them"
        )
    return n_run


# --- tensors ----------------------------------------------------------------------------------------------------------


def tower_needs(v: VisionSpec) -> Iterator[tuple[Need, str]]:
    """Every tensor of the tower with its name in the GGUF."""
    yield from embedding_needs(v)
    for il in range(v.n_layer):
        shapes = layer_shapes(v)
        for theirs, ours in LAYER.items():
            at = f"vision.encoder.layers.{il}.{theirs}."
            yield Need(at + "weight", shapes[theirs]), f"v.blk.{il}.{ours}.weight"
            yield Need(at + "bias", shapes[theirs][:1]), f"v.blk.{il}.{ours}.bias"


def key_needs(v: VisionSpec) -> Iterator[tuple[Need, str]]:
    """What makes the keys of the layer behind those that are run; nothing where that layer is not the tower's last."""
    if v.n_layer + 1 != v.n_layer_full:
        return
    at, d = f"vision.encoder.layers.{v.n_layer}.", v.n_embd
    for theirs, shape in (("layer_norm1", (d,)), ("self_attn.k_proj", (d, d))):
        name = f"v.blk.{v.n_layer}.{LAYER[theirs]}"
        yield Need(f"{at}{theirs}.weight", shape, optional=True), f"{name}.weight"
        yield Need(f"{at}{theirs}.bias", (d,), optional=True), f"{name}.bias"


def embedding_needs(v: VisionSpec) -> Iterator[tuple[Need, str]]:
    at, extra = "vision.embeddings.", v.kind.class_token
    yield Need(at + "patch_embedding.weight", (v.n_embd, 3, v.patch_size, v.patch_size)), "v.patch_embd.weight"
    if not extra:
        yield Need(at + "patch_embedding.bias", (v.n_embd,)), "v.patch_embd.bias"
    yield Need(at + "position_embedding.weight", (v.n_patches + extra, v.n_embd)), "v.position_embd.weight"
    if extra:
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


def mlp_needs(d_vision: int, d_text: int) -> Iterator[tuple[Need, str]]:
    """The projector most families have: two matrices with a GELU between."""
    for i, width in ((0, d_vision), (2, d_text)):
        yield Need(f"projector.{i}.weight", (d_text, width)), f"mm.{i}.weight"
        yield Need(f"projector.{i}.bias", (d_text,)), f"mm.{i}.bias"
