"""What the arguments of the public API may be: checked once, at its edge, and taken as Python's own numbers.

Knows types and numbers. A whole number is an int or whatever stands for one exactly (NumPy's integers, `__index__`), a
real number what `numbers.Real` is (NumPy's floats, fractions); True and False are neither. What a number means, and
what its range is, is its owner's business.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from functools import cache, wraps
from numbers import Real
from types import NoneType, UnionType
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import UsageError

P = ParamSpec("P")
R = TypeVar("R")
_MOST_SHOWN = 10**80


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, which raises UsageError for an argument of another type than its signature declares.

    Looked at are flags, whole numbers, functions and our own classes. Texts, paths, media and lists of them are looked
    at where they are read.
    """
    signature, hints = inspect.signature(function), cache(lambda: get_type_hints(function))

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # Python says what is missing, or is not there
        for name, value in bound.arguments.items():
            if name in hints():
                bound.arguments[name] = declared(name, value, hints()[name])
        return function(*bound.args, **bound.kwargs)

    return call


def declared(name: str, value: Any, hint: Any) -> Any:
    """`value` where its type is as declared, a whole number as an int. Raises UsageError."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kind, *others = (kind for kind in kinds if kind is not NoneType)
    if others or (value is None and NoneType in kinds):
        return value
    words = _words(kind)
    if not words:
        return value
    if kind is int and (number := whole_of(value)) is not None and abs(number) < _MOST_SHOWN:
        return number
    if kind is bool and _is_flag(value):
        return bool(value)
    if kind not in (int, bool) and (isinstance(value, kind) if isinstance(kind, type) else callable(value)):
        return value
    default = " for the default" if is_dataclass(kind) else ""
    raise UsageError(f"{name} is {_shown(value)}; give {words}{f', or None{default}' if NoneType in kinds else ''}")


def _words(kind: Any) -> str:
    """What is asked for, in an error's words; "" for a type that is not looked at here."""
    if get_origin(kind) is Callable:
        return "a function"
    if isinstance(kind, type) and kind.__module__.startswith(f"{__package__}."):
        return f"a{'n' if kind.__name__[0] in 'AEIO' else ''} {kind.__name__}"
    return {int: "a whole number", bool: "True or False"}.get(kind, "") if isinstance(kind, type) else ""


def whole_of(value: Any) -> int | None:
    """An int; None for what is no whole number."""
    if _is_flag(value):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _is_flag(value: object) -> bool:
    """NumPy's, too, which is told by its name: the help texts of the command line must not wait for numpy."""
    kind = type(value)
    return kind is bool or (kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_"))


def whole(name: str, value: Any, rule: str, least: int, most: int | None = None) -> int:
    """An int from least to most. rule: what is allowed, for UsageError."""
    number = whole_of(value)
    if number is None or number < least or (most is not None and number > most):
        raise UsageError(f"{name} is {_shown(value if number is None else number)}; {rule}")
    return number


def real(name: str, value: Any, rule: str, is_allowed: Callable[[float], bool]) -> float:
    """A float. is_allowed: whether it is in the range. rule: what is allowed, for UsageError."""
    try:
        number = float(value) if isinstance(value, Real) and not _is_flag(value) else None
    except OverflowError:
        number = None
    if number is None or not is_allowed(number):
        raise UsageError(f"{name} is {_shown(value if number is None or isinstance(value, int) else number)}; {rule}")
    return number


def take_whole(
    owner: object, name: str, rule: str, least: int, most: int | None = None, *, optional: bool = False
) -> None:
    """As `whole`, of a frozen dataclass's field, which is that int from then on. optional: it may be None."""
    value = getattr(owner, name)
    if value is not None or not optional:
        settle(owner, name, whole(name, value, rule, least, most))


def take_real(
    owner: object, name: str, rule: str, is_allowed: Callable[[float], bool], *, optional: bool = False
) -> None:
    """As `real`, of a frozen dataclass's field, which is that float from then on. optional: it may be None."""
    value = getattr(owner, name)
    if value is not None or not optional:
        settle(owner, name, real(name, value, rule, is_allowed))


def take_flag(owner: object, name: str) -> None:
    """Raises UsageError for a field that is neither True nor False."""
    if not _is_flag(value := getattr(owner, name)):
        raise UsageError(f"{name} is {value!r:.80}; give True or False")
    settle(owner, name, bool(value))


def one_of(name: str, value: object, allowed: Iterable[str], also: str = "") -> None:
    """Raises UsageError for any other text, and for what is none."""
    names = tuple(allowed)
    if not isinstance(value, str) or value not in names:
        raise UsageError(f"{name} is {value!r:.80}; allowed are {', '.join(names)}{also}")


def several(name: str, values: Any, rule: str) -> tuple[Any, ...]:
    """What is in a list, or in another collection. Raises UsageError for a text, a mapping and an iterator."""
    try:
        if isinstance(values, str | bytes | bytearray | Mapping | Iterator):
            raise TypeError
        return tuple(values)
    except TypeError as e:
        shown = f"{values!r:.80}" if isinstance(values, str) else type(values).__name__
        raise UsageError(f"{name} is {shown}; {rule}") from e


def settle(owner: object, name: str, value: object) -> None:
    """Gives a field of a frozen dataclass the value that it was checked to be."""
    object.__setattr__(owner, name, value)


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) >= _MOST_SHOWN:  # Python writes out none of more than 4300 digits
        return "a number of more than 80 digits"
    return f"{value!r:.80}"
