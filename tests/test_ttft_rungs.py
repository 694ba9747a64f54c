"""The order in which `--ttft` gives things up: pure functions of numbers, with made-up costs."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_local import VisualTokenConfig
from aim_local.errors import UsageError
from aim_local.lab.plan.rungs import Rung, check_ttft, cost_by_rung, frame_steps, ladder, pick
from aim_local.reduction.planner import layer_shares

LAYERS = 28
ladders = st.builds(ladder, st.integers(0, 300), st.booleans())
seconds = st.floats(0.001, 1000)


def kept_share(tokens: VisualTokenConfig) -> float:
    """Of all visual tokens in all layers."""
    return tokens.merge_retain * sum(layer_shares(tokens, LAYERS)) / LAYERS


def never_less(below: Rung, above: Rung) -> bool:
    return below.n_frames <= above.n_frames and kept_share(below.tokens) <= kept_share(above.tokens)


@given(ladders)
def test_each_rung_has_at_least_what_is_below(rungs: list[Rung]) -> None:
    assert all(never_less(a, b) for a, b in itertools.pairwise(rungs))
    assert len(set(rungs)) == len(rungs)


@given(ladders, st.data(), seconds, seconds)
def test_more_time_never_gives_less(rungs: list[Rung], data: st.DataObject, a: float, b: float) -> None:
    """Whatever the rungs cost, also where a stored clip makes higher ones cheap; from what can be met on."""
    costs = data.draw(st.lists(seconds, min_size=len(rungs), max_size=len(rungs)))
    little, much = (pick(costs, wanted) for wanted in sorted((a, b)))
    assert much.met or not little.met
    assert not little.met or never_less(rungs[little.at], rungs[much.at])
    assert not much.met or costs[much.at] <= max(a, b)


@given(ladders, st.floats(0.01, 5), st.floats(0.001, 1), seconds, seconds)
def test_more_time_never_gives_less_on_a_plain_machine(
    rungs: list[Rung], frame_s: float, row_s: float, a: float, b: float
) -> None:
    """Cost that grows with frames and share: also what cannot be met is the lowest rung."""
    costs = [frame_s * r.n_frames + row_s * max(1, r.n_frames) * kept_share(r.tokens) for r in rungs]
    little, much = (pick(costs, wanted) for wanted in sorted((a, b)))
    assert never_less(rungs[little.at], rungs[much.at])
    assert little.met or little.at == 0


@given(st.lists(seconds, min_size=1), seconds)
def test_what_cannot_be_met_is_the_fastest(costs: list[float], wanted: float) -> None:
    found = pick(costs, wanted)
    assert found.met == (min(costs) <= wanted)
    assert found.met or costs[found.at] == min(costs)


def test_of_equally_fast_the_higher() -> None:
    assert pick([2.0, 1.0, 1.0, 3.0], 0.5).at == 2


def test_frames_come_before_a_higher_share() -> None:
    rungs = ladder(3, True)
    assert [(r.n_frames, r.setting) for r in rungs] == [
        (1, "auto:keep=0.08:window=4"), (1, "auto"), (2, "auto"), (3, "auto"),
        (3, "auto:keep=0.5"), (3, "off"),
    ]  # fmt: skip


def test_a_model_that_cannot_prune_merges_as_much() -> None:
    found = ladder(1, False)
    assert [r.setting for r in found] == [
        "merge-only:keep=0.08:merge=ward:window=4",
        "merge-only:keep=0.16:merge=ward",
        "merge-only:keep=0.5:merge=ward",
        "off",
    ]
    assert not any(r.tokens.prunes for r in found)
    assert [r.tokens.merge_retain for r in found] == [0.08, 0.16, 0.5, 1.0]


def test_pictures_alone_leave_the_share_to_choose() -> None:
    assert {r.n_frames for r in ladder(0, True)} == {0}


def test_what_was_asked_stays() -> None:
    given = VisualTokenConfig.budget(0.3)
    assert ladder(5, True, given) == [Rung(n, "", given) for n in (1, 2, 3, 4, 5)]


@given(st.integers(1, 5000))
def test_frame_steps(most: int) -> None:
    steps = frame_steps(most)
    assert steps[0] == 1
    assert steps[-1] == most
    assert steps == sorted(set(steps))
    assert all(b - a == 1 or b <= a * 9 / 8 for a, b in itertools.pairwise(steps))
    assert len(steps) < 80


def test_rungs_that_cannot_be_done_are_left_out() -> None:
    rungs = ladder(4, True)
    found, costs = cost_by_rung(rungs, lambda rung: None if rung.n_frames > 2 else float(rung.n_frames))
    assert [rung.n_frames for rung in found] == [1, 1, 2] == costs


@pytest.mark.parametrize(("value", "n", "told"), [(0.0, 1, "above 0"), (float("nan"), 1, "above 0"), (1.0, 0, "video")])
def test_what_is_no_target(value: float, n: int, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        check_ttft(value, n)
