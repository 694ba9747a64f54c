"""Rules for plain data that came from a file: of which type and within which bounds each value is.

A rule takes a value and the place it stands at, and raises SchemaError with both where it does not hold. Rules are put
together to a table of a whole file; what one value says of another is for the file's own module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Rule = Callable[[object, str], None]


class SchemaError(ValueError):
    """A value that no writer wrote: where it stands, what it is, what is allowed."""


def refused(value: object, where: str, allowed: str) -> SchemaError:
    shown = f"{value!r:.60}" if isinstance(value, str | int | float | None) else type(value).__name__
    return SchemaError(f"{where} is {shown}; allowed is {allowed}")


def whole(least: int, most: int) -> Rule:
    def check(value: object, where: str) -> None:
        if type(value) is not int or not least <= value <= most:
            raise refused(value, where, f"a whole number from {least} to {most}")

    return check


def number(least: float, most: float) -> Rule:
    def check(value: object, where: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise refused(value, where, f"a number from {least:g} to {most:g}")

    return check


def text(most: int, *, names_a_file: bool = False) -> Rule:
    """At most so many characters. names_a_file: bytes that are not UTF-8 are in it as Python has them in paths."""

    def check(value: object, where: str) -> None:
        if not isinstance(value, str) or len(value) > most:
            raise refused(value, where, f"a text of at most {most} characters")
        if any("\ud800" <= c <= "\udfff" and not (names_a_file and "\udc80" <= c <= "\udcff") for c in value):
            raise refused(value, where, "text that UTF-8 can hold")
        if names_a_file and "\0" in value:
            raise refused(value, where, "a path")

    return check


def sha256(prefix: str = "") -> Rule:
    """A digest as it is written in hex. prefix: may stand before it."""

    def check(value: object, where: str) -> None:
        if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value.removeprefix(prefix)):
            raise refused(value, where, "64 hexadecimal digits, a sha256")

    return check


def one_of(*allowed: str | bool | None) -> Rule:
    def check(value: object, where: str) -> None:
        if not any(value == choice and type(value) is type(choice) for choice in allowed):
            raise refused(value, where, " or ".join(map(repr, allowed)))

    return check


def optional(rule: Rule) -> Rule:
    def check(value: object, where: str) -> None:
        if value is not None:
            rule(value, where)

    return check


def either(*rules: Rule) -> Rule:
    """The first rule that holds; the error of the last where none does."""

    def check(value: object, where: str) -> None:
        for rule in rules[:-1]:
            try:
                return rule(value, where)
            except SchemaError:
                continue
        return rules[-1](value, where)

    return check


def listed(rule: Rule, most: int, *, least: int = 0) -> Rule:
    def check(value: object, where: str) -> None:
        if not isinstance(value, list) or not least <= len(value) <= most:
            found = f"a list of {len(value)}" if isinstance(value, list) else f"{value!r:.40}"
            raise SchemaError(f"{where} is {found}; allowed is a list of {least} to {most}")
        for i, item in enumerate(value):
            rule(item, f"{where}[{i}]")

    return check


def tuple_of(*rules: Rule) -> Rule:
    """A list with one value for each rule."""

    def check(value: object, where: str) -> None:
        if not isinstance(value, list) or len(value) != len(rules):
            raise refused(value, where, f"a list of {len(rules)}")
        for i, (rule, item) in enumerate(zip(rules, value, strict=True)):
            rule(item, f"{where}[{i}]")

    return check


def record(needed: Mapping[str, Rule], extra: Mapping[str, Rule] | None = None) -> Rule:
    """An object with the needed keys, and no others but `extra`, which earlier versions did not write."""
    rules = {**needed, **(extra or {})}

    def check(value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise refused(value, where or "the header", "an object")
        for key in needed:
            if key not in value:
                raise SchemaError(f"{where or 'the header'} has no {key!r}")
        for key, item in value.items():
            if key not in rules:
                raise SchemaError(f"{where or 'the header'} has {key!r:.60}, which this version does not know")
            rules[key](item, f"{where}.{key}" if where else key)

    return check


def anything(_value: object, _where: str) -> None:
    """What somebody else checks."""
