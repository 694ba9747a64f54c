"""Measures a model's pace in a few seconds: the tower alone, prefills of rows that are there, and whole small runs.

Everything goes through what a prompt goes through (engine/), so other kernels or options show by themselves. A slow
model gets fewer and smaller runs, but at least one of each kind that it needs.
"""

from __future__ import annotations

import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ...config import VisualTokenConfig
from ...engine.contexts import open_context
from ...engine.model import Model
from ...engine.plan import Plan, check_tokens, context_size
from ...engine.prefill import Filled, prefill
from ...engine.read import Begun, Reading
from ...engine.tile_rows import ItemRows
from ...engine.watch import Watch
from ...errors import AimError, ModelError
from ...media import FrameSampling, Video
from ...media.outline import Outline
from ...media.speed import measure_reading
from ...models.base import Frame, TowerFacts
from ...models.pieces import Rows
from ...reduction.planner import encoder_flops, kv_bytes
from ...settings import parse_setting
from .calibration import Features, Seconds, fit
from .features import features
from .pace import Pace
from .request import Request, plan_request
from .sizes import measure_sizes, tower_facts
from .trials import write_clip

SECONDS = 6.0  # about what measuring may take; a slow model takes what it needs for the least of it
_TILE_SECONDS, _TILE_RUNS = 1.5, 12
_ROUNDS = 3
_FIT_ALL = 4  # settings from which on the parts of a prefill are told apart
_CLIP = (640, 360, 120)  # width, height, frames
_WORDS = 20
_STAGES = ("merge", "prefill", "importance", "other")
# frames and setting, growing; those that would take too long are left out
_SETTINGS = (
    (2, "paper"), (2, "off"), (6, "paper"), (4, "off"), (12, "paper"), (8, "off"), (24, "paper"),
    (16, "paper:keep=0.5"), (32, "paper"), (16, "off"), (32, "paper:keep=0.5"),
)  # fmt: skip
_WHOLE = ((2, "paper"), (8, "paper"), (16, "off"))


def measure_pace(model: Model, watch: Watch, seconds: float = SECONDS) -> Pace:
    """The pace of a model with its weights, in its turn. Raises ModelError for a tower that cannot be planned."""
    facts = tower_facts(model)
    if facts is None:
        raise ModelError(
            f"{model.name}: its vision tower cannot be measured apart; give a number of frames, not a time"
        )
    plain = model.with_config(replace(model.config, reuse_frames="equal", cache_media=False))
    return _Stopwatch(plain, facts, watch, time.perf_counter() + seconds).pace()


@dataclass(frozen=True)
class _Run:
    """One run: what it had to do, and the seconds of its stages. read_s: of reading and encoding together."""

    amounts: Features
    seconds: Seconds
    read_s: float = 0.0


