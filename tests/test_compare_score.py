"""Scoring: an answer's logits against plain generate and prefill, letters of choices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import compare_case
import numpy as np
import pytest
from compare_case import FOLDER, OFF, PAPER, SHORT, lines
from prompt_steps import decoded, prefilled

from aim_local import GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.engine.generate import generate
from aim_local.errors import ContextError, ModelError, UsageError
from aim_local.lab.compare import cell as cell_process
from aim_local.lab.compare import runner
from aim_local.lab.compare.job import Task
from aim_local.lab.compare.records import Item, Suite

suite_file = compare_case.suite_file
suite = compare_case.suite


@pytest.fixture(scope="module")
def llm() -> Iterator[VisionLLM]:
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def item() -> Item:
    """A question whose answer, "red cross", is more than one token."""
    return Item("needle", (FOLDER.parent / "clips" / "needle.mp4",), "What appears in the middle?", "red cross")


# --- score -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [OFF, PAPER], ids=["off", "paper"])
def test_score_follows_its_own_answer(llm: VisionLLM, item: Item, tokens: VisualTokenConfig) -> None:
    plain = llm.generate(item.question, item.media, tokens, GenerateConfig(max_tokens=6))
    scored = llm.score(item.question, item.media, tokens=tokens, generate=GenerateConfig(max_tokens=6))
    assert scored.answer.tokens == scored.forced == plain.tokens
    assert len(plain.tokens) > 1
    assert scored.answer.stats.stop_reason == "eos"
    assert scored.logits.shape == (len(plain.tokens) + 1, llm.text.n_vocab)
    assert scored.logits[:-1].argmax(-1).tolist() == plain.tokens
    assert llm.text.llama.is_eog(int(scored.logits[-1].argmax()))


@pytest.mark.parametrize("tokens", [OFF, PAPER], ids=["off", "paper"])
@pytest.mark.parametrize("given", [[], [5], [7, 9, 11, 400, 3]])
def test_score_gives_the_logits_of_prefill(
    llm: VisionLLM, item: Item, tokens: VisualTokenConfig, given: list[int]
) -> None:
    """Row by row: a plain prefill, then one decode at a time in a context that never went back."""
    scored = llm.score(item.question, item.media, given, tokens, GenerateConfig(max_tokens=6))
    expected = decoded(llm, item.question, item.media, tokens, given)
    assert scored.logits.shape == (len(given) + 1, llm.text.n_vocab)
    np.testing.assert_allclose(scored.logits[0], llm.prefill(item.question, item.media, tokens).logits, atol=1e-5)
    np.testing.assert_allclose(scored.logits, expected, atol=1e-5)
    plain = llm.generate(item.question, item.media, tokens, GenerateConfig(max_tokens=6))
    assert (scored.answer.text, scored.answer.tokens) == (plain.text, plain.tokens)


@pytest.mark.parametrize("tokens", [OFF, PAPER], ids=["off", "paper"])
def test_score_leaves_the_own_answer_where_they_part(llm: VisionLLM, item: Item, tokens: VisualTokenConfig) -> None:
    """The given answer begins as the own one: the logits up to the fork are those drawn from, the rest are forced."""
    own = llm.generate(item.question, item.media, tokens).tokens
    for given in ([*own[:1], 7, 8], [*own[:2], 7], [*own, 7], own):
        scored = llm.score(item.question, item.media, given, tokens, GenerateConfig(max_tokens=6))
        expected = decoded(llm, item.question, item.media, tokens, given)
        np.testing.assert_allclose(scored.logits, expected, atol=1e-5)


def test_score_of_an_answer_that_is_cut(llm: VisionLLM, item: Item) -> None:
    scored = llm.score(item.question, item.media, generate=GenerateConfig(max_tokens=1))
    assert scored.answer.stats.stop_reason == "length"
    assert (len(scored.forced), len(scored.logits)) == (1, 2)
    few = llm.score(item.question, item.media, generate=GenerateConfig(max_tokens=6), n_own=0)
    assert (few.forced, len(few.logits), len(few.answer.tokens) > 0) == ([], 1, True)


def test_an_answer_that_does_not_fit_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was told when the context was full: after minutes of decoding one token after another."""
    with VisionLLM.load(config=LoadConfig(n_ctx=512)) as model:
        n_prompt = model.prefill("What?").stats.n_prompt
        answer = GenerateConfig(max_tokens=1)
        fits = model.score("What?", (), [5] * (512 - n_prompt), generate=answer)
        assert fits.logits.shape[0] == 512 - n_prompt + 1
        monkeypatch.setattr("aim_local.llm.prefill", None)  # nothing is computed
        told = rf"needs 513 tokens with {513 - n_prompt} for the answer.*holds 512: load with n_ctx=513 or more.*fewer"
        with pytest.raises(ContextError, match=told):
            model.score("What?", (), [5] * (513 - n_prompt), generate=answer)
        with pytest.raises(ContextError, match="trained for 4096: shorten the text, or give fewer answer_tokens"):
            model.score("What?", (), [5] * 5000)
        with pytest.raises(UsageError, match="grammar"):
            model.score("What?", generate=GenerateConfig(grammar="root ::="))


