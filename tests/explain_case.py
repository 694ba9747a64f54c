"""What tests of `explain` share: a trace by hand, and the bundled model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aim_local
from aim_local import VisionLLM
from aim_local.models.pieces import TokenGrid, TokenGroup
from aim_local.results import Trace

CLIPS = Path(aim_local.__file__).parent / "data" / "clips"
QUESTION = "What appears in the middle?"
PICTURE = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
# 2 x 3 slots; token 1 covers two slots that do not touch, token 4 is a newline row
OWNERS = np.array([[0, 1, 2], [1, 0, 3]], np.int32)


def small_trace() -> Trace:
    """Two pictures; token numbers: 0..3 in the first, 4 a newline, 5 and 6 in the second."""
    kept = [[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6], [1, 4, 6], []]
    return Trace(
        kept=[np.array(tokens, np.int32) for tokens in kept],
        importance={1: np.array([1e-30, 3.0, 1e-9, 1e-9, 2.0, 0.1, 2.5], np.float32)},
        groups=[
            *(TokenGroup(0, 0, slot) for slot in (0, 1, 2, 5)),
            TokenGroup(0, -1, -1),
            TokenGroup(1, 0, 0),
            TokenGroup(1, 0, 1),
        ],
        grids=[
            TokenGrid(0, 0, "frame", PICTURE[:32], OWNERS, 7, 1.25),
            TokenGrid(1, 0, "image", PICTURE, np.array([[5, 6], [6, 6]], np.int32)),
        ],
    )


@pytest.fixture(scope="module")
def llm() -> Any:
    with VisionLLM.load() as loaded:
        yield loaded
