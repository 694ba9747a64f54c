"""The demo worlds: short clips of coloured shapes on a ground, with questions whose answers are known.

Knows how a scene is sampled from a seed, drawn and asked about. Leaves video files to `clips.py` and everything
about a model to others. Pure NumPy; the same seed gives the same pixels and the same questions.

A clip has `N_FRAMES` frames. A shape is either a mover, which slides along one axis until the clip ends, or a
flash, which stands still for about a quarter of the clip. Within one clip all colours and all kinds differ, so
"the red one" and "the ring" each name at most one shape. `PLAIN` is the bundled model's world: shapes of one size on
a dark fade, seen in 8 frames. In `VARIED` sizes differ, grounds have texture, and every answer holds from 4 frames on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import numpy.typing as npt

from aim_local.demo.ground import Ground, Plane, Texture

Frames = npt.NDArray[np.uint8]

N_FRAMES = 16
N_SAMPLED = 8
FPS = 8
SIDE = 112

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (230, 40, 40),
    "green": (40, 200, 60),
    "blue": (50, 90, 250),
    "yellow": (245, 220, 40),
    "white": (240, 240, 240),
    "purple": (205, 60, 225),
}
KINDS = ("square", "triangle", "cross", "ring")
PARTS = ("start", "middle", "end")
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
NUMBERS = ("one", "two", "three")
FAMILIES = ("colour", "shape", "count", "position", "direction", "order", "time", "needle", "absence")

# first frames of a flash in each part; the gaps between the parts keep the answer to "when" unambiguous
_ONSETS = {"start": (0, 2), "middle": (6, 8), "end": (11, 12)}
_CLEARANCE = 0.31  # least distance of two visible centres, in frame sides: shapes never touch
_OFF_CENTRE = 0.09  # a "top left" answer needs this much distance from both centre lines

# seeds: training uses [0, HELD_OUT_SEED), everything that is reported uses seeds from HELD_OUT_SEED on
HELD_OUT_SEED = 1_000_000_000


@dataclass(frozen=True)
class World:
    """What its scenes may look like. side: pixels of a frame's side in which its model sees it."""

    name: str
    side: int
    radii: tuple[float, float]  # frame sides, [low, high)
    flash: tuple[int, int]  # frames that a flash stands, [low, high)
    late: int  # first frame of a mover that comes late
    textured: bool


PLAIN = World("plain", SIDE, (0.14, 0.165), (4, 6), 6, textured=False)
VARIED = World("varied", 168, (0.1, 0.165), (5, 7), 5, textured=True)
WORLDS = {world.name: world for world in (PLAIN, VARIED)}


@dataclass(frozen=True)
class Shape:
    """One shape, visible in frames [on, off). Lengths are in frame sides: 1.0 is the frame's width."""

    kind: str
    colour: str
    rgb: tuple[int, int, int]
    radius: float
    on: int
    off: int
    start: tuple[float, float]  # centre (x, y) at frame `on`
    end: tuple[float, float]  # centre (x, y) at the last frame, off - 1
    flipped: bool = False  # a triangle that points down

    @property
    def name(self) -> str:
        """Colour and kind, such as "red ring": how answers call the shape."""
        return f"{self.colour} {self.kind}"

    @property
    def moves(self) -> bool:
        """Whether the shape is a mover."""
        return self.start != self.end

    @property
    def way(self) -> str:
        """Name of the direction of a mover, "" for a flash."""
        dx, dy = self.end[0] - self.start[0], self.end[1] - self.start[1]
        if not self.moves:
            return ""
        return ("right" if dx > 0 else "left") if abs(dx) > abs(dy) else ("down" if dy > 0 else "up")

    @property
    def part(self) -> str:
        """Part of the clip in which the shape first appears: "start", "middle" or "end"."""
        return next(p for p in reversed(PARTS) if self.on >= min(_ONSETS[p]) - 1)

    def visible(self, frame: int) -> bool:
        """Whether the shape is drawn in this frame, 0..N_FRAMES-1."""
        return self.on <= frame < self.off

    def centre(self, frame: int) -> tuple[float, float]:
        """Centre (x, y) in frame sides at this frame; a straight line at constant speed."""
        share = (frame - self.on) / max(1, self.off - 1 - self.on)
        x, y = (a + (b - a) * share for a, b in zip(self.start, self.end, strict=True))
        return x, y


