"""One question: where it comes from, and its answer on the terminal. A conversation is _repl.py's business."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from aim_local.bounded import bounded_text
from aim_local.errors import UsageError
from aim_local.visible import rejoined

from . import _answer, _log
from ._interrupt import check_answer
from ._reader import keeping_bytes
from ._turn import Turn

if TYPE_CHECKING:
    from aim_local import Answer, VisionLLM
    from aim_local.lab.plan.ttft import TtftChoice

    from ._options import OutputOptions


def question_from(prompt: str | None, stdin: TextIO | None) -> str | None:
    """The question, from -p or from a stdin that is no terminal; None for a conversation. Raises UsageError."""
    if prompt is None and stdin is not None and stdin.isatty():
        return None
    source = "-p" if prompt is not None else "stdin"
    try:
        text = prompt if prompt is not None else _read(stdin) if stdin is not None else ""
        text = rejoined(text)
        text.encode()  # bytes that are not UTF-8 are halves of surrogate pairs
    except UnicodeError as e:
        raise UsageError(f"the question from {source} is not UTF-8 text; write it in UTF-8") from e
    if not text.strip():
        raise UsageError(f"the question from {source} is empty; give one: -p 'What happens?'")
    return text.strip()


def _read(stdin: TextIO) -> str:
    """Raises UsageError."""
    try:
        return bounded_text(keeping_bytes(stdin))
    except ValueError as e:
        raise UsageError(f"the question from stdin: {e}; ask in fewer words, and name files as clips") from e


def ask_once(
    llm: VisionLLM,
    ask: Callable[..., Answer],
    question: str,
    media: list[Path],
    *,
    stats: bool,
    output: OutputOptions,
    choice: TtftChoice | None = None,
    told: Callable[..., None] | None = None,
) -> None:
    """Stream the answer to stdout, or print it as JSON. Raises KeyboardInterrupt where Ctrl-C cut it short.

    choice, told: of --ttft, and what is said of it afterwards.
    """
    with Turn(bars=not output.quiet, text=not output.json) as turn:
        answer = ask(question, media, on_text=turn.on_text, progress=turn.progress, should_stop=turn.should_stop)
    if output.json:
        ttft = choice.to_dict(answer.stats) if choice else None
        _answer.print_answer_json(answer, question, llm.description(), media, ttft)
        if stats:
            _log.say(_answer.stats_line(answer.stats))
    else:
        _answer.print_notes(answer, stats, output.quiet)
    if told:
        told(answer.stats, shown=stats)
    check_answer(answer.stats)
