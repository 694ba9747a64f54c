"""Demo clips as H.264 files, the held-out set, and the rule by which an answer counts as right.

Knows PyAV and the file side. What a clip shows and what is asked about it is `world.py`'s business.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from aim_local.demo.world import (
    FAMILIES,
    FPS,
    HELD_OUT_SEED,
    PLAIN,
    SIDE,
    Frames,
    Question,
    Scene,
    World,
    draw,
    make_scene,
    questions,
    sampled_frames,
)
from aim_local.store.files import replaced


@dataclass(frozen=True)
class Clip:
    """A scene with one question. `frames()` draws it; `write_clip` makes the file a runtime reads."""

    scene: Scene
    question: str
    answer: str
    family: str

    def frames(self, side: int = SIDE) -> Frames:
        """All frames of the clip before any encoding: uint8 RGB [N_FRAMES, side, side, 3]."""
        return draw(self.scene, side)


def held_out(n: int = 500, seed: int = 0, world: World = PLAIN) -> Iterator[Clip]:
    """n clips with one question each, cycling through FAMILIES, answers balanced within a family.

    Their scenes come from seeds that training never uses. The same seed gives the same clips; a smaller n
    gives the first of a larger one.

    Raises:
        ValueError: n or seed is negative.
    """
    if n < 0 or seed < 0:
        raise ValueError(f"n and seed must not be negative, got n={n}, seed={seed}")
    asked: dict[str, dict[str, int]] = {family: {} for family in FAMILIES}
    first = HELD_OUT_SEED + seed * 1_000_000
    for i in range(n):
        family = FAMILIES[i % len(FAMILIES)]
        scene, question = _rarest(first + i * 16, world, family, asked[family])
        asked[family][question.answer] = asked[family].get(question.answer, 0) + 1
        yield Clip(scene, question.text, question.answer, family)


def _rarest(seed: int, world: World, family: str, asked: dict[str, int]) -> tuple[Scene, Question]:
    """Of 16 scenes, the question of this family whose answer was asked least so far."""
    rng = np.random.default_rng(seed)
    pool: list[tuple[Scene, Question]] = []
    for scene in (make_scene(seed + k, world) for k in range(16)):
        pool += [(scene, q) for q in questions(scene) if q.family == family]
    least = min(asked.get(q.answer, 0) for _, q in pool)
    rare = [(s, q) for s, q in pool if asked.get(q.answer, 0) == least]
    return rare[rng.integers(len(rare))]


def write_clip(clip: Clip | Scene | Frames, path: str | os.PathLike[str], side: int = SIDE, fps: int = FPS) -> Path:
    """Write a clip as H.264 (yuv420p) mp4 and return its path. The file appears whole or not at all.

    Args:
        clip: a Clip, a Scene, or uint8 RGB frames [T, H, W, 3] with even H and W.
        side: frame side in pixels, used where there are no frames yet.

    Raises:
        ValueError: frames of another shape or dtype.
    """
    frames = clip if isinstance(clip, np.ndarray) else draw(clip.scene if isinstance(clip, Clip) else clip, side)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or any(n % 2 for n in frames.shape[1:3]):
        raise ValueError(f"expected uint8 [T, H, W, 3] with even H and W, got {frames.dtype} {list(frames.shape)}")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as partial:
        _encode(frames, str(partial), fps)
    return path


def _encode(frames: Frames, path: str, fps: int) -> None:
    with av.open(path, "w", format="mp4") as container:
        # x264's fast paths gave one clip in a hundred other bytes from write to write (macroblock tree); these do not
        options = {"crf": "20", "preset": "veryfast", "threads": "1", "x264-params": "cpu-independent=1"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def read_clip(path: str | os.PathLike[str], sampled: bool = True) -> Frames:
    """Decode a clip: uint8 RGB [T, H, W, 3], the frames a model samples (8) or all of them."""
    with av.open(os.fspath(path)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    keep = sampled_frames(len(frames)) if sampled else range(len(frames))
    return np.stack([frames[i] for i in keep])


def is_right(answer_text: str, expected: str) -> bool:
    """Whether an answer is the expected one: equal after lower case, outer punctuation and extra spaces are dropped."""
    return _plain(answer_text) == _plain(expected)


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).strip(" .,!?:;\"'")
