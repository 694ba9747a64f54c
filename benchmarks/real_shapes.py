"""Writes GGUF pairs of published sizes with random weights, as llama.cpp's converter lays them out, and nothing else.

    python benchmarks/real_shapes.py qwen2.5-vl-3b FOLDER
    aim-local bench FOLDER --video clip.mp4 --frames 16 --tokens off,paper,auto --against-stock

Speed and memory depend on shapes and types, not on values. Sizes: config.json of Qwen/Qwen2.5-VL-3B-Instruct and of
HuggingFaceTB/SmolVLM2-2.2B-Instruct. The vocabulary is a token per byte, padded to the published size.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGMLQuantizationType as Q

from aim_local.convert.checkpoint import TensorRef
from aim_local.convert.plan import Planned
from aim_local.convert.types import parse_type, text_type, vision_type
from aim_local.convert.vocab import vocab_metadata
from aim_local.lab.bench.shapes import byte_vocab
from aim_local.lab.bench.weights import write_gguf

N_CTX = 32768
Tensor = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class Text:
    arch: str
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    n_vocab: int
    tied: bool
    qkv_bias: bool
    rope_base: float
    sections: tuple[int, ...] = ()

    def tensors(self) -> Iterator[Tensor]:
        h, kv, ff = self.n_embd, self.n_embd // self.n_head * self.n_head_kv, self.n_ff
        yield "token_embd.weight", (self.n_vocab, h)
        if not self.tied:
            yield "output.weight", (self.n_vocab, h)
        yield "output_norm.weight", (h,)
        for il in range(self.n_layer):
            at = f"blk.{il}."
            yield at + "attn_norm.weight", (h,)
            yield at + "ffn_norm.weight", (h,)
            for name, n in (("q", h), ("k", kv), ("v", kv)):
                yield f"{at}attn_{name}.weight", (n, h)
                if self.qkv_bias:
                    yield f"{at}attn_{name}.bias", (n,)
            yield at + "attn_output.weight", (h, h)
            yield at + "ffn_gate.weight", (ff, h)
            yield at + "ffn_up.weight", (ff, h)
            yield at + "ffn_down.weight", (h, ff)

    def keys(self, writer: Any) -> None:
        writer.add_name("random")
        writer.add_block_count(self.n_layer)
        writer.add_context_length(N_CTX)
        writer.add_embedding_length(self.n_embd)
        writer.add_feed_forward_length(self.n_ff)
        writer.add_head_count(self.n_head)
        writer.add_head_count_kv(self.n_head_kv)
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_rope_freq_base(self.rope_base)
        if self.sections:
            writer.add_rope_dimension_sections(list(self.sections))
        vocab_metadata(writer, byte_vocab(), self.n_vocab)


@dataclass(frozen=True)
class Vision:
    projector: str
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    image_size: int
    patch_size: int
    n_embd_text: int

    def tensors(self) -> Iterator[Tensor]:
        h, ff, p = self.n_embd, self.n_ff, self.patch_size
        gated = self.projector.startswith("qwen2.5vl")
        for il in range(self.n_layer):
            at = f"v.blk.{il}."
            for name in ("q", "k", "v", "out"):
                yield f"{at}attn_{name}.weight", (h, h)
                yield f"{at}attn_{name}.bias", (h,)
            for name in ("ln1", "ln2"):
                yield f"{at}{name}.weight", (h,)
                if not gated:
                    yield f"{at}{name}.bias", (h,)
            for name, shape in (("up", (ff, h)), ("gate", (ff, h)), ("down", (h, ff))):
                if gated or name != "gate":
                    yield f"{at}ffn_{name}.weight", shape
                    yield f"{at}ffn_{name}.bias", shape[:1]
        yield "v.patch_embd.weight", (h, 3, p, p)
        yield "v.post_ln.weight", (h,)
        yield from self.projection()

    def projection(self) -> Iterator[Tensor]:
        h, p = self.n_embd, self.patch_size
        if self.projector == "idefics3":
            yield "v.post_ln.bias", (h,)
            yield "v.patch_embd.bias", (h,)
            yield "v.position_embd.weight", ((self.image_size // p) ** 2, h)
            yield "mm.model.fc.weight", (self.n_embd_text, 9 * h)
            return
        yield "v.patch_embd.weight.1", (h, 3, p, p)
        for i, n in ((0, 4 * h), (2, self.n_embd_text)):
            yield f"mm.{i}.weight", (n, 4 * h)
            yield f"mm.{i}.bias", (n,)

    def keys(self, writer: Any) -> None:
        writer.add_name("random")
        writer.add_clip_has_vision_encoder(True)
        writer.add_string("clip.projector_type", self.projector)
        writer.add_vision_projection_dim(self.n_embd_text)
        writer.add_vision_image_size(self.image_size)
        writer.add_vision_patch_size(self.patch_size)
        writer.add_vision_embedding_length(self.n_embd)
        writer.add_vision_feed_forward_length(self.n_ff)
        writer.add_vision_block_count(self.n_layer)
        writer.add_vision_head_count(self.n_head)
        writer.add_vision_attention_layernorm_eps(1e-6)
        writer.add_vision_image_mean([0.5, 0.5, 0.5])
        writer.add_vision_image_std([0.5, 0.5, 0.5])
        if self.projector == "idefics3":
            writer.add_vision_use_gelu(True)
            writer.add_vision_projector_scale_factor(3)
            writer.add_uint32("clip.vision.preproc_image_size", 1536)
        else:
            writer.add_vision_use_silu(True)
            writer.add_vision_n_wa_pattern(8)


PAIRS = {
    "qwen2.5-vl-3b": (
        Text("qwen2vl", 36, 2048, 11008, 16, 2, 151936, True, True, 1e6, (16, 24, 24, 0)),
        Vision("qwen2.5vl_merger", 32, 1280, 3420, 16, 560, 14, 2048),
    ),
    "smolvlm2-2.2b": (
        Text("llama", 24, 2048, 8192, 32, 32, 49280, False, False, 130000.0),
        Vision("idefics3", 27, 1152, 4304, 16, 384, 14, 2048),
    ),
}


def planned(tensors: Iterator[Tensor], type_for: Callable[[str, tuple[int, ...], Q], Q], wanted: str) -> list[Planned]:
    """As the converter plans them."""
    kind = parse_type(wanted, "--type")
    return [Planned(n, TensorRef(n, Path(), 0, "F32", shape), type_for(n, shape, kind)) for n, shape in tensors]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=list(PAIRS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--type", default="q4_0")
    parser.add_argument("--vision-type", default="f16")
    args = parser.parse_args()
    text, vision = PAIRS[args.shape]
    args.folder.mkdir(parents=True, exist_ok=True)
    write_gguf(args.folder / "model.gguf", text.arch, text.keys, planned(text.tensors(), text_type, args.type))
    write_gguf(
        args.folder / "mmproj.gguf", "clip", vision.keys, planned(vision.tensors(), vision_type, args.vision_type)
    )
    print(f"{args.folder}: {sum(p.stat().st_size for p in args.folder.glob('*.gguf')) / 1e9:.2f} GB", file=sys.stderr)


if __name__ == "__main__":
    main()
