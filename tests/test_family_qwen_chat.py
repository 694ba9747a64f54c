"""Conversations about Qwen-VL's media: several turns, later questions, saving, going back, and what is kept encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import qwen_case
from family_case import OFF, Case
from family_checkpoints import Clip, clip, message, picture
from limits import LIMITS
from qwen_case import ASKED, UNITS, distance, file_of, inputs_of, open_qwen
from thorough import few
from typer.testing import CliRunner

from aim_local import Chat, FrameSampling, GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.cli._app import app
from aim_local.errors import CancelledError
from aim_local.models.prompt import MediaKind, Message, mark
from aim_local.results import Prefill
from aim_local.store.chat_file import read_chat

case = qwen_case.case

SHORT, ONE, FIVE = GenerateConfig(max_tokens=5), GenerateConfig(max_tokens=1), FrameSampling(n_frames=5)
SETTINGS = {
    "off": OFF,
    "merged": VisualTokenConfig(0.5, prune_layers=None, weigh="size"),
    "early": VisualTokenConfig(0.5, prune_layers=(0, 3)),  # features are still added where rows go
    "pruned": VisualTokenConfig(0.5, prune_layers=(2, 4), merge_by="ward"),
    "question": VisualTokenConfig(0.7, prune_layers=None, retention=[1, 1, 0.5, 0.3], importance="question"),
}


def media_of(case: Case) -> list[Any]:
    """A picture and two clips, of whose times the last are far behind rows and columns."""
    frames = 4 * UNITS[case.family], 3 * UNITS[case.family]
    return [picture(80, 120, 3), clip(5, *frames, fps=0.25), clip(5, *frames[::-1], seed=1, fps=0.5)]


def given(case: Case, media: Sequence[Any]) -> list[Any]:
    return [file_of(case, item) if isinstance(item, Clip) else np.asarray(item) for item in media]


def talk(case: Case, chat: Chat, *, last: GenerateConfig = ONE) -> Any:
    """A text, a picture, a clip, and questions about them; the logits of the last one can be read then."""
    shown, n = given(case, media_of(case)), GenerateConfig(max_tokens=6)
    chat.ask("Hello!", (), SHORT)
    chat.ask("What is it?", shown[:1], SHORT)
    chat.ask("And this?", shown[1:2], n)
    chat.ask("How many?", (), SHORT)
    return chat.ask("And then?", shown[2:], last)


def logits_of(chat: Chat) -> np.ndarray:
    """After a turn of one token, which is drawn from them and not in the cache."""
    assert chat._cache
    return chat._cache.context.logits()


def said(chat: Chat) -> list[tuple[str, str, int]]:
    """Role, text and number of media of each turn up to the last question.

    A random model says anything, also the NUL that no prompt can have.
    """
    return [(m["role"], m["content"].replace("\0", ""), len(m["media"])) for m in chat.messages[:-1]]


def afresh(case: Case, chat: Chat, tokens: VisualTokenConfig) -> Prefill:
    """The same conversation as one prompt."""
    media, messages, n = media_of(case), list[Message](), 0
    for role, text, n_media in said(chat):
        kinds: list[MediaKind] = ["video" if isinstance(item, Clip) else "image" for item in media[n : n + n_media]]
        messages.append(Message(role, text, [(n + i, kind) for i, kind in enumerate(kinds)]))
        n += n_media
    rendered = case.llm.render(messages)
    for i in range(n):
        rendered = rendered.replace(mark(i), "<__media__>")
    return case.llm.prefill(rendered, given(case, media[:n]), tokens, raw=True, sampling=FIVE)


def test_several_turns_are_transformers(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    with case.llm.chat(OFF, sampling=FIVE) as chat:
        talk(case, chat)
        kinds = iter(["image", "video", "video"])
        turns = [message(role, *[(next(kinds),) for _ in range(n)], text) for role, text, n in said(chat)]
        inputs = inputs_of(case, turns, media_of(case))
        assert chat.used == inputs["input_ids"].shape[1]
        apart = distance(logits_of(chat), case.loaded.logits(inputs))
    with capsys.disabled():
        print(f"\n  {case.family}, {inputs['input_ids'].shape[1]} tokens: logits {apart:.1e}", end="")
    assert apart < LIMITS.whole


@pytest.mark.parametrize("name", few(SETTINGS, ("off", "pruned")))
def test_later_questions_are_those_of_one_prompt(case: Case, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Visual tokens of earlier turns are ranked again."""
    tokens = SETTINGS[name]
    with case.llm.chat(tokens, sampling=FIVE) as chat:
        answer = talk(case, chat)
        fresh = afresh(case, chat, tokens)
        apart = distance(logits_of(chat), fresh.logits)
        if tokens.prunes:
            assert [k.tolist() for k in answer.trace.kept] == [k.tolist() for k in fresh.trace.kept]
        assert apart < LIMITS.whole
        assert (answer.stats.n_ranked_again > 0) == tokens.prunes
        assert answer.warnings == []
    with capsys.disabled():
        print(f"\n  {case.family}, {name}, {[len(k) for k in fresh.trace.kept]}: logits {apart:.1e}", end="")


