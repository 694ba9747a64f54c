"""A wanted time to the first token becomes frames and a setting: what `--ttft` does.

    choice = choose_ttft(llm, Request("What happens?", ["clip.mp4"]), seconds=10)
    answer = llm.generate("What happens?", ["clip.mp4"], tokens=choice.tokens, sampling=choice.sampling)
    choice.predicted_s, choice.measured_s(answer.stats)

Knows what a prompt has to do (plan), how fast this machine does it (pace.py), how fast these very files are read
(media/speed.py), and which of them are in the store. The order of what is given up is rungs.py's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...config import VisualTokenConfig
from ...engine.intake import entry_key
from ...engine.model import Model
from ...engine.plan import context_size
from ...errors import ContextError
from ...media import FrameSampling
from ...media.given import MediaItem
from ...media.outline import Indexed, Outline
from ...media.speed import ReadingSpeed, measure_reading
from ...models.base import TowerFacts
from ...results import Stats
from .calibration import predict
from .pace import Pace, forget_pace, load_pace, pace_facts, save_pace
from .pacing import amounts, can_prune, measure_pace
from .request import Request, check_sees, plan_request, with_frames
from .rungs import Rung, check_ttft, cost_by_rung, ladder, pick
from .sizes import tower_facts

if TYPE_CHECKING:
    from ...llm import VisionLLM

OFF = 0.25  # a prediction that is off by more says that the pace does not hold any more


@dataclass(frozen=True)
class Estimate:
    """Seconds of one run. stages: named as in Stats; decoding runs beside the tower, so total is not their sum.

    n_stored: media whose rows are in the store.
    """

    total: float
    stages: dict[str, float]
    n_stored: int


@dataclass(frozen=True)
class TtftChoice:
    """What was chosen. request: with its frames and setting. setting: the name, "" for what was asked.

    spent_s: what choosing took, which counts: wanted is from the question to the first token.
    """

    wanted_s: float
    spent_s: float
    met: bool
    request: Request
    n_frames: int
    setting: str
    estimate: Estimate

    @property
    def tokens(self) -> VisualTokenConfig | None:
        return self.request.tokens

    @property
    def sampling(self) -> FrameSampling | None:
        return self.request.sampling

    @property
    def predicted_s(self) -> float:
        return self.spent_s + self.estimate.total

    def measured_s(self, stats: Stats) -> float:
        return self.spent_s + stats.ttft_ms / 1000

    def to_dict(self, stats: Stats | None = None) -> dict[str, Any]:
        """Plain values for JSON, milliseconds. stats: of the run, where there was one."""
        found: dict[str, Any] = {
            "wanted_ms": self.wanted_s * 1000,
            "met": self.met,
            "n_frames": self.n_frames,
            "setting": self.setting or None,
            "n_stored": self.estimate.n_stored,
            "choosing_ms": self.spent_s * 1000,
            "predicted_ms": self.predicted_s * 1000,
            "predicted_stages_ms": {stage: seconds * 1000 for stage, seconds in self.estimate.stages.items()},
        }
        return found | ({"measured_ms": self.measured_s(stats) * 1000} if stats else {})


def choose_ttft(llm: VisionLLM, request: Request, seconds: float) -> TtftChoice:
    """Frames and setting of a request for a first token after about `seconds`.

    The machine's pace is measured where there is none, which takes a few seconds that do not count. request.sampling:
    its frames are the most; request.tokens: kept where it is given. A time that cannot be met gives the fastest there
    is (`met`). Raises MediaError, ModelError, UsageError.
    """
    return Pacer(llm.model, find_pace(llm.model) or make_pace(llm)).choose(request, seconds)


def find_pace(model: Model) -> Pace | None:
    """This machine's pace of a model, where it was measured; without weights as with them. Raises ModelError."""
    check_sees(model)
    return load_pace(pace_facts(model))


def make_pace(llm: VisionLLM) -> Pace:
    """Measures and keeps it. Raises AimError, ModelError."""
    from ...engine.watch import Watch

    with llm.turns.take() as check:
        pace = measure_pace(llm.model, Watch(check=check))
    save_pace(pace_facts(llm.model), pace)
    return pace


def review(model: Model, choice: TtftChoice, stats: Stats) -> bool:
    """After the run: forgets a pace that does not hold any more, so that the next run measures it. Whether it did.

    A run that was faster because frames were reused, or encoded ahead, says nothing against it.
    """
    helped = stats.n_tiles_equal + stats.n_tiles_near + stats.n_tiles_ahead + stats.n_tiles_cached > 0
    off = choice.measured_s(stats) / choice.predicted_s - 1
    if not stats.ttft_ms or abs(off) <= OFF or (helped and off < 0):
        return False
    forget_pace(pace_facts(model))
    return True


@dataclass(frozen=True, eq=False)
class _Item:
    """A media item that was looked at."""

    source: MediaItem
    indexed: Indexed
    speed: ReadingSpeed


