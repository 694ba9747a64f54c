"""What a comparison reads, writes and reports: plain frozen data, and its JSON form. Computes nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..measure import Spread


@dataclass(frozen=True)
class Item:
    """One question of a suite. answer: None where there is none to compare with.

    choices: texts of the options, first is A; answer is then one of A, B, C, ... tags: for figures by group.
    start, end: part of a video in seconds, where the suite says so.
    """

    id: str
    media: tuple[Path, ...]
    question: str
    answer: str | None = None
    choices: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Suite:
    """Questions in a fixed order. sha256: of the questions and of the media's bytes."""

    name: str
    items: tuple[Item, ...]
    sha256: str


@dataclass(frozen=True)
class CellSpec:
    """One cell of the matrix: a pair of model files with one visual-token setting.

    model: how the report names the files. setting: text form (settings.parse_setting). key: "MODEL / SETTING".
    load: changes of the comparison's load options (settings.refine_load), "" for none.
    """

    model: str
    setting: str
    model_path: Path
    mmproj_path: Path | None
    load: str = ""

    @property
    def key(self) -> str:
        return f"{self.model} / {self.setting}"


@dataclass(frozen=True)
class ItemResult:
    """One answered question; a line of a cell's JSONL file.

    text, tokens: the greedy answer. scored: what is compared with the expected answer, the choice's letter or the text.
    right: None without an expected answer. kld, top1: KL divergence from the reference's next-token distribution
    (nats) and whether the likeliest token is the same, per token of the reference's answer, end of turn included.
    stats: Stats.to_dict() of the run. first: it was its process's first, whose times hold the warm-up.
    peak_rss_bytes: of its process up to then.
    machine: of a cluster's worker that answered; "": the one where the comparison ran.
    """

    id: str
    text: str
    tokens: list[int]
    scored: str
    right: bool | None
    kld: list[float] | None
    top1: list[bool] | None
    stats: dict[str, Any]
    first: bool = False
    peak_rss_bytes: int = 0
    machine: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Rate:
    """k of n, with a 95 % Wilson interval."""

    k: int
    n: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.k / self.n


@dataclass(frozen=True)
class Paired:
    """McNemar's exact test against the reference.

    only_reference: items right there and wrong here; only_here: the opposite; both of n that have an expected answer.
    """

    only_reference: int
    only_here: int
    p: float
    n: int


@dataclass(frozen=True)
class Divergence:
    """KL divergence from the reference in nats over n next-token distributions, and top-1 agreement."""

    mean: float
    median: float
    p99: float
    top1: Rate
    n: int


@dataclass(frozen=True)
class Verdict:
    """Whether a cell keeps the reference's accuracy within the report's margin (verdict.py says how it is found).

    kind: "within", "loses" (more than the margin), "undecided" (too few questions), or "none" with the reason.
    points, low, high: difference in percentage points with its 95 % interval, over n questions. p: one-sided, that the
    loss is the margin or more; p_holm: adjusted for all cells with a verdict. needed: questions, where undecided.
    label: in a few words; text: a sentence.
    """

    kind: str
    label: str
    text: str
    reason: str = ""
    points: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    p: float | None = None
    p_holm: float | None = None
    needed: int | None = None


@dataclass(frozen=True)
class Gain:
    """What a cell costs beside the reference. what: "first token" (ms), "KV cache", "peak memory", "files" (bytes)."""

    what: str
    value: float
    reference: float


@dataclass(frozen=True)
class Recommendation:
    """What to use, or what is missing before anything can be said.

    kind: "use", "more questions", or "none". key: the cell to use, "" for none. headline: in a few words; text:
    sentences. gains: of the cell to use. needed: questions, where they are missing.
    """

    kind: str
    headline: str
    text: tuple[str, ...]
    key: str = ""
    gains: tuple[Gain, ...] = ()
    needed: int | None = None


@dataclass(frozen=True)
class CellSummary:
    """A row of the report. status: "done", "failed" (reason says why) or "partial" (interrupted, or not started).

    accuracy: None where no item has an answer. paired, agreement, divergence: None for what cannot be compared, with
    a note. stages: median and spread of milliseconds per stage name. Means are over items. toy: the bundled toy model
    answered about clips that are not of its world. verdict: None for the reference. machines: of a cluster, where its
    times were measured.
    """

    model: str
    setting: str
    is_reference: bool
    status: str
    reason: str = ""
    n_items: int = 0
    n_done: int = 0
    accuracy: Rate | None = None
    by_tag: dict[str, Rate] = field(default_factory=dict)
    paired: Paired | None = None
    agreement: Rate | None = None
    divergence: Divergence | None = None
    ttft_ms: Spread | None = None
    stages: dict[str, Spread] = field(default_factory=dict)
    prefill_tps: Spread | None = None
    decode_tps: Spread | None = None
    n_visual_full: float = 0.0
    n_visual: float = 0.0
    flops_share: float = 1.0
    kv_bytes: float = 0.0
    peak_rss_bytes: int = 0
    model_bytes: int = 0
    mmproj_bytes: int = 0
    toy: bool = False
    notes: tuple[str, ...] = ()
    verdict: Verdict | None = None
    machines: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.model} / {self.setting}"


@dataclass(frozen=True)
class Report:
    """A whole comparison. machine: measure.machine(). command: how it was made.

    margin: percentage points of accuracy that may be lost. chance: share that guessing gets right, None where nothing
    is known. recommendation: verdict.judged() makes it, with the verdicts of the cells.
    """

    suite: str
    suite_sha256: str
    n_items: int
    reference: str  # key of the reference cell
    cells: tuple[CellSummary, ...]
    machine: dict[str, Any]
    command: str
    created: str  # ISO 8601, UTC
    margin: float = 1.0
    chance: float | None = None
    recommendation: Recommendation | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
