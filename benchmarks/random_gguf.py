"""Random-weight Qwen2 text towers of real shapes: speed and memory depend on shapes and types, not on the values.

    python benchmarks/random_gguf.py 0.5b|7b OUT.gguf [Q4_0|Q8_0|F16]

The 7B one takes about 20 s and 4.3 GiB at Q4_0.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

SCALES = {Type.Q4_0: 0.004, Type.Q8_0: 0.0003}  # block scales that give weights a deviation of about 0.02


@dataclass(frozen=True)
class Shape:
    n_layer: int
    n_embd: int
    n_head: int
    n_head_kv: int
    n_ff: int
    n_vocab: int
    tied: bool


SHAPES = {
    "0.5b": Shape(24, 896, 14, 2, 4864, 151936, True),
    "7b": Shape(28, 3584, 28, 4, 18944, 152064, False),
}


def write(shape: Shape, path: str, quant: Any) -> None:
    rng = np.random.default_rng(0)
    w = gguf.GGUFWriter(path, "qwen2")
    kv = shape.n_embd // shape.n_head * shape.n_head_kv

    def matrix(name: str, rows: int, cols: int, quant: Any) -> None:
        if quant == Type.F16:
            w.add_tensor(name, (rng.standard_normal((rows, cols), dtype=np.float32) * 0.02).astype(np.float16))
            return
        block, n_bytes = gguf.GGML_QUANT_SIZES[quant]
        data = rng.integers(0, 256, (rows * cols // block, n_bytes), dtype=np.uint8)
        data[:, :2] = np.full((len(data), 1), SCALES[quant], np.float16).view(np.uint8)  # the block scale comes first
        w.add_tensor(name, data.reshape(rows, -1), raw_dtype=quant)

    def vector(name: str, n: int, ones: bool) -> None:
        w.add_tensor(name, np.ones(n, np.float32) if ones else (rng.standard_normal(n) * 0.01).astype(np.float32))

    w.add_block_count(shape.n_layer)
    w.add_context_length(32768)
    w.add_embedding_length(shape.n_embd)
    w.add_feed_forward_length(shape.n_ff)
    w.add_head_count(shape.n_head)
    w.add_head_count_kv(shape.n_head_kv)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_rope_freq_base(1e6)
    w.add_tokenizer_model("no_vocab")
    w.add_vocab_size(shape.n_vocab)
    matrix("token_embd.weight", shape.n_vocab, shape.n_embd, Type.F16 if quant == Type.F16 else Type.Q8_0)
    vector("output_norm.weight", shape.n_embd, True)
    if not shape.tied:
        matrix("output.weight", shape.n_vocab, shape.n_embd, quant)
    for il in range(shape.n_layer):
        b = f"blk.{il}."
        vector(b + "attn_norm.weight", shape.n_embd, True)
        vector(b + "ffn_norm.weight", shape.n_embd, True)
        for name, rows in (("attn_q", shape.n_embd), ("attn_k", kv), ("attn_v", kv)):
            matrix(f"{b}{name}.weight", rows, shape.n_embd, quant)
            vector(f"{b}{name}.bias", rows, False)
        matrix(b + "attn_output.weight", shape.n_embd, shape.n_embd, quant)
        matrix(b + "ffn_gate.weight", shape.n_ff, shape.n_embd, quant)
        matrix(b + "ffn_up.weight", shape.n_ff, shape.n_embd, quant)
        matrix(b + "ffn_down.weight", shape.n_embd, shape.n_ff, quant)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in SHAPES:
        sys.exit(__doc__)
    write(SHAPES[sys.argv[1]], sys.argv[2], Type[(sys.argv[3:] or ["Q4_0"])[0]])
