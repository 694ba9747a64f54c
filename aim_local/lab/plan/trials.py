"""Measures a model on this machine over settings of different size, and fits and proves a calibration with them.

Every run is whole: a clip read from disk, encoded, prefilled, a few tokens decoded. Each round goes through all the
settings in an order of its own, so that a slow minute falls on fitted and proving ones alike; medians are taken.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...config import VisualTokenConfig
from ...engine.contexts import Context, open_context
from ...engine.model import Model
from ...engine.plan import check_tokens, context_size
from ...engine.prefill import prefill
from ...engine.read import read_media
from ...engine.watch import Watch
from ...errors import AimError
from ...media import FrameSampling
from ...results import Stats
from ...settings import parse_setting
from .calibration import Calibration, Seconds, Trial, fit, predict, total
from .features import STAGES, conditions, features, model_shape, this_machine
from .request import Request, outline_all, plan_request
from .sizes import measure_sizes, tower_facts

if TYPE_CHECKING:
    from ...llm import VisionLLM

SECONDS = 240.0  # what the measuring may take, about; large models get fewer frames, small ones more rounds
ROUNDS = (3, 9)  # least and most
_N_DECODE = 6
_MOST_FRAMES = 32
_WORDS_A_FRAME = 16  # of a text-only model's questions, in place of frames
# width, height, frames at 25 a second: short and long, small and large, so that opening, indexing and decoding show
# apart; the last three are for the proof
_CLIPS = (
    (224, 224, 64),
    (320, 240, 250),
    (640, 360, 200),
    (160, 120, 3000),
    (256, 144, 100),
    (480, 270, 150),
    (200, 160, 1500),
)

OnTrial = Callable[[str, int, int], None]  # (setting, done, all)


@dataclass(frozen=True)
class Setting:
    """One point to measure. share: of the most frames; words: of the question; clip: index into _CLIPS."""

    name: str
    share: float
    words: int
    clip: int
    fitted: bool

    def label(self, n_frames: int) -> str:
        return f"{n_frames} frames, {self.name}, {self.words} words"


SETTINGS = (
    Setting("off", 0.125, 20, 0, True),
    Setting("off", 0.5, 120, 2, True),
    Setting("off", 1.0, 20, 1, True),
    Setting("merge-only", 1.0, 20, 3, True),
    Setting("paper", 1.0, 20, 0, True),
    Setting("paper", 0.5, 120, 1, True),
    Setting("prune-only", 0.5, 20, 3, True),
    Setting("prune-only", 1.0, 60, 2, True),
    Setting("off", 0.75, 60, 4, False),
    Setting("off", 0.25, 40, 5, False),
    Setting("paper", 0.75, 60, 6, False),
    Setting("fast", 1.0, 20, 4, False),
    Setting("late-drop", 1.0, 40, 5, False),
    Setting("prune-only", 0.75, 20, 6, False),
    Setting("merge-only", 0.5, 120, 4, False),
)
# for models that cannot prune: the same amounts of work by merging alone
_MERGED = {"paper": "merge-only", "prune-only": "merge-only:keep=0.5", "fast": "merge-only:keep=0.125"}
_MERGED |= {"late-drop": "merge-only:keep=0.75"}


def calibrate(llm: VisionLLM, progress: OnTrial | None = None, seconds: float = SECONDS) -> Calibration:
    """Measures, fits, and compares with settings that were not fitted. Raises AimError."""
    say = progress or (lambda *_: None)
    with tempfile.TemporaryDirectory() as folder, llm.turns.take() as check:
        clips = [write_clip(Path(folder) / f"{i}.mp4", *size) for i, size in enumerate(_CLIPS)]
        every = llm.model.with_config(replace(llm.model.config, reuse_frames="equal", cache_media=False))
        bench = _Bench(every, clips, Watch(check=check))
        most, rounds = bench.extent(seconds)
        found: list[list[_Timed]] = [[] for _ in SETTINGS]
        for i in range(rounds):
            for k, at in enumerate(np.random.default_rng(i).permutation(len(SETTINGS))):
                say(SETTINGS[at].name, i * len(SETTINGS) + k, rounds * len(SETTINGS))
                found[at].append(bench.run(SETTINGS[at], most))
        say("done", rounds * len(SETTINGS), rounds * len(SETTINGS))
        return _proved(bench, most, found)


@dataclass(frozen=True)
class _Timed:
    """One run: seconds by stage, and the size of its KV cache."""

    seconds: Seconds
    kv_bytes: int


def _proved(bench: _Bench, most: int, found: list[list[_Timed]]) -> Calibration:
    model = bench.model
    amounts = [bench.amounts(s, most, timed[0].kv_bytes) for s, timed in zip(SETTINGS, found, strict=True)]
    times = [[timed.seconds for timed in rounds] for rounds in found]
    measured = [{stage: statistics.median(one[stage] for one in rounds) for stage in STAGES} for rounds in times]
    known = [i for i, setting in enumerate(SETTINGS) if setting.fitted]
    rates = fit([amounts[i] for i in known], [measured[i] for i in known])
    trials = tuple(
        Trial(s.label(bench.n_frames(s, most)), s.fitted, len(f), _spread(f), m, predict(rates, a))
        for s, f, m, a in zip(SETTINGS, times, measured, amounts, strict=True)
    )
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return Calibration(model.name, date, model_shape(model), conditions(model), this_machine(), rates, trials)


class _Bench:
    """Runs settings on one model. most: the most frames."""

    def __init__(self, model: Model, clips: Sequence[Path], watch: Watch) -> None:
        self.model, self.clips, self.watch = model, clips, watch
        self.sees = tower_facts(model) is not None
        self.prunes = self._can_prune()

    def _can_prune(self) -> bool:
        try:
            check_tokens(self.model, VisualTokenConfig.paper())
        except AimError:
            return False
        return True

    def n_frames(self, setting: Setting, most: int) -> int:
        return max(1, round(setting.share * most)) if self.sees else 0

    def extent(self, seconds: float) -> tuple[int, int]:
        """(most frames, rounds) so that measuring takes about `seconds`, judged by one small run."""
        small = replace(SETTINGS[0], share=1.0)
        self.run(small, 1)  # pages and caches
        once = sum(self.run(small, 1).seconds.values())
        shares = sum(setting.share for setting in SETTINGS)
        wanted = min(_MOST_FRAMES, 2 * self.model.default_frames) if self.sees else _MOST_FRAMES
        least, most = ROUNDS
        fits = [n for n in (32, 16, 8) if n <= wanted and least * shares * n * once <= seconds]
        n_frames = fits[0] if fits else min(4, wanted)
        rounds = int(seconds / (shares * n_frames * once))
        return n_frames, max(1, min(most, rounds))

    def _tokens(self, setting: Setting) -> VisualTokenConfig | None:
        if not self.sees:
            return None
        return parse_setting(setting.name if self.prunes else _MERGED.get(setting.name, setting.name))

    def _question(self, setting: Setting, most: int) -> str:
        n = setting.words + (0 if self.sees else round(setting.share * most * _WORDS_A_FRAME))
        return " ".join(["what"] * n)

    def _request(self, setting: Setting, most: int) -> Request:
        media = [self.clips[setting.clip]] if self.sees else []
        sampling = FrameSampling(n_frames=max(1, self.n_frames(setting, most)))
        return Request(self._question(setting, most), media, self._tokens(setting), sampling, n_answer=_N_DECODE + 1)

    def run(self, setting: Setting, most: int) -> _Timed:
        """One run, from the file to a few decoded tokens."""
        model, request, start = self.model, self._request(setting, most), time.perf_counter()
        reading = read_media(model, request.media, request.sampling, self.watch)
        plan = plan_request(model, request, [item.shape for item in reading.items])
        context = open_context(model, plan, context_size(model, plan, request.n_answer) - plan.n_visual)
        try:
            filled = prefill(model, plan, dict(enumerate(reading.items)), context, self.watch, reading)
            token = int(np.argmax(context.logits()))
            first_token = time.perf_counter() - start
            decode = statistics.median(_decode_once(context, token) for _ in range(_N_DECODE))
        finally:
            context.close()
        return _Timed(_by_stage(filled.stats, first_token, decode), filled.stats.kv_bytes)

    def amounts(self, setting: Setting, most: int, kv_bytes: int) -> dict[str, dict[str, float]]:
        """What that run had to do, as the plan counts it."""
        request = self._request(setting, most)
        outlines = outline_all(self.model, request)
        plan = plan_request(self.model, request, [outline.shape for outline in outlines])
        return features(self.model, measure_sizes(self.model, plan, outlines), kv_bytes, outlines)


def _decode_once(context: Context, token: int) -> float:
    """Seconds of one more token."""
    start = time.perf_counter()
    context.decode_tokens([token], logits=True)
    context.logits()
    return time.perf_counter() - start


def _spread(rounds: list[Seconds]) -> float:
    times = [total(seconds) for seconds in rounds]
    return (max(times) - min(times)) / statistics.median(times)


def _by_stage(stats: Stats, first_token: float, decode: float) -> Seconds:
    found = {stage: getattr(stats, f"{stage}_ms") / 1000 for stage in STAGES if hasattr(stats, f"{stage}_ms")}
    found["prefill"] -= found["importance"]
    found["other"] = 0.0
    found["decode"] = 0.0
    found["other"] = max(0.0, first_token - sum(found.values()))
    found["decode"] = decode
    return found


def write_clip(path: Path, width: int, height: int, n_frames: int) -> Path:
    """A clip with something moving over a textured ground, 25 frames a second, a key frame every two seconds."""
    import av

    ground = np.random.default_rng(0).integers(60, 120, (height, width, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "28"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", 50
        stream.codec_context.time_base = Fraction(1, 25)
        for i in range(n_frames):
            pixels = np.roll(ground, i, axis=1)
            at = 3 * i % max(1, width - 40)
            pixels[height // 4 : height // 4 + 40, at : at + 40] = (220, 40, i % 256)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path
