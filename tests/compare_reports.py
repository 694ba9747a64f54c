"""Made-up comparisons for tests of how they are shown: plausible figures, and the cases that go wrong.

3 models x 5 settings; one cell failed, one is partial, one has no divergence; names that hold markup or are long.
"""

from __future__ import annotations

import math
from dataclasses import replace

from aim_local.lab.compare.records import CellSummary, Divergence, Paired, Rate, Report
from aim_local.lab.compare.verdict import judged
from aim_local.lab.measure import Spread

N = 200
SETTINGS = ("off", "paper", "fast", "late-drop", "paper:keep=0.5:importance=random:seed=7")
COMMAND = "aim-local compare --demo --model demo-f16 --model demo-q8_0 --model demo-q4_0 --setting off --setting paper"
MODELS = ("demo f16", 'demo q8_0 <b>&"quoted"</b> | x', "a-rather-long-model-name-0.5b-instruct-q4_0-imatrix.gguf")
REASON = "killed by signal 9 (out of memory?) after 34 questions; <script>alert(1)</script>"
_SHARE = {"off": 1.0, "paper": 0.224, "fast": 0.161, "late-drop": 0.242, SETTINGS[4]: 0.331}
_RIGHT = {"off": 199, "paper": 182, "fast": 171, "late-drop": 181, SETTINGS[4]: 181}
_KLD = {"off": 0.0, "paper": 0.21, "fast": 0.46, "late-drop": 0.22, SETTINGS[4]: 0.19}
_KV = {"off": 1_966_080, "paper": 366_592, "fast": 258_048, "late-drop": 386_048, SETTINGS[4]: 655_360}
_FILE = (7_400_000, 4_310_000, 2_620_000)
_TAGS = ("colour", "shape", "count", "order", "time", "motion <direction>")


def rate(k: int, n: int) -> Rate:
    """k of n with the Wilson interval, computed here apart from the code under test."""
    z = 1.959963984540054
    centre, half = (k + z * z / 2) / (n + z * z), z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    return Rate(k, n, centre - half, centre + half)


def around(median: float, n: int = N) -> Spread:
    return Spread(median, 0.91 * median, 1.34 * median, n)


def mcnemar(b: int, c: int) -> float:
    """Two-sided exact p: binomial tails of min(b, c) out of b + c."""
    n = b + c
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(min(b, c) + 1)) / 2**n) if n else 1.0


def cell(m: int, setting: str) -> CellSummary:
    share, right = _SHARE[setting], _RIGHT[setting] - (0, 1, 7)[m]
    kld = _KLD[setting] + (0.0, 0.0021, 0.048)[m]
    lost = _RIGHT["off"] - right + m  # m of them came right only here
    return CellSummary(
        model=MODELS[m],
        setting=setting,
        is_reference=m == 0 and setting == "off",
        status="done",
        n_items=N,
        n_done=N,
        accuracy=rate(right, N),
        by_tag={tag: rate(max(20, right // 6 - i), 33) for i, tag in enumerate(_TAGS)},
        paired=Paired(lost, m, mcnemar(lost, m), N),
        agreement=rate(N if (m, setting) == (0, "off") else right - m, N),
        divergence=Divergence(kld, kld / 40, kld * 11, rate(round((1 - kld / 4) * 812), 812), 812),
        ttft_ms=around(96 + 260 * share - 9 * m),
        stages={
            "decode_video": around(30.6),
            "preprocess": around(5.2),
            "vision": around(65.8 - 4 * m),
            "merge": around(0.4),
            "prefill": around(254 * share - 5 * m),
            "importance": around(3.1),
        },
        prefill_tps=around(1820 + 300 * m),
        decode_tps=around(212 + 60 * m),
        n_visual_full=129,
        n_visual=129 if setting == "off" else 33,
        flops_share=share,
        kv_bytes=_KV[setting],
        peak_rss_bytes=238_000_000 + _KV[setting] - 9_000_000 * m,
        model_bytes=_FILE[m],
        mmproj_bytes=1_310_000,
    )


def report() -> Report:
    cells = {(m, s): cell(m, s) for m in range(3) for s in SETTINGS}
    cells[1, "fast"] = CellSummary(MODELS[1], "fast", False, "failed", reason=REASON, n_items=N, model_bytes=_FILE[1])
    short = Paired(8, 0, mcnemar(8, 0), 71)
    cells[2, "late-drop"] = replace(
        cells[2, "late-drop"],
        status="partial",
        n_done=71,
        accuracy=rate(63, 71),
        paired=short,
    )
    note = "no divergence: its vocabulary differs from the reference's"
    cells[2, "fast"] = replace(cells[2, "fast"], divergence=None, notes=(note,))
    machine = {
        "processor": "AMD EPYC 9B45 128-Core Processor",
        "physical_cores": 2,
        "memory_bytes": 8_345_600_000,
        "system": "Linux 6.8.0",
        "python": "3.11.9",
        "aim_local": "0.1.0",
        "llama_cpp_python": "0.3.36",
    }
    key = f"{MODELS[0]} / off"
    made = "2026-11-23T21:40:05+00:00"
    return judged(Report("demo-200", "9f" * 32, N, key, tuple(cells.values()), machine, COMMAND, made, chance=0.25))
