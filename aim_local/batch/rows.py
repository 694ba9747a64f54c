"""One JSON object of a file of questions, read field by field: every complaint says where the object stands.

Knows JSON and plain types. What the fields mean is the loaders' business (questions.py; suites of `compare`).
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bounded import MIB, MOST_LINE, MOST_QUESTIONS, bounded_bytes, bounded_lines
from ..errors import SuiteError

MOST = 2**31 - 1  # what native code counts to


@dataclass(frozen=True)
class Row:
    """An object and its place, for example "suite.jsonl line 3". null counts as a field that is not there."""

    where: str
    fields: dict[str, Any]

    def fault(self, message: str) -> SuiteError:
        return SuiteError(f"{self.where}: {message}")

    def has(self, key: str) -> bool:
        return self.fields.get(key) is not None

    def text(self, key: str, needed: str) -> str:
        """A text that is not blank. needed: what it should be, for the message."""
        if not self.has(key):
            raise self.fault(f"has no {key}; it needs {needed}")
        return self._checked(key, self.fields[key], needed)

    def optional_text(self, key: str, needed: str) -> str | None:
        return self.text(key, needed) if self.has(key) else None

    def texts(self, key: str, needed: str) -> tuple[str, ...]:
        """A list of texts that are not blank; () for none at all."""
        if not self.has(key):
            return ()
        values = self.fields[key]
        if not isinstance(values, list):
            raise self.fault(f"{key} is {kind(values)}; it must be {needed}")
        return tuple(self._checked(f"{key}[{i}]", value, "a text") for i, value in enumerate(values))

    def seconds(self, key: str) -> float | None:
        if not self.has(key):
            return None
        value = self.fields[key]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fault(f"{key} is {kind(value)}; it must be a number of seconds")
        if not 0 <= value < 1e9:  # also false for NaN
            raise self.fault(f"{key} is {_number(value)}; it must be seconds from the start of the clip, 0 or more")
        return float(value)

    def count(self, key: str, needed: str) -> int | None:
        """A whole number from 1; None where there is none."""
        value = self.fields.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            said = f"{value:g}" if isinstance(value, float) else kind(value)
            raise self.fault(f"{key} is {said}; it must be {needed}, a whole number from 1")
        if value < 1:
            raise self.fault(f"{key} is {value}; it must be {needed}, a whole number from 1")
        if value > MOST:
            raise self.fault(f"{key} is {_number(value)}; it must be {needed}, a whole number up to {MOST}")
        return value

    def rate(self, key: str, needed: str) -> float | None:
        """A number above 0; None where there is none."""
        value = self.fields.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fault(f"{key} is {kind(value)}; it must be {needed}, a number above 0")
        if not 0 < value < 1e9:
            raise self.fault(f"{key} is {_number(value)}; it must be {needed}, a number above 0")
        return float(value)

    def check_keys(self, allowed: Sequence[str], elsewhere: Mapping[str, str] | None = None) -> None:
        """Raises SuiteError for a key that is none of `allowed`. elsewhere: what to say of some that are known."""
        for key in self.fields:
            if key in allowed:
                continue
            near = difflib.get_close_matches(key.lower(), allowed, n=1)
            known = (elsewhere or {}).get(key)
            hint = f"{known}; " if known else f"did you mean {near[0]!r}? " if near else ""
            raise self.fault(f"unknown key {key!r}; {hint}allowed are {', '.join(allowed)}")

    def identity(self, n: int) -> str:
        """Its id, a text or a whole number; the number of its line where it has none."""
        value = self.fields.get("id")
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.optional_text("id", "a text or a whole number") or str(n)

    def names(self, key: str, needed: str) -> tuple[str, ...]:
        """A file's name or a list of names, at least one.

        Bytes of a name that are not UTF-8 stand as \\udc80 to \\udcff, as in the JSON that we write (PEP 383).
        """
        given = self.fields.get(key)
        if given is None:
            return (self.text(key, needed),)
        if not isinstance(given, list):
            return (self._name(key, given, needed),)
        if not given:
            raise self.fault(f"{key} is an empty list; it must be {needed}")
        return tuple(self._name(f"{key}[{i}]", value, "a text") for i, value in enumerate(given))

    def _name(self, key: str, value: object, needed: str) -> str:
        plain = re.sub("[\udc80-\udcff]", "?", value) if isinstance(value, str) else value
        self._checked(key, plain, needed)
        return str(value)

    def _checked(self, key: str, value: object, needed: str) -> str:
        if not isinstance(value, str):
            raise self.fault(f"{key} is {kind(value)}; it must be {needed}")
        if not value.strip():
            raise self.fault(f"{key} is blank; it must be {needed}")
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise self.fault(f"{key} has half of a surrogate pair (\\ud800 to \\udfff alone), which is no character")
        return value


def _number(value: float) -> str:
    """For a message; a whole number may be too large for a float."""
    too_large = isinstance(value, int) and abs(value) >= 10**300
    return "a number of more than 300 digits" if too_large else f"{value:g}"


def kind(value: object) -> str:
    """How a JSON value is called in a message."""
    names: list[tuple[type | tuple[type, ...], str]] = [
        (bool, "true or false"),
        ((int, float), "a number"),
        (str, "a text"),
        (list, "a list"),
        (dict, "an object"),
    ]
    return next((name for types, name in names if isinstance(value, types)), "null")


def parse(where: str, text: str) -> Any:
    """JSON from text. A key given twice and NaN or Infinity are errors too; SuiteError names the place."""
    try:
        return json.loads(text, object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except json.JSONDecodeError as e:
        line = f"line {e.lineno}, " if e.lineno > 1 else ""
        raise SuiteError(f"{where}: is not JSON ({e.msg}, {line}column {e.colno})") from e
    except (ValueError, RecursionError) as e:
        raise SuiteError(f"{where}: is not JSON that can be used ({e})") from e


def as_row(where: str, value: object) -> Row:
    if not isinstance(value, dict):
        raise SuiteError(f"{where}: is {kind(value)}; it must be an object in braces with a question's fields")
    return Row(where, value)


def read_text(path: Path) -> str:
    """The file's text; a byte order mark is dropped.

    SuiteError for what cannot be read or has more than MOST_QUESTIONS bytes, and for bytes not in UTF-8.
    """
    with reading(path):
        data = bounded_bytes(path, MOST_QUESTIONS, pipes=True)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise _no_text(path, data[: e.start].count(b"\n") + 1) from e


def read_lines(path: Path) -> list[tuple[int, Row]]:
    """The objects of a JSONL file with their line numbers. Blank lines and CRLF are fine."""
    return [(n, as_row(where, parse(where, line))) for n, where, line in numbered(path)]


def numbered(path: Path) -> list[tuple[int, str, str]]:
    """(line number, the place for messages, text) of every line that is not blank."""
    found = list[tuple[int, str, str]]()
    with reading(path):
        for n, data in enumerate(bounded_lines(path, MOST_LINE, MOST_QUESTIONS), 1):
            try:
                line = data.decode("utf-8-sig" if n == 1 else "utf-8")
            except UnicodeDecodeError as e:
                raise _no_text(path, n) from e
            if line.strip():
                found.append((n, f"{path} line {n}", line))
    return found


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raises SuiteError for what cannot be read."""
    try:
        yield
    except OSError as e:
        raise SuiteError(f"{path}: cannot be read ({e.strerror}); name a file of questions") from e
    except ValueError as e:
        raise SuiteError(
            f"{path}: {e}; a file of questions has at most {MOST_QUESTIONS // MIB} MiB, and a line {MOST_LINE // MIB}: "
            "divide it"
        ) from e


def _no_text(path: Path, line: int) -> SuiteError:
    return SuiteError(f"{path} line {line}: is not UTF-8 text; save the file as UTF-8")


def first_of(row: Row, keys: Sequence[str]) -> str | None:
    """The first of these keys that the row has."""
    return next((key for key in keys if row.has(key)), None)


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key!r} stands twice in one object")
        result[key] = value
    return result


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
