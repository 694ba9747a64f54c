"""What a JSON schema must not say: keywords of the wrong kind, and what allows nothing.

Looks at one schema at a time. What stands beside what is schema_merge.py's, what is written schema_rules.py's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, TypeGuard

from ..errors import UsageError
from .json_text import MOST_TIMES

_SMALLEST, _LARGEST = -(2**63), 2**63 - 1  # the whole numbers that readers of JSON keep
_FAR = 10**15  # a bound without one on the other side: its integers have up to 16 digits
_LONG, _LONG_PATH = 24, 100  # characters of a number and of a path that are shown
_COUNTS = (("minItems", "maxItems"), ("minLength", "maxLength"))
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
FORMATS = {  # that have a grammar, and the characters of the shortest and of the longest text
    "date": (10, 10), "time": (9, 18), "date-time": (20, 29), **{f"uuid{n}": (36, 36) for n in ("", *"12345")},
}  # fmt: skip
_SAYS_NOTHING = {  # of what is allowed
    "$schema", "$id", "$comment", "$anchor", "$defs", "definitions", "title", "description", "default", "examples",
    "deprecated", "readOnly", "writeOnly", "discriminator", "example", "externalDocs", "xml",
}  # fmt: skip
_KNOWN = {
    "$ref", "oneOf", "anyOf", "allOf", "type", "nullable", "const", "enum", "properties", "required", "items",
    "additionalProperties", "prefixItems", "minItems", "maxItems", "pattern", "minLength", "maxLength", "format",
    *BOUNDS,
}  # fmt: skip
_IS: dict[str, Callable[[object], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: is_number(value) and value == math.floor(value),
    "number": lambda value: is_number(value),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def said(part: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The keywords that say what is allowed. Raises UsageError for those that a grammar cannot hold, or of no sense."""
    found = {}
    for key, value in part.items():
        if key in _SAYS_NOTHING or key.startswith("x-") or (key == "uniqueItems" and value is False):
            continue
        if key == "format" and isinstance(value, str) and value not in FORMATS:  # JSON schema: an annotation
            continue
        if key not in _KNOWN and not (key == "additionalItems" and isinstance(part.get("items"), list)):
            raise UsageError(
                f"the JSON schema has {key!r:.60} at {shown(path)}, which a grammar cannot hold; leave it out"
            )
        found[key] = value
    _check_kinds(path, found)
    _check_values(path, found)
    if found.get("nullable") and "type" not in found:
        raise UsageError(
            f"the JSON schema has 'nullable' without a type at {shown(path)}, where OpenAPI gives it no meaning; write "
            'anyOf with {"type": "null"}'
        )
    return found


def check_sense(part: Mapping[str, Any], path: str) -> None:
    """Raises UsageError for a schema that allows nothing, or counts further than a grammar does."""
    if "integer" in part.get("type", ()) or "number" in part.get("type", ()):
        _check_bounds(path, part)
    for least, most in _COUNTS:
        _check_counts(path, part, least, most)


def _check_kinds(path: str, part: Mapping[str, Any]) -> None:
    for name, value in part.items():
        what = _kind(name)
        if what and not what[1](value):
            raise UsageError(f"the JSON schema has {brief(value)} as {name!r} at {shown(path)}; {name} must {what[0]}")
    kinds = part.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if kind not in _IS:
            raise UsageError(
                f"the JSON schema has an unrecognized type {brief(kind).strip(chr(39))} at {shown(path)}; give one of "
                f"{', '.join(_IS)}"
            )


def _kind(name: str) -> tuple[str, Callable[[Any], bool]] | None:
    """What the value of a keyword has to be."""
    if name in ("pattern", "format", "$ref"):
        return "be a text", lambda value: isinstance(value, str)
    if name == "type":
        return (
            "not be empty: a text or a list of texts",
            lambda value: (
                isinstance(value, str)
                or (isinstance(value, list) and value != [] and all(isinstance(v, str) for v in value))
            ),
        )
    if name in BOUNDS:
        return "be a number", is_number
    if any(name in pair for pair in _COUNTS):
        return "be a non-negative integer", lambda value: _IS["integer"](value)
    if name == "nullable":
        return "be true or false", lambda value: isinstance(value, bool)
    if name == "enum":
        return "be a non-empty array", lambda value: isinstance(value, list) and value != []
    if name in ("oneOf", "anyOf", "allOf"):
        return "not be empty", lambda value: value != []
    if name == "required":
        return (
            "be there: give a list of names",
            lambda value: isinstance(value, list) and all(isinstance(v, str) for v in value),
        )
    return None