@dataclass(frozen=True)
class Scene:
    """What one clip shows: its shapes, and the ground: two RGB colours blended from top to bottom, or a texture."""

    shapes: tuple[Shape, ...]
    ground: tuple[tuple[int, int, int], tuple[int, int, int]] | Texture

    def mirrored(self, across: bool, upside_down: bool) -> Scene:
        """The scene whose frames are this scene's frames flipped left-right and/or top-bottom."""
        shapes = tuple(_mirror_shape(s, across, upside_down) for s in self.shapes)
        if isinstance(self.ground, Texture):
            return Scene(shapes, self.ground.mirrored(across, upside_down))
        return Scene(shapes, self.ground[::-1] if upside_down else self.ground)


@dataclass(frozen=True)
class Question:
    """A question about one scene with its known answer; `family` is one of FAMILIES."""

    text: str
    answer: str
    family: str


def sampled_frames(n: int = N_FRAMES, k: int = N_SAMPLED) -> list[int]:
    """Indices of the k frames a model sees of an n-frame clip: evenly spread, first and last included."""
    return [int(i) for i in np.linspace(0, n - 1, k)]


# --- sampling a scene -------------------------------------------------------------------------------------------


def make_scene(seed: int, world: World = PLAIN) -> Scene:
    """The scene of this seed; one, two or three shapes, equally often."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 4))
    while True:
        scene = _try_scene(rng, n, world)
        if _clear(scene.shapes):
            return scene


def _try_scene(rng: np.random.Generator, n: int, world: World) -> Scene:
    kinds = rng.choice(len(KINDS), n, replace=False)
    colours = rng.choice(len(COLOURS), n, replace=False)
    n_movers = int(rng.integers(0, min(n, 2) + 1))
    parts = rng.permutation(len(PARTS))  # flashes in one clip come in different parts
    shapes = []
    for i in range(n):
        kind, colour = KINDS[kinds[i]], tuple(COLOURS)[colours[i]]
        moves = i < n_movers
        shapes.append(_mover(rng, world, kind, colour) if moves else _flash(rng, world, kind, colour, PARTS[parts[i]]))
    return Scene(tuple(shapes), Texture.sample(rng) if world.textured else (_ground_colour(rng), _ground_colour(rng)))


def _ground_colour(rng: np.random.Generator) -> tuple[int, int, int]:
    r, g, b = (int(c) for c in rng.integers(5, 45, 3))
    return r, g, b


def _paint(rng: np.random.Generator, colour: str) -> tuple[int, int, int]:
    r, g, b = (int(np.clip(c + rng.integers(-12, 13), 0, 255)) for c in COLOURS[colour])
    return r, g, b


def _mover(rng: np.random.Generator, world: World, kind: str, colour: str) -> Shape:
    radius = float(rng.uniform(*world.radii))
    dx, dy = WAYS[tuple(WAYS)[rng.integers(4)]]
    length = float(rng.uniform(0.42, 0.62))
    low = radius + 0.01
    begin = float(rng.uniform(low, 1 - low - length))
    across = float(rng.uniform(low, 1 - low))
    along = (begin, begin + length) if dx + dy > 0 else (begin + length, begin)
    start, end = ((along[0], across), (along[1], across)) if dx else ((across, along[0]), (across, along[1]))
    on = world.late if rng.random() < 0.3 else 0
    return Shape(kind, colour, _paint(rng, colour), radius, on, N_FRAMES, start, end, bool(rng.integers(2)))


def _flash(rng: np.random.Generator, world: World, kind: str, colour: str, part: str) -> Shape:
    radius = float(rng.uniform(*world.radii))
    x, y = (float(v) for v in rng.uniform(radius + 0.01, 1 - radius - 0.01, 2))
    on = int(rng.choice(_ONSETS[part]))
    off = min(N_FRAMES, on + int(rng.integers(*world.flash)))
    return Shape(kind, colour, _paint(rng, colour), radius, on, off, (x, y), (x, y), bool(rng.integers(2)))


def _clear(shapes: tuple[Shape, ...]) -> bool:
    for frame in range(N_FRAMES):
        centres = [s.centre(frame) for s in shapes if s.visible(frame)]
        for i, (x, y) in enumerate(centres):
            if any((x - u) ** 2 + (y - v) ** 2 < _CLEARANCE**2 for u, v in centres[:i]):
                return False
    return True


def _mirror_shape(shape: Shape, across: bool, upside_down: bool) -> Shape:
    def move(p: tuple[float, float]) -> tuple[float, float]:
        return (1 - p[0] if across else p[0], 1 - p[1] if upside_down else p[1])

    flipped = shape.flipped != upside_down
    return replace(shape, start=move(shape.start), end=move(shape.end), flipped=flipped)


# --- drawing ----------------------------------------------------------------------------------------------------


def draw(scene: Scene, side: int = SIDE, frames: list[int] | None = None) -> Frames:
    """Draw a scene: uint8 RGB [T, side, side, 3], T = N_FRAMES or the number of frame indices asked for."""
    indices = range(N_FRAMES) if frames is None else frames
    ground = Ground(scene.ground, side) if isinstance(scene.ground, Texture) else _Fade(scene.ground, side)
    return np.stack([_draw_frame(scene, ground.frame(i / (N_FRAMES - 1)), i) for i in indices])


class _Fade:
    """A ground of two colours, the same in every frame."""

    def __init__(self, colours: tuple[tuple[int, int, int], tuple[int, int, int]], side: int) -> None:
        top, bottom = (np.asarray(c, np.float32) for c in colours)
        fade = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
        self._canvas = np.repeat(top + (bottom - top) * fade, side, axis=1)  # [side, side, 3]

    def frame(self, _: float) -> Plane:
        return self._canvas.copy()


def _draw_frame(scene: Scene, canvas: Plane, frame: int) -> Frames:
    """Draw the shapes over the ground, float32 [side, side, 3]."""
    for shape in scene.shapes:
        if shape.visible(frame):
            _draw_shape(canvas, shape, shape.centre(frame))
    return (canvas + 0.5).astype(np.uint8)


def _draw_shape(canvas: Plane, shape: Shape, centre: tuple[float, float]) -> None:
    side = canvas.shape[0]
    r, cx, cy = shape.radius * side, centre[0] * side, centre[1] * side
    x0, x1 = max(0, int(cx - r) - 2), min(side, int(cx + r) + 3)
    y0, y1 = max(0, int(cy - r) - 2), min(side, int(cy + r) + 3)
    u = np.arange(x0, x1, dtype=np.float32)[None, :] + 0.5 - cx
    v = np.arange(y0, y1, dtype=np.float32)[:, None] + 0.5 - cy
    distance = outline(shape.kind, u, -v if shape.flipped else v, r)  # [y1 - y0, x1 - x0], pixels
    cover = np.clip(0.5 - distance, 0, 1)[..., None]  # one pixel of anti-aliasing
    box = canvas[y0:y1, x0:x1]
    box += cover * (np.asarray(shape.rgb, np.float32) - box)


def outline(kind: str, u: Plane, v: Plane, r: float) -> Plane:
    """Signed distance (about, in pixels, negative inside) of points (u right, v down) to a shape of radius r.

    Raises:
        ValueError: the kind is not one of KINDS.
    """
    outlines = {"square": _square, "triangle": _triangle, "cross": _cross, "ring": _ring}
    if kind not in outlines:
        raise ValueError(f"unknown kind {kind!r}, expected one of {', '.join(KINDS)}")
    return np.asarray(outlines[kind](u, v, np.float32(r)), np.float32)


def _square(u: Plane, v: Plane, r: np.float32) -> Plane:
    return np.maximum(np.abs(u), np.abs(v)) - np.float32(0.86) * r


def _ring(u: Plane, v: Plane, r: np.float32) -> Plane:
    return np.abs(np.hypot(u, v) - np.float32(0.76) * r) - np.float32(0.25) * r


def _cross(u: Plane, v: Plane, r: np.float32) -> Plane:
    arm = np.float32(0.3) * r
    bar = np.maximum(np.abs(u) - r, np.abs(v) - arm)
    return np.minimum(bar, np.maximum(np.abs(v) - r, np.abs(u) - arm))


def _triangle(u: Plane, v: Plane, r: np.float32) -> Plane:
    # apex at (0, -r), base from (-r, 0.85 r) to (r, 0.85 r)
    slope = np.float32(1 / 1.85)
    edge: Plane = np.maximum(v - np.float32(0.85) * r, (np.abs(u) - (v + r) * slope) / np.float32(math.hypot(1, slope)))
    return edge


# --- questions --------------------------------------------------------------------------------------------------


def questions(scene: Scene) -> list[Question]:
    """Every question that has one clear answer in this scene, all families, in a fixed order."""
    asked = (_ask_each_shape, _ask_count, _ask_position, _ask_direction, _ask_order, _ask_needle, _ask_absence)
    return [q for ask in asked for q in ask(scene)]


def _ask_each_shape(scene: Scene) -> Iterator[Question]:
    for s in scene.shapes:
        yield Question(f"What colour is the {s.kind}?", s.colour, "colour")
        yield Question(f"What shape is {s.colour}?", s.kind, "shape")
        yield Question(f"When does the {s.name} appear?", s.part, "time")


def _ask_count(scene: Scene) -> Iterator[Question]:
    yield Question("How many shapes appear?", NUMBERS[len(scene.shapes) - 1], "count")


def _ask_position(scene: Scene) -> Iterator[Question]:
    for s in scene.shapes:
        for verb, (x, y) in (("start", s.start), ("end", s.end)):
            if min(abs(x - 0.5), abs(y - 0.5)) >= _OFF_CENTRE:
                corner = f"{'top' if y < 0.5 else 'bottom'} {'left' if x < 0.5 else 'right'}"
                yield Question(f"Where does the {s.name} {verb}?", corner, "position")


def _ask_direction(scene: Scene) -> Iterator[Question]:
    for s in scene.shapes:
        if s.moves:
            yield Question(f"Which way does the {s.name} move?", s.way, "direction")


def _ask_order(scene: Scene) -> Iterator[Question]:
    ordered = sorted(scene.shapes, key=lambda s: s.on)
    if len(ordered) < 2:
        return
    if ordered[0].part != ordered[1].part:
        yield Question("Which colour comes first?", ordered[0].colour, "order")
    if ordered[-1].part != ordered[-2].part:
        yield Question("Which colour comes last?", ordered[-1].colour, "order")


def _ask_needle(scene: Scene) -> Iterator[Question]:
    for part in PARTS:
        there = [s for s in scene.shapes if s.part == part]
        if len(there) == 1:
            where = "in the middle" if part == "middle" else f"at the {part}"
            yield Question(f"What appears {where}?", there[0].name, "needle")


def _ask_absence(scene: Scene) -> Iterator[Question]:
    colours, kinds = {s.colour for s in scene.shapes}, {s.kind for s in scene.shapes}
    names = {s.name for s in scene.shapes}
    for c in COLOURS:
        yield _yes_no(f"Is there a {c} shape?", c in colours)
    for k in KINDS:
        yield _yes_no(f"Is there a {k}?", k in kinds)
    for c, k in product(sorted(colours), KINDS):  # only near misses: the colour is there, the kind may not be
        yield _yes_no(f"Is there a {c} {k}?", f"{c} {k}" in names)


def _yes_no(text: str, holds: bool) -> Question:
    return Question(text, "yes" if holds else "no", "absence")
