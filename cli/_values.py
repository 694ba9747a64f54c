"""How an option's value is written: typer parsers. Numbers and lists are the library's text forms (settings.py).

Knows text, no options. What a value may be is checked by the library's dataclass that holds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import typer

from aim_local import settings
from aim_local.errors import UsageError
from aim_local.visible import rejoined

# [[hours:]minutes:]seconds; seconds after a colon are below 60, minutes after one too
_TIME = re.compile(r"(?:(?:(\d+):(?=[0-5]?\d:))?(\d+):(?=[0-5]?\d(?:\.|$)))?(\d+(?:\.\d*)?|\.\d+)", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?B)?", re.IGNORECASE | re.ASCII)
_DURATION = re.compile(r"([\d:.]*\d\.?)\s*(ms|s|min)?", re.ASCII)
_DURATIONS = {"ms": 0.001, "s": 1.0, "min": 60.0}
_MOST = 1e18  # seconds or bytes
_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
T = TypeVar("T")


def _told_by_typer(parse: Callable[[str], T], text: object) -> T:
    """What `parse` makes of `text`; its error becomes typer's, which names the option."""
    try:
        return parse(str(text).strip())
    except UsageError as e:
        raise typer.BadParameter(str(e)) from e


def parse_whole(text: str | int) -> int:
    """A whole number. Raises BadParameter."""
    return _told_by_typer(settings.parse_whole, text)


def parse_number(text: str | float) -> float:
    """A number. Raises BadParameter."""
    return _told_by_typer(settings.parse_number, text)


def parse_file(text: str | Path) -> Path:
    """A path, or a file:// URL; no other URL, and not nothing, which would be this folder. Raises BadParameter."""
    from ._media import path_of

    if not str(text):
        raise typer.BadParameter("the name is empty; give one, or leave the option out")

    return text if isinstance(text, Path) else _told_by_typer(path_of, text)


def parse_words(text: str) -> str:
    """What a model shall read. Raises BadParameter for bytes that are not UTF-8."""
    whole = rejoined(text)
    if any("\ud800" <= c <= "\udfff" for c in whole):
        raise typer.BadParameter(f"{text!r:.80} is not UTF-8 text; write it in UTF-8")
    return whole


def parse_time(text: str | float) -> float:
    """Seconds from "75", "75.5", "1:15", "1:15.5" or "0:01:15". Raises BadParameter."""
    found = _TIME.fullmatch(str(text).strip())
    if not found:
        raise typer.BadParameter(f"{text!r} is no time; give seconds (75 or 75.5), mm:ss or mm:ss.sss (1:15.5)")
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    total = hours * 3600 + minutes * 60 + seconds
    if not total < _MOST:
        raise typer.BadParameter(f"{text!r:.60} is longer than anything; give seconds (75 or 75.5) or mm:ss (1:15)")
    return total


def parse_duration(text: str | float) -> float:
    """Seconds from "10", "10s", "800ms", "1.5min" or "1:30". Raises BadParameter."""
    found = _DURATION.fullmatch(str(text).strip())
    if not found:
        raise typer.BadParameter(f"{text!r} is no duration; give seconds (10 or 10s), 800ms, 2min or mm:ss (1:30)")
    return parse_time(found[1]) * _DURATIONS[found[2] or "s"]


def parse_size(text: str | int) -> int:
    """Bytes from "800M", "2G", "1.5GiB": units are powers of 1024. Raises BadParameter."""
    found = _SIZE.fullmatch(str(text).strip())
    if not found or not float(found[1]):
        raise typer.BadParameter(f"{text!r} is no size; give one such as 800M or 2G")
    n_bytes = float(found[1]) * 1024 ** _UNITS[found[2].upper()]
    if not n_bytes < _MOST:
        raise typer.BadParameter(f"{text!r:.60} is more than any disk has; give a size such as 800M or 2G")
    return int(n_bytes)


def parse_list(text: str | None, option: str) -> list[str]:
    """Entries between commas, none empty, none twice; none at all where nothing was given. Raises UsageError."""
    if text is None:
        return []
    with settings.blaming(option):
        return settings.parse_list(text)


def parse_frames(text: str | None, option: str) -> list[int]:
    """Numbers of frames from "8,32", none where nothing was given. Raises UsageError."""
    return [_frames(entry, option) for entry in parse_list(text, option)]


def _frames(entry: str, option: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", entry) or int(entry) < 1:
        raise UsageError(f"{option}: {entry!r:.60} is no number of frames; give numbers such as 8,32")
    return int(entry)
