"""Frames that are not encoded again: equal ones exactly, nearly equal ones within the measured noise, and no others."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import runtime_case
from runtime_case import F32, video

from aim_local import LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.engine.encode import encode_media
from aim_local.engine.plan import plan_prompt
from aim_local.engine.read import read_media
from aim_local.engine.tile_rows import ItemRows
from aim_local.engine.watch import Watch
from aim_local.errors import UsageError
from aim_local.models.prompt import mark_raw
from aim_local.models.reuse import NOISE, Seen, Shared, largest_change

PATCH = 14
checkpoint, model, llm = runtime_case.checkpoint, runtime_case.model, runtime_case.llm


def picture(seed: int = 0, side: int = 2 * PATCH) -> np.ndarray:
    return np.random.default_rng(seed).integers(20, 230, (side, side, 3), dtype=np.uint8)


def rows(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((4, 8), np.float32)


def test_largest_change_is_the_worst_patchs_rms() -> None:
    """Guards the measure: patch by patch in a plain loop, the rest at the edge left out."""
    a, b = picture(1, 2 * PATCH + 5), picture(2, 2 * PATCH + 5)
    worst = 0.0
    for y in range(2):
        for x in range(2):
            cut = np.s_[y * PATCH : (y + 1) * PATCH, x * PATCH : (x + 1) * PATCH]
            worst = max(worst, math.sqrt(np.mean((a[cut].astype(float) - b[cut].astype(float)) ** 2)))
    assert largest_change(a, b, PATCH) == pytest.approx(worst, rel=1e-5)
    edge = a.copy()
    edge[-5:] = 0
    assert largest_change(a, edge, PATCH) == 0


def test_equal_and_near_and_neither() -> None:
    base, faint, spot = picture(), picture(), picture()
    faint[0, 0] += 20  # over a patch's 588 values: RMS 1.4
    spot[:6, :6] += 20  # RMS 8.6
    seen = Seen("video", Shared(), PATCH)
    assert seen.find(base) is None
    seen.add(base, rows(0))
    for pixels, why in ((base, "equal"), (faint, "near"), (spot, None)):
        found = seen.find(pixels)
        assert (found.why if found else None) == why
        assert found is None or np.array_equal(found.rows, rows(0))


def test_only_equal_where_near_is_off() -> None:
    seen, faint = Seen("video", Shared(), 0), picture()
    seen.add(picture(), rows(0))
    faint[0, 0] += 1
    assert seen.find(faint) is None
    assert seen.find(picture())


def test_a_drift_does_not_creep() -> None:
    """Guards slow fades: a frame is judged against the one whose rows it takes, not against its neighbour."""
    seen, encoded = Seen("video", Shared(), PATCH), []
    for level in range(30):
        frame = np.full((PATCH, PATCH, 3), 100 + level, np.uint8)
        if seen.find(frame) is None:
            seen.add(frame, rows(level))
            encoded.append(level)
    step = int(NOISE) + 1
    assert encoded == list(range(0, 30, step))


def test_back_at_an_earlier_frame() -> None:
    """Guards slides: after A, B and A again, noise on A is near A."""
    seen, noisy = Seen("video", Shared(), PATCH), picture()
    noisy[3, 3] += 5
    for seed in (0, 1):
        seen.add(picture(seed), rows(seed))
    assert seen.find(noisy) is None
    assert seen.find(picture())
    found = seen.find(noisy)
    assert found
    assert np.array_equal(found.rows, rows(0))


def test_near_rows_stay_with_their_item() -> None:
    """Guards that a clip becomes the same beside any other: only rows of its own pixels are shared."""
    shared, near = Shared(), picture()
    near[0, 0] += 5
    first, second, image = (Seen(kind, shared, PATCH) for kind in ("video", "video", "image"))
    first.add(picture(), rows(0))
    assert first.find(near)
    assert second.find(near) is None
    assert second.find(picture())
    assert image.find(picture()) is None, "pictures and frames are pooled in their own ways"


def reused(model: Any) -> dict[int, ItemRows]:
    near_px = model.tower.patch_px if model.config.reuse_frames == "near" else 0
    return {0: ItemRows(Seen("video", Shared(), near_px))}


def encoded(model: Any, frames: np.ndarray, reuse: bool) -> tuple[np.ndarray, Any]:
    reading = read_media(model, [frames], None, Watch())
    plan = plan_prompt(model, mark_raw("<__media__>x", 1), [reading.items[0].shape], VisualTokenConfig.off())
    found = encode_media(model, plan, dict(enumerate(reading.items)), Watch(), reused(model) if reuse else None)
    return next(iter(found.blocks.values())).rows, found.tiles


def test_rows_of_equal_frames_are_bit_equal(llm: VisionLLM) -> None:
    """Guards exactness: the rows are those of encoding every frame."""
    frames = video(2, seed=5)[[0, 0, 1, 0, 1, 1]]
    every, counted = encoded(llm.model, frames, reuse=False)
    assert (counted.encoded, counted.equal) == (6, 0)
    once, counted = encoded(llm.model, frames, reuse=True)
    assert (counted.encoded, counted.equal, counted.near) == (2, 4, 0)
    print(f"\n  largest difference {np.abs(every - once).max()}")
    assert np.array_equal(every, once)


def test_counted_over_the_items_of_a_call(llm: VisionLLM) -> None:
    frames = video(3, seed=6)
    stats = llm.prefill("what?", [frames, frames[:2], frames[0], frames[0]]).stats
    n_tiles = 2  # of a picture of the tower's size: base view and one tile, which are equal
    assert stats.n_tiles_encoded == 3 + 1
    assert stats.n_tiles_equal == 2 + 2 * n_tiles - 1


def test_near_frames_and_how_to_turn_them_off(llm: VisionLLM) -> None:
    frames = np.repeat(np.clip(video(1, seed=7), 1, 254), 4, axis=0)
    frames[1:] += np.random.default_rng(0).integers(0, 2, frames[1:].shape, dtype=np.uint8)
    _, near = encoded(llm.model, frames, reuse=True)
    assert (near.encoded, near.near) == (1, 3)
    _, equal = encoded(llm.model.with_config(replace(F32, reuse_frames="equal")), frames, reuse=True)
    assert (equal.encoded, equal.near) == (4, 0)
    with pytest.raises(UsageError, match="reuse_frames is 'all'; allowed are near, equal"):
        LoadConfig(reuse_frames="all")


def test_progress_counts_every_frame(llm: VisionLLM) -> None:
    told = []
    llm.prefill("what?", [np.repeat(video(1), 4, axis=0)], progress=lambda *step: told.append(step))
    assert [step for step in told if step[0] == "vision"] == [("vision", n, 4) for n in range(1, 5)]
