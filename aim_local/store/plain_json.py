"""JSON of files: whatever they hold, it becomes plain values or one ValueError; records with fields as declared.

Knows JSON and dataclasses of plain values. What a value means, and what to do about a damaged file, is its owner's
business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ..bounded import bounded_bytes

T = TypeVar("T")
MOST_BYTES = 16 << 20  # of a file that describes others; the largest that anybody writes have 100 kB
_MOST, _LARGEST = 2**63 - 1, 1e300
_NAMES = {str: "a text", bool: "true or false", int: "a whole number", float: "a number", NoneType: "null"}


def read_object(path: Path, most: int = MOST_BYTES) -> dict[str, Any]:
    """The JSON object in a file of at most `most` bytes. Raises OSError, ValueError."""
    return parsed_object(bounded_bytes(path, most))


def parsed(text: str | bytes | bytearray, *, infinite: bool = False, unique: bool = False) -> Any:
    """What a JSON text says. Raises ValueError for what is none: NaN and Infinity, and nesting without end, too.

    infinite: Python's words for NaN and Infinity are allowed, as transformers writes them.
    unique: no object may have a name twice; else the last one counts.
    """
    pairs_hook = _unique_pairs if unique else None
    try:
        return json.loads(text, parse_constant=None if infinite else _no_constant, object_pairs_hook=pairs_hook)
    except RecursionError as e:
        raise ValueError("it is nested too deep") from e


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"it has {name!r:.60} twice")
        found[name] = value
    return found


def parsed_object(text: str | bytes | bytearray) -> dict[str, Any]:
    """Raises ValueError for any other JSON."""
    value = parsed(text)
    if not isinstance(value, dict):
        raise ValueError(f"it is {_kind_name(value)}, not a JSON object")
    return value


def record_of(kind: type[T], value: object) -> T:
    """A dataclass of plain values, from the object that `asdict` made of it.

    Raises ValueError for a field that is missing, unknown, or not of the type that it is declared with.
    """
    if not isinstance(value, Mapping):
        raise ValueError("it is no JSON object")
    any_kind: Any = kind  # mypy takes a type of unknown kind for one that cannot be looked up
    declared, needed = _fields(any_kind)
    for name in value:
        if name not in declared:
            raise ValueError(f"{name!r:.60} means nothing")
    for name in needed:
        if name not in value:
            raise ValueError(f"{name} is missing")
    for name, inner in value.items():
        if not fits(inner, declared[name]):
            raise ValueError(f"{name} is {inner!r:.60}; it must be {_name(declared[name])}")
    return kind(**value)


def fits(value: object, kind: Any) -> bool:
    """Whether a value of JSON is of a type as it is written in Python: numbers are finite, true is no number."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin is list:
        return isinstance(value, list) and all(fits(one, inner[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(one, inner[1]) for one in value.values())
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST  # NaN is not
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MOST
    return type(value) is kind


def _fields(kind: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The types of a dataclass by field, and the names without a default."""
    hints = get_type_hints(kind)
    needed = tuple(f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING)
    return {f.name: hints[f.name] for f in fields(kind)}, needed


def _name(kind: Any) -> str:
    """For a message."""
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(map(_name, get_args(kind)))
    return _NAMES.get(kind, "a list" if get_origin(kind) is list else "an object")


def _kind_name(value: object) -> str:
    """Of a value of JSON, for a message."""
    return _NAMES.get(type(value), "a list" if isinstance(value, list) else "an object")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
