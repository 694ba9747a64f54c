"""A conversation as a JSON or Markdown file, written whole or not at all. Knows messages, no models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import AimError, UsageError
from ..paths import Name, home_path_of
from ..visible import answer_text, json_text, visible
from .files import replaced

SUFFIXES = (".json", ".md")


class TranscriptError(AimError):
    """A transcript that cannot be written."""


def save_transcript(path: Name, messages: Sequence[dict[str, Any]], model: str = "") -> Path:
    """Write `messages` ({"role", "content", "media"}) to `path`, as JSON or Markdown by its suffix; returns the path.

    Raises UsageError for another suffix, TranscriptError where the file cannot be written.
    """
    path = home_path_of(path, "the transcript")
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: a transcript ends in {' or '.join(SUFFIXES)}; add one of them")
    as_text = as_json if path.suffix.lower() == ".json" else as_markdown
    try:
        with replaced(path) as partial:
            partial.write_bytes(as_text(messages, model).encode())
    except OSError as e:
        raise TranscriptError(f"{path}: cannot be written ({e.strerror or e}); name another file") from e
    return path


def as_json(messages: Sequence[dict[str, Any]], model: str = "") -> str:
    return json_text({"model": model, "messages": list(messages)}, indent=2, default=str) + "\n"


def as_markdown(messages: Sequence[dict[str, Any]], model: str = "") -> str:
    parts = [f"# Conversation with {visible(model)}" if model else "# Conversation"]
    for message in messages:
        media = "".join(f"\n\n- `{visible(str(item))}`" for item in message.get("media") or ())
        parts.append(f"**{message['role']}**{media}\n\n{answer_text(message['content'])}")
    return "\n\n".join(parts) + "\n"
