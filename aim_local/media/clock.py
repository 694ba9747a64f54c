"""Display times of a clip's frames from the stamps of its packets, whatever these do. Pure functions.

Stamps may be missing or equal in places, start again (captures joined end to end), jump back or wrap around. Frames
stay in the file's order and times rise. Knows plain numbers. Leaves to others: files, packets and decoding.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aim_local.media.types import Indices

Stamps = Sequence[int | None]
_Known = NDArray[np.float64]  # NaN where there is no stamp; 2^53 ticks of a clock of 90 kHz are 3,000 years

WRAP = 2**33  # ticks after which the clock of MPEG-TS and MPEG-PS begins anew
_WRAPPED_S = 60.0  # longest step of a clock that went round; a longer one is another clock
_LEAP_S, _LEAP_SHARE = 3600.0, 10  # a gap longer than that, and than ten times the rest of the clip: another clock
_DEEPEST = 32  # frames by which a codec may shift a frame between decoding and display, with room to spare
_MOST_DECODED = 50_000  # frames of a clip that is decoded as a whole to learn their order; half an hour
_UNSURE = 100  # where more than one stamp in so many (and more than ten) goes back, they say nothing of the order


@dataclass(frozen=True, eq=False)
class Clock:
    """rows: int64 [n], packets in display order. ticks: float64 [n], rising from 0. parts: rows where clocks begin.

    n_guessed: frames without a time of their own. is_plain: nothing was mended, so stamps can be searched for.
    """

    rows: Indices
    ticks: NDArray[np.float64]
    parts: tuple[int, ...]
    n_guessed: int
    is_plain: bool


def clock_of_packets(
    pts: Stamps,
    dts: Stamps,
    shown: Sequence[bool],
    per_second: float,
    usual: float,
    *,
    wraps: bool = False,
    reorders: bool = True,
    fresh: Collection[int] = (),
) -> Clock | None:
    """None where the stamps do not tell in which order frames are shown: the decoder knows.

    pts, dts: one each a packet, in file order; shown: whether a frame comes of it. per_second: ticks of a second.
    usual: ticks from a frame to the next where stamps do not say. wraps: the clock begins anew after WRAP ticks.
    reorders: frames may be shown in another order than they are stored in. fresh: packets with which a decoder can
    begin, so that no frame before them is shown after one of theirs.
    """
    rows = np.flatnonzero(np.array(shown, dtype=bool)).astype(np.int64)
    p, d = _known(pts)[rows], _known(dts)[rows]
    if np.isnan(p).all() or not len(rows):
        return None
    if np.isnan(d).all() and reorders and _n_falls(p):
        return None
    if np.isnan(d).all() or (not reorders and not _says_nothing(p)):
        d, reorders = p, False
    wrapped = False
    if wraps:
        unwrapped = _unwrapped(d, per_second)
        p = p + WRAP * np.round(np.nan_to_num((unwrapped - p) / WRAP))
        wrapped, d = bool((unwrapped != d)[~np.isnan(d)].any()), unwrapped
    starts, strays = _starts(d, per_second)
    if _says_nothing(d[~np.isin(np.arange(len(d)), strays)]):
        return None
    starts_fresh = all(int(rows[first]) in fresh for first in starts[1:])
    are_sure = starts_fresh and all(_are_distinct(p[first:last]) for first, last in _spans(starts, len(rows)))
    if reorders and len(rows) <= _MOST_DECODED and (strays or not are_sure):
        return None
    if reorders:
        strays = [k for k in strays if _is_far(p, k, usual)]
    p[strays] = np.nan
    ordered = [_in_order(p, first, last) for first, last in _spans(starts, len(rows))]
    if any(order is None for order in ordered):
        return None
    order = np.concatenate([o for o in ordered if o is not None])
    sizes = [last - first for first, last in _spans(starts, len(rows))]
    ticks, n_guessed = _rising(p[order], np.cumsum([0, *sizes[:-1]]), usual)
    is_plain = len(starts) == 1 and not n_guessed and not wrapped
    return Clock(rows[order], ticks, tuple(int(rows[first]) for first in starts), n_guessed, is_plain)


def clock_of_frames(pts: Stamps, per_second: float, usual: float) -> Clock | None:
    """Of frames in display order, numbered from 0; None where not two of them have different stamps."""
    p = _known(pts)
    if len(set(p[~np.isnan(p)].tolist())) < min(2, len(p)):
        return None
    starts, strays = _starts(p, per_second)
    p[strays] = np.nan
    ticks, n_guessed = _rising(p, np.array(starts), usual)
    is_plain = len(starts) == 1 and not n_guessed
    return Clock(np.arange(len(p), dtype=np.int64), ticks, tuple(starts), n_guessed, is_plain)


def clock_notes(clock: Clock) -> tuple[str, ...]:
    """What was mended, one line each."""
    notes = []
    if len(clock.parts) > 1:
        times = "once" if len(clock.parts) == 2 else f"{len(clock.parts) - 1} times"
        notes.append(
            f"the file's clock starts again or jumps {times} (clips joined end to end?): frames are kept in the file's "
            "order, and times go on from part to part"
        )
    if clock.n_guessed:
        own = "has no display time of its own" if clock.n_guessed == 1 else "have no display time of their own"
        notes.append(f"{clock.n_guessed} of {len(clock.rows)} frames {own}: set between the frames beside")
    return tuple(notes)


def _known(stamps: Stamps) -> _Known:
    return np.array([np.nan if s is None else float(s) for s in stamps], dtype=np.float64)


def _are_distinct(stamps: _Known) -> bool:
    """Whether all are known, and no two are equal."""
    return not np.isnan(stamps).any() and len(np.unique(stamps)) == len(stamps)


def _spans(starts: Sequence[int], n: int) -> list[tuple[int, int]]:
    return list(zip(starts, [*starts[1:], n], strict=True))


def _n_falls(stamps: _Known) -> int:
    return int((np.diff(stamps[~np.isnan(stamps)]) < 0).sum())


def _says_nothing(stamps: _Known) -> bool:
    """Whether stamps go back so often that they say nothing of the order."""
    return _n_falls(stamps) > max(10, len(stamps) // _UNSURE)


def _is_far(p: _Known, place: int, usual: float) -> bool:
    """Whether a stamp is further from all others around than reordering explains."""
    around = np.delete(p[max(0, place - _DEEPEST) : place + _DEEPEST + 1], min(place, _DEEPEST))
    return bool(np.nanmin(np.abs(around - p[place]), initial=np.inf) > _DEEPEST * usual)


def _unwrapped(d: _Known, per_second: float) -> _Known:
    """Stamps in file order without the steps of a clock that went round."""
    known = np.flatnonzero(~np.isnan(d))
    steps, near = np.diff(d[known]), _WRAPPED_S * per_second
    turns = (np.abs(steps + WRAP) <= near).astype(np.int64) - (np.abs(steps - WRAP) <= near)
    found = d.copy()
    found[known] += WRAP * np.concatenate([[0], np.cumsum(turns)])
    return found


def _starts(d: _Known, per_second: float) -> tuple[list[int], list[int]]:
    """(where the clock begins: 0, and wherever it goes back or far ahead; stamps that stand alone among others).

    d: in an order in which the stamps of one clock do not fall.
    """
    known = np.flatnonzero(~np.isnan(d))
    values = d[known]
    if not (np.diff(values) < 0).any():
        return [0, *(int(known[i]) for i in _leaps(values, per_second))], []
    starts, strays = [0], list[int]()
    before, last = -np.inf, values[0]  # the two stamps that count before this one
    for k in range(1, len(values)):
        value = values[k]
        if value >= last:
            before, last = last, value
        elif k + 1 < len(values) and values[k + 1] >= last:
            strays.append(int(known[k]))  # one that is too low
        elif value >= before > -np.inf:
            strays.append(int(known[k - 1]))  # the one before was too high
            last = value
        else:
            starts.append(int(known[k]))
            before, last = -np.inf, value
    left = np.setdiff1d(known, strays)
    for first, end in _spans(starts, len(d)):
        part = left[(left >= first) & (left < end)]
        starts += [int(part[i]) for i in _leaps(d[part], per_second)]
    return sorted(starts), strays


def _in_order(p: _Known, first: int, last: int) -> Indices | None:
    """Places first..last - 1 in display order, equal stamps in the file's; None where stamps do not tell."""
    part = p[first:last]
    known = ~np.isnan(part)
    if not known.all():
        rises = bool((np.diff(part[known]) >= 0).all())
        return np.arange(first, last, dtype=np.int64) if rises else None
    order = np.argsort(part, kind="stable")
    if np.abs(order - np.arange(len(order))).max(initial=0) > _DEEPEST:
        return None
    return (first + order).astype(np.int64)


