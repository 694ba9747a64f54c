"""Regular expressions of JSON schemas (ECMA-262 with its flag u), read into the texts that they are found in.

A schema's pattern is searched for: "b" allows "abc". What a grammar cannot follow is an error: looks ahead or behind,
back references, word boundaries, properties of Unicode, flags, and the ends of the text anywhere but at an end.
"""

from __future__ import annotations

import re

from .json_text import ANY, EMPTY, MOST_TIMES, Chars, Choice, Edge, Row, Text, Times, chars, other_chars

MAX_DEPTH = 50  # parentheses in parentheses
_DIGITS = ((0x30, 0x39),)
_WORD = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_LINE_ENDS = ((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029))
_SPACE = (
    *((0x09, 0x0D), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029)),
    *((0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
)
_SETS = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
_COUNT = re.compile(r"\{([0-9]+)(,([0-9]*))?\}")
_GROUP = re.compile(r"\((\?:|\?P?<[A-Za-z_$][\w$]*>)?(?!\?)")
_HEX = re.compile(r"x([0-9a-fA-F]{2})|u\{(0*[0-9a-fA-F]{1,6})\}|u([0-9a-fA-F]{4})")
_LOW_HALF = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_REFUSED = {
    **dict.fromkeys("bB", "a word boundary"),
    **dict.fromkeys("123456789k", "a back reference"),
    **dict.fromkeys("pP", "a property of Unicode"),
    "A": "\\A; write ^",
    **dict.fromkeys("zZ", "\\Z; write $"),
}


class PatternError(ValueError):
    """What is no regular expression, or none that a grammar can follow; says what of it."""


def pattern_text(pattern: str) -> Text:
    """The texts that a pattern is found in. Raises PatternError."""
    return _closed(_closed(_Reader(pattern).whole(), at_end=False), at_end=True, is_last=True)


class _Reader:
    def __init__(self, pattern: str) -> None:
        self.pattern, self.at, self.depth = pattern, 0, 0

    def whole(self) -> Text:
        text = self._choice()
        if self.at < len(self.pattern):
            raise PatternError("a ) without its (")
        return text

    def _choice(self) -> Text:
        ways = [self._row()]
        while self._take("|"):
            ways.append(self._row())
        return Choice(tuple(ways)) if len(ways) > 1 else ways[0]

    def _row(self) -> Text:
        parts = []
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            parts.append(self._counted(self._one()))
        return parts[0] if len(parts) == 1 else Row(tuple(parts))

    def _one(self) -> Text:
        if self.pattern[self.at] == "(":
            return self._group()
        if self.pattern[self.at] in "*+?" or _COUNT.match(self.pattern, self.at):
            raise PatternError(f"nothing that {self.pattern[self.at]} repeats")
        sign = self._next()
        if sign in "^$":
            return Edge(sign == "$")
        if sign == ".":
            return other_chars(_LINE_ENDS)
        if sign == "[":
            return self._class()
        found = self._escape() if sign == "\\" else ord(sign)
        return found if isinstance(found, Chars) else chars([(found, found)])

    def _group(self) -> Text:
        begin = _GROUP.match(self.pattern, self.at)
        if not begin:
            shown = self.pattern[self.at : self.at + 4]
            raise PatternError(f"{shown}..., which looks ahead or behind, or sets flags")
        self.at, self.depth = begin.end(), self.depth + 1
        if self.depth > MAX_DEPTH:
            raise PatternError(f"more than {MAX_DEPTH} parentheses in each other")
        inner = self._choice()
        if not self._take(")"):
            raise PatternError("a ( without its )")
        self.depth -= 1
        return inner

    def _counted(self, part: Text) -> Text:
        count = _COUNT.match(self.pattern, self.at)
        sign = self.pattern[self.at : self.at + 1]
        if count:
            least = int(count[1][:9])
            most = least if not count[2] else int(count[3][:9]) if count[3] else None
            self.at = count.end()
        elif sign and sign in "*+?":
            least, most = int(sign == "+"), 1 if sign == "?" else None
            self.at += 1
        else:
            return part
        self._take("?")  # as few as will do: the texts are the same
        if self.pattern[self.at : self.at + 1] in ("*", "+", "?") or _COUNT.match(self.pattern, self.at):
            raise PatternError("a repetition right behind another; put the first into parentheses")
        if max(least, most or 0) > MOST_TIMES:
            raise PatternError(f"a repetition of more than {MOST_TIMES} times")
        if most is not None and most < least:
            raise PatternError(f"a repetition of at least {least} and at most {most} times")
        return part if (least, most) == (1, 1) else Times(part, least, most)

    def _class(self) -> Chars:
        is_other, found = self._take("^"), list[tuple[int, int]]()
        while not self._take("]"):
            first = self._member()
            if self.pattern[self.at : self.at + 1] == "-" and self.pattern[self.at + 1 : self.at + 2] != "]":
                self.at += 1
                last = self._member()
                if not isinstance(first, int) or not isinstance(last, int) or last < first:
                    raise PatternError("a range in [] whose ends are no characters in order")
                found.append((first, last))
            else:
                found += [(first, first)] if isinstance(first, int) else first.ranges
        return other_chars(found) if is_other else chars(found)

    def _member(self) -> int | Chars:
        if self.at >= len(self.pattern):
            raise PatternError("a [ without its ]")
        sign = self._next()
        if sign != "\\":
            return ord(sign)
        return 8 if self._take("b") else self._escape()

    def _escape(self) -> int | Chars:
        """What is behind a backslash."""
        if self.at >= len(self.pattern):
            raise PatternError("a backslash at its end")
        number = _HEX.match(self.pattern, self.at)
        if number:
            return self._number(number)
        sign = self._next()
        if sign.lower() in _SETS:
            return chars(_SETS[sign]) if sign in _SETS else other_chars(_SETS[sign.lower()])
        if sign in _REFUSED:
            raise PatternError(_REFUSED[sign])
        behind = self.pattern[self.at : self.at + 1]
        if sign == "c" and behind.isascii() and behind.isalpha():
            return ord(self._next()) % 32
        if sign == "0" and not behind.isdecimal():
            return 0
        if sign in _CONTROLS:
            return _CONTROLS[sign]
        if sign.isalnum():
            raise PatternError(f"\\{sign}, which ECMA-262 does not know")
        return ord(sign)

    def _number(self, found: re.Match[str]) -> int:
        self.at = found.end()
        point = int(found[1] or found[2] or found[3], 16)
        low = _LOW_HALF.match(self.pattern, self.at) if found[3] and 0xD800 <= point < 0xDC00 else None
        if low:
            self.at = low.end()
            point = 0x10000 + ((point - 0xD800) << 10) + int(low[1], 16) - 0xDC00
        if point > 0x10FFFF:
            raise PatternError("a character beyond Unicode")
        return point

    def _next(self) -> str:
        self.at += 1
        return self.pattern[self.at - 1]

    def _take(self, sign: str) -> bool:
        is_there = self.pattern.startswith(sign, self.at)
        self.at += is_there
        return is_there


def _closed(text: Text, at_end: bool, is_last: bool = False) -> Text:
    """With any text in front, or behind, unless an anchor stands there. is_last: no anchor may be left."""
    found = _beside(text, at_end)
    if is_last and _has_edge(found):
        raise PatternError("^ or $ in its middle")
    return found


def _beside(text: Text, at_end: bool) -> Text:
    match text:
        case Edge(end) if end == at_end:
            return EMPTY
        case Choice(ways):
            return Choice(tuple(_beside(way, at_end) for way in ways))
        case Row(parts) if parts:
            outer, inner = (parts[-1], parts[:-1]) if at_end else (parts[0], parts[1:])
            while inner and outer == Edge(at_end) == (inner[-1] if at_end else inner[0]):
                inner = inner[:-1] if at_end else inner[1:]
            found = _beside(outer, at_end)
            return Row((*inner, found) if at_end else (found, *inner))
        case Times(part, 0, 1) if _has_edge(part):
            return Choice((_beside(part, at_end), ANY))
    if text in (EMPTY, ANY):
        return ANY
    return Row((text, ANY) if at_end else (ANY, text))


def _has_edge(text: Text) -> bool:
    match text:
        case Row(parts):
            return any(_has_edge(part) for part in parts)
        case Choice(ways):
            return any(_has_edge(way) for way in ways)
        case Times(part, _, _):
            return _has_edge(part)
    return isinstance(text, Edge)
