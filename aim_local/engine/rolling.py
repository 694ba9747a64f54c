"""A clip without an end: frames are encoded one by one as they come, the oldest go, and questions see those in between.

It takes the model's turn for one tile at a time, as ahead.py does, so that a question prefills and encodes nothing.
Where frames come from, which are taken and when one is too old is for others (live/).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..config import VisualTokenConfig
from ..errors import ModelError, UsageError
from ..media import MediaShape, Video
from ..media.types import Size
from ..models.base import Frame, Tower
from ..models.pieces import Rows, VisualPart
from ..models.reuse import Seen, Shared, pixel_digest
from .intake import Intake, Prepared
from .model import Model
from .tile_rows import ItemRows, TileCounts
from .turns import ShouldStop, Turns

_ANY_SIZE = 360, 640


@dataclass(frozen=True, eq=False)
class _Taken:
    """A frame. pixels: as the tower sees it; seconds: when it is shown."""

    pixels: Frame
    seconds: float
    digest: bytes


@dataclass(frozen=True, eq=False)
class _Tile:
    """What the tower sees at once: one frame, or a pair. rows: of it, usually one block."""

    frames: tuple[_Taken, ...]
    rows: tuple[Rows, ...]
    counts: TileCounts
    ms: float


@dataclass(frozen=True, eq=False)
class _Held:
    """rest: frames that do not fill a tile yet. size: of the source."""

    tiles: tuple[_Tile, ...] = ()
    rest: tuple[_Taken, ...] = ()
    size: Size = (1, 1)

    @property
    def frames(self) -> tuple[_Taken, ...]:
        return (*(frame for tile in self.tiles for frame in tile.frames), *self.rest)


@dataclass(frozen=True, eq=False)
class Recent(Prepared):
    """The frames that were there when it was made. Give it to `generate` or `ask` in the place of a path, any number of
    times; nothing of it is kept on disk.

    video: the frames as the tower sees them, with times from the first of them on. start, end: when the first and the
    last are shown, in the stream's own seconds.
    """

    model: Model
    video: Video
    start: float
    end: float
    rows: tuple[Rows, ...]
    counts: TileCounts
    ms: float

    def taken_by(self, model: Model) -> Intake:
        """For a question, in the model's turn. Raises UsageError for one to another model."""
        if self.model.tower is not model.tower:
            raise UsageError(f"{self.video.source} is encoded for another model; ask that one")
        if not self._fits(self.rows):
            return Intake.ready(model, self.video, ItemRows(None))
        return Intake.ready(model, self.video, ItemRows.known(self.rows, self.counts, self.ms))

    def _fits(self, rows: Sequence[Rows]) -> bool:
        """Whether the tower makes such tiles of the frames together as it made of each alone."""
        tower, shape = _tower(self.model), self.video.shape
        wanted = tower.rows_of_tiles(shape) or [part.n_full for part in _parts(tower, shape)]
        return [len(block) for block in rows] == wanted[: len(rows)]