def _rising(p: _Known, starts: Indices, usual: float) -> tuple[NDArray[np.float64], int]:
    """(times from 0 in ticks, how many of them are guessed), of stamps in display order.

    starts: int64, places where parts begin. One part goes on from the other after a usual gap.
    """
    spans = _spans([int(s) for s in starts], len(p))
    own = [_own(p[first:last]) for first, last in spans]
    gaps = np.concatenate([np.diff(part[~np.isnan(part)]) / np.diff(np.flatnonzero(~np.isnan(part))) for part in own])
    gap = float(np.median(gaps)) if len(gaps) else usual
    found, end = list[NDArray[np.float64]](), 0.0
    for part in own:
        filled = _filled(part, gap)
        found.append(filled - filled[0] + end)
        end = float(found[-1][-1]) + gap
    n_guessed = sum(int(np.isnan(part).sum()) for part in own)
    return np.concatenate(found), n_guessed


def _own(part: _Known) -> _Known:
    """Stamps above all before them; NaN for the others."""
    highest = np.fmax.accumulate(np.concatenate([[-np.inf], part]))[:-1]
    return np.where(part > highest, part, np.nan)


def _leaps(values: NDArray[np.float64], per_second: float) -> list[int]:
    """Places in rising stamps before which a gap is so long that it can only be another clock."""
    if len(values) < 3:
        return []
    gaps = np.diff(values)
    at = int(gaps.argmax())
    rest = values[-1] - values[0] - gaps[at]
    return [at + 1] if gaps[at] > _LEAP_S * per_second and gaps[at] > _LEAP_SHARE * rest else []


def _filled(part: _Known, gap: float) -> NDArray[np.float64]:
    """Stamps with those that are missing set evenly between their neighbours, and a gap apart at the ends."""
    known = np.flatnonzero(~np.isnan(part))
    places = np.arange(len(part), dtype=np.float64)
    if not len(known):
        return places * gap
    first, last = known[0], known[-1]
    found = np.interp(places, known, part[known])
    found[:first] = part[first] - gap * (first - places[:first])
    found[last:] = part[last] + gap * (places[last:] - last)
    return found
