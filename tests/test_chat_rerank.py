"""A later question about an old clip: the answer of a conversation prefilled anew, at the cost of its last layers.

Truth is `VisionLLM.prefill` of the whole rendered conversation with all its media, on random checkpoints in f32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pruning_case
import pytest
import runtime_case
from pruning_case import draw
from runtime_case import video
from test_chat import as_messages
from thorough import few
from typer.testing import CliRunner

from aim_local import Answer, Chat, GenerateConfig, VisionLLM, VisualTokenConfig
from aim_local.cli import _answer
from aim_local.cli._app import app
from aim_local.errors import CancelledError
from aim_local.models.prompt import mark
from aim_local.results import Prefill
from aim_local.store.chat_file import read_chat

checkpoint, model, llm = runtime_case.checkpoint, runtime_case.model, runtime_case.llm

N_CASES, TOLERANCE = 20, 1e-3
SHORT, ONE = GenerateConfig(max_tokens=5), GenerateConfig(max_tokens=1)
PRUNED = VisualTokenConfig(merge_retain=0.5, prune_layers=(0, 2))
SETTINGS = {
    0: VisualTokenConfig.paper(),
    1: VisualTokenConfig.fast(),
    2: VisualTokenConfig.late_drop(),
    3: VisualTokenConfig.budget(0.5),
    4: VisualTokenConfig(importance="last_query"),
    5: VisualTokenConfig(importance="random", seed=3),
    6: VisualTokenConfig(importance="grid"),
    7: VisualTokenConfig(importance=lambda il, scores, n: np.argsort(scores)[:n]),  # the lowest stay
}  # others are drawn: layers, or a share for each


def logits_of(chat: Chat) -> np.ndarray:
    """After a turn of one token, which is drawn from them and not in the cache."""
    assert chat._cache
    return chat._cache.context.logits()


def afresh(llm: VisionLLM, chat: Chat, media: list[Any], tokens: VisualTokenConfig) -> Prefill:
    """The conversation up to its last question in a context of its own."""
    rendered = llm.render(as_messages(chat)[:-1])
    for i in range(len(media)):
        rendered = rendered.replace(mark(i), "<__media__>")
    return llm.prefill(rendered, media, tokens, raw=True)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


def same_kept(answer: Answer, fresh: Prefill) -> int:
    """How many kept sets there are: all are equal, or it fails."""
    assert [k.tolist() for k in answer.trace.kept] == [k.tolist() for k in fresh.trace.kept]
    assert answer.trace.groups == fresh.trace.groups
    assert [g.owners.tolist() for g in answer.trace.grids] == [g.owners.tolist() for g in fresh.trace.grids]
    return len(fresh.trace.kept)


@pytest.mark.parametrize("seed", few(range(N_CASES), 4))
def test_equals_the_conversation_prefilled_anew(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clip in the first turn, more in later ones, logits after the last: a small first context that has to grow."""
    monkeypatch.setattr("aim_local.chat._SPARE_TEXT", 8)
    case = draw(seed)
    tokens = SETTINGS.get(seed, case.tokens)
    rng = np.random.default_rng(1000 + seed)
    n_turns, n_first = int(rng.integers(2, 5)), int(rng.integers(1, len(case.media) + 1))
    shown = [case.media[:n_first], *([m] for m in case.media[n_first:]), [], [], []][:n_turns]
    shown[-1:] = [shown[-1] or ([case.media[0]] if rng.integers(2) else [])]
    with pruning_case.load(tmp_path, case).llm as llm, llm.chat(tokens) as chat:
        for i, media in enumerate(shown):
            answer = chat.ask(f"what is it? {i}", media, ONE if i + 1 == n_turns else SHORT)
        fresh = afresh(llm, chat, [m for media in shown for m in media], chat._talk.planned or tokens)
        worst, n_equal = distance(logits_of(chat), fresh.logits), same_kept(answer, fresh)
        counts = [len(k) for k in fresh.trace.kept]
        with capsys.disabled():
            clips = "+".join(str(len(media)) for media in shown)
            print(f"\n  {case.kind}, clips {clips}, {counts}: logits {worst:.1e}, {n_equal} kept sets equal", end="")
        assert worst < TOLERANCE
        if min(counts) < max(counts):
            n_old = fresh.stats.n_visual - answer.stats.n_visual
            assert (answer.stats.n_ranked_again, answer.warnings) == (n_old, [])
            assert answer.stats.flops_full == fresh.stats.flops_full
            assert answer.stats.flops < fresh.stats.flops


