"""Grammar rules (GBNF) of the texts in JSON strings, as JSON spells them.

JSON writes `"`, the backslash and control characters as escapes (RFC 8259, 7). A character has one spelling here, that
of Python's json.dumps(ensure_ascii=False).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .json_text import ANY, Chars, Choice, Ranges, Row, Text, Times, literal, other_chars, without

_SHORT = {'"': '"', "\\": "\\", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}  # behind a backslash
_PLAIN = frozenset(" !#$%&'()*+,./:;<=>?@_`{|}~")  # of what stands for itself in a grammar's class, beside letters


@dataclass
class TextRules:
    """Grammar rules of texts, each named `name` and a number."""

    name: str
    rules: dict[str, str] = field(default_factory=dict)
    _known: dict[Chars, str] = field(default_factory=dict)

    def string(self, text: Text) -> str:
        """A rule's body: a JSON string of one of the texts, which `simplified` has seen, with its quotes."""
        return f'"\\"" {self._row(text)} "\\""'

    def other_than(self, texts: Iterable[str]) -> str:
        """A rule's body: a JSON string of any text but these."""
        steps, ends = [dict[str, int]()], set[int]()  # from what was read so far, by one more character
        for text in texts:
            at = 0
            for c in text:
                if c not in steps[at]:
                    steps[at][c] = len(steps)
                    steps.append({})
                at = steps[at][c]
            ends.add(at)
        rest, names = self.item(ANY), [self.add("") for _ in steps]
        for i, (name, step) in enumerate(zip(names, steps, strict=True)):
            ways = [f"{self.item(literal(c).parts[0])} {names[there]}" for c, there in step.items()]
            ways.append(f"{self.item(other_chars((ord(c), ord(c)) for c in step))} {rest}")
            self.rules[name] = " | ".join([*ways, *([] if i in ends else ['""'])])
        return f'"\\"" {names[0]} "\\""'

    def _row(self, text: Text) -> str:
        parts = text.parts if isinstance(text, Row) else (text,)
        return " ".join(self.item(part) for part in parts) or '""'

    def item(self, text: Text) -> str:
        """What can be repeated: a class, a literal or a rule's name, or such a thing repeated."""
        match text:
            case Chars(ranges):
                if text not in self._known:
                    ways = list(_spelled(ranges))
                    self._known[text] = ways[0] if len(ways) == 1 and " " not in ways[0] else self.add(" | ".join(ways))
                return self._known[text]
            case Times(part, least, most):
                inner = self.item(part)
                return (self.add(inner) if isinstance(part, Times) else inner) + times(least, most)
            case Choice(ways):
                return self.add(" | ".join(self._row(way) for way in ways))
        return self.add(self._row(text))

    def add(self, body: str) -> str:
        name = f"{self.name}-{len(self.rules)}"
        self.rules[name] = body
        return name


def times(least: int, most: int | None) -> str:
    """A repetition behind an item of a grammar."""
    if most is None and least < 2:
        return "*+"[least]
    return "?" if (least, most) == (0, 1) else f"{{{least},{'' if most is None else most}}}"


def _spelled(ranges: Ranges) -> Iterator[str]:
    """What JSON writes for one of these characters, in one or more ways."""
    special = sorted({*range(32), *map(ord, _SHORT)})
    plain: Iterable[tuple[int, int]] = ranges
    for point in special:
        plain = list(without(plain, point, point))
    if plain:
        yield char_class(plain)
    escaped = [point for point in special if any(first <= point <= last for first, last in ranges)]
    short = [ord(_SHORT[chr(point)]) for point in escaped if chr(point) in _SHORT]
    if short:
        yield rf'"\\" {char_class((c, c) for c in short)}'
    for high in (0, 1):
        digits = [ord(f"{point % 16:x}") for point in escaped if chr(point) not in _SHORT and point // 16 == high]
        if digits:
            yield rf'"\\u00{high}" {char_class((c, c) for c in digits)}'


def char_class(ranges: Iterable[tuple[int, int]]) -> str:
    """As GBNF writes one of these code points."""
    return f"[{''.join(_point(a) if a == b else f'{_point(a)}-{_point(b)}' for a, b in ranges)}]"


def gbnf_literal(text: str) -> str:
    """As GBNF writes this text."""
    return (
        '"' + "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else _point(ord(c)) for c in text) + '"'
    )


def _point(point: int) -> str:
    sign = chr(point)
    if point < 128 and (sign.isalnum() or sign in _PLAIN):
        return sign
    if sign in '"\\[]-':
        return f"\\{sign}"
    return escaped(point)


def escaped(point: int) -> str:
    """As GBNF writes a code point that is not seen."""
    return f"\\x{point:02X}" if point < 256 else f"\\u{point:04X}" if point < 65536 else f"\\U{point:08X}"
