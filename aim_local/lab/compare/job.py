"""What a cell's process is told: plain frozen data and its JSON form. Computes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...config import LoadConfig
from ...errors import UsageError
from ...media.types import Pick
from .records import Item


@dataclass(frozen=True)
class Options:
    """What all cells of a comparison share.

    max_tokens: longest answer. kld_tokens: next-token distributions compared per item, 0 for none. n_frames: None for
    each model's own number. load: what is measured is computed here, so nothing comes from the cache of encoded clips
    unless it says so. memory_limit: bytes of address space a cell's process may take, mapped files included. pick: as
    in FrameSampling.
    """

    max_tokens: int = 64
    kld_tokens: int = 16
    n_frames: int | None = None
    load: LoadConfig = field(default_factory=lambda: LoadConfig(cache_media=False))
    memory_limit: int | None = None
    pick: Pick = "auto"

    def __post_init__(self) -> None:
        _at_least(1, "max_tokens", self.max_tokens)
        _at_least(0, "kld_tokens", self.kld_tokens)
        if self.n_frames is not None:
            _at_least(1, "n_frames", self.n_frames)
        if self.memory_limit is not None:
            _at_least(1, "memory_limit", self.memory_limit)

    def result_facts(self) -> dict[str, Any]:
        """What results depend on, as JSON has it; the memory limit only decides whether there are any."""
        facts: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        del facts["memory_limit"]
        return facts


def _at_least(least: int, name: str, value: int) -> None:
    if value < least:
        raise UsageError(f"{name} is {value}; give a whole number from {least}")


@dataclass(frozen=True)
class Task:
    """One question to answer. n: its index in the suite. forced: tokens of the reference's answer, in a paired cell."""

    n: int
    item: Item
    forced: tuple[int, ...] = ()


@dataclass(frozen=True)
class Job:
    """A cell's work. role: "reference" writes logits, "paired" compares with them, "alone" does neither.

    name: what messages call the model. stays: more tasks come, as messages, until the parent is gone.
    logits: folder of the reference's next-token logits, one <n>.npy per item.
    """

    name: str
    model: Path
    mmproj: Path | None
    setting: str
    role: str
    options: Options
    tasks: tuple[Task, ...]
    results: Path
    logits: Path
    stays: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Job:
        options = data["options"]
        return cls(
            name=data["name"],
            model=Path(data["model"]),
            mmproj=Path(data["mmproj"]) if data["mmproj"] else None,
            setting=data["setting"],
            role=data["role"],
            options=Options(**{**options, "load": LoadConfig(**options["load"])}),
            tasks=tuple(task_from(task) for task in data["tasks"]),
            results=Path(data["results"]),
            logits=Path(data["logits"]),
            stays=data["stays"],
        )


def task_dict(task: Task) -> dict[str, Any]:
    """Plain values for JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(task), default=str))
    return plain


def task_from(data: Mapping[str, Any]) -> Task:
    item = data["item"]
    parts = {key: tuple(item[key]) for key in ("choices", "tags")}
    media = tuple(Path(path) for path in item["media"])
    return Task(data["n"], Item(**{**item, **parts, "media": media}), tuple(data["forced"]))