def _check_bounds(path: str, part: Mapping[str, Any]) -> None:
    low, high = integer_bounds(part)
    far = low if high is None and low is not None and low > _FAR else None
    far = high if low is None and high is not None and high < -_FAR else far
    if far is not None:
        which = "lowest" if high is None else "largest"
        raise UsageError(
            f"the JSON schema has {far} as the {which} number at {shown(path)}, and numbers without an end are "
            "written in 16 digits; give both bounds"
        )
    if low is not None and high is not None and low > high and "number" not in part["type"]:
        raise nothing(path, f"no integer is at least {low} and at most {high}")


def integer_bounds(part: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """The smallest and the largest integer that is allowed."""
    low = [math.ceil(part["minimum"])] if "minimum" in part else []
    low += [math.floor(part["exclusiveMinimum"]) + 1] if "exclusiveMinimum" in part else []
    high = [math.floor(part["maximum"])] if "maximum" in part else []
    high += [math.ceil(part["exclusiveMaximum"]) - 1] if "exclusiveMaximum" in part else []
    return max(low, default=None), min(high, default=None)


def number_bounds(part: Mapping[str, Any]) -> tuple[tuple[Decimal, bool] | None, tuple[Decimal, bool] | None]:
    """The bounds of a number as they are written, and whether each is left out itself."""
    low, high = (
        [(Decimal(str(part[name])), name.startswith("exclusive")) for name in names if name in part]
        for names in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum"))
    )
    return max(low, default=None), min(high, key=lambda bound: (bound[0], not bound[1]), default=None)


def _check_counts(path: str, part: Mapping[str, Any], least: str, most: str) -> None:
    low, high = part.get(least), part.get(most)
    if low is not None and high is not None and low > high:
        raise nothing(path, f"{least!r} is {_short(low)} and {most!r} {_short(high)}")
    for name in (least, most):
        value = part.get(name, 0)
        if value < 0:
            raise UsageError(
                f"the JSON schema has {_short(value)} as {name!r} at {shown(path)}; {name} must be a "
                "non-negative integer"
            )
        if value > MOST_TIMES:
            raise UsageError(
                f"the JSON schema has {_short(value)} as {name!r} at {shown(path)}; a grammar counts to {MOST_TIMES}: "
                "give that or less, or leave it out"
            )


def _check_values(path: str, part: Mapping[str, Any]) -> None:
    """Whole numbers keep their digits, and the type beside a value allows it."""
    for name in BOUNDS:
        value = part.get(name, 0)
        if not _SMALLEST <= value <= _LARGEST:
            raise UsageError(
                f"the JSON schema has {_short(value)} as {name!r} at {shown(path)}, which is beyond 64 bits; give one "
                "within, or leave it out"
            )
    for value in [*([part["const"]] if "const" in part else []), *part.get("enum", [])]:
        for number in _numbers(value):
            if isinstance(number, int) and not _SMALLEST <= number < 2**64:
                raise UsageError(
                    f"the JSON schema has {_short(number)} at {shown(path)}, which is beyond 64 bits; write it as "
                    "a text"
                )
        kinds = part.get("type", [])
        if kinds and not suits(value, [*([kinds] if isinstance(kinds, str) else kinds), *_null(part)]):
            raise UsageError(
                f"the JSON schema has {brief(value)} at {shown(path)}, which its type {kinds!r:.60} rules out; leave "
                "one of them out"
            )


def _null(part: Mapping[str, Any]) -> list[str]:
    return ["null"] if part.get("nullable") else []


def suits(value: object, kinds: list[str]) -> bool:
    """Whether a value is of one of several types."""
    return any(_IS[kind](value) for kind in kinds)


def _numbers(value: object) -> Iterator[int | float]:
    if isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _numbers(inner)
    elif is_number(value):
        yield value


def is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(number: int | float) -> str:
    text = str(number)
    return text if len(text) <= _LONG else f"{text[:4]}... ({len(text.lstrip('-'))} digits)"


def brief(value: object) -> str:
    """A value as a message shows it: not all of a long one."""
    text = _short(value) if is_number(value) else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def shown(path: str) -> str:
    """Where a schema stands, as a message shows it: both ends of a long path."""
    return path if len(path) <= _LONG_PATH else f"{path[: _LONG_PATH // 2]}...{path[-_LONG_PATH // 2 :]}"


class NothingError(UsageError):
    """A schema that allows nothing."""


def nothing(path: str, why: str) -> NothingError:
    return NothingError(f"the JSON schema allows nothing at {shown(path)}: {why}; change it")
