"""Numbers within bounds, as a grammar (GBNF) of their decimal digits."""

from __future__ import annotations

from decimal import Decimal
from math import ceil, floor

from .text_rules import times

N_FRACTION = 8  # digits behind the point, of a number with bounds
N_DIGITS = 16  # of a number without a bound on that side; JSON's readers keep 64 bits


def whole_numbers(low: int | None, high: int | None) -> str:
    """The ways to write an integer from low to high, None for no bound. low is not above high."""
    end = 10**N_DIGITS - 1
    low, high = -end if low is None else low, end if high is None else high
    below = [f'"-" ({" | ".join(_from_to(max(-high, 0), -low))})'] if low < 0 else []
    return " | ".join([*below, *(_from_to(max(low, 0), high) if high >= 0 else [])])


Bound = tuple[Decimal, bool]  # and whether the number itself is left out


def decimal_numbers(low: Bound | None, high: Bound | None) -> str | None:
    """The ways to write a number from low to high without an exponent, None for no bound. None if there is none.

    Numbers near a bound have up to 15 digits: a double tells them all apart, so none is rounded onto what is left out.
    """
    longest = max((len(str(abs(int(bound[0])))) for bound in (low, high) if bound), default=0)
    n = max(min(N_FRACTION, 15 - longest), 0)
    unit, end = 10**n, 10 ** (N_DIGITS + n) - 1
    least = -end if low is None else floor(low[0] * unit) + 1 if low[1] else ceil(low[0] * unit)
    most = end if high is None else ceil(high[0] * unit) - 1 if high[1] else floor(high[0] * unit)
    if least > most:
        return None
    below = [f'"-" ({" | ".join(_parts_from_to(max(-most, 0), -least, n))})'] if least < 0 else []
    return " | ".join([*below, *(_parts_from_to(max(least, 0), most, n) if most >= 0 else [])])


def _parts_from_to(low: int, high: int, n: int) -> list[str]:
    """low and high count units of n digits behind the point, and are not negative."""
    (first, above), (last, under) = divmod(low, 10**n), divmod(high, 10**n)
    if not n:
        return _from_to(low, high)
    if first == last:
        return [f'"{first}" {_point(f"{above:0{n}}", f"{under:0{n}}")}']
    ways = []
    if above:
        ways, first = [f'"{first}" {_point(f"{above:0{n}}", "9" * n)}'], first + 1
    if under < 10**n - 1:
        ways, last = [*ways, f'"{last}" {_point("0" * n, f"{under:0{n}}")}'], last - 1
    return [*ways, f'({" | ".join(_from_to(first, last))}) ("." [0-9]{times(1, n)})?'] if first <= last else ways


def _point(low: str, high: str) -> str:
    """What is behind a whole number: nothing, if that is as zeros are, or a point and digits."""
    return f'("." ({_fraction(low, high)})){"" if low.strip("0") else "?"}'


def _fraction(low: str, high: str) -> str:
    """One to as many digits, which with zeros behind them are from low to high."""
    n = len(low) - 1
    first, last = int(low[0]), int(high[0])
    if not high.strip("0"):
        return f'"0"{times(1, n + 1)}'
    if first == last:
        return f'"{first}" {_rest(low[1:], high[1:])}'.rstrip()
    ways = []
    if low[1:].strip("0"):
        ways, first = [f'"{first}" {_rest(low[1:], "9" * n)}'], first + 1
    if high[1:].strip("9"):
        ways, last = [*ways, f'"{last}" {_rest("0" * n, high[1:])}'], last - 1
    any_more = f" [0-9]{times(0, n)}" if n else ""
    return " | ".join([*ways, *([f"[{first}-{last}]{any_more}"] if first <= last else [])])


def _rest(low: str, high: str) -> str:
    return f"({_fraction(low, high)}){'' if low.strip('0') else '?'}" if low else ""


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