@pytest.mark.parametrize("name", few(["pruned", "off", "early"], 1))
def test_a_saved_conversation_goes_on(case: Case, name: str, tmp_path: Path) -> None:
    shown = given(case, media_of(case))
    with case.llm.chat(SETTINGS[name], sampling=FIVE) as chat:
        chat.ask("What is it?", shown[1:2], SHORT)
        path = chat.save(tmp_path / "talk.aimchat")
        want = chat.ask("And then?", shown[2:], SHORT)
        state = bytes(read_chat(chat.save(tmp_path / "a.aimchat")).state)
    with case.llm.load_chat(path) as chat:
        got = chat.ask("And then?", shown[2:], SHORT)
        assert (got.tokens, got.text) == (want.tokens, want.text)
        assert bytes(read_chat(chat.save(tmp_path / "b.aimchat")).state) == state


@pytest.mark.parametrize("name", few(["pruned", "off"], 1))
def test_a_turn_that_is_stopped_is_taken_back(case: Case, name: str) -> None:
    """While it is prefilled, and the conversation goes on as if it had never been asked."""
    shown, stop = given(case, media_of(case)), [False]

    def progress(stage: str, done: int, total: int) -> None:
        stop[0] = stage == "prefill"

    with case.llm.chat(SETTINGS[name], sampling=FIVE) as chat, case.llm.chat(SETTINGS[name], sampling=FIVE) as calm:
        for c in (chat, calm):
            c.ask("What is it?", shown[1:2], SHORT)
        with pytest.raises(CancelledError):
            chat.ask("Never asked", shown[:1], SHORT, progress=progress, should_stop=lambda: stop[0])
        got, want = (c.ask("And then?", shown[2:], SHORT) for c in (chat, calm))
        assert got.tokens == want.tokens
        assert np.array_equal(logits_of(chat), logits_of(calm))


def test_a_clip_is_encoded_once(case: Case, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The second time its rows come from the store, with what the first text layers add."""
    asked = ASKED[case.family]["5 frames"]
    for tokens in (OFF, SETTINGS["early"]):
        found = []
        for _ in range(2):
            with open_qwen(case.family, tmp_path_factory, cache_media=True).llm as llm:
                found.append(llm.prefill(asked.text, asked.items(case), tokens, sampling=asked.sampling))
        first, second = (f.stats for f in found)
        n_new = 3 if tokens is OFF else 0
        assert (first.n_tiles_encoded, first.n_tiles_cached) == (n_new, 3 - n_new)
        assert (second.n_tiles_encoded, second.n_tiles_cached) == (0, 3)
        assert np.array_equal(found[0].logits, found[1].logits)
    fresh = case.llm.prefill(asked.text, asked.items(case), tokens, sampling=asked.sampling)
    assert np.array_equal(found[1].logits, fresh.logits)


def test_what_was_merged_where(case: Case) -> None:
    """Every slot of every picture is covered by the token that it went into."""
    asked = ASKED[case.family]["picture and video"]
    tokens = replace(SETTINGS["pruned"], merge_retain=0.3)
    trace = case.llm.prefill(asked.text, asked.items(case), tokens, sampling=asked.sampling).trace
    assert [(g.media, g.frame) for g in trace.grids] == [(0, 0), (1, 0), (1, 2), (1, 4)]
    owners = np.concatenate([grid.owners.ravel() for grid in trace.grids])
    assert sorted(set(owners.tolist())) == list(range(len(trace.groups)))
    for i, group in enumerate(trace.groups):
        grid = next(g for g in trace.grids if (g.media, g.frame) == (group.media, group.frame))
        assert grid.owners.ravel()[group.slot] == i
    assert trace.to_image(0).ndim == 3


def test_resume_with_other_frame_tokens(case: Case, tmp_path: Path) -> None:
    """It would encode other frames than those that the saved conversation has: refused by the option's name."""
    paths, shown = case.llm.model.paths, given(case, media_of(case))[1:2]
    call = ["chat", str(paths.model), "--mmproj", str(paths.mmproj), "-p", "And?", "--max-tokens", "1", "--resume"]
    for limit, other in ((4, 8), (None, 4)):
        with (
            VisionLLM.load(paths.model, paths.mmproj, LoadConfig(n_threads=1, frame_tokens=limit)) as llm,
            llm.chat(SETTINGS["merged"], generate=ONE, sampling=FIVE) as chat,
        ):
            chat.ask("What?", shown)
            talk = str(chat.save(tmp_path / f"{limit}.aimchat"))
        found = CliRunner().invoke(app, [*call, talk])  # with the file's own
        assert found.exit_code == 0, found.output
        found = CliRunner().invoke(app, [*call, talk, "--frame-tokens", str(other)])
        words = f"with --frame-tokens {limit}, " if limit else "with no --frame-tokens, "
        assert found.exit_code == 1
        assert words + f"the model was loaded with --frame-tokens {other};" in " ".join(found.output.split())
