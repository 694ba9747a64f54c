"""How far results may be from the truth, by the arithmetic of what computes them.

Without AIM_TEST_ARITHMETIC the limits are those of float32. "float16" is for devices that multiply numbers rounded to
10 bits of fraction (float16, TF32): benchmarks/gpu_check.sh sets it there. The float16 limits say that such products
stay near; that nothing else is wrong, the float32 limits say, on the same device with those products off.
AIM_TEST_ROWS=1 has text models compute one row at a time: ggml-vulkan then multiplies with keys in float32, too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Shares of the largest number of the truth, but for `floor` and `tie`."""

    logits: float  # of a text model
    whole: float  # logits of the whole path: vision tower, merging, text model
    rows: float  # visual tokens
    importance: float  # of the largest score, or of `floor` where that is larger
    floor: float  # scores this small are what rounding makes of them: hardly anything of the walk is on the new rows
    tie: float  # two scores of importance this close, as a share of the score at the cut, may fall either way
    again: float  # the same computed twice by different graphs


FLOAT32 = Limits(logits=1e-4, whole=1e-3, rows=1e-5, importance=1e-4, floor=0, tie=1e-4, again=1e-5)
FLOAT16 = Limits(logits=3e-2, whole=1e-2, rows=1e-2, importance=5e-2, floor=1e-6, tie=5e-2, again=1e-2)
LIMITS = {"float32": FLOAT32, "float16": FLOAT16}[os.environ.get("AIM_TEST_ARITHMETIC", "float32")]
N_ROWS = int(os.environ.get("AIM_TEST_ROWS", "0"))  # of a ubatch, in place of what a test asks for; 0 leaves it