def test_score_refuses(llm: VisionLLM) -> None:
    with pytest.raises(UsageError, match=r"an answer token is 9999; give ids of the vocabulary, .*0 to 473"):
        llm.score("What?", (), [5, 9999])
    with pytest.raises(UsageError, match="n_own is 2; it is a count from 0, for a score without answer_tokens"):
        llm.score("What?", (), [5], n_own=2)


def test_what_is_drawn_can_be_watched(llm: VisionLLM) -> None:
    """The end of the turn too, which the answer does not hold."""
    seen = list[int]()
    with prefilled(llm, "What is this?", (), None, 8) as context:
        answer = generate(context, GenerateConfig(max_tokens=8), on_draw=seen.append)
    assert seen[: len(answer.tokens)] == answer.tokens
    assert len(seen) == len(answer.tokens) + (answer.stop_reason == "eos")


# --- choices ---------------------------------------------------------------------------------------------------------


class _Letters:
    """A vocabulary of words for `letter_tokens`: the id of each form, more than one where it is split."""

    def __init__(self, forms: dict[str, list[int]]) -> None:
        self.text, self._forms = self, forms

    def tokenize(self, text: str, *, start: bool, special: bool) -> list[int]:
        assert not start
        assert not special
        return self._forms[text]


def test_the_likeliest_letter_counts_both_forms() -> None:
    """A: p .30; B: .20 + .25 with a space: B is likelier, though no token of it is."""
    words = _Letters({"A": [0], " A": [9, 0], "B": [1], " B": [2]})
    logits = np.log(np.array([0.30, 0.20, 0.25, 0.25], np.float32))
    task = Task(0, Item("q", (), "Which?", "B", ("one", "two")))
    assert cell_process.likeliest_letter(words, logits, task) == "B"  # type: ignore[arg-type]
    assert cell_process.letter_tokens(words, ("A", "B")) == {"A": {0}, "B": {1, 2}}  # type: ignore[arg-type]


def test_letters_that_begin_alike_are_refused() -> None:
    words = _Letters({"A": [5, 0], " A": [6, 5, 0], "B": [5, 1], " B": [6, 5, 1]})
    with pytest.raises(ModelError, match="no tokens of their own for the letters A, B"):
        cell_process.letter_tokens(words, ("A", "B"))  # type: ignore[arg-type]


def test_choices_in_a_cell(suite: Suite, tmp_path: Path) -> None:
    """What is scored is the letter with the most probability after the prompt, whatever the answer's text is."""
    items = tuple(replace(i, choices=("red", "blue", "no"), answer="B") for i in suite.items[:2])
    report = runner.compare(replace(suite, items=items), tmp_path / "out", settings=["off"], options=SHORT)
    rows = next(iter(lines(tmp_path / "out").values()))
    assert report.cells[0].status == "done"
    assert {row["scored"] for row in rows} <= {"A", "B", "C"}
    assert [row["right"] for row in rows] == [row["scored"] == "B" for row in rows]
    expected = report.cells[0].accuracy
    assert expected is not None
    assert expected.k == sum(row["right"] for row in rows)
