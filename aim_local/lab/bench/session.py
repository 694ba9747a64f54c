"""One loaded model, and runs of it measured stage by stage: frames in, a number of decoded tokens out.

The product's own run (run.py) is what is timed. Leaves to others: which runs, in which order, and what they say.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np

from ...config import LoadConfig, VisualTokenConfig
from ...engine.contexts import PrunedContext
from ...engine.plan import Media, PromptPlan, Run
from ...errors import MediaError, ModelError
from ...llm import VisionLLM
from ...media import FrameSampling
from ...models.pieces import MediaPiece, VisualBlock, count_text, count_visual, count_visual_full
from ...models.prompt import mark_raw
from ...models.rows import RowsTower
from ...native.library import llama
from ...native.llama import Context, TextModel, thread_count
from ...results import STAGES
from ...store.names import ModelPaths
from ..measure import peak_rss_bytes, reset_peak_rss

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


class _TimedRun(Run):
    """A run that also counts the processor time of its prefill, of all threads."""

    cpu_ms = 0.0

    def _append_pruned(self, context: PrunedContext, plan: PromptPlan, blocks: dict[int, VisualBlock]) -> list[int]:
        start = time.process_time()
        positions = super()._append_pruned(context, plan, blocks)
        self.cpu_ms += (time.process_time() - start) * 1e3
        return positions

    def _append_pieces(self, context: Context, plan: PromptPlan, blocks: dict[int, VisualBlock]) -> list[int]:
        start = time.process_time()
        positions = super()._append_pieces(context, plan, blocks)
        self.cpu_ms += (time.process_time() - start) * 1e3
        return positions


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

    Own the weights: `close()` or `with`.
    """

    def __init__(
        self, paths: ModelPaths, config: LoadConfig, *, video: Path | None = None, skip_vision: bool = False
    ) -> None:
        self.paths, self.video = paths, video
        self.llm = VisionLLM(replace(paths, mmproj=None) if skip_vision else paths, config)
        self._rows: RowsTower | None = None
        try:
            self._take_tower(skip_vision)
        except BaseException:
            self.llm.close()
            raise

    def _take_tower(self, skip_vision: bool) -> None:
        if skip_vision:
            self._rows = RowsTower.like(self.paths, self.llm.text)
            self.llm.vision = cast(Any, self._rows)
        elif self.llm.vision is None:
            raise ModelError(f"{self.paths.name} has no vision tower; name it with --mmproj, or take --skip-vision")

    @property
    def text(self) -> TextModel:
        return self.llm.text

    @property
    def n_threads(self) -> int:
        return thread_count(self.llm.config.n_threads, self.text.n_embd)

    def count(self, n_frames: int, tokens: VisualTokenConfig) -> Counts:
        """Tokens of the prompt that `run` would take; computes nothing."""
        run = self._read(n_frames, tokens)
        pieces = run.plan(mark_raw(PROMPT, 1)).pieces
        assert any(isinstance(p, MediaPiece) for p in pieces)
        return Counts(count_text(pieces), count_visual(pieces), count_visual_full(pieces))

    def run(self, n_frames: int, tokens: VisualTokenConfig, n_decode: int = 32) -> Measured:
        """Video to first token, then n_decode given tokens one by one, in a fresh context."""
        if self._rows:
            self._rows.prepare(n_frames)
        is_apart, start = reset_peak_rss(), time.perf_counter()
        run = self._read(n_frames, tokens)
        with ExitStack() as stack:
            context = run.start(mark_raw(PROMPT, 1), n_answer=n_decode + 1)
            stack.callback(context.close)
            waited = self._wait(context)  # a GPU is still at work here
            ms = {stage: float(getattr(run.stats, f"{stage}_ms")) for stage in STAGES}
            ms["prefill"] += waited
            ms["prefill_cpu"] = run.cpu_ms
            ms["first_token"] = (time.perf_counter() - start) * 1e3
            ms["decode"] = self._decode(context, n_decode)
        stats = run.stats
        return Measured(
            n_frames, stats.n_text, stats.n_visual, stats.n_visual_full, stats.n_prompt, stats.kv_bytes,
            peak_rss_bytes() if is_apart else None, stats.flops,
            {k: v for k, v in ms.items() if not (self._rows and k in SKIPPED)},
        )  # fmt: skip

    def run_tokens(self, n_frames: int, n_decode: int = 32) -> Measured:
        """As many text tokens as `run` has rows unreduced: the same tokens that stock llama.cpp is given."""
        from ...reduction.planner import prefill_flops

        counts, shape = self.count(n_frames, VisualTokenConfig.off()), self.text.shape
        n, is_apart = counts.n_text + counts.n_visual_full, reset_peak_rss()
        context = Context(self.text, n + n_decode)
        try:
            start, start_cpu = time.perf_counter(), time.process_time()
            context.decode_tokens(given_tokens(n), logits=True)
            self._wait(context)
            prefill, cpu = (time.perf_counter() - start) * 1e3, (time.process_time() - start_cpu) * 1e3
            ms = {"prefill": prefill, "prefill_cpu": cpu, "decode": self._decode(context, n_decode)}
            kv_bytes, rss = context.kv_bytes(), peak_rss_bytes() if is_apart else None
        finally:
            context.close()
        flops = prefill_flops(shape, counts.n_text, [counts.n_visual_full] * shape.n_layer)
        full = counts.n_visual_full
        return Measured(n_frames, counts.n_text, full, full, n, kv_bytes, rss, flops, ms)

    def _read(self, n_frames: int, tokens: VisualTokenConfig) -> _TimedRun:
        run = _TimedRun(self.llm, tokens, FrameSampling(n_frames=n_frames), None)
        media: Media = np.zeros((n_frames, 2, 2, 3), np.uint8) if self._rows or not self.video else self.video
        run.read([media])
        if run.stats.n_frames != n_frames:
            raise MediaError(
                f"{self.video} has {run.stats.n_frames} frames, {n_frames} are asked for; take a longer clip"
            )
        return run

    def _wait(self, context: Context) -> float:
        """Milliseconds until the device is done."""
        start = time.perf_counter()
        llama.llama_synchronize(context.handle)
        return (time.perf_counter() - start) * 1e3

    def _decode(self, context: Context, n: int) -> float:
        """Milliseconds a token."""
        start = time.perf_counter()
        for token in given_tokens(n):
            context.decode_tokens([token], logits=True)
            llama.llama_synchronize(context.handle)
        return (time.perf_counter() - start) * 1e3 / n

    def close(self) -> None:
        self.llm.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def given_tokens(n: int) -> list[int]:
    """Token ids that every vocabulary has; stock_side.py writes the same."""
    return [7 * i % 100 for i in range(n)]
