"""Media from paths and arrays: frames decoded and fitted to the tower as they come."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError, UsageError
from ..media import FrameSampling, Image, Video, open_media
from ..models.base import Fit, Frame
from .model import Model
from .watch import Watch

Media = str | Path | NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Reading:
    """items: frames of videos as the tower keeps them. ms: by stage."""

    items: tuple[Video | Image, ...]
    warnings: tuple[str, ...]
    ms: dict[str, float]

    @property
    def n_frames(self) -> int:
        return sum(item.shape.n_frames for item in self.items if isinstance(item, Video))

    @property
    def n_images(self) -> int:
        return sum(isinstance(item, Image) for item in self.items)


def read_media(model: Model, media: Sequence[Media], sampling: FrameSampling | None, watch: Watch) -> Reading:
    """Raises MediaError, ModelError, UsageError."""
    if isinstance(media, (str, Path, np.ndarray)):
        raise UsageError("media is one item; give a list of paths or arrays")
    if not len(media):
        return Reading((), (), {})
    if model.tower is None:
        raise ModelError(
            f"{model.name} is a text-only model, it cannot take a video or picture; load it with its mmproj, "
            "or take another model"
        )
    start, clock = time.perf_counter(), _FitClock(model.tower.fit)
    chosen = sampling or FrameSampling(n_frames=model.default_frames)
    fit, progress = clock.fit if model.tower.fit else None, watch.stage("decode_video")
    items = tuple(open_media(item, chosen, progress=progress, fit=fit) for item in media)
    spent = (time.perf_counter() - start) * 1000
    ms = {"decode_video": spent - clock.ms, "preprocess": clock.ms}
    return Reading(items, tuple(line for item in items for line in item.warnings), ms)


class _FitClock:
    """A fit that counts its time, which is the preprocessing's and not the decoder's."""

    def __init__(self, fit: Fit | None) -> None:
        self._fit, self.ms = fit, 0.0

    def fit(self, frame: Frame) -> Frame:
        assert self._fit, "given to a reader only where there is one"
        start = time.perf_counter()
        fitted = self._fit(frame)
        self.ms += (time.perf_counter() - start) * 1000
        return fitted
