"""When frames are shown, which are taken, and which have left the window: against models, hours in seconds."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_local.errors import UsageError
from aim_local.live.choose import Chooser, Pace
from aim_local.live.timeline import Timeline
from aim_local.live.window import WindowSize, n_leaving

# --- the window -------------------------------------------------------------------------------------------------------


@given(
    steps=st.lists(st.integers(0, 400), min_size=1, max_size=80),
    seconds=st.integers(1, 600),
    most=st.integers(1, 40),
)
def test_what_leaves_the_window(steps: list[int], seconds: int, most: int) -> None:
    """Hundredths of a second, in whole numbers; frames come one by one, as they do."""
    size, held, model, now = WindowSize(1.0, seconds / 100, most), list[float](), list[int](), 0
    for step in steps:
        now += step
        held = [*held, now / 100]
        held = held[n_leaving(held, size) :]
        model = [t for t in [*model, now] if now - t < seconds][-most:]
        assert held == [t / 100 for t in model]
    assert held


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({}, (1.0, 16.0, 16)),
        ({"fps": 2.0}, (2.0, 8.0, 16)),
        ({"seconds": 30.0}, (1.0, 30.0, 30)),
        ({"frames": 8}, (1.0, 8.0, 8)),
        ({"seconds": 60.0, "frames": 15}, (0.25, 60.0, 15)),
        ({"seconds": 10.0, "fps": 0.5}, (0.5, 10.0, 5)),
        ({"frames": 8, "fps": 4.0}, (4.0, 2.0, 8)),
        ({"seconds": 0.1}, (1.0, 0.1, 1)),
    ],
)
def test_two_of_three_say_the_window(asked: dict[str, float], size: tuple[float, float, int]) -> None:
    found = WindowSize.of(**asked, default=16)  # type: ignore[arg-type]
    assert (found.fps, found.seconds, found.most) == size


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"fps": 1.0, "seconds": 8.0, "frames": 8}, "any two say the third"),
        ({"fps": 0.0}, "fps is 0; it must be above 0"),
        ({"seconds": -1.0}, "length in seconds is -1; it must be above 0"),
        ({"seconds": math.inf}, "length in seconds is inf"),
        ({"frames": 0}, "number of frames is 0; it must be 1 or more"),
        ({"seconds": 1e6, "fps": 30.0}, "would hold 30000000 frames, at most 4096 are allowed"),
    ],
)
def test_windows_that_cannot_be(asked: dict[str, float], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        WindowSize.of(**asked)  # type: ignore[arg-type]


# --- which frames -----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(rate=st.integers(1, 60), fps=st.fractions(Fraction(1, 20), 60, max_denominator=20), n=st.integers(1, 200))
def test_the_nearest_frame_of_each_tick(rate: int, fps: Fraction, n: int) -> None:
    """At a constant rate: the frames that a file's sampling takes, of two as near the earlier one."""
    chooser = Chooser(float(fps))
    taken = [i for i in range(n) if chooser.takes(i / rate)]
    if fps >= rate:
        assert taken == list(range(n))
        return
    p, q = fps.numerator, fps.denominator
    n_ticks = (n - 1) * p // (rate * q) + 1
    nearest = {min(range(n), key=lambda i: (abs(i * p - k * q * rate), i)) for k in range(n_ticks)}
    assert sorted(nearest) == [i for i in taken if i <= max(nearest)]
    assert len(taken) - len(nearest) <= 1  # the last one may be the nearest of a tick that is yet to come


@given(st.lists(st.floats(0.95, 1.05), min_size=2, max_size=200))
def test_a_source_as_slow_as_the_ticks(gaps: list[float]) -> None:
    """Guards a camera of one frame a second, whose frames are never exactly in time: few are lost."""
    chooser, now, taken = Chooser(1.0), 0.0, 0
    for gap in gaps:
        taken += chooser.takes(now)
        now += gap
    assert taken >= len(gaps) - 1 - abs(now - len(gaps)) - len(gaps) // 8


@given(st.floats(0.01, 20), st.floats(0.05, 30))
def test_the_pace_is_what_the_machine_encodes(cost: float, fps: float) -> None:
    """As many ticks are left out as must be, and no more; it is found in a few frames and stays."""
    pace = Pace(fps)
    for _ in range(20):
        pace.note(cost)
    assert pace.one_of == max(1, math.ceil(fps * cost - 1e-6))
    assert pace.rate * cost <= 1 + 1e-5
    assert not any(pace.note(cost) for _ in range(20))