def test_it_matters(llm: VisionLLM) -> None:
    """The first survivors give other logits: what the other tests compare is no accident."""
    with llm.chat(PRUNED) as chat, llm.chat(PRUNED, rerank=False) as kept:
        for c in (chat, kept):
            c.ask("what is it?", [video()], SHORT)
        assert chat.ask("and then?", (), ONE).stats.n_ranked_again > 0
        assert kept.ask("and then?", (), ONE).stats.n_ranked_again == 0
        fresh = afresh(llm, chat, [video()], PRUNED)
        assert distance(logits_of(chat), fresh.logits) < TOLERANCE < distance(logits_of(kept), fresh.logits)


def test_off_is_said_once(llm: VisionLLM) -> None:
    with llm.chat(PRUNED, generate=SHORT, rerank=False) as chat:
        answers = [chat.ask("what is it?", [video()]), *(chat.ask("and then?") for _ in range(2))]
        assert [len(a.warnings) for a in answers] == [0, 1, 0]
        assert "the visual tokens that earlier ones kept: re-ranking is off" in answers[1].warnings[0]
        assert answers[-1].stats.held_bytes == 0
    with llm.chat(VisualTokenConfig.off(), generate=SHORT, rerank=False) as chat:  # nothing is pruned, nothing is said
        assert not [*chat.ask("what is it?", [video()]).warnings, *chat.ask("and then?").warnings]


def test_what_is_held_is_counted(llm: VisionLLM) -> None:
    with llm.chat(PRUNED, generate=ONE) as chat:
        chat.ask("what is it?", [video()])
        answer = chat.ask("and then?")
        row = 4 * (llm.text.n_embd + 64)  # hidden state, and queries of 2 heads of 32
        assert answer.stats.held_bytes == (answer.stats.n_prompt + first_rows(chat, answer)) * row
        line = _answer.stats_line(answer.stats)
        assert f"{answer.stats.n_ranked_again} ranked again" in line
        assert "MiB of rows" in line


def first_rows(chat: Chat, answer: Answer) -> int:
    return chat.used - answer.stats.n_prompt


def test_a_stopped_turn_is_taken_back(llm: VisionLLM) -> None:
    """Stopped while it ranks again: the next question is answered as if the stopped one never was."""
    calls = [0]

    def ranked(il: int, scores: np.ndarray, n: int) -> np.ndarray:
        calls[0] += 1
        return np.argsort(scores)[-n:]

    tokens = VisualTokenConfig(merge_retain=0.5, prune_layers=(0, 2), importance=ranked)
    with llm.chat(tokens) as chat, llm.chat(tokens) as calm:
        for c in (chat, calm):
            c.ask("what is it?", [video()], SHORT)
        calls[0] = 0
        with pytest.raises(CancelledError):
            chat.ask("never asked", (), SHORT, should_stop=lambda: calls[0] > 0)
        assert calls[0] > 0
        assert len(chat.messages) == 2
        got, want = (c.ask("and then?", (), SHORT) for c in (chat, calm))
        assert got.tokens == want.tokens
        chat.ask("once more", [video(2, 5)], ONE)
        fresh = afresh(llm, chat, [video(), video(2, 5)], tokens)
        assert distance(logits_of(chat), fresh.logits) < TOLERANCE


# --- saved conversations ----------------------------------------------------------------------------------------------


