"""One loaded model, and runs of it measured stage by stage: frames in, a number of decoded tokens out.

The product's own functions (engine/) are what is timed, in the product's order. Leaves to others: which runs, in which
order, and what they say.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...config import LoadConfig, VisualTokenConfig
from ...engine.contexts import Context, open_context, open_plain
from ...engine.encode import encode_media
from ...engine.model import Model
from ...engine.plan import Plan, context_size, plan_prompt
from ...engine.read import read_media
from ...engine.watch import Watch
from ...errors import MediaError, ModelError
from ...media import FrameSampling, MediaShape, Video
from ...media.given import MediaItem
from ...media.outline import outline_media
from ...media.types import Pick
from ...models.prompt import mark_raw
from ...models.registry import open_tower
from ...models.rows import RowsTower
from ...models.text import TextModel
from ...reduction.planner import prefill_flops
from ...results import STAGES
from ...store.names import ModelPaths
from ..measure import peak_rss_bytes, reset_peak_rss
from .given import given_tokens

# 20 and 80 characters: 100 text tokens for the byte-level vocabulary of the random models
PROMPT = (
    "Look at this video: <__media__>Describe what happens in it: who does what, where, when, in which order and why?"
)
SKIPPED = ("decode_video", "preprocess", "vision")  # without a vision tower


@dataclass(frozen=True)
class Counts:
    """Tokens of a prompt. n_visual: after token merging; n_visual_full: before."""

    n_text: int
    n_visual: int
    n_visual_full: int


@dataclass(frozen=True)
class Measured:
    """One run. ms: by stage, those that ran, then "first_token" (the whole way to its logits) and "decode" (a token).

    "prefill" includes "importance"; "prefill_cpu" is its processor time, of all threads. flops: of the prefill, scoring
    not counted. peak_rss: bytes during this run, mapped weights included; None where the system only knows the
    process's.
    """

    n_frames: int
    n_text: int
    n_visual: int
    n_visual_full: int
    n_prompt: int
    kv_bytes: int
    peak_rss: int | None
    flops: float
    ms: dict[str, float]

    @property
    def prefill_tps(self) -> float:
        """Prompt tokens that enter the language model, a second of prefill."""
        return self.n_prompt / (self.ms["prefill"] / 1e3)

    @property
    def gflops(self) -> float:
        """10^9 operations a second in the language model's prefill, scoring taken out of the time."""
        return self.flops / 1e6 / (self.ms["prefill"] - self.ms.get("importance", 0.0))


