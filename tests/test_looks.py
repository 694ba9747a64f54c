"""What the model looked at, in words and numbers: against a trace by hand, and the bundled model's own counts."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from explain_case import CLIPS, OWNERS, PICTURE, QUESTION, llm, small_trace
from PIL import Image

from aim_local import VisionLLM
from aim_local.models.pieces import TokenGrid, TokenGroup
from aim_local.results import Trace
from aim_local.server.looks import looks
from aim_local.settings import parse_setting

__all__ = ["llm"]  # a fixture


def test_by_hand() -> None:
    """Layer 2 sees tokens 1, 4 and 6 of 7; 6 slots, 4 slots and a newline row are 11 pieces."""
    found = looks(small_trace())
    assert found is not None
    assert (found["n_full"], found["n_kept"], found["n_seen"], found["layer"]) == (11, 7, 3, 2)
    first, second = found["frames"]
    assert (first["time"], first["label"], first["media"]) == (1.25, "1: frame 7 at 0:01.2", 0)
    assert (second["time"], second["label"], second["media"]) == (None, "2: image", 1)
    assert first["tokens"] == OWNERS.ravel().tolist()
    assert first["kept"] == [0, 1, 0, 1, 0, 0]
    assert (first["n"], first["n_kept"], first["rows"], first["cols"]) == (4, 1, 2, 3)
    assert second["kept"] == [0, 1, 1, 1]
    # longest: 1, 6 and 4 (the newline) by score; then 5, 2 and 3 (equal), 0
    heat = {0: 0, 2: 1.5 / 6, 3: 1.5 / 6, 5: 3 / 6, 4: 4 / 6, 6: 5 / 6, 1: 1}
    assert first["heat"] == [round(heat[token], 2) for token in (0, 1, 2, 1, 0, 3)]
    image = Image.open(io.BytesIO(base64.b64decode(first["image"].partition(",")[2])))
    assert (image.size, image.format) == ((48, 32), "JPEG")
    json.dumps(found)


def trace_of(*kept: list[int]) -> Trace:
    """One picture of 2 x 2 slots, a token each."""
    return Trace(
        kept=[np.array(tokens, np.int32) for tokens in kept],
        groups=[TokenGroup(0, 0, slot) for slot in range(4)],
        grids=[TokenGrid(0, 0, "image", PICTURE, np.arange(4, dtype=np.int32).reshape(2, 2))],
    )


ALL = [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("kept", "layer", "summary", "detail"),
    [
        ([ALL, ALL], 1, "The model read all 4 pieces", "Nothing was put together and nothing was dropped"),
        ([ALL, ALL, []], 1, "The model read all 4 pieces", "read up to layer 1, and none from there on"),
        (
            [ALL, [0, 1, 2], [0, 1], [0], []],
            2,
            "The model read all 4 pieces",
            "From layer 1 on .* what layer 2 still saw",
        ),
        ([ALL, [1, 2, 3], []], 1, "The model read all 4 pieces", "From layer 1 on .* what layer 1 still saw"),
    ],
)
def test_which_layer_is_shown(kept: list[list[int]], layer: int, summary: str, detail: str) -> None:
    found = looks(trace_of(*kept))
    assert found is not None
    assert (found["layer"], found["summary"]) == (layer, summary)
    assert re.search(detail, str(found["detail"]))
    assert found["frames"][0]["kept"] == [int(token in kept[layer]) for token in ALL]
    assert found["frames"][0]["heat"] is None


def test_without_pictures() -> None:
    assert looks(Trace(kept=[np.zeros(0, np.int32)])) is None


@pytest.mark.parametrize("setting", ["off", "merge-only", "paper", "prune-only", "late-drop", "budget=0.15"])
def test_counts_are_the_models(llm: VisionLLM, setting: str) -> None:
    """Pieces and tokens as the run itself counted them."""
    answer = llm.generate(QUESTION, [CLIPS / "needle.mp4"], parse_setting(setting))
    found = looks(answer.trace)
    assert found is not None
    assert (found["n_full"], found["n_kept"]) == (answer.stats.n_visual_full, answer.stats.n_visual)
    il = found["layer"]
    assert found["n_seen"] == len(answer.trace.kept[il])
    for frame, grid in zip(found["frames"], answer.trace.grids, strict=True):
        seen = set(answer.trace.kept[il].tolist())
        assert frame["kept"] == [int(token in seen) for token in grid.owners.ravel().tolist()]
    assert (found["frames"][0]["heat"] is not None) == bool(answer.trace.importance)


def test_a_picture(llm: VisionLLM, tmp_path: Path) -> None:
    path = tmp_path / "square.png"
    Image.new("RGB", (300, 200), "red").save(path)
    answer = llm.generate("What is it?", [path], parse_setting("paper"))
    found = looks(answer.trace)
    assert found is not None
    assert (found["n_full"], found["n_kept"]) == (answer.stats.n_visual_full, answer.stats.n_visual)
