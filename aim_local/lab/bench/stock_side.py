"""The unpatched library's side of a pair: a script of its own, because one process can load one llama.cpp.

Lines of JSON in and out. First {model, n_threads, n_gpu_layers, type_k, type_v}, answered by {ready, patched}; then
{n, decode_at, n_decode}, answered by {ms, n_ctx, peak_rss}: n tokens prefilled at llama.cpp's best flags, then n_decode
decoded at the full length and at each length of decode_at. Imports nothing of aim_local: that would load our library.
LLAMA_CPP_LIB_PATH and MTMD_CPP_LIB say which library it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama

N_BATCH, N_UBATCH = 2048, 512


class Stock:
    def __init__(self, request: dict[str, Any]) -> None:
        self._quiet = llama.llama_log_callback(lambda *_: None)  # kept: ctypes callbacks die with their last reference
        llama.llama_log_set(self._quiet, None)
        llama.llama_backend_init()
        self.request = request
        params = llama.llama_model_default_params()
        params.n_gpu_layers = request["n_gpu_layers"]
        self.model = llama.llama_model_load_from_file(request["model"].encode(), params)
        if not self.model:
            raise RuntimeError(f"{request['model']} does not load in the unpatched library")

    def context(self, n_ctx: int) -> Any:
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, N_BATCH, N_UBATCH
        params.n_threads = params.n_threads_batch = self.request["n_threads"]
        params.type_k, params.type_v = self.request["type_k"], self.request["type_v"]
        params.flash_attn_type, params.n_outputs_max = 1, 1
        ctx = llama.llama_init_from_model(self.model, params)
        if not ctx:
            raise RuntimeError(f"the unpatched library cannot make a context of {n_ctx} tokens")
        return ctx

    def run(self, n: int, decode_at: list[int], n_decode: int) -> dict[str, Any]:
        reset_peak_rss()
        ctx = self.context(n + n_decode)
        try:
            start, start_cpu = time.perf_counter(), time.process_time()
            for i in range(0, n, N_BATCH):
                decode(ctx, range(i, min(n, i + N_BATCH)))
            llama.llama_synchronize(ctx)
            ms = {"prefill": (time.perf_counter() - start) * 1e3}
            ms["prefill_cpu"] = (time.process_time() - start_cpu) * 1e3
            for length in sorted({n, *decode_at}, reverse=True):  # a cache can only be cut
                name = "decode" if length == n else f"decode at {length}"
                ms[name] = self.decode_from(ctx, length, n_decode)
            return {"ms": ms, "n_ctx": llama.llama_n_ctx(ctx), "peak_rss": peak_rss_bytes()}
        finally:
            llama.llama_free(ctx)

    def decode_from(self, ctx: Any, length: int, n_decode: int) -> float:
        """Milliseconds a token, beginning with `length` cells in use."""
        llama.llama_memory_seq_rm(llama.llama_get_memory(ctx), 0, length, -1)
        start = time.perf_counter()
        for i in range(n_decode):
            decode(ctx, range(i, i + 1))
            llama.llama_synchronize(ctx)
        return (time.perf_counter() - start) * 1e3 / n_decode


def decode(ctx: Any, numbers: range) -> None:
    """Appends tokens; the last one's logits are computed."""
    tokens = (ctypes.c_int32 * len(numbers))(*(given_token(i) for i in numbers))
    status = llama.llama_decode(ctx, llama.llama_batch_get_one(tokens, len(numbers)))
    if status != 0:
        raise RuntimeError(f"llama_decode failed with {status} in the unpatched library")


def given_token(i: int) -> int:
    """As in session.py, so that both libraries decode the same tokens."""
    return 7 * i % 100


def reset_peak_rss() -> None:
    with contextlib.suppress(OSError):  # not Linux: peak_rss_bytes says so
        Path("/proc/self/clear_refs").write_text("5")


def peak_rss_bytes() -> int | None:
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def main() -> None:
    stock: Stock | None = None
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any]
        try:
            if stock is None:
                stock = Stock(request)
                answer = {"ready": True, "patched": hasattr(llama._lib, "aim_llama_patch_version")}
            else:
                answer = stock.run(**request)
        except Exception as e:  # whatever fails is the other side's error line
            answer = {"error": str(e)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
