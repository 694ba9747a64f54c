"""What is concluded from a comparison: never more than the questions allow, and the same wherever it is printed."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape

import pytest
from compare_reports import cell, mcnemar, rate, report
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from aim_local.errors import UsageError
from aim_local.lab.compare.figures import about
from aim_local.lab.compare.markdown import markdown, terminal_notes
from aim_local.lab.compare.noninferiority import ALPHA, p_value, score_interval
from aim_local.lab.compare.page import html
from aim_local.lab.compare.questions import guessing
from aim_local.lab.compare.recommendation import gain_change, gain_value
from aim_local.lab.compare.records import CellSummary, Gain, Item, Paired, Report
from aim_local.lab.compare.verdict import check_margin, judged

REFERENCE, BASE = "m / off", report()


def made(setting: str, n: int, lost: int = 0, gained: int = 0, share: float = 0.3, right: float = 0.8) -> CellSummary:
    """A finished cell of n questions."""
    k = round(right * n) - lost + gained
    return replace(
        cell(0, "off"), model="m", setting=setting, is_reference=setting == "off", n_items=n, n_done=n,
        accuracy=rate(k, n), paired=Paired(lost, gained, mcnemar(lost, gained), n), by_tag={},
        flops_share=1.0 if setting == "off" else share,
    )  # fmt: skip


def compared(*cells: CellSummary, margin: float = 1.0, chance: float | None = 0.25, right: float = 0.8) -> Report:
    first = made("off", cells[0].n_items, right=right)
    return judged(
        replace(
            BASE, suite="s", n_items=first.n_items, reference=REFERENCE, cells=(first, *cells), margin=margin,
            chance=chance, recommendation=None,
        )
    )  # fmt: skip


def kinds(found: Report) -> list[str]:
    return [c.verdict.kind for c in found.cells if c.verdict is not None]


def headline(found: Report) -> str:
    assert found.recommendation is not None
    return found.recommendation.headline


# --- one cell ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "lost", "gained", "kind", "label"),
    [
        (3000, 20, 19, "within", "keeps accuracy within 1 point"),
        (30, 0, 4, "undecided", "too few questions to say: about 11,000 needed"),
        (100, 0, 12, "within", "keeps accuracy within 1 point"),
        (3000, 90, 20, "loses", "loses more than 1 point"),
        (200, 1, 1, "undecided", "too few questions to say: about 1,200 needed"),
        (381, 0, 0, "within", "keeps accuracy within 1 point"),
        (380, 0, 0, "undecided", "too few questions to say: about 390 needed"),
        (1, 0, 0, "undecided", "too few questions to say: about 390 needed"),
        (6, 6, 0, "loses", "loses more than 1 point"),
        (4, 4, 0, "undecided", "too few questions to say: about 79,000 needed"),  # McNemar's p is 0.125
    ],
)
def test_a_verdict_follows_the_interval(n: int, lost: int, gained: int, kind: str, label: str) -> None:
    found = compared(made("paper", n, lost, gained, right=1.0 - gained / n), right=1.0, chance=None).cells[1].verdict
    assert found is not None
    assert (found.kind, found.label) == (kind, label)
    assert (found.points, found.n) == (pytest.approx(100 * (gained - lost) / n), n)
    low, high = score_interval(lost, gained, n)
    assert (found.low, found.high) == (pytest.approx(100 * low), pytest.approx(100 * high))
    assert (found.needed is not None) == (kind == "undecided")


@given(
    st.integers(1, 1500).flatmap(
        lambda n: st.tuples(st.just(n), st.integers(0, min(n, 30)), st.integers(0, 30)).filter(
            lambda t: t[1] + t[2] <= t[0]
        )
    ),
    st.sampled_from([0.2, 1.0, 5.0, 20.0]),
)
@settings(max_examples=examples(100), deadline=None)
def test_nothing_is_recommended_that_the_questions_do_not_bear(counts: tuple[int, int, int], margin: float) -> None:
    """Also where not one answer differs: n questions cannot tell a loss of less than about 3.8 / n."""
    n, lost, gained = counts
    found = compared(made("paper", n, lost, gained, right=1.0 - gained / n), margin=margin, right=1.0, chance=None)
    verdict, advice = found.cells[1].verdict, found.recommendation
    assert verdict is not None
    assert advice is not None
    if verdict.kind == "none":  # not shown to be better than guessing by the margin
        assert n < 30
        return
    if n < 30 or (p_value(0, 0, n, margin / 100) >= ALPHA and mcnemar(lost, gained) >= 0.05):
        assert verdict.kind != "within"
    if verdict.kind == "within":
        assert 100 * score_interval(lost, gained, n)[0] > -margin
    if verdict.kind == "loses":
        assert 100 * score_interval(lost, gained, n)[1] < -margin
    if verdict.kind == "undecided":
        assert verdict.needed is not None
        assert n < verdict.needed < 1e9
    assert (advice.kind == "use") <= (verdict.kind == "within")


# --- when there is none -----------------------------------------------------------------------------------------------


def test_a_reference_that_guesses_gives_no_verdict() -> None:
    found = compared(made("paper", 2000, 5, 5), right=0.26)
    assert kinds(found) == ["none"]
    assert headline(found) == "No verdict"
    text = found.recommendation.text[0] if found.recommendation else ""
    assert text.startswith("The reference, m / off, answers 26.0% of 2000 questions right (95% from 24.1% to 28.0%)")
    assert "not shown to be better than guessing (25.0%)" in text
    assert kinds(compared(made("paper", 2000, 5, 5), right=0.35)) == ["within"]
    # nothing is known of guessing, and none is right
    assert kinds(compared(made("paper", 2000, 0, 0), right=0.0, chance=None)) == ["none"]


def test_other_questions_give_no_verdict() -> None:
    partial = replace(made("fast", 2000, 3, 3), status="partial", n_done=1500)
    failed = CellSummary("m", "ward", False, "failed", reason="killed", n_items=2000)
    fewer = replace(made("grid", 2000, 3, 3), paired=Paired(3, 3, 1.0, 1999))
    toy = replace(made("auto", 2000, 3, 3), toy=True)
    found = compared(made("paper", 2000, 3, 3), partial, failed, fewer, toy)
    assert kinds(found) == ["within", "none", "none", "none", "none"]
    reasons = [c.verdict.reason for c in found.cells[2:] if c.verdict is not None]
    assert reasons[0] == "it has answered 1500 of 2000 questions, the reference all of them"
    assert reasons[1] == "it failed"
    assert reasons[2] == "it did not answer the same questions as the reference"
    assert "means nothing" in reasons[3] or "mean nothing" in reasons[3]
    # those have no part in the correction for many
    assert found.cells[1].verdict is not None
    assert found.cells[1].verdict.p_holm == found.cells[1].verdict.p


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"status": "partial", "n_done": 12}, "has answered 12 of 2000 questions"),
        ({"status": "failed", "n_done": 0, "accuracy": None}, "gave no answers"),
        ({"accuracy": None}, "o question has an expected answer"),
        ({"toy": True}, "is a toy that knows drawn shapes only"),
    ],
)
def test_a_reference_that_cannot_be_compared_with(change: dict[str, object], told: str) -> None:
    first = replace(made("off", 2000), **change)
    found = judged(replace(report(), reference=REFERENCE, cells=(first, made("paper", 2000, 3, 3))))
    assert kinds(found) == ["none"]
    assert headline(found) == "No verdict"
    assert told in (found.recommendation.text[0] if found.recommendation else "")


def test_what_guessing_gets() -> None:
    def item(answer: str | None, *choices: str) -> Item:
        return Item("x", (), "?", answer, choices)

    assert guessing([]) is None
    assert guessing([item(None)]) is None
    assert guessing([item("A", "a", "b"), item("B", "a", "b", "c", "d")]) == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert guessing([item("yes"), item("Yes "), item("no"), item("a red cross")]) == 0.5
    assert guessing([item("red"), item("blue")]) == 0.0
    assert guessing([item("yes"), item("yes"), item("A", "a", "b"), item(None)]) == pytest.approx(2.5 / 3)


@pytest.mark.parametrize("margin", [0, -1, 21, float("nan")])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    with pytest.raises(UsageError, match=r"^margin is"):
        check_margin(margin)


# --- what to use ------------------------------------------------------------------------------------------------------


def test_the_cheapest_that_keeps_its_accuracy_is_recommended() -> None:
    cells = (
        made("paper", 3000, 20, 19, share=0.22),
        made("auto", 3000, 5, 5, share=0.3),
        made("fast", 3000, 90, 20, share=0.1),
        made("ward", 3000, 40, 20, share=0.15),
    )
    found = compared(*cells)
    assert kinds(found) == ["within", "within", "loses", "undecided"]
    advice = found.recommendation
    assert advice is not None
    assert (advice.kind, advice.key, advice.headline) == ("use", "m / paper", "Use m / paper")
    assert (
        "m / paper keeps accuracy within 1 point: 0.0 points (95% from -0.5 to +0.4) over 3,000 questions."
        in advice.text
    )
    assert "4 cells were tested: this holds for all of them together (Holm's correction)." in advice.text
    assert any(
        line.startswith("Cheaper still, but with too few questions to say: m / ward (about") for line in advice.text
    )
    assert [gain.what for gain in advice.gains] == ["first token", "KV cache", "peak memory", "files"]


def test_one_that_passes_alone_is_not_recommended_among_many() -> None:
    """p is 0.02: enough for one cell, not for eight."""
    lost = next(b for b in range(30) if ALPHA / 8 < p_value(b, 1, 1200, 0.01) < ALPHA)
    near = made("paper", 1200, lost, 1, share=0.2)
    assert headline(compared(near)) == "Use m / paper"
    worse = [made(name, 1200, 200, 1) for name in ("a", "b", "c", "d", "e", "f", "g")]
    found = compared(near, *worse)
    assert kinds(found) == ["within", *["loses"] * 7]
    advice = found.recommendation
    assert advice is not None
    assert advice.kind == "more questions"
    assert advice.needed is not None
    assert advice.needed > 1200
    assert "8 cells were tested, and of so many one may pass by chance" in advice.text[1]


def test_no_cheaper_cell_keeps_it() -> None:
    stay = compared(made("fast", 3000, 190, 20), made("paper", 3000, 90, 20))
    assert headline(stay) == "Stay with m / off"
    assert stay.recommendation is not None
    assert stay.recommendation.text[0] == "Every cheaper cell with a verdict loses more than 1 point."
    assert stay.recommendation.text[1].startswith("m / paper loses more than 1 point: -2.3 points (95% from")
    same = replace(made("paper", 3000, 5, 5), flops_share=1.0)
    assert headline(compared(same)) == "Nothing to recommend"
    larger = replace(made("paper", 3000, 5, 5), model_bytes=10**12)  # fewer FLOPs of a larger file: no bargain for sure
    assert headline(compared(larger)) == "Nothing to recommend"
    smaller = replace(made("paper", 3000, 5, 5), flops_share=1.0, model_bytes=1000)
    assert headline(compared(smaller)) == "Use m / paper"


def test_another_margin_is_another_verdict() -> None:
    assert kinds(compared(made("paper", 3000, 90, 20), margin=5.0)) == ["within"]
    assert kinds(compared(made("paper", 3000, 20, 19), margin=0.2)) == ["undecided"]
    assert "within 0.2 points" in html(compared(made("paper", 3000, 20, 19), margin=0.2))


def test_changes_read() -> None:
    assert gain_change(Gain("first token", 50, 100)) == "2.0 times sooner"
    assert gain_change(Gain("first token", 300, 100)) == "3.0 times later"
    assert gain_change(Gain("first token", 99, 100)) == "as soon"
    assert gain_change(Gain("files", 25, 100)) == "75% less"
    assert gain_change(Gain("files", 150, 100)) == "50% more"
    assert gain_change(Gain("files", 100, 100)) == "the same"
    assert gain_value(Gain("first token", 12_345, 1)) == "12.3 s"
    assert gain_value(Gain("first token", 9_000, 23_000)) == "9.00 s"
    assert gain_value(Gain("first token", 900, 2_300)) == "900 ms"
    assert [about(n) for n in (1, 99, 381, 6725, 120_001)] == ["1", "99", "390", "6,800", "130,000"]


# --- the same everywhere ----------------------------------------------------------------------------------------------


def flat(markup: str) -> str:
    text = re.sub(r"<(style|script).*?</\1>", "", markup, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", text)).split())


def test_page_markdown_terminal_and_json_say_the_same() -> None:
    for found in (
        report(),
        compared(made("paper", 3000, 20, 19)),
        compared(made("paper", 9)),
        compared(made("x", 2000), right=0),
    ):
        data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        advice = data["recommendation"]
        page, text = flat(html(found)), re.sub(r"\\(.)", r"\1", markdown(found))
        for form in (page, text, "\n".join(terminal_notes(found))):
            assert advice["headline"] in form
            assert all(" ".join(line.split()) in form for line in advice["text"])
        for one in data["cells"]:
            if one["verdict"] is not None:
                assert one["verdict"]["label"] in page
                if one["verdict"]["needed"]:
                    assert about(one["verdict"]["needed"]) in text


def test_words_of_old_are_gone() -> None:
    """ "No significant loss" is what a small suite always finds."""
    text = html(report()) + markdown(report())
    assert "without a loss" not in text
    assert "significant" not in text