class Rolling:
    """Frames are added and dropped by one thread; any thread may ask for the `recent` ones.

    A frame equal to one of the window, or one that differs from the last encoded frame by noise only, takes the rows
    that are there (models/reuse.py); what it takes them from may have left the window. source: for messages; step:
    seconds between two frames, for a window of one. Raises ModelError for a model that sees nothing.
    """

    def __init__(self, model: Model, turns: Turns, source: str, step: float = 1.0) -> None:
        if model.tower is None:
            raise ModelError(f"{model.name} is a text-only model, it cannot watch; take one that sees")
        self._model, self._turns, self._source, self._step = model, turns, source, step
        near_px = model.tower.patch_px if model.config.reuse_frames == "near" else 0
        self._seen = Seen("video", Shared(), near_px)
        self._held = _Held()
        facts = model.tower.facts_of(_shape(source, _ANY_SIZE, 2))
        self._together = facts.n_frames if facts else 1  # frames that the tower sees at once

    def fit(self, pixels: Frame, n_frames: int) -> Frame:
        """What is kept of a decoded frame, uint8 [h, w, 3] -> uint8 [H, W, 3]. n_frames: of a full window."""
        fit = _tower(self._model).fit_for(_shape(self._source, pixels.shape[:2], n_frames))
        pixels = np.ascontiguousarray(pixels)
        return fit(pixels) if fit else pixels

    @property
    def times(self) -> tuple[float, ...]:
        """When the frames are shown."""
        return tuple(frame.seconds for frame in self._held.frames)

    @property
    def size(self) -> Size | None:
        """(height, width) of the frames as they are kept; None without any. All have one size."""
        frames = self._held.frames
        return frames[0].pixels.shape[:2] if frames else None

    def add(self, pixels: Frame, size: Size, seconds: float, should_stop: ShouldStop | None = None) -> None:
        """One more frame, fitted. size: of the source; seconds: not before those of the last frame.

        It is encoded before this returns, with its partner where the tower sees pairs. Raises CancelledError.
        """
        held = self._held
        assert self.size in (None, pixels.shape[:2]), "one size for all; clear before another comes"
        rest = (*held.rest, _Taken(pixels, seconds, pixel_digest(pixels)))
        if len(rest) < self._together:
            self._held = replace(held, rest=rest, size=size)
            return
        with self._turns.take(should_stop):
            tile = self._encoded(rest, size)
        self._held = _Held((*held.tiles, tile), (), size)

    def drop(self, n: int) -> None:
        """Lets the first n frames go, and what the tower saw together with the last of them; the newest frame stays."""
        held = self._held
        n_tiles = min(-(-n // self._together), len(held.tiles) - (not held.rest))
        self._held = replace(held, tiles=held.tiles[n_tiles:])
        self._seen.keep_last(len(self._held.tiles) + 1)

    def clear(self) -> None:
        """Lets all frames go."""
        self._held = _Held()
        self._seen.forget()

    def recent(self) -> Recent | None:
        """The frames that are here now; None without any."""
        held = self._held
        frames = held.frames
        if not frames:
            return None
        counts = TileCounts()
        for tile in held.tiles:
            counts += tile.counts
        rows = tuple(block for tile in held.tiles for block in tile.rows)
        video = self._video(frames, held.size)
        ms = sum(tile.ms for tile in held.tiles)
        return Recent(self._model, video, frames[0].seconds, frames[-1].seconds, rows, counts, ms)

    def _encoded(self, frames: tuple[_Taken, ...], size: Size) -> _Tile:
        """Through the tower, as `Intake.encode` does it, or as a clip of its own where that cannot be. In the turn."""
        tower, rows = _tower(self._model), ItemRows(self._seen)
        encode = tower.frame_rows
        if encode:
            (frame,) = frames
            rows(0, frame.pixels, partial(encode, frame.pixels))
        else:
            video = self._video(frames, size)
            tower.encode(video, VisualTokenConfig.off(), range(len(_parts(tower, video.shape))), rows)
        return _Tile(frames, tuple(rows.all), rows.counts, rows.ms)

    def _video(self, frames: Sequence[_Taken], size: Size) -> Video:
        times = np.array([frame.seconds - frames[0].seconds for frame in frames])
        step = float(times[-1]) / (len(frames) - 1) if len(frames) > 1 else self._step
        digest = hashlib.sha256(b"".join(frame.digest for frame in frames))
        return Video(
            frames=np.stack([frame.pixels for frame in frames]),
            timestamps=times,
            indices=np.arange(len(frames), dtype=np.int64),
            source=self._source,
            duration=float(times[-1]) + step,
            n_source_frames=len(frames),
            source_fps=1 / step if step else float("nan"),
            warnings=(),
            digest=digest.hexdigest(),
            source_size=self._told_size(frames[0].pixels.shape[:2], size, len(frames)),
        )

    def _told_size(self, kept: Size, size: Size, n_frames: int) -> Size:
        """The source's, where that comes to frames of the size that is kept; else, while the window fills, that one."""
        facts = _tower(self._model).facts_of(_shape(self._source, size, n_frames))
        return size if facts is None or (facts.height, facts.width) == kept else kept


def _tower(model: Model) -> Tower:
    assert model.tower is not None, "checked when the window was made"
    return model.tower


def _parts(tower: Tower, shape: MediaShape) -> list[VisualPart]:
    return [part for part in tower.layout(shape, 1.0) if isinstance(part, VisualPart)]


def _shape(source: str, size: Size, n_frames: int) -> MediaShape:
    """Of a clip of one frame a second, where times do not count."""
    times = tuple(float(i) for i in range(n_frames))
    return MediaShape("video", n_frames, *size, source, "", times, tuple(range(n_frames)), float(n_frames))
