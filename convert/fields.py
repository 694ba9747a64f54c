"""What becomes of each field of a checkpoint's configs and processors, and the one place that refuses values.

Every field that transformers reads is in one of three lists (tests/test_convert_fields.py walks its classes):

honoured   who reads it brings it into the files, or refuses it
limited    the runtime computes with some values alone: others are refused here
silent     says nothing about what is computed

A field in no list is one that transformers does not know either: it is not looked at. null is as if the key were not
there, and a key that is not there has transformers' default. The lists themselves are in families/.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isclose
from typing import Any

from .errors import ConvertError
from .json_kinds import shown

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Around:
    """What a limit may depend on: the object with the field, and the files it belongs to.

    `vision`: the vision tower's config; `side`: the pixels of its pictures' sides; `image`: the image processor's JSON.
    """

    section: Object
    config: Object
    vision: Object
    side: int
    image: Object


@dataclass(frozen=True)
class Limit:
    """The values of a field that the runtime computes with, and their name in the error."""

    text: str
    holds: Callable[[Any, Around], bool]


@dataclass(frozen=True)
class Fields:
    """The three lists of one class of configs or processors. `objects`: lists of the honoured objects inside."""

    honoured: frozenset[str]
    limited: Mapping[str, Limit]
    silent: frozenset[str]
    objects: Mapping[str, "Fields"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        twice = (self.honoured & self.silent) | ((self.honoured | self.silent) & set(self.limited))
        assert not twice, sorted(twice)

    @property
    def known(self) -> frozenset[str]:
        return self.honoured | self.silent | frozenset(self.limited)


def fields(
    *bases: Fields,
    honoured: str = "",
    silent: str = "",
    objects: Mapping[str, Fields] | None = None,
    **limited: Limit,
) -> Fields:
    """Lists of names parted by spaces, over those of `bases`; what is said later counts."""
    made = Fields(frozenset(), {}, frozenset())
    inner = objects or {}
    for base in (*bases, Fields(frozenset([*honoured.split(), *inner]), limited, frozenset(silent.split()), inner)):
        made = Fields(
            (made.honoured - base.known) | base.honoured,
            {key: limit for key, limit in made.limited.items() if key not in base.known} | dict(base.limited),
            (made.silent - base.known) | base.silent,
            {**made.objects, **base.objects},
        )
    return made


def check(content: Object, known: Fields, file: str, at: str, around: Callable[[Object], Around]) -> None:
    """Raises ConvertError for the first field whose value the runtime does not compute with.

    `at`: the way to `content` in `file`, with a point at its end. `around`: of an object in it.
    """
    for key, value in content.items():
        if value is None:
            continue
        limit = known.limited.get(key)
        if limit is not None and not limit.holds(value, around(content)):
            raise ConvertError(
                f"{file}: {at}{key} is {shown(value)}, which is not supported ({limit.text} is): the converted model "
                "would compute something else than this one"
            )
        if key in known.objects and isinstance(value, dict):
            check(value, known.objects[key], file, f"{at}{key}.", around)


# --- kinds of limits --------------------------------------------------------------------------------------------------


def only(*values: Any) -> Limit:
    """One of a few values. True is not 1 here."""
    text = " or ".join(repr(value) for value in values)
    return Limit(text, lambda found, _: any(type(found) is type(v) and found == v for v in values))


def number(value: float, tolerance: float = 1e-6) -> Limit:
    """A number, up to how files write it."""
    return Limit(f"{value:.10g}", lambda found, _: is_close(found, value, tolerance))


def is_close(found: Any, value: float, tolerance: float = 1e-6) -> bool:
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    return is_number and isclose(found, value, rel_tol=tolerance, abs_tol=1e-12)


def every(value: str) -> Limit:
    """A list of one word over and over."""
    return Limit(f"a list of {value!r}", lambda found, _: isinstance(found, list) and set(map(str, found)) <= {value})


NOTHING = Limit("leaving it out", lambda found, _: found in ({}, []))
