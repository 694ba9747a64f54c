"""How much memory a model takes, roughly, from the heads of its files. `aim-local plan` says it for a prompt."""

from __future__ import annotations

from ..errors import ModelError
from .gguf_header import GgufHeader, read_header
from .names import ModelPaths

_MOST = (1 << 31) - 1  # llama.cpp keeps every number in an int
CELLS = 4096  # tokens of context that are counted
_COMPUTE = 400_000_000  # bytes of buffers: what the models of docs/models.md come to, rounded up


def memory_needed(paths: ModelPaths) -> int:
    """Bytes: weights, a KV cache of CELLS tokens in 16 bits, buffers. Raises ModelError."""
    return sum(path.stat().st_size for path in paths.files) + kv_bytes(paths, CELLS) + _COMPUTE


def kv_bytes(paths: ModelPaths, cells: int) -> int:
    """Bytes of a KV cache in 16 bits. Raises ModelError."""
    head = read_header(paths.model)
    layers, heads = (_number(head, key) for key in ("block_count", "attention.head_count"))
    kv_heads = _number(head, "attention.head_count_kv") or heads
    size = _number(head, "attention.key_length") or _number(head, "embedding_length") // max(1, heads)
    return 2 * 2 * layers * kv_heads * size * cells


def _number(head: GgufHeader, key: str) -> int:
    """The largest where there is one for each layer, 0 where there is none."""
    value = head.metadata.get(f"{head.architecture}.{key}", 0)
    numbers = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(n, int) and 0 <= n <= _MOST for n in numbers):
        raise ModelError(f"{head.path}: {head.architecture}.{key} is no number; download or convert it again")
    return max(numbers, default=0)