def test_a_saved_conversation_ranks_again(llm: VisionLLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with llm.chat(PRUNED) as chat, llm.chat(PRUNED, rerank=False) as lean:
        for c in (chat, lean):
            c.ask("what is it?", [video()], SHORT)
        path, small = chat.save(tmp_path / "talk.aimchat"), lean.save(tmp_path / "lean.aimchat")
        n_rows = chat.used
    sizes = [len(read_chat(p).state) for p in (path, small)]
    assert sizes[0] - sizes[1] == 12 + n_rows * 4 * (llm.text.n_embd + 64)
    with capsys.disabled():
        print(f"\n  state of {n_rows} rows: {sizes[1]} bytes, with rows {sizes[0]}", end="")
    with llm.load_chat(path) as chat:
        answer = chat.ask("and then?", [video(2, 5)], ONE)
        fresh = afresh(llm, chat, [video(), video(2, 5)], PRUNED)
        assert distance(logits_of(chat), fresh.logits) < TOLERANCE
        assert [k.tolist() for k in answer.trace.kept] == [k.tolist() for k in fresh.trace.kept]
        n_old = answer.stats.n_ranked_again
        assert [g.media for g in answer.trace.groups] == [g.media for g in fresh.trace.groups]
        assert answer.trace.groups[n_old:] == fresh.trace.groups[n_old:]  # the saved clip's places are not in the file
        assert answer.trace.to_image(0).ndim == 3
        assert answer.warnings == []


def test_a_file_without_rows_says_so(llm: VisionLLM, tmp_path: Path) -> None:
    """As earlier versions wrote them; `rerank=None` goes on as it was saved."""
    with llm.chat(PRUNED, rerank=False) as chat:
        chat.ask("what is it?", [video()], SHORT)
        path = chat.save(tmp_path / "old.aimchat")
        want = chat.ask("and then?", (), SHORT)
    for rerank, words in ((True, "the saved conversation has no rows"), (None, "re-ranking is off")):
        with llm.load_chat(path, rerank=rerank) as chat:
            answer = chat.ask("and then?", (), SHORT)
            assert words in answer.warnings[0]
            assert answer.tokens == want.tokens
            assert chat.ask("more?", (), SHORT).warnings == []


def test_format_1_is_read(llm: VisionLLM, tmp_path: Path) -> None:
    with llm.chat(PRUNED, rerank=False) as chat:
        chat.ask("what is it?", [video()], SHORT)
        path = chat.save(tmp_path / "old.aimchat")
    data = bytearray(path.read_bytes())
    data[8:12] = (1).to_bytes(4, "little")
    path.write_bytes(data)
    with llm.load_chat(path) as chat:
        assert chat.ask("and then?", (), SHORT).stats.n_generated > 0


def test_rows_are_left_where_nobody_wants_them(llm: VisionLLM, tmp_path: Path) -> None:
    with llm.chat(PRUNED) as chat:
        chat.ask("what is it?", [video()], SHORT)
        path = chat.save(tmp_path / "talk.aimchat")
    with llm.load_chat(path, rerank=False) as chat:
        answer = chat.ask("and then?", (), SHORT)
        assert (answer.stats.held_bytes, answer.stats.n_ranked_again, len(answer.warnings)) == (0, 0, 1)


# --- on the command line ----------------------------------------------------------------------------------------------


def test_a_single_question_has_nothing_to_rank_again() -> None:
    result = CliRunner().invoke(app, ["chat", "--rerank", "off", "-p", "What?"])
    assert result.exit_code == 2
    assert "--rerank: a single question has no earlier visual tokens" in result.stderr


def test_resume_with_and_without(model: Path, llm: VisionLLM, tmp_path: Path) -> None:
    with llm.chat(PRUNED) as chat:
        chat.ask("what is it?", [video()], SHORT)
        path = str(chat.save(tmp_path / "talk.aimchat"))
    asked = ["chat", str(model), "--resume", path, "--threads", "1", "--max-tokens", "3", "-p", "and then?", "--stats"]
    assert " ranked again" in CliRunner().invoke(app, asked).stderr
    result = CliRunner().invoke(app, [*asked, "--rerank", "off"])
    assert result.exit_code == 0, result.output
    assert "re-ranking is off" in result.stderr
    assert " ranked again" not in result.stderr
