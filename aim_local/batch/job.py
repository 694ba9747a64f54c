"""What a run's workers are told: plain frozen data and its JSON form. Computes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..config import GenerateConfig, LoadConfig, VisualTokenConfig
from ..errors import UsageError
from ..media.types import Pick
from ..settings import parse_setting
from ..store import ModelPaths
from .questions import Clip, Question

_NO_RESULT = ("n_threads", "cache_media")  # load options that change when a result is there, not what it is


@dataclass(frozen=True)
class Settings:
    """What holds for every question that says nothing else.

    tokens: None for the library's default. weigh_if_possible: tokens are a change of that default, which falls back to
    rows that count alike where a model cannot weigh them (engine.plan.weighed_where_possible). frames: None for the
    model's own number. start, end: seconds. pick: as in FrameSampling.
    """

    tokens: VisualTokenConfig | None = None
    weigh_if_possible: bool = False
    frames: int | None = None
    fps: float | None = None
    start: float | None = None
    end: float | None = None
    pick: Pick | None = None
    system: str | None = None
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    load: LoadConfig = field(default_factory=LoadConfig)

    def __post_init__(self) -> None:
        if self.generate.temperature > 0 and self.generate.seed is None:
            raise UsageError(
                f"temperature is {self.generate.temperature:g} without a seed; give one (--seed 1), so that a run that "
                "is taken up again gives the same answers"
            )

    def facts(self) -> dict[str, Any]:
        """By name, what answers depend on: plain values for JSON."""
        plain = _plain(self)
        load, generate = plain.pop("load"), plain.pop("generate")
        return {**plain, **generate, **{name: value for name, value in load.items() if name not in _NO_RESULT}}

    def to_dict(self) -> dict[str, Any]:
        return _plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Settings:
        generate, tokens = data["generate"], data["tokens"]
        return cls(
            **{
                **data,
                "tokens": None if tokens is None else _tokens(tokens),
                "generate": GenerateConfig(**{**generate, "stop": tuple(generate["stop"])}),
                "load": LoadConfig(**data["load"]),
            }
        )

    def for_question(self, question: Question) -> Settings:
        """With what the question says itself."""
        said = {name: getattr(question, name) for name in ("frames", "fps", "start", "end", "pick", "system")}
        found = replace(self, **{name: value for name, value in said.items() if value is not None})
        if question.tokens is not None:
            found = replace(found, tokens=parse_setting(question.tokens), weigh_if_possible=False)
        if question.max_tokens is not None:
            found = replace(found, generate=replace(found.generate, max_tokens=question.max_tokens))
        return found


@dataclass(frozen=True)
class Job:
    """Which model a worker loads, and how it answers. name: what messages call it. model, mmproj: paths.

    share: of how many workers on its machine it is one; they divide the cores.
    """

    name: str
    model: str
    mmproj: str | None
    settings: Settings
    share: int = 1

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "settings": self.settings.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Job:
        return cls(**{**data, "settings": Settings.from_dict(data["settings"])})


def job_of(paths: ModelPaths, settings: Settings, share: int = 1) -> Job:
    mmproj = str(paths.mmproj.absolute()) if paths.mmproj else None
    return Job(paths.name, str(paths.model.absolute()), mmproj, settings, share)


@dataclass(frozen=True)
class Outcome:
    """How the question at `index` ended. line: of ANSWERS.jsonl. facts: what only this run tells, for the sidecar."""

    index: int
    line: dict[str, Any]
    facts: dict[str, Any]

    @property
    def error(self) -> str:
        """ "" where it was answered."""
        return str(self.line.get("error", ""))


def question_dict(question: Question) -> dict[str, Any]:
    return _plain(question)


def question_from(data: Mapping[str, Any]) -> Question:
    return Question(**{**data, "clips": tuple(Clip(**clip) for clip in data["clips"])})


def error_line(name: str, reason: str) -> dict[str, Any]:
    """The line of a question that has no answer."""
    return {"id": name, "error": reason}


def _plain(value: Any) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(asdict(value)))
    return plain


def _tokens(data: Mapping[str, Any]) -> VisualTokenConfig:
    pairs: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    return VisualTokenConfig(**pairs)