class Session:
    """A model loaded for measuring. video: read in every run; None goes with skip_vision, where rows are drawn.

    pick: as in FrameSampling. Own the weights: `close()` or `with`.
    """

    def __init__(
        self,
        paths: ModelPaths,
        config: LoadConfig,
        *,
        video: Path | None = None,
        skip_vision: bool = False,
        pick: Pick = "auto",
    ) -> None:
        self.video, self._pick = video, pick
        self._rows: RowsTower | None = None
        if not skip_vision and paths.mmproj is None:
            raise ModelError(f"{paths.name} has no vision tower; name it with mmproj=FILE, or take skip_vision=True")
        if skip_vision:
            self.model, self._rows = open_without_vision(paths, config)
        else:
            self.model = Model.open(paths, config)

    @property
    def text(self) -> TextModel:
        return self.model.text

    def _sampling(self, n_frames: int) -> FrameSampling:
        return FrameSampling(n_frames=n_frames, pick=self._pick)

    def count(self, n_frames: int, tokens: VisualTokenConfig) -> Counts:
        """Tokens of the prompt that `run` would take; computes nothing."""
        outline = outline_media(self._media(n_frames), self._sampling(n_frames), self.model.config.max_pixels)
        plan = self._plan(outline.shape, n_frames, tokens)
        return Counts(plan.n_text, plan.n_visual, plan.n_visual_full)

    def run(self, n_frames: int, tokens: VisualTokenConfig, n_decode: int = 32) -> Measured:
        """Video to first token, then n_decode given tokens one by one, in a fresh context."""
        model, watch, media = self.model, Watch(), self._media(n_frames)
        if self._rows:
            self._rows.prepare(n_frames)
        is_apart, start = reset_peak_rss(), time.perf_counter()
        reading = read_media(model, [media], self._sampling(n_frames), watch)
        plan = self._plan(reading.items[0].shape, n_frames, tokens)
        with closing(open_context(model, plan, context_size(model, plan, n_decode + 1) - plan.n_visual)) as context:
            encoded = encode_media(model, plan, dict(enumerate(reading.items)), watch)
            clock = _Clock()
            appended = context.append(plan.pieces, encoded.blocks, plan.tokens, watch)
            context.decoder.wait()  # a GPU is still at work here
            ms = dict.fromkeys(STAGES, 0.0) | reading.ms
            ms |= {stage: ms[stage] + spent for stage, spent in encoded.ms.items()}
            ms |= {"importance": appended.importance_ms, **clock.prefill()}
            ms["first_token"] = (time.perf_counter() - start) * 1e3
            ms["decode"] = _decode(context, n_decode)
            kv_bytes, peak = context.kv_bytes(), peak_rss_bytes() if is_apart else None
        measured = {k: v for k, v in ms.items() if not (self._rows and k in SKIPPED)}
        flops = prefill_flops(self.text.shape, plan.n_text, plan.counts)
        return Measured(
            n_frames, plan.n_text, plan.n_visual, plan.n_visual_full, plan.n, kv_bytes, peak, flops, measured
        )

    def read(self, n_frames: int) -> tuple[NDArray[np.uint8], dict[str, float]]:
        """A frame for each run of the tower, as it takes it, uint8 [n, h, w, 3], and what `run` says that took.

        Of frames that are encoded together the first one: the unpatched library takes as long for it as for all.
        """
        reading = read_media(self.model, [self._media(n_frames)], self._sampling(n_frames), Watch())
        (video,) = (item for item in reading.items if isinstance(item, Video))
        n_tiles = self.model.tower.n_tiles(video.shape) if self.model.tower else 1
        return np.stack(list(video.frames)[:: -(-n_frames // n_tiles)]), reading.ms

    def run_tokens(self, n_frames: int, n_decode: int = 32) -> Measured:
        """As many text tokens as `run` has rows unreduced: the same tokens that stock llama.cpp is given."""
        counts, shape = self.count(n_frames, VisualTokenConfig.off()), self.text.shape
        n, full, is_apart = counts.n_text + counts.n_visual_full, counts.n_visual_full, reset_peak_rss()
        with closing(open_plain(self.model, n + n_decode)) as context:
            clock = _Clock()
            context.decode_tokens(given_tokens(n), logits=True)
            context.decoder.wait()
            ms = {**clock.prefill(), "decode": _decode(context, n_decode)}
            kv_bytes, peak = context.kv_bytes(), peak_rss_bytes() if is_apart else None
        flops = prefill_flops(shape, counts.n_text, [full] * shape.n_layer)
        return Measured(n_frames, counts.n_text, full, full, n, kv_bytes, peak, flops, ms)

    def _media(self, n_frames: int) -> MediaItem:
        """The clip; where no vision tower looks at it, so many tiny frames."""
        return np.zeros((n_frames, 2, 2, 3), np.uint8) if self.video is None or self._rows else self.video

    def _plan(self, shape: MediaShape, n_frames: int, tokens: VisualTokenConfig) -> Plan:
        if shape.n_frames != n_frames:
            raise MediaError(f"{self.video} has {shape.n_frames} frames, {n_frames} are asked for; take a longer clip")
        return plan_prompt(self.model, mark_raw(PROMPT, 1), [shape], tokens)

    def close(self) -> None:
        self.model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def open_without_vision(paths: ModelPaths, config: LoadConfig) -> tuple[Model, RowsTower]:
    """The language model alone; random rows are in the tower's place. Raises ModelError, UsageError."""
    model = Model.open(replace(paths, mmproj=None), config)
    try:
        rows = _rows_like(paths.mmproj, model.text)
    except BaseException:
        model.close()
        raise
    return model.with_tower(rows), rows


def _rows_like(mmproj: Path | None, text: TextModel) -> RowsTower:
    """As many as the tower of that file would make; its weights are not loaded."""
    if mmproj is None:
        return RowsTower.like(None, text)
    return RowsTower.like(open_tower(mmproj, text, weights=False), text)  # it goes on to count, and holds nothing


class _Clock:
    """Time and processor time, of all threads, since it was made."""

    def __init__(self) -> None:
        self._start, self._start_cpu = time.perf_counter(), time.process_time()

    def prefill(self) -> dict[str, float]:
        """Milliseconds so far, as a prefill's."""
        elapsed, cpu = time.perf_counter() - self._start, time.process_time() - self._start_cpu
        return {"prefill": elapsed * 1e3, "prefill_cpu": cpu * 1e3}


def _decode(context: Context, n: int) -> float:
    """Milliseconds a token."""
    start = time.perf_counter()
    for token in given_tokens(n):
        context.decode_tokens([token], logits=True)
        context.decoder.wait()
    return (time.perf_counter() - start) * 1e3 / n