class _Stopwatch:
    """Measures one model until `until` (time.perf_counter()), about."""

    def __init__(self, model: Model, facts: TowerFacts, watch: Watch, until: float) -> None:
        self.model, self.facts, self.watch, self.until = model, facts, watch, until
        self.prunes = can_prune(model)
        self.pixels = np.random.default_rng(0).integers(0, 255, (facts.height, facts.width, 3), np.uint8)

    @property
    def left(self) -> float:
        return self.until - time.perf_counter()

    def pace(self) -> Pace:
        tile_s, rows = self._tile()
        runs = self._prefills(rows)
        beside = 1.0  # without whole runs: decoding is little beside such a tower, and counted in full
        with tempfile.TemporaryDirectory() as folder:
            whole, shares = self._whole_runs(Path(folder), tile_s)
        if shares:
            beside = statistics.median(shares)
        rates = _fitted([*runs, *whole])
        rates["vision"] = {"flops": tile_s / encoder_flops(self.facts.vision, 1)}
        return Pace(rates, beside, _stored_seconds(), datetime.now(UTC).isoformat(timespec="seconds"))

    # --- the tower -------------------------------------------------------------------------------------------------

    def _tile(self) -> tuple[float, Rows]:
        """Seconds of a tile, and its rows."""
        rows, times = self._encoded()[0], list[float]()  # the first one reads the weights
        while not times or (len(times) < _TILE_RUNS and sum(times) < _TILE_SECONDS):
            self.watch.check()
            rows, seconds = self._encoded()
            times.append(seconds)
        return statistics.median(times), rows

    def _encoded(self) -> tuple[Rows, float]:
        """A tile's rows, and seconds of the encoder alone."""
        tower, found = self.model.tower, list[tuple[Rows, float]]()
        assert tower is not None, "it has facts"

        def timed(number: int, pixels: Frame | None, encode: Callable[[], Rows], /, *, shared: bool = True) -> Rows:
            start = time.perf_counter()
            rows = encode()
            found.append((rows, time.perf_counter() - start))
            return rows

        tower.encode(self._video(self.facts.n_frames), VisualTokenConfig.off(), [0], timed)
        return found[0]

    # --- prefills of rows that are there ---------------------------------------------------------------------------

    def _prefills(self, rows: Rows) -> list[_Run]:
        found, slowest = list[_Run](), 0.0
        self._prefill(rows, 1, "paper")  # the first one reads the weights
        for n_frames, setting in _SETTINGS:
            if len(found) >= 2 and 3 * slowest > self.left:
                break
            once = self._prefill(rows, n_frames, setting)
            slowest = sum(once.seconds.values())
            rounds = [once] + [self._prefill(rows, n_frames, setting) for _ in range(self._rounds(slowest))]
            found.append(_Run(once.amounts, _medians([run.seconds for run in rounds])))
        return found

    def _rounds(self, once: float) -> int:
        """How often a run is repeated: what is cheap is measured several times."""
        return max(0, min(_ROUNDS, int(0.1 * self.left / max(once, 1e-9))))

    def _prefill(self, rows: Rows, n_frames: int, setting: str) -> _Run:
        self.watch.check()
        video, start = self._video(n_frames), time.perf_counter()
        items = ItemRows(None, stored=[rows] * -(-n_frames // self.facts.n_frames))
        plan = plan_request(self.model, self._request(n_frames, setting), [video.shape])
        filled = self._filled(plan, Reading((video,), (), {}, (items,)))
        return self._timed(plan, _outline(video), filled, time.perf_counter() - start)

    def _filled(self, plan: Plan, reading: Reading) -> Filled:
        context = open_context(self.model, plan, context_size(self.model, plan, 512) - plan.n_visual)
        try:
            items, rows = dict(enumerate(reading.items)), dict(enumerate(reading.rows))
            filled = prefill(self.model, plan, items, context, self.watch, reading, rows)
            context.logits()
            return filled
        finally:
            context.close()

    def _timed(self, plan: Plan, outline: Outline, filled: Filled, whole: float, read_s: float = 0.0) -> _Run:
        stats = filled.stats
        seconds = {
            "merge": stats.merge_ms / 1000,
            "prefill": (stats.prefill_ms - stats.importance_ms) / 1000,
            "importance": stats.importance_ms / 1000,
        }
        seconds["other"] = max(0.0, whole - read_s - sum(seconds.values()))
        return _Run(amounts(self.model, plan, [outline]), seconds, read_s)

    def _video(self, n_frames: int) -> Video:
        frames = np.broadcast_to(self.pixels, (n_frames, *self.pixels.shape))
        times, size = np.arange(n_frames, dtype=np.float64), self.pixels.shape[:2]
        return Video(frames, times, np.arange(n_frames), "frames", float(n_frames), n_frames, 1.0, (), "", size)

    def _request(self, n_frames: int, setting: str) -> Request:
        prompt, sampling = " ".join(["what"] * _WORDS), FrameSampling(n_frames=n_frames)
        return Request(prompt, (), parse_setting(setting if self.prunes else _merged(setting)), sampling)

    # --- whole runs ------------------------------------------------------------------------------------------------

    def _whole_runs(self, folder: Path, tile_s: float) -> tuple[list[_Run], list[float]]:
        """Runs from a file, where the tower is fast enough for decoding to count; and see Pace.beside."""
        fits = [(n, setting) for n, setting in _WHOLE if 3 * n * tile_s < 0.3 * self.left]
        if len(fits) < len(_WHOLE):
            return [], []
        clip = write_clip(folder / "clip.mp4", *_CLIP)
        assert self.model.tower is not None, "it has facts"
        self._whole(clip, 1, "paper")
        runs, shares = [], []
        for n_frames, setting in fits:
            for _ in range(_ROUNDS):
                indexed, speed = measure_reading(clip, self.model.tower.fit_for)
                outline = indexed.outline(FrameSampling(n_frames=n_frames))
                decoding, encoding = speed.decode(outline) + speed.keep(outline), n_frames * tile_s
                run = self._whole(clip, n_frames, setting)
                runs.append(run)
                more = run.read_s - speed.open_s - max(decoding, encoding)
                shares.append(min(1.0, max(0.0, more / min(decoding, encoding))))
        return runs, shares

    def _whole(self, clip: Path, n_frames: int, setting: str) -> _Run:
        model, request, start = self.model, self._request(n_frames, setting), time.perf_counter()
        with closing(Begun(model, [clip], request.sampling, self.watch)) as begun:
            reading = begun.finish()
            read_s = time.perf_counter() - start
            plan = plan_request(model, request, [item.shape for item in reading.items])
            filled = self._filled(plan, reading)
        video = reading.items[0]
        assert isinstance(video, Video), "a clip was given"
        return self._timed(plan, _outline(video), filled, time.perf_counter() - start, read_s)


def amounts(model: Model, plan: Plan, outlines: Sequence[Outline]) -> dict[str, dict[str, float]]:
    """What a planned prompt has to do, by stage: reading and decoding of later tokens left out."""
    sizes = measure_sizes(model, plan, outlines)
    config = model.config
    cells = kv_bytes(model.text.shape, sum(sizes.rows), config.type_k, config.type_v)
    found = features(model, sizes, cells, outlines)
    return {stage: found[stage] for stage in ("vision", *_STAGES)}


def can_prune(model: Model) -> bool:
    try:
        check_tokens(model, VisualTokenConfig.paper())
    except AimError:
        return False
    return True


def _merged(setting: str) -> str:
    return "merge-only" if setting == "paper" else setting.replace("paper", "merge-only")


def _outline(video: Video) -> Outline:
    """Of frames that are there."""
    return Outline(video.shape, 0, 0, 0, len(video.frames), ())


def _medians(runs: Sequence[Seconds]) -> Seconds:
    return {stage: statistics.median(run[stage] for run in runs) for stage in runs[0]}


def _fitted(runs: Sequence[_Run]) -> dict[str, dict[str, float]]:
    """Rates of the stages behind the tower.

    Few runs cannot tell the parts of a prefill apart: then a FLOP costs the same wherever it is.
    """
    measured = [run.seconds for run in runs]
    found = fit([_only(run.amounts, _STAGES) for run in runs], measured)
    if len({run.amounts["prefill"]["row_flops"] for run in runs}) < _FIT_ALL:
        flops = [{"prefill": {"flops": _prefill_flops(run.amounts)}} for run in runs]
        rate = fit(flops, measured)["prefill"]["flops"]
        found["prefill"] = {"row_flops": rate, "pair_flops": rate}
    return found


def _prefill_flops(found: Features) -> float:
    return found["prefill"]["row_flops"] + found["prefill"]["pair_flops"]


def _only(found: Features, stages: Sequence[str]) -> Features:
    return {stage: found[stage] for stage in stages}


def _stored_seconds() -> float:
    """Per byte of an entry of the store: most of it is the checksum."""
    data = bytes(8 << 20)
    start = time.perf_counter()
    hashlib.sha256(data).digest()
    return (time.perf_counter() - start) / len(data)
