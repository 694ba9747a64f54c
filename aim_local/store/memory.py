"""How much memory a model takes, roughly, from the heads of its files. `aim-local plan` says it for a prompt."""

from __future__ import annotations

from typing import Any

from .gguf_header import read_header
from .names import ModelPaths

CELLS = 4096  # tokens of context that are counted
_COMPUTE = 400_000_000  # bytes of buffers: what the models of docs/models.md come to, rounded up


def memory_needed(paths: ModelPaths) -> int:
    """Bytes: weights, a KV cache of CELLS tokens in 16 bits, buffers. Raises ModelError."""
    return sum(path.stat().st_size for path in paths.files) + kv_bytes(paths, CELLS) + _COMPUTE


def kv_bytes(paths: ModelPaths, cells: int) -> int:
    """Bytes of a KV cache in 16 bits. Raises ModelError."""
    head = read_header(paths.model)
    layers, heads = (_number(head.metadata, head.architecture, key) for key in ("block_count", "attention.head_count"))
    kv_heads = _number(head.metadata, head.architecture, "attention.head_count_kv") or heads
    size = _number(head.metadata, head.architecture, "embedding_length") // max(1, heads)
    size = _number(head.metadata, head.architecture, "attention.key_length") or size
    return 2 * 2 * layers * kv_heads * size * cells


def _number(metadata: dict[str, Any], architecture: str, key: str) -> int:
    value = metadata.get(f"{architecture}.{key}", 0)
    return int(max(value) if isinstance(value, tuple) else value)
