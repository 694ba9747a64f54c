"""Which texts a JSON string may hold: characters, in a row, one of several, repeated, as regular expressions say it.

`pattern.py` reads expressions into these forms, `text_rules.py` writes them as a grammar.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Ranges = tuple[tuple[int, int], ...]  # of code points: first and last one, in order, none next to another

MOST_TIMES = 2000  # llama.cpp's MAX_REPETITION_THRESHOLD
_SURROGATES, _LAST = (0xD800, 0xDFFF), 0x10FFFF


@dataclass(frozen=True)
class Chars:
    """One of these characters."""

    ranges: Ranges


@dataclass(frozen=True)
class Row:
    """One after another; the empty text if there is none."""

    parts: tuple[Text, ...]


@dataclass(frozen=True)
class Choice:
    ways: tuple[Text, ...]


@dataclass(frozen=True)
class Times:
    """most: None for any number."""

    part: Text
    least: int
    most: int | None


@dataclass(frozen=True)
class Edge:
    """Where the whole text begins, or ends."""

    at_end: bool


Text = Chars | Row | Choice | Times | Edge


def chars(ranges: Iterable[tuple[int, int]]) -> Chars:
    """Any order, overlapping or not. Halves of surrogate pairs are no characters, and left out."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return Chars(tuple(without(found, *_SURROGATES)))


def other_chars(ranges: Iterable[tuple[int, int]]) -> Chars:
    """All but these."""
    left = [(0, _LAST)]
    for first, last in ranges:
        left = list(without(left, first, last))
    return chars(left)


def without(ranges: Iterable[tuple[int, int]], first: int, last: int) -> Iterator[tuple[int, int]]:
    """The ranges but for first to last."""
    for low, high in ranges:
        if low < first:
            yield low, min(high, first - 1)
        if high > last:
            yield max(low, last + 1), high


ANY = Times(other_chars(()), 0, None)
EMPTY = Row(())


def literal(text: str) -> Row:
    return Row(tuple(chars([(ord(c), ord(c))]) for c in text))


def is_empty_allowed(text: Text) -> bool:
    match text:
        case Row(parts):
            return all(is_empty_allowed(part) for part in parts)
        case Choice(ways):
            return any(is_empty_allowed(way) for way in ways)
        case Times(part, least, _):
            return least == 0 or is_empty_allowed(part)
    return False


def lengths(text: Text) -> tuple[int, int | None]:
    """Of the shortest and of the longest text, None if there is none."""
    match text:
        case Row(parts):
            each = [lengths(part) for part in parts]
            longest = [most for _, most in each if most is not None]
            return sum(least for least, _ in each), sum(longest) if len(longest) == len(each) else None
        case Choice(ways):
            each = [lengths(way) for way in ways]
            longest = [most for _, most in each if most is not None]
            return min(least for least, _ in each), max(longest) if len(longest) == len(each) else None
        case Times(part, least, most):
            low, high = lengths(part)
            return low * least, 0 if 0 in (high, most) else None if high is None or most is None else high * most
    return (1, 1) if isinstance(text, Chars) else (0, 0)


def simplified(text: Text) -> Text | None:
    """Without what no text is in, and without repetitions of what may be empty; None where nothing is left."""
    match text:
        case Chars(ranges):
            return text if ranges else None
        case Row(parts):
            row = [simplified(part) for part in parts]
            left = [part for part in row if part is not None]
            flat = [inner for part in left for inner in (part.parts if isinstance(part, Row) else (part,))]
            return None if len(left) < len(row) else flat[0] if len(flat) == 1 else Row(tuple(flat))
        case Choice(ways):
            some = tuple(way for way in map(simplified, ways) if way is not None)
            return Choice(some) if some else None
        case Times(part, least, most):
            inner = simplified(part) if most != 0 else EMPTY
            if inner is None or inner == EMPTY:
                return EMPTY if least == 0 or inner else None
            return _repeated(inner, least, most)
    return text


def _repeated(part: Text, least: int, most: int | None) -> Text:
    """llama.cpp would try the empty ones of a part as often as it may be repeated."""
    if not is_empty_allowed(part):
        return Times(part, least, most)
    if most is None:
        steps = tuple(_steps(part))
        return Times(Choice(steps), 0, None) if steps else EMPTY
    return Times(_filled(part), 0, most)


def _steps(part: Text) -> Iterator[Text]:
    """What any number of parts is any number of, none of them empty."""
    if not is_empty_allowed(part):
        yield part
        return
    inner = part.parts if isinstance(part, Row) else part.ways if isinstance(part, Choice) else ()
    for one in (part.part,) if isinstance(part, Times) else inner:
        yield from _steps(one)


def _filled(part: Text) -> Text:
    """Without the empty text, where that is said in one place."""
    match part:
        case Choice(ways):
            return Choice(tuple(_filled(way) for way in ways if way != EMPTY))
        case Times(inner, least, most):
            return Times(_filled(inner), max(least, 1), most)
        case Row((one,)):
            return _filled(one)
    return part


def within(text: Text, least: int, most: int | None) -> Text | None:
    """Those of the texts that have `least` to `most` characters, which may be none: an empty Choice.

    None where this cannot be written: more than one part in a row is of several lengths.
    """
    low, high = lengths(text)
    if low >= least and (most is None or (high is not None and high <= most)):
        return text
    if (high is not None and high < least) or (most is not None and low > most):
        return Choice(())
    match text:
        case Choice(ways):
            found = [within(way, least, most) for way in ways]
            some = [way for way in found if way is not None]
            return Choice(tuple(way for way in some if way != Choice(()))) if len(some) == len(found) else None
        case Row(parts):
            return _row_within(parts, least, most)
        case Times(part, times, limit):
            one, same = lengths(part)
            if one != same or one == 0:
                return None
            ends = [end for end in (limit, None if most is None else most // one) if end is not None]
            times, limit = max(times, -(-least // one)), min(ends) if ends else None
            return Choice(()) if limit is not None and limit < times else Times(part, times, limit)
    return None


def _row_within(parts: tuple[Text, ...], least: int, most: int | None) -> Text | None:
    vary = [i for i, part in enumerate(parts) if len(set(lengths(part))) > 1]
    if len(vary) != 1:
        return None
    fixed = sum(lengths(part)[0] for i, part in enumerate(parts) if i != vary[0])
    found = within(parts[vary[0]], max(least - fixed, 0), None if most is None else most - fixed)
    return None if found is None else Row((*parts[: vary[0]], found, *parts[vary[0] + 1 :]))
