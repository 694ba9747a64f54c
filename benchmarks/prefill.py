"""Paired prefill and decode speed: the staged prefill against stock llama.cpp, in turns, medians.

    python benchmarks/prefill.py MODEL.gguf --stock FOLDER [--frames 32] [--rounds 3] [--json]

MODEL is a qwen2 or llama text tower (random_gguf.py writes them in real shapes); FOLDER has the unpatched libraries of
the same upstream version. Stock prefills all visual tokens at its best flags (flash attention, n_ubatch 512); ours
prefills what token merging at 25 % leaves, pruned by the paper's schedule. Both then decode. Each side is a process of
its own that loads once. Absolute times on a shared machine wander, the ratio of one round does less; where other work
runs beside, `--threads 1` and the ratio of CPU times say most, because idle threads of ggml spin.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

N_TEXT = 100
N_SLOTS = 196  # visual tokens of a frame; merging keeps 49
N_DECODE = 32


def shares(n_layer: int) -> list[float]:
    """The paper's schedule (14, 22 of 28 layers) at another depth."""
    l1, l2 = round(14 * n_layer / 28), round(22 * n_layer / 28)
    return [1.0 if il <= l1 else max(0.0, 1 - (il - l1) / (l2 - l1)) for il in range(n_layer)]


# --- the two sides ----------------------------------------------------------------------------------------------------


def stock_side(args: argparse.Namespace) -> Callable[[], dict[str, Any]]:
    """All tokens through llama_decode, then N_DECODE single ones."""
    import ctypes

    import llama_cpp.llama_cpp as llama

    quiet = llama.llama_log_callback(lambda *_: None)
    llama.llama_log_set(quiet, None)
    model = llama.llama_model_load_from_file(args.model.encode(), llama.llama_model_default_params())
    n = args.frames * N_SLOTS + N_TEXT
    params = llama.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = n + N_DECODE, 2048, 512
    params.n_threads = params.n_threads_batch = args.threads
    params.flash_attn_type, params.n_outputs_max = 1, 1
    ctx = llama.llama_init_from_model(model, params)
    ids = (ctypes.c_int32 * n)(*[(7 * i) % 1000 for i in range(n)])

    def decode(first: int, count: int) -> None:
        part = (ctypes.c_int32 * count)(*ids[first : first + count])
        if llama.llama_decode(ctx, llama.llama_batch_get_one(part, count)) != 0:
            raise RuntimeError("llama_decode failed")

    def once() -> dict[str, Any]:
        _keep = quiet
        llama.llama_memory_clear(llama.llama_get_memory(ctx), True)
        start, start_cpu = time.perf_counter(), time.process_time()
        for i in range(0, n, 2048):
            decode(i, min(2048, n - i))
        llama.llama_get_logits_ith(ctx, -1)
        prefill_ms, cpu_ms = (time.perf_counter() - start) * 1e3, (time.process_time() - start_cpu) * 1e3
        # decode at the length that merging alone would leave: the same tokens for both sides
        n_merged = args.frames * N_SLOTS // 4 + 1 + N_TEXT
        llama.llama_memory_seq_rm(llama.llama_get_memory(ctx), 0, n_merged, -1)
        start = time.perf_counter()
        for i in range(N_DECODE):
            decode(i, 1)
            llama.llama_get_logits_ith(ctx, -1)
        decode_ms = (time.perf_counter() - start) * 1e3 / N_DECODE
        return {"prefill_ms": prefill_ms, "prefill_cpu_ms": cpu_ms, "decode_ms": decode_ms}

    return once