class Pacer:
    """Estimates and choices for one model."""

    def __init__(self, model: Model, pace: Pace) -> None:
        self.model, self.pace = model, pace
        facts = tower_facts(model)
        assert facts is not None, "its pace was measured"
        self.facts: TowerFacts = facts

    def choose(self, request: Request, seconds: float, *, choosing_counts: bool = True) -> TtftChoice:
        """See choose_ttft. choosing_counts: False where it is done before the question.

        Raises MediaError, UsageError, and ContextError where not even the least fits the context.
        """
        start = time.perf_counter()
        check_ttft(seconds, len(request.media))
        assert self.model.tower is not None, "it has facts"
        items = [
            _Item(item, *measure_reading(item, self.model.tower.fit_for, self.model.config.max_pixels))
            for item in request.media
        ]
        rungs, estimates = self._estimates(request, items)
        spent = time.perf_counter() - start if choosing_counts else 0.0
        picked = pick([estimate.total for estimate in estimates], seconds - spent)
        rung = rungs[picked.at]
        chosen = self._with(request, rung)
        return TtftChoice(seconds, spent, picked.met, chosen, rung.n_frames, rung.setting, estimates[picked.at])

    def _estimates(self, request: Request, items: Sequence[_Item]) -> tuple[list[Rung], list[Estimate]]:
        whole = request.sampling or FrameSampling(n_frames=self.model.default_frames)
        first = [item.indexed.outline(whole) for item in items]
        most = max((o.n_pictures for o in first if o.shape.kind == "video"), default=0)
        found: dict[Rung, Estimate] = {}
        problems: list[ContextError] = []

        def cost(rung: Rung) -> float | None:
            try:
                found[rung] = self._estimate(self._with(request, rung), items)
            except ContextError as e:
                problems.append(e)
                return None
            return found[rung].total

        rungs, _ = cost_by_rung(ladder(most, can_prune(self.model), request.tokens), cost)
        if not rungs:
            raise problems[0]
        return rungs, [found[rung] for rung in rungs]

    def _with(self, request: Request, rung: Rung) -> Request:
        asked = replace(request, tokens=rung.tokens)
        return with_frames(asked, rung.n_frames, self.model.default_frames) if rung.n_frames else asked

    def _estimate(self, request: Request, items: Sequence[_Item]) -> Estimate:
        """Raises ContextError where the prompt does not fit."""
        sampling = request.sampling or FrameSampling(n_frames=self.model.default_frames)
        outlines = [item.indexed.outline(sampling) for item in items]
        plan = plan_request(self.model, request, [outline.shape for outline in outlines])
        context_size(self.model, plan, request.n_answer)
        stored = [self._n_stored_bytes(item, sampling) for item in items]
        stages = predict(self.pace.rates, amounts(self.model, plan, outlines))
        return self._joined(items, outlines, stored, stages)

    def _joined(
        self, items: Sequence[_Item], outlines: Sequence[Outline], stored: Sequence[int], stages: dict[str, float]
    ) -> Estimate:
        """stored: bytes of each item's entry, 0 where it is decoded and encoded. stages: as if all were."""
        tower = self.model.tower
        assert tower is not None, "it has facts"
        opening = sum(item.speed.digest_s if n else item.speed.open_s for item, n in zip(items, stored, strict=True))
        new = [(item, outline) for item, outline, n in zip(items, outlines, stored, strict=True) if not n]
        decoding = sum(item.speed.decode(outline) for item, outline in new)
        fitting = sum(item.speed.keep(outline) for item, outline in new)
        tiles, all_tiles = (sum(tower.n_tiles(o.shape) for o in some) for some in ([o for _, o in new], outlines))
        vision = stages["vision"] * tiles / max(1, all_tiles)
        kept = self._n_tile_bytes() * tiles if self.model.config.cache_media else 0
        keeping = self.pace.stored_s * (sum(stored) + kept)
        behind = sum(stages[stage] for stage in ("merge", "prefill", "importance", "other"))
        shown = {
            "decode_video": opening + decoding,
            "preprocess": fitting,
            "vision": vision,
            "merge": stages["merge"],
            "prefill": stages["prefill"] + stages["importance"],
            "importance": stages["importance"],
            "other": stages["other"] + keeping,
        }
        total = opening + self.pace.together(decoding + fitting, vision) + behind + keeping
        return Estimate(total, shown, sum(n > 0 for n in stored))

    def _n_tile_bytes(self) -> int:
        """Of a tile in the store: its rows before merging, and its pixels."""
        return 4 * self.facts.n_slots * self.model.text.n_embd + self.facts.tile_bytes

    def _n_stored_bytes(self, item: _Item, sampling: FrameSampling) -> int:
        """Of the item's entry in the store, 0 where there is none."""
        store = self.model.encoded_store
        if store is None:
            return 0
        key = entry_key(self.model, item.source, sampling, item.speed.digest)
        return store.n_bytes(key)
