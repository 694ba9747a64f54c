"""What Qwen-VL's towers see of pictures and frames of any size, beside transformers' processors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import qwen_case
from family_case import VIDEO_LEVELS, Case
from family_checkpoints import clip, picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qwen_case import UNITS
from thorough import examples

from aim_local.errors import MediaError
from aim_local.media import MediaShape
from aim_local.models.qwen2_vl import Limits

case = qwen_case.case
drawn = settings(max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SIDES = st.integers(9, 260)
TOKENS = st.tuples(st.integers(1, 30), st.integers(0, 40))  # fewest of a picture, and how many more are the most


def shape_of(kind: Any, n: int, height: int, width: int) -> MediaShape:
    times = tuple(float(i) for i in range(n)) if kind == "video" else ()
    return MediaShape(kind, n, height, width, "x", "", times, tuple(range(n)) if times else (), float(n))


@contextmanager
def limited(case: Case, name: str, low: int, high: int) -> Iterator[dict[str, int]]:
    """Limits of pixels, of the tower and as the processor is told them."""
    tower: Any = case.llm.model.tower
    before = getattr(tower, name)
    try:
        setattr(tower, name, Limits(low, high))
        tower._arranged.cache_clear()
        yield {"shortest_edge": low, "longest_edge": high}
    finally:
        setattr(tower, name, before)
        tower._arranged.cache_clear()


def shown(processor: Any, pixels: Any, grid: Any) -> np.ndarray:
    """Patches as the model is given them -> pixels [pairs, 2, h, w, 3] of 0 to 255."""
    (t, h, w), p = (int(n) for n in grid), processor.patch_size
    x = np.asarray(pixels).reshape(t, h // 2, w // 2, 2, 2, 3, 2, p, p)
    x = x.transpose(0, 6, 1, 3, 7, 2, 4, 8, 5).reshape(t, 2, h * p, w * p, 3)
    return (x * np.float32(processor.image_std) + np.float32(processor.image_mean)) * 255


@drawn
@given(height=SIDES, width=SIDES, tokens=TOKENS)
def test_pictures(case: Case, height: int, width: int, tokens: tuple[int, int]) -> None:
    processor, tower, square = case.loaded.processor.image_processor, case.llm.model.tower, UNITS[case.family] ** 2
    image = picture(height, width)
    with limited(case, "picture_limits", tokens[0] * square, sum(tokens) * square) as size:
        out = processor(images=[image], size=size, return_tensors="np")
        (tile,) = tower.picture_tiles(np.asarray(image))
        shape = shape_of("image", 1, height, width)
        want = shown(processor, out["pixel_values"], out["image_grid_thw"][0])
        assert want.shape == (1, 2, *tile.shape)
        assert tower.count(shape, 1.0) == int(out["image_grid_thw"][0].prod()) // 4
        assert [(t.height, t.width) for t in tower.tiles(shape)] == [tile.shape[:2]]
    assert np.abs(want - tile).max() < 0.01  # equal but for float32


@drawn
@given(n=st.integers(1, 9), height=SIDES, width=SIDES, tokens=TOKENS)
def test_frames(case: Case, n: int, height: int, width: int, tokens: tuple[int, int]) -> None:
    """Limits of Qwen3-VL count all frames together."""
    processor, tower, unit = case.loaded.processor.video_processor, case.llm.model.tower, UNITS[case.family]
    frames = clip(n, height, width).frames
    many = n if case.family == "qwen3_vl" else 1
    low, high = (k * unit**2 * many for k in (tokens[0], sum(tokens)))
    with limited(case, "frame_limits", low, high) as size:
        given_frames = np.repeat(frames, 2, axis=0) if n == 1 else frames  # a single one is a pair of equal ones
        out = processor(videos=[given_frames], size=size, do_sample_frames=False, return_tensors="np")
        shape = shape_of("video", n, height, width)
        fit = tower.fit_for(shape)
        seen = np.stack([fit(frame) for frame in frames])
        tiles = tower.tiles(shape)
        assert tower.count(shape, 1.0) == int(out["video_grid_thw"][0].prod()) // 4
        assert [(t.height, t.width) for t in tiles] == [seen.shape[1:3]] * len(tiles)
        got = np.stack([seen[list(tile.frames)] for tile in tiles])
    apart = np.abs(shown(processor, out["pixel_values_videos"], out["video_grid_thw"][0]) - got)
    assert apart.max() < VIDEO_LEVELS + 1  # both round after each of two passes, and few pixels in small frames tell
    assert (apart > 1.01).mean() < 0.01


@pytest.mark.parametrize(("height", "width"), [(3, 700), (700, 3), (4, 800), (5, 1000)])
def test_stretched_ones(case: Case, height: int, width: int) -> None:
    """Refused where the processor refuses them: more than 200 to 1, of Qwen3-VL's frames after they are enlarged."""
    processors, tower = case.loaded.processor, case.llm.model.tower
    ways = {
        "image": lambda: processors.image_processor(images=[picture(height, width)]),
        "video": lambda: processors.video_processor(videos=[clip(2, height, width).frames], do_sample_frames=False),
    }
    for kind, theirs in ways.items():
        shape = shape_of(kind, 2 if kind == "video" else 1, height, width)
        try:
            theirs()
        except ValueError:
            with pytest.raises(MediaError, match=f"{width}x{height} is too long and thin .* up to 200:1; crop it"):
                tower.tiles(shape)
        else:
            assert tower.tiles(shape)
