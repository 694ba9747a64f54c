"""The unpatched library's side of a pair, run as a module in a process of its own (native/stock.py).

The first message is {model, mmproj, n_threads, n_gpu_layers, type_k, type_v}, answered by {patched}; mmproj "" is none.
Then come {n, decode_at, n_decode, tiles}, answered by {ms, n_ctx, peak_rss}: each tile of the file `tiles` (uint8 [n,
side, side, 3]; "" is none) through the tower, n tokens prefilled at llama.cpp's best flags, then n_decode decoded at
the full length and at each length of decode_at.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...child import Message, Parent
from ...native.stock import StockContext, StockLibrary, StockModel, StockOptions, StockTower
from ..measure import peak_rss_bytes, reset_peak_rss
from .given import given_tokens

N_BATCH, N_UBATCH = 2048, 512


class Side:
    """What the worker does: the first message loads the model, the others measure."""

    def __init__(self) -> None:
        self._library = StockLibrary()
        self._model: StockModel | None = None
        self._tower: StockTower | None = None

    def answer(self, request: Message) -> Message:
        if self._model is not None:
            return run(self._model, self._tower, **request)
        path, mmproj = request.pop("model"), request.pop("mmproj")
        self._model = self._library.load(path, StockOptions(**request, n_batch=N_BATCH, n_ubatch=N_UBATCH))
        self._tower = self._model.tower(mmproj) if mmproj else None
        return {"patched": self._library.is_patched}


def run(
    model: StockModel, tower: StockTower | None, n: int, decode_at: Sequence[int], n_decode: int, tiles: str
) -> Message:
    is_apart = reset_peak_rss()
    context = model.context(n + n_decode)
    try:
        vision = {"vision": encode(tower, np.load(tiles), model.n_embd)} if tower and tiles else {}
        start, start_cpu = time.perf_counter(), time.process_time()
        for i in range(0, n, N_BATCH):
            context.decode(given_tokens(range(i, min(n, i + N_BATCH))))
        context.wait()
        ms = {"prefill": (time.perf_counter() - start) * 1e3}
        ms["prefill_cpu"] = (time.process_time() - start_cpu) * 1e3
        for length in sorted({n, *decode_at}, reverse=True):  # a cache can only be cut
            name = "decode" if length == n else f"decode at {length}"
            ms[name] = decode_from(context, length, n_decode)
        return {"ms": vision | ms, "n_ctx": context.n_ctx, "peak_rss": peak_rss_bytes() if is_apart else None}
    finally:
        context.close()


def encode(tower: StockTower, tiles: NDArray[np.uint8], width: int) -> float:
    """Milliseconds of all tiles."""
    return sum(tower.encode(tile, width)[1] for tile in tiles)


def decode_from(context: StockContext, length: int, n_decode: int) -> float:
    """Milliseconds a token, beginning with `length` cells in use."""
    context.truncate(length)
    start = time.perf_counter()
    for i in range(n_decode):
        context.decode(given_tokens(range(i, i + 1)))
        context.wait()
    return (time.perf_counter() - start) * 1e3 / n_decode


if __name__ == "__main__":
    Parent().serve(Side().answer)
