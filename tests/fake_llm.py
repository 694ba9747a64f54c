"""A model that answers from a queue: what the command line sees of VisionLLM and Chat, without weights."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from aim_local.results import Stats


@dataclass
class Scripted:
    """One answer. `error` is raised instead, before the text or after it (`late`)."""

    text: str = ""
    warnings: list[str] = field(default_factory=list)
    stats: Stats = field(default_factory=Stats)
    error: BaseException | None = None
    late: bool = False
    toy: bool = False


class FakeLLM:
    """Plays `answers` in order and keeps what it was called with in `calls` and `loads`."""

    name, architecture, n_ctx_train, default_frames, has_vision = "fake", "qwen2", 2048, 8, True
    model = SimpleNamespace(tower=None, text=SimpleNamespace(n_layer=28, prune_refusal=lambda: ""))

    def __init__(self, *answers: Scripted | str) -> None:
        self.answers = deque(Scripted(a) if isinstance(a, str) else a for a in answers)
        self.calls: list[dict[str, Any]] = []
        self.loads: list[tuple[Any, ...]] = []
        self.closed = False
        self.chats: list[FakeChat] = []

    def load(self, *args: Any, yes: bool = False, quiet: bool = False) -> Self:
        self.loads.append(args)
        return self

    def description(self) -> dict[str, Any]:
        return {"name": self.name, "architecture": self.architecture}

    def generate(self, question: str, media: Any = (), **options: Any) -> SimpleNamespace:
        self.calls.append({"question": question, "media": list(media), **options})
        return play(self.answers.popleft(), options["on_text"], options["progress"])

    def chat(self, **options: Any) -> FakeChat:
        self.chats.append(FakeChat(self, options))
        return self.chats[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.closed = True


@dataclass
class FakeAhead:
    path: Path
    progress: tuple[int, int] = (3, 8)
    closed: bool = False

    def close(self) -> None:
        self.closed = True


class FakeChat:
    used, n_ctx = 12, 512

    def __init__(self, llm: FakeLLM, options: dict[str, Any]) -> None:
        self.llm, self.options = llm, options
        self.messages: list[dict[str, Any]] = []
        self.n_resets = 0

    def encode_ahead(self, path: Path) -> FakeAhead:
        return FakeAhead(path)

    def ask(self, question: str, media: list[FakeAhead | Path], **options: Any) -> SimpleNamespace:
        media = [item.path if isinstance(item, FakeAhead) else item for item in media]
        self.llm.calls.append({"question": question, "media": list(media), **options})
        answer = play(self.llm.answers.popleft(), options["on_text"], options["progress"])
        self.messages += [
            {"role": "user", "content": question, "media": [str(p) for p in media]},
            {"role": "assistant", "content": answer.text, "media": []},
        ]
        return answer

    def reset(self) -> None:
        self.n_resets += 1
        self.messages = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


def play(
    script: Scripted, on_text: Callable[[str], None] | None, progress: Callable[[str, int, int], None]
) -> SimpleNamespace:
    for stage in ("decode_video", "vision", "prefill"):
        for done in range(3):
            progress(stage, done, 2)
    if script.error and not script.late:
        raise script.error
    for i, word in enumerate(script.text.split(" ")):
        if on_text:
            on_text(f" {word}" if i else word)
    if script.error:
        raise script.error
    return SimpleNamespace(text=script.text, stats=script.stats, warnings=script.warnings, toy=script.toy)