def test_the_pace_recovers() -> None:
    """A question that held the encoder up for long costs frames for a while only."""
    pace = Pace(1.0)
    for cost in [0.2] * 5 + [30.0]:
        pace.note(cost)
    assert pace.one_of == 6
    for _ in range(40):
        pace.note(0.2)
    assert (pace.one_of, round(pace.encodes, 3)) == (1, 5)


# --- when they are shown ----------------------------------------------------------------------------------------------

EVENTS = st.sampled_from(["", "", "", "", "", "", "jump", "restart", "cut", "unstamped"])


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.02, 2.0), st.floats(0, 0.2), EVENTS, st.floats(-1e5, 1e5)), max_size=120))
def test_times_are_those_that_passed(frames: list[tuple[float, float, str, float]]) -> None:
    """Whatever the stamps do: as they pass while stamps go on, and as they came where these jump."""
    line, now, offset, errors, first, before = Timeline(is_paced=True), 0.0, 7.0, 0.0, None, 0.0
    plain = True
    for gap, late, event, jump in frames:
        now += gap
        if event == "jump":
            offset += math.copysign(max(abs(jump), 20), jump)
        elif event == "restart":
            offset = -now
        elif event == "cut":
            now += 60
            offset += 40
            line.cut()
        plain = plain and event == ""
        stamp = None if event == "unstamped" else now + offset
        first = (now, late) if first is None else first
        seconds = line.seconds(stamp, now + late)
        assert seconds >= before - 1e-9
        errors += 0 if event == "" else 0.45  # how late two frames came is in a step that is none of the stamps'
        assert abs(seconds - (now - first[0])) <= errors + 1e-6 + (10.0 if event == "restart" else 0)
        if event == "restart":
            errors += 10.0  # a small step of the stamps is believed
        before = seconds
        if plain:
            assert seconds == pytest.approx(now - first[0], abs=1e-6)


def test_a_network_that_stood_still() -> None:
    """What comes late and at once was shown when its stamps say; only a new beginning is timed by its coming."""
    line = Timeline(is_paced=True)
    came = [0.0, 0.04, 30.0, 30.0, 30.0, 30.04]
    assert [line.seconds(5 + i * 0.04, at) for i, at in enumerate(came)] == pytest.approx([i * 0.04 for i in range(6)])
    line.cut()
    assert line.seconds(0.0, 90.04) == pytest.approx(0.2 + 60)
    assert line.seconds(0.04, 90.08) == pytest.approx(0.24 + 60)


def test_a_file_is_read_faster_than_it_passes() -> None:
    line = Timeline(is_paced=False)
    assert line.seconds(1000.0, 5.0, 900.0) == 100
    assert [line.seconds(1000 + i * 2.0, 5.0) for i in (1, 2)] == [102, 104]
    assert line.seconds(0.0, 5.0) == 106  # another file in its place: a step as the last one
    assert line.seconds(300.0, 5.0) == 406  # pictures of a slow scene
    assert line.seconds(None, 5.0) == 706


@pytest.mark.thorough
def test_two_hours_in_seconds() -> None:
    """25 frames a second with a cut in the middle and a counter that starts again: every window is right."""
    line, chooser, size = Timeline(is_paced=True), Chooser(1.0), WindowSize(1.0, 30.0, 30)
    held, n_windows = list[tuple[float, int]](), 0
    for i in range(2 * 3600 * 25):
        true = i / 25
        if 3600 <= true < 3660:  # away for a minute
            continue
        if true == 3660:
            line.cut()
        stamp = true if true < 3600 else (true - 3660 if true < 5000 else true - 95443.7)
        seconds = line.seconds(stamp, true + 100)
        assert seconds == pytest.approx(true, abs=1e-6)
        if chooser.takes(seconds):
            held.append((seconds, i))
            held = held[n_leaving([t for t, _ in held], size) :]
            n_windows += 1
            if true >= 30 and not 3660 <= true < 3690:
                assert [n for _, n in held] == list(range(i - 29 * 25, i + 1, 25))
    assert n_windows == 7200 - 60
    assert len(held) == 30