def staged_side(args: argparse.Namespace) -> Callable[[], dict[str, Any]]:
    """The merged tokens through aim_prefill, then N_DECODE single ones."""
    import numpy as np

    from aim_local import _staged as staged
    from aim_local._native import llama

    quiet = llama.llama_log_callback(lambda *_: None)
    llama.llama_log_set(quiet, None)
    model = llama.llama_model_load_from_file(args.model.encode(), llama.llama_model_default_params())
    n_layer, n_embd = llama.llama_model_n_layer(model), llama.llama_model_n_embd(model)
    n_visual = args.frames * N_SLOTS // 4 + 1
    counts = [int(n_visual * share + 1e-9) for share in (shares(n_layer) if args.prune else [1.0] * n_layer)]
    plan = staged.StagePlan.from_layers(counts, N_TEXT + N_DECODE)
    ctx = staged.StagedContext(model, plan, n_threads=args.threads, flash_attn=True)
    rows = [staged.ROW_TOKEN] * 20 + [staged.ROW_VISUAL] * n_visual + [staged.ROW_TOKEN] * (N_TEXT - 20)
    embd = np.random.default_rng(0).standard_normal((n_visual, n_embd), np.float32) * 0.02
    ids = [(7 * i) % 1000 for i in range(len(rows))]

    def once() -> dict[str, Any]:
        _keep = quiet
        ctx.clear()
        start, start_cpu = time.perf_counter(), time.process_time()
        ctx.prefill(rows, ids, embd, plan.n_keep(counts), importance=args.importance)
        prefill_ms, cpu_ms = (time.perf_counter() - start) * 1e3, (time.process_time() - start_cpu) * 1e3
        start = time.perf_counter()
        for i in range(N_DECODE):
            ctx.decode(ids[i])
        decode_ms = (time.perf_counter() - start) * 1e3 / N_DECODE
        stages = ctx.stages()
        return {
            "prefill_ms": prefill_ms,
            "prefill_cpu_ms": cpu_ms,
            "decode_ms": decode_ms,
            "importance_ms": sum(s.importance_ms for s in stages),
            "stages": [[s.il_begin, s.n_rows, round(s.prefill_ms), round(s.importance_ms)] for s in stages],
            "kv_bytes": sum(s.kv_bytes for s in stages),
        }

    return once


def side(args: argparse.Namespace) -> None:
    """A worker: a line in, a run, a line of JSON out."""
    once = (stock_side if args.side == "stock" else staged_side)(args)
    print("ready", flush=True)
    for _ in sys.stdin:
        result = once()
        result["peak_rss"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(result), flush=True)


# --- the pair ---------------------------------------------------------------------------------------------------------


class Worker:
    def __init__(self, name: str, env: dict[str, str]) -> None:
        command = [sys.executable, *sys.argv, "--side", name]
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._line() != "ready":
            raise RuntimeError(f"the {name} side did not start")

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def run(self) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        result: dict[str, Any] = json.loads(self._line())
        return result

    def close(self) -> None:
        self.process.communicate()


def main() -> None:
    import os

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--stock", help="folder with the unpatched libraries; without it only our side runs")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--importance", default="pagerank")
    parser.add_argument("--no-prune", dest="prune", action="store_false")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=["stock", "staged"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return side(args)
    workers = {"staged": Worker("staged", dict(os.environ))}
    if args.stock:
        folders = {"LLAMA_CPP_LIB_PATH": args.stock, "MTMD_CPP_LIB": args.stock}
        workers = {"stock": Worker("stock", {**os.environ, **folders}), **workers}
    rounds = [{name: worker.run() for name, worker in workers.items()} for _ in range(args.rounds)]
    for worker in workers.values():
        worker.close()
    report = summarise(rounds)
    print(json.dumps(report) if args.json else "\n".join(f"{key:24} {value}" for key, value in report.items()))


def summarise(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    def median(f: Callable[[dict[str, Any]], float]) -> float:
        return round(statistics.median(f(r) for r in rounds), 3)

    last = rounds[-1]["staged"]
    report: dict[str, Any] = {
        "staged_prefill_ms": median(lambda r: r["staged"]["prefill_ms"]),
        "staged_decode_ms": median(lambda r: r["staged"]["decode_ms"]),
        "importance_share": median(lambda r: r["staged"]["importance_ms"] / r["staged"]["prefill_ms"]),
        "kv_mib": round(last["kv_bytes"] / 2**20, 1),
        "peak_rss_mib": round(last["peak_rss"] / 2**20),
        "stages": last["stages"],
    }
    if "stock" in rounds[0]:
        report |= {
            "stock_prefill_ms": median(lambda r: r["stock"]["prefill_ms"]),
            "stock_decode_ms": median(lambda r: r["stock"]["decode_ms"]),
            "prefill_ratio": median(lambda r: r["stock"]["prefill_ms"] / r["staged"]["prefill_ms"]),
            "prefill_cpu_ratio": median(lambda r: r["stock"]["prefill_cpu_ms"] / r["staged"]["prefill_cpu_ms"]),
            "decode_ratio": median(lambda r: r["stock"]["decode_ms"] / r["staged"]["decode_ms"]),
            "ratios": [round(r["stock"]["prefill_ms"] / r["staged"]["prefill_ms"], 2) for r in rounds],
        }
    return report


if __name__ == "__main__":
    main()
