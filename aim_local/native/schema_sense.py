"""What a JSON schema must not say: what allows nothing, and what llama.cpp's converter would read as something else.

Looks at one schema at a time; which keywords there are, and which may stand together, is grammar.py's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeGuard

from ..errors import UsageError

_SMALLEST, _LARGEST = -(2**63), 2**63 - 1  # the converter's whole numbers
_FAR = 10**15  # a bound without one on the other side: its integers have up to 16 digits
_LONG = 24  # characters of a number that are shown
_MOST_TIMES = 2000  # llama.cpp's MAX_REPETITION_THRESHOLD
_COUNTS = (("minItems", "maxItems"), ("minLength", "maxLength"))
_IS: dict[str, Callable[[object], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: _is_number(value) and value == math.floor(value),
    "number": lambda value: _is_number(value),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def check_sense(path: str, part: Mapping[str, Any], root: Mapping[str, Any]) -> None:
    """Raises UsageError. path: where this part of the schema `root` stands."""
    if part.get("type") == "integer":
        _check_bounds(path, part)
    for least, most in _COUNTS:
        _check_counts(path, part, least, most)
    _check_values(path, part)
    _check_required(path, part)
    _check_all_of(path, part, root)


def _check_bounds(path: str, part: Mapping[str, Any]) -> None:
    for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        value = part.get(name)
        if _is_number(value) and not _SMALLEST <= value <= _LARGEST:
            raise UsageError(
                f"the JSON schema has {_short(value)} as {name!r} at {path}, which is beyond 64 bits; give one within, "
                "or leave it out"
            )
    low, high = _least(part), _most(part)
    far = low if high is None and low is not None and low > _FAR else None
    far = high if low is None and high is not None and high < -_FAR else far
    if far is not None:
        which = "lowest" if high is None else "largest"
        raise UsageError(
            f"the JSON schema has {far} as the {which} integer at {path}, and integers without an end are written in "
            "16 digits; give both bounds"
        )
    if low is not None and high is not None and low > high:
        raise _nothing(path, f"no integer is at least {low} and at most {high}")


def _least(part: Mapping[str, Any]) -> int | None:
    """As the converter rounds: `minimum` goes first."""
    least, below = part.get("minimum"), part.get("exclusiveMinimum")
    return math.ceil(least) if _is_number(least) else math.floor(below) + 1 if _is_number(below) else None


def _most(part: Mapping[str, Any]) -> int | None:
    most, above = part.get("maximum"), part.get("exclusiveMaximum")
    return math.floor(most) if _is_number(most) else math.ceil(above) - 1 if _is_number(above) else None


def _check_counts(path: str, part: Mapping[str, Any], least: str, most: str) -> None:
    for name in (least, most):
        value = part.get(name)
        if _is_number(value) and value > _MOST_TIMES:
            raise UsageError(
                f"the JSON schema has {_short(value)} as {name!r} at {path}; a grammar counts to {_MOST_TIMES}: give "
                "that or less, or leave it out"
            )
    low, high = part.get(least), part.get(most)
    if _is_number(low) and _is_number(high) and low > high:
        raise _nothing(path, f"{least!r} is {_short(low)} and {most!r} {_short(high)}")


def _check_values(path: str, part: Mapping[str, Any]) -> None:
    """Of `const` and `enum`: whole numbers keep their digits, and the type beside them allows them."""
    one = [part["const"]] if "const" in part else []
    several = part.get("enum")
    for value in [*one, *(several if isinstance(several, list) else [])]:
        for number in _numbers(value):
            if isinstance(number, int) and not _SMALLEST <= number < 2**64:
                raise UsageError(
                    f"the JSON schema has {_short(number)} at {path}, which is beyond 64 bits; write it as a text"
                )
        if not _suits(value, part.get("type")):
            raise UsageError(
                f"the JSON schema has {value!r:.60} at {path}, which its type {part['type']!r:.60} rules out; leave "
                "one of them out"
            )


def _suits(value: object, kind: object) -> bool:
    """Whether a value is of a type, or of one of several. What is no type is told by the converter."""
    kinds = kind if isinstance(kind, list) else [kind]
    known = [_IS[name] for name in kinds if isinstance(name, str) and name in _IS]
    return not known or any(is_so(value) for is_so in known)


def _check_required(path: str, part: Mapping[str, Any]) -> None:
    required, known = part.get("required", []), part.get("properties", {})
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise UsageError(f"the JSON schema has {required!r:.60} as 'required' at {path}; give a list of names")
    lost = [name for name in required if name not in known]
    if lost:
        raise UsageError(
            f"the JSON schema requires {lost[0]!r:.60} at {path}, of which 'properties' says nothing, and a grammar "
            "cannot hold that; put it into properties"
        )


def _check_all_of(path: str, part: Mapping[str, Any], root: Mapping[str, Any]) -> None:
    """The converter puts together objects, or takes the values that all of several enums have."""
    parts = [_target(inner, root) for inner in part.get("allOf", []) if isinstance(inner, dict)]
    enums = [inner["enum"] for inner in parts if isinstance(inner.get("enum"), list)]
    if enums and len(enums) == len(parts):
        if not any(all(value in enum for enum in enums) for value in enums[0]):
            raise _nothing(f"{path}.allOf", "its enums have no value in common")
    elif not all("properties" in inner or "anyOf" in inner for inner in parts):
        raise UsageError(
            f"the JSON schema has 'allOf' at {path}, and a grammar holds only objects with properties in it, or enums; "
            "put all into one schema"
        )


def _target(part: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema that a reference means, {"properties": {}} where nobody can say; the converter tells that."""
    for _ in range(32):
        if not isinstance(part.get("$ref"), str):
            return part
        found: object = root
        for step in part["$ref"].removeprefix("#").split("/")[1:]:
            found = found.get(step) if isinstance(found, Mapping) else None
        if not isinstance(found, Mapping):
            break
        part = found
    return {"properties": {}}


def _numbers(value: object) -> Iterator[int | float]:
    if isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _numbers(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(number: int | float) -> str:
    text = str(number)
    return text if len(text) <= _LONG else f"{text[:4]}... ({len(text.lstrip('-'))} digits)"


def _nothing(path: str, why: str) -> UsageError:
    return UsageError(f"the JSON schema allows nothing at {path}: {why}; change it")
