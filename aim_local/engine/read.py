"""Media from paths and arrays: frames decoded and fitted to the tower as they come.

A prompt's media are encoded while they are decoded (`begin_media`, `take_in`); for measuring, `read_media` reads them
alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ModelError, UsageError
from ..media import FrameSampling, Image, Video
from ..media.canvas import Keep
from ..media.given import take
from ..media.reader import open_item
from ..models.base import Fit, Frame
from ..models.reuse import Shared
from .encode import Steps
from .intake import Intake, Prepared, Sampled, Source
from .model import Model
from .tile_rows import ItemRows
from .watch import Watch

NOT_KEPT = "the encoded clip is not kept for the next time"  # how the one warning begins that is about this machine
Media = Source | Sampled  # or Prepared: an item that was begun before


@dataclass(frozen=True, eq=False)
class Reading:
    """items: frames of videos as the tower keeps them. ms: by stage. rows: of each item, as far as they are encoded."""

    items: tuple[Video | Image, ...]
    warnings: tuple[str, ...]
    ms: dict[str, float]
    rows: tuple[ItemRows, ...] = ()

    @property
    def n_frames(self) -> int:
        return sum(item.shape.n_frames for item in self.items if isinstance(item, Video))

    @property
    def n_images(self) -> int:
        return sum(isinstance(item, Image) for item in self.items)


def check_list(name: str, media: object) -> Sequence[object]:
    """Raises UsageError for what is no list of media items."""
    if isinstance(media, (str, bytes)) or not isinstance(media, Sequence):
        raise UsageError(f"{name} is {type(media).__name__}, not a list; give one: [item] for one item, [] for none")
    return media


def check_media(model: Model, media: object) -> None:
    """Raises UsageError for what is no list, ModelError for a model that sees nothing."""
    if len(check_list("media", media)) and model.tower is None:
        raise ModelError(
            f"{model.name} is a text-only model, it cannot take a video or picture; load it with its mmproj, "
            "or take another model"
        )


class Begun:
    """The media of a prompt, opened: what they are is known, and they are decoded and encoded by `finish`.

    `close()` ends their threads; items that were begun ahead of the prompt stay as they are.
    """

    def __init__(
        self, model: Model, media: Sequence[Media | Prepared], sampling: FrameSampling | None, watch: Watch
    ) -> None:
        check_media(model, media)
        shared, self._watch, self._own = Shared(), watch, list[Intake]()
        self._intakes: list[Intake] = []
        try:
            for item in media:
                self._intakes.append(self._intake(model, item, sampling, shared))
            self.shapes = tuple(intake.open(watch.check) for intake in self._intakes)
        except BaseException:
            self.close()
            raise

    def _intake(self, model: Model, item: Media | Prepared, sampling: FrameSampling | None, shared: Shared) -> Intake:
        if isinstance(item, Prepared):
            return item.taken_by(model)
        if isinstance(item, Sampled):
            intake = Intake(model, item.source, item.sampling, shared, once=True)
        else:
            intake = Intake(model, item, sampling, shared, once=True)
        self._own.append(intake)
        return intake

    def finish(self) -> Reading:
        """Decodes all, and encodes meanwhile what the tower takes frame by frame. The model's turn is the caller's.

        Raises MediaError, and what the watch raises.
        """
        total = sum(shape.n_frames for shape in self.shapes if shape.kind == "video")
        tiles = Steps(self._watch, sum(intake.n_tiles for intake in self._intakes), (i.rows for i in self._intakes))
        done, ms = sum(intake.n_done for intake in self._intakes), dict[str, float]()
        for intake in self._intakes:
            intake.rows.on_step = tiles
            while intake.decoded(self._watch.check):
                done += 1
                self._watch.step("decode_video", done, total)
                intake.encode()
            for stage, spent in intake.ms.items():
                ms[stage] = ms.get(stage, 0.0) + spent
        items = tuple(intake.media for intake in self._intakes if intake.media)
        warnings = tuple(line for found in (*self._intakes, *items) for line in found.warnings)
        return Reading(items, warnings, ms, tuple(intake.rows for intake in self._intakes))

    def keep(self) -> list[str]:
        """Puts what was encoded into the store; returns a warning where that cannot be."""
        problems = dict.fromkeys(problem for intake in self._intakes if (problem := intake.keep()))
        return [f"{NOT_KEPT} ({problem}); cache_media=False does not try" for problem in problems]

    def close(self) -> None:
        for intake in self._intakes:
            intake.rows.quiet()
        for intake in self._own:
            intake.close()


def read_media(model: Model, media: Sequence[Source], sampling: FrameSampling | None, watch: Watch) -> Reading:
    """Decodes and fits, one item after the other; nothing is encoded. Raises MediaError, ModelError, UsageError."""
    check_media(model, media)
    if model.tower is None or not len(media):
        return Reading((), (), {})
    start, clock = time.perf_counter(), _FitClock()
    chosen = sampling or FrameSampling(n_frames=model.default_frames)
    progress = watch.stage("decode_video")
    taken = [take(item, chosen) for item in media]
    opened = [open_item(found.item, chosen, max_pixels=model.config.max_pixels) for found in taken]
    items = tuple(o.read(Keep(fit=clock.timed(model.tower.fit_for(o.shape))), progress, None) for o in opened)
    spent = (time.perf_counter() - start) * 1000
    ms = {"decode_video": spent - clock.ms, "preprocess": clock.ms}
    return Reading(items, tuple(line for found in (*taken, *items) for line in found.warnings), ms)


class _FitClock:
    """Counts the time of fits, which is the preprocessing's and not the decoder's."""

    def __init__(self) -> None:
        self.ms = 0.0

    def timed(self, fit: Fit | None) -> Fit | None:
        def counted(frame: Frame) -> Frame:
            assert fit, "given to a reader only where there is one"
            start = time.perf_counter()
            fitted = fit(frame)
            self.ms += (time.perf_counter() - start) * 1000
            return fitted

        return counted if fit else None
