"""How refusals speak of names, sizes and limits. Knows the options of `aim-local serve` that raise a limit."""

from __future__ import annotations

import json
import unicodedata

from ..failures import RequestError

MIB = 2**20
_SHOWN = 80  # characters of a request's text in a message
_NAME = 120  # characters of a file's name

# field of Limits -> the option of `aim-local serve` that sets it
OPTIONS = {
    "file_bytes": "--max-file",
    "files_bytes": "--max-files",
    "fetch_s": "--fetch-timeout",
    "n_media": "--max-media",
    "n_frames": "--max-frames",
    "n_pixels": "--max-pixels",
}


def printable(text: str) -> str:
    """Without what cannot be printed or encoded: control and format characters, lone surrogates, line breaks."""
    return " ".join("".join(" " if unicodedata.category(c).startswith(("C", "Z")) else c for c in text).split())


def shown(text: str) -> str:
    """A text of the request in quotes, for a message: printable, and no longer than a line."""
    clean = printable(text[: 4 * _SHOWN])
    return f"'{clean}'" if len(clean) <= _SHOWN and len(text) <= 4 * _SHOWN else f"'{clean[:_SHOWN]}...'"


def value_text(value: object) -> str:
    """A value of the request's JSON, for a message."""
    match value:
        case str():
            return shown(value)
        case dict() | list():
            return "an object" if isinstance(value, dict) else "a list"
        case int() if abs(value) >= 10**15:
            return "a very large number"  # Python refuses to write the longest ones
        case bool() | int() | float():
            return json.dumps(value)
        case None:
            return "missing"
    return shown(repr(value))


def display_name(name: str, otherwise: str = "file") -> str:
    """What to call a file that came with `name`: its last part, printable, 120 characters at most, its suffix kept.

    It is for people to read, and no path of ours is ever made from it.
    """
    tail = name[-4096:].replace("\\", "/").rstrip("/").rpartition("/")[2]
    clean = printable(tail)
    if len(clean) > _NAME:
        stem, dot, suffix = clean.rpartition(".")
        end = dot + suffix if stem and len(suffix) <= 10 else ""
        clean = clean[: _NAME - 3 - len(end)] + "..." + end
    return clean if clean.strip(". ") else otherwise


def size(n_bytes: int) -> str:
    """For people: "12 kB", "3.4 MiB"."""
    return f"{n_bytes / MIB:,.1f} MiB" if n_bytes >= MIB else f"{n_bytes / 1000:,.1f} kB"


def beyond(limit: str, came: str, allowed: str, at: str = "") -> RequestError:
    """A refusal of what goes beyond a limit. limit: the field of Limits. came: a sentence's beginning."""
    return RequestError(
        413, f"{came}; at most {allowed} allowed: send less, or start the server with a larger {OPTIONS[limit]}",
        param=at, code="limit_exceeded",
    )  # fmt: skip
