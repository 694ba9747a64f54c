"""Ways to damage plain data: JSON values, JSON text, text, bytes. Functions of their arguments alone."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from typing import Any

NUMBERS = (0, -1, 1, 2, 3, 7, 255, 256, 65536, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63, 2**64, 10**30, -(2**31),
           -(2**63), 0.0, -0.0, 0.5, 1e-45, 1e308, -1e308, 1.5)  # fmt: skip
ODD_NUMBERS = (float("nan"), float("inf"), float("-inf"))  # JSON has none, Python's reads them
TEXTS = ("", " ", "\0", "\x1b[31m", "a\nb", "\u202eabc", "\ud800", "..", "/", "../../etc/passwd", "C:\\x", "%s%n",
         "{{ 7 * 7 }}", "{% for i in range(9) %}", "None", "null", "true", "NaN", "1", "-1", "1e999", "\U0001f600" * 3,
         "x" * 300, "x" * 70000)  # fmt: skip
DEEP = 3000  # levels; Python's reader of JSON ends near 1000
MUCH_NESTED = 150


def json_text(value: Any, rng: random.Random) -> bytes:
    return json.dumps(value, ensure_ascii=rng.random() < 0.9).encode("utf-8", "surrogatepass")


def damage_json(data: bytes, rng: random.Random) -> bytes:
    """One damage of a JSON document: of a value in nine of ten, else of its text."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return damage_json_text(data, rng)
    if rng.random() < 0.1 or depth(value) > MUCH_NESTED:
        return damage_json_text(data, rng)
    return json_text(damage_value(value, rng), rng)


def damage_value(value: Any, rng: random.Random) -> Any:
    """With one damage somewhere inside; the value itself is changed."""
    places = list(walk(value))
    if not places:
        return other(value, rng)
    holder, key = rng.choice(places)
    match rng.randrange(8):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[rng.choice((key.upper(), f"{key}_", f" {key}", key[:-1], rng.choice(TEXTS)))] = holder.pop(key)
        case 2:  # what stands elsewhere
            source, name = rng.choice(places)
            holder[key] = json.loads(json.dumps(source[name]))
        case 3 if isinstance(holder[key], list) and holder[key]:
            part = holder[key]
            holder[key] = rng.choice((part * 2, part[:-1], part[::-1], [part], part * 50, part[:1]))
        case 4:
            holder[key] = rng.choice(({"a": holder[key]}, [holder[key]], [holder[key], holder[key]]))
        case _:
            holder[key] = other(holder[key], rng)
    return value


def other(value: Any, rng: random.Random) -> Any:
    """Something in a value's place: often of its type, which gets further."""
    if rng.random() < 0.5:
        match value:
            case bool():
                return not value
            case int() | float():
                near = (value + 1, value - 1, -value, value * 2, value * 1000, str(value))
                return rng.choice((*NUMBERS, *ODD_NUMBERS, *near))
            case str():
                return damage_text(value, rng)
    plain = (None, True, False, [], {}, [[]], {"": None}, [1, "a", None])
    return rng.choice((*plain, rng.choice(NUMBERS), rng.choice(ODD_NUMBERS), rng.choice(TEXTS), deep(rng)))


def deep(rng: random.Random) -> Any:
    value: Any = 1
    for _ in range(rng.choice((5, 100, 400))):  # json.dumps itself ends near 1000
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def damage_json_text(data: bytes, rng: random.Random) -> bytes:
    match rng.randrange(6):
        case 0:
            return b"[" * DEEP + b"]" * DEEP
        case 1:
            return data.replace(b":", b': {"a":' * DEEP, 1) + b"}" * DEEP
        case 2:
            wide = data.decode("utf-8", "replace").encode("utf-16")
            return rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"")) + rng.choice((wide, data))
        case 3:
            return data.replace(b"1", b"9" * rng.choice((400, 5000)), 1)  # Python refuses to read over 4300 digits
        case _:
            return damage_bytes(data, rng)


def walk(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every holder with each of its keys, all the way down."""
    left = [value]
    while left:
        holder = left.pop()
        items = holder.items() if isinstance(holder, dict) else enumerate(holder) if isinstance(holder, list) else ()
        for key, inner in items:
            yield holder, key
            left.append(inner)


def depth(value: Any) -> int:
    level, inner = 0, [value]
    while inner := [part for holder in inner for part in parts(holder)]:
        level += 1
    return level


def parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def damage_text(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text) + 1)
    match rng.randrange(6):
        case 0:
            return text[:at]
        case 1:
            return text[:at] + rng.choice(TEXTS) + text[at:]
        case 2:
            return text * rng.choice((2, 10, 1000) if len(text) < 1000 else (2,))
        case 3:
            return text.upper() if text != text.upper() else text.lower()
        case 4:
            return text[:at] + text[at + 1 :]
        case _:
            return rng.choice(TEXTS)


def damage_bytes(data: bytes, rng: random.Random) -> bytes:
    """Bits, bytes, cuts, pieces twice and pieces gone."""
    if not data:
        return rng.randbytes(rng.choice((1, 8, 100)))
    at = rng.randrange(len(data))
    n = min(rng.choice((1, 2, 4, 8, 64, 1000)), len(data) - at)
    match rng.randrange(7):
        case 0:
            return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        case 1:
            return data[:at]
        case 2:
            return data[:at] + data[at + n :]
        case 3:
            return data[: at + n] + data[at:]
        case 4:
            return data[:at] + rng.randbytes(n) + data[at + n :]
        case 5:
            return data[:at] + rng.choice((b"\0", b"\xff")) * n + data[at + n :]
        case _:
            there = rng.randrange(len(data))
            return data[:at] + data[there : there + n] + data[at + n :]
