"""Whole numbers within bounds, as a grammar (GBNF) of their decimal digits."""

from __future__ import annotations

from .text_rules import times

N_DIGITS = 16  # of a number without a bound on that side; JSON's readers keep 64 bits


def whole_numbers(low: int | None, high: int | None) -> str:
    """The ways to write an integer from low to high, None for no bound. low is not above high."""
    end = 10**N_DIGITS - 1
    low, high = -end if low is None else low, end if high is None else high
    below = [f'"-" ({" | ".join(_from_to(max(-high, 0), -low))})'] if low < 0 else []
    return " | ".join([*below, *(_from_to(max(low, 0), high) if high >= 0 else [])])


def _from_to(low: int, high: int) -> list[str]:
    """low and high are not negative."""
    ways, whole = [], list[int]()  # whole: numbers of digits of which all numbers are allowed, but the first of them
    for n in range(len(str(low)), len(str(high)) + 1):
        least, most = max(low, 10 ** (n - 1) if n > 1 else 0), min(high, 10**n - 1)
        if n > 1 and (least, most) == (10 ** (n - 1), 10**n - 1):
            whole.append(n - 1)
        else:
            ways.append(_same_length(str(least), str(most)))
    if whole:
        ways.append(f"[1-9] [0-9]{times(whole[0], whole[-1])}")
    return ways


def _same_length(low: str, high: str) -> str:
    n = len(low) - 1
    if not n:
        return f"[{low}-{high}]" if low < high else f"[{low}]"
    rest = f"[0-9]{{{n}}}" if n > 1 else "[0-9]"
    if low[0] == high[0]:
        return f'"{low[0]}" ({_same_length(low[1:], high[1:])})'
    first, last, before, behind = int(low[0]), int(high[0]), list[str](), list[str]()
    if low[1:] != "0" * n:
        before, first = [f'"{first}" ({_same_length(low[1:], "9" * n)})'], first + 1
    if high[1:] != "9" * n:
        behind, last = [f'"{last}" ({_same_length("0" * n, high[1:])})'], last - 1
    middle = [f"{f'[{first}-{last}]' if first < last else f'[{first}]'} {rest}"] if first <= last else []
    return " | ".join([*before, *middle, *behind])
