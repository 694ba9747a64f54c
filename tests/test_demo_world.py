"""The demo world: the same seed gives the same clip, and every answer agrees with the pixels that were drawn."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from thorough import few

from aim_local.demo import (
    FAMILIES,
    Scene,
    Shape,
    draw,
    held_out,
    is_right,
    make_scene,
    questions,
    read_clip,
    write_clip,
)
from aim_local.demo.world import COLOURS, HELD_OUT_SEED, KINDS, N_FRAMES, NUMBERS, VARIED, outline, sampled_frames

SEEDS = few(range(40), 4)


@cache
def seen(seed: int) -> dict[str, list[tuple[float, float] | None]]:
    """By colour, per frame: the mean (x, y), in frame sides, of the pixels of it; None where there are none."""
    frames = draw(make_scene(seed))
    palette = np.array(list(COLOURS.values()))
    distance = np.abs(frames[..., None, :].astype(np.int16) - palette.astype(np.int16)).max(-1)  # [T, side, side, 6]
    nearest = np.where(distance.min(-1) < 20, distance.argmin(-1), -1)
    return {name: [_centre(frame == i) for frame in nearest] for i, name in enumerate(COLOURS)}


def _centre(mask: npt.NDArray[np.bool_]) -> tuple[float, float] | None:
    ys, xs = np.nonzero(mask)
    return (float(xs.mean() + 0.5) / 112, float(ys.mean() + 0.5) / 112) if len(xs) > 40 else None


def answer(scene: Scene, text: str) -> str:
    return next(q.answer for q in questions(scene) if q.text == text)


def test_a_seed_gives_one_clip() -> None:
    assert make_scene(7) == make_scene(7)
    np.testing.assert_array_equal(draw(make_scene(7)), draw(make_scene(7)))
    assert make_scene(7) != make_scene(8)
    assert questions(make_scene(7)) == questions(make_scene(7))


def test_frames_have_the_stated_shape() -> None:
    frames = draw(make_scene(1))
    assert frames.shape == (N_FRAMES, 112, 112, 3)
    assert frames.dtype == np.uint8
    assert draw(make_scene(1), side=64, frames=[0, 15]).shape == (2, 64, 64, 3)


def test_sampled_frames_are_the_truncated_linspace() -> None:
    assert sampled_frames() == [0, 2, 4, 6, 8, 10, 12, 15]


@pytest.mark.parametrize("seed", SEEDS)
def test_colours_and_count_are_what_the_pixels_show(seed: int) -> None:
    scene = make_scene(seed)
    shown = {c for c in COLOURS if any(seen(seed)[c])}
    assert shown == {s.colour for s in scene.shapes}
    assert answer(scene, "How many shapes appear?") == NUMBERS[len(shown) - 1]
    for colour in COLOURS:
        assert answer(scene, f"Is there a {colour} shape?") == ("yes" if colour in shown else "no")


@pytest.mark.parametrize("seed", SEEDS)
def test_direction_and_position_are_what_the_pixels_show(seed: int) -> None:
    scene = make_scene(seed)
    for q in (q for q in questions(scene) if q.family in ("direction", "position")):
        colour = next(c for c in COLOURS if f" {c} " in q.text)
        path = [p for p in seen(seed)[colour] if p]
        assert q.answer == (way(path) if q.family == "direction" else corner(path[0 if "start" in q.text else -1]))


def way(path: list[tuple[float, float]]) -> str:
    dx, dy = path[-1][0] - path[0][0], path[-1][1] - path[0][1]
    return ("right" if dx > 0 else "left") if abs(dx) > abs(dy) else ("down" if dy > 0 else "up")


def corner(point: tuple[float, float]) -> str:
    return f"{'top' if point[1] < 0.5 else 'bottom'} {'left' if point[0] < 0.5 else 'right'}"


@pytest.mark.parametrize("seed", SEEDS)
def test_time_and_order_are_what_the_pixels_show(seed: int) -> None:
    scene = make_scene(seed)
    first = {s.colour: next(i for i, p in enumerate(seen(seed)[s.colour]) if p) for s in scene.shapes}
    for s in scene.shapes:
        part = "start" if first[s.colour] <= 2 else "middle" if first[s.colour] <= 8 else "end"
        assert answer(scene, f"When does the {s.name} appear?") == part
    for q in (q for q in questions(scene) if q.family == "order"):
        assert q.answer == (min if "first" in q.text else max)(first, key=first.__getitem__)


def test_a_model_sees_every_shape_and_every_motion() -> None:
    for shape in (s for scene in map(make_scene, range(200)) for s in scene.shapes):
        assert sum(shape.visible(f) for f in sampled_frames()) >= (4 if shape.moves else 1)


def test_kinds_have_different_outlines() -> None:
    axis = np.linspace(-20, 20, 81, dtype=np.float32)
    inside = [outline(kind, axis[None, :], axis[:, None], 16.0) < 0 for kind in KINDS]
    for i, one in enumerate(inside):
        for other in inside[:i]:
            assert (one != other).sum() > 0.2 * (one | other).sum()
    with pytest.raises(ValueError, match="unknown kind"):
        outline("star", axis, axis, 16.0)


@pytest.mark.parametrize(("across", "upside_down"), [(True, False), (False, True), (True, True)])
def test_a_mirrored_scene_draws_the_mirrored_frames(across: bool, upside_down: bool) -> None:
    scene = make_scene(5)
    flipped = draw(scene)[:, :: -1 if upside_down else 1, :: -1 if across else 1]
    drawn = draw(scene.mirrored(across, upside_down))
    assert np.abs(flipped.astype(int) - drawn).max() <= 2


def test_held_out_cycles_families_and_balances_answers() -> None:
    clips = list(held_out(180))
    assert [c.family for c in clips[:9]] == list(FAMILIES)
    assert clips[:20] == list(held_out(20))
    for family in FAMILIES:
        counts = Counter(c.answer for c in clips if c.family == family)
        assert max(counts.values()) - min(counts.values()) <= 2, (family, counts)
    with pytest.raises(ValueError, match="must not be negative"):
        next(held_out(-1))


def test_held_out_seeds_are_beyond_training() -> None:
    assert HELD_OUT_SEED == 1_000_000_000


def test_an_mp4_keeps_the_frames(tmp_path: Path) -> None:
    clip = next(held_out(1))
    path = write_clip(clip, tmp_path / "deep" / "clip.mp4")
    decoded = read_clip(path, sampled=False)
    assert decoded.shape == (N_FRAMES, 112, 112, 3)
    assert np.abs(decoded.astype(int) - clip.frames()).mean() < 6
    np.testing.assert_array_equal(read_clip(path), decoded[sampled_frames()])
    assert [p.name for p in path.parent.iterdir()] == ["clip.mp4"]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even H and W"):
        write_clip(np.zeros((2, 15, 16, 3), np.uint8), tmp_path / "clip.mp4")
    with pytest.raises(ValueError, match="expected uint8"):
        write_clip(np.zeros((2, 16, 16), np.uint8), tmp_path / "clip.mp4")
    assert list(tmp_path.iterdir()) == []


def test_is_right_forgives_case_and_punctuation_only() -> None:
    assert is_right(" Top  left.", "top left")
    assert is_right("Yes!", "yes")
    assert not is_right("left", "top left")
    assert not is_right("", "yes")


def test_a_shape_knows_its_way_and_part() -> None:
    shape = Shape("ring", "red", (230, 40, 40), 0.15, 6, 16, (0.2, 0.5), (0.8, 0.5))
    assert (shape.way, shape.part, shape.moves, shape.name) == ("right", "middle", True, "red ring")


@pytest.mark.parametrize("seed", few(range(40), 4))
def test_answers_of_the_varied_world_hold_from_four_frames_on(seed: int) -> None:
    """Every shape is seen in each of the frame counts, first in the part that "when" says."""
    scene = make_scene(seed, VARIED)
    for n in range(4, 17, 2):
        seen = sampled_frames(k=n)
        for shape in scene.shapes:
            first = next(i for i in seen if shape.visible(i))
            assert first in {"start": range(6), "middle": range(5, 11), "end": range(11, 16)}[shape.part]


@pytest.mark.parametrize("seed", range(6))
def test_textured_frames_mirror_as_their_scene_says(seed: int) -> None:
    scene = make_scene(seed, VARIED)
    frames = draw(scene, 168)
    np.testing.assert_array_equal(draw(scene, 168), frames)
    for across, upside_down in ((True, False), (False, True), (True, True)):
        flipped = frames[:, :: -1 if upside_down else 1, :: -1 if across else 1].astype(int)
        drawn = draw(scene.mirrored(across, upside_down), 168).astype(int)
        assert (np.abs(drawn - flipped) > 8).mean() < 0.002, "edges may differ by rounding"


@pytest.mark.thorough
def test_grounds_are_dull_and_vary() -> None:
    grounds = [draw(replace(make_scene(seed, VARIED), shapes=()), 168).astype(float) for seed in range(30)]
    assert max((f.max(-1) - f.min(-1)).mean() for f in grounds) < 60, "a shape's colour stands out"
    assert min(f[0].std() for f in grounds) > 4
    moving = [np.abs(f[0] - f[-1]).mean() > 1 for f in grounds]
    assert 5 < sum(moving) < 25, "about one in two pans"
