"""Qwen3.5 and Gemma 4 against transformers, from the GGUF pairs that llama.cpp's converter writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import newest_checkpoints
from family_case import Case, source_of
from family_checkpoints import clip as drawn_clip
from family_checkpoints import picture
from family_prompts import ASK, PROMPTS, drawn
from family_use import SHORT, check_cached, check_explain, check_plan
from newest_case import check, check_merged_only, open_newest, write_newest
from thorough import few

from aim_local import Chat, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.config import MERGE_AUTO
from aim_local.engine.contexts import open_plain
from aim_local.engine.plan import default_tokens
from aim_local.engine.points import Mark, Points
from aim_local.errors import CancelledError, ModelError, UsageError
from aim_local.media import MediaShape
from aim_local.models.gemma4 import filled_size
from aim_local.models.prompt import MediaKind, Message, mark
from aim_local.native.llama import Decoder

NAMES = tuple(newest_checkpoints.NEWEST)
MERGED = VisualTokenConfig(0.5, prune_layers=None)
CLIP_5 = drawn_clip(5, 240, 320, fps=1.0)
CLIP = MediaShape("video", 2, 240, 320, "", "", (0.0, 1.0), (0, 1), 2.0)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Case]]:
    root = tmp_path_factory.mktemp("newest")
    write_newest(NAMES, root)
    found = {name: open_newest(name, root / name) for name in NAMES}
    yield found
    for case in found.values():
        case.llm.close()


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    return cases[request.param]


@pytest.mark.parametrize("prompt", few(PROMPTS, [name for name in PROMPTS if name not in ("2 frames", "8 frames")]))
def test_like_transformers(case: Case, prompt: str) -> None:
    check(case, *PROMPTS[prompt])


@pytest.mark.parametrize("seed", few(range(12), 2))
def test_merged(case: Case, seed: int) -> None:
    check_merged_only(case, *drawn(seed, case.llm.model.text.n_layer, prunes=False))


@pytest.fixture
def one_way(cases: dict[str, Case], monkeypatch: pytest.MonkeyPatch) -> Case:
    """As the models of 2 and 4 billion parameters are: rows of a picture see those before them alone."""
    case = cases["gemma4"]
    monkeypatch.setattr(case.llm.model.tower, "both_ways", False)
    monkeypatch.setattr(case.loaded.model.config.text_config, "use_bidirectional_attention", None)
    return case


@pytest.mark.parametrize("prompt", few(["5 frames", "two pictures"], 1))
def test_one_way_like_transformers(one_way: Case, prompt: str) -> None:
    check(one_way, *PROMPTS[prompt])


@pytest.mark.parametrize("seed", few([1, 5], 1))
def test_one_way_merged(one_way: Case, seed: int) -> None:
    check_merged_only(one_way, *drawn(seed, 6, prunes=False))


@pytest.mark.parametrize(
    ("name", "why"), [("qwen3_5", "some of its layers are recurrent"), ("gemma4", "text architecture gemma4")]
)
@pytest.mark.parametrize("asked", [VisualTokenConfig.paper(), VisualTokenConfig.auto()])
def test_what_needs_stages_is_refused(cases: dict[str, Case], name: str, why: str, asked: VisualTokenConfig) -> None:
    with pytest.raises(ModelError, match=rf"{why}.*use (prune_layers=None|weigh=.equal.)") as error:
        cases[name].llm.prefill(ASK, [picture(112, 112)], asked)
    assert "\n" not in str(error.value)


def test_default_is_merging(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(case.llm.model.tower), "reduces_by_default", True)
    found = default_tokens(case.llm.model, [CLIP])
    assert (found.merge_by, found.merge_retain, found.weigh, found.prunes) == ("ward", MERGE_AUTO, "equal", False)


def test_kv_bytes(case: Case) -> None:
    """What 64 more tokens add to a saved state, beside positions, is what the file's keys say."""
    text = case.llm.model.text
    sizes = list[int]()
    for n in (16, 80):
        with closing(open_plain(case.llm.model, 512)) as context:
            context.decode_tokens([5] * n, logits=True)
            sizes.append(len(context.state()))
    grown, said = sizes[1] - sizes[0], 64 * text.kv_bytes_per_cell()
    print(f"{grown} bytes of state, {said} of K and V")
    assert said <= grown <= said + 64 * 2 * 16  # two caches with a position and a sequence each


# --- conversations ---------------------------------------------------------------------------------------------------


def asked_anew(case: Case, chat: Chat, media: list[Path], question: str) -> list[int]:
    """The answer to one more question, with all of the conversation in one prompt."""
    said, n = list[Message](), 0
    for m in chat.messages:
        shown: list[tuple[int, MediaKind]] = [(n + i, "video") for i in range(len(m["media"]))]
        said.append(Message(m["role"], m["content"], shown))
        n += len(shown)
    prompt = case.llm.model.render([*said, Message("user", question, [])])
    raw = prompt.replace(mark(0), "<__media__>")
    return list(case.llm.generate(raw, media, chat.tokens, raw=True, generate=SHORT).tokens)


def test_turns(case: Case, tmp_path: Path) -> None:
    """Every turn's answer is that of the whole conversation in one prompt, also after one that was stopped."""
    clip = source_of(case, CLIP_5)
    with case.llm.chat(MERGED, generate=SHORT) as chat:
        first = chat.ask(ASK, [clip])
        for question in ("And its colour?", "Where does it go?"):
            want = asked_anew(case, chat, [clip], question)
            found = chat.ask(question)
            assert found.tokens == want
            assert found.stats.n_prompt < first.stats.n_prompt
        polls = iter(range(1000))
        with pytest.raises(CancelledError):
            chat.ask("Never answered", should_stop=lambda: next(polls) > 0)
        found = chat.ask("Why?", should_stop=lambda: False)
        assert found.stats.n_prompt < first.stats.n_prompt
        chat.save(tmp_path / "talk.aimchat")
        want = asked_anew(case, chat, [clip], "Why not?")
    with case.llm.load_chat(tmp_path / "talk.aimchat") as chat:
        assert chat.ask("Why not?").tokens == want


def test_a_saved_window_does_not_go_back(cases: dict[str, Case]) -> None:
    """A state has what the windows at its end see: going back from there would lack what they saw before."""
    model = cases["gemma4"].llm.model
    with closing(open_plain(model, 512)) as whole, closing(open_plain(model, 512)) as taken:
        marks = list[Mark]()
        for _ in range(4):
            whole.decode_tokens([5] * 50, logits=True)
            marks.append(whole.mark())
        taken.restore(whole.state(), whole.mark())
        assert [whole.can_rewind(m) for m in marks] == [True] * 4
        assert [taken.can_rewind(m) for m in marks] == [False, False, False, True]
        assert taken.can_rewind(Mark(0, 0))


def test_a_stopped_answer(cases: dict[str, Case], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a stop leaves in a recurrent state is no part of the conversation."""
    case = cases["qwen3_5"]
    clip = source_of(case, CLIP_5)
    with case.llm.chat(MERGED, generate=SHORT) as chat:
        chat.ask(ASK, [clip])
        decode, n = Decoder.tokens, iter(range(100))

        def torn(self: Decoder, tokens: Any, position: int, *, logits: bool) -> None:
            decode(self, tokens, position, logits=logits)
            if len(tokens) == 1 and next(n) == 2:
                raise KeyboardInterrupt  # the token is in the state and was not counted

        with monkeypatch.context() as patch:
            patch.setattr(Decoder, "tokens", torn)
            assert chat.ask("What now?").stats.stop_reason == "interrupted"
        want = asked_anew(case, chat, [clip], "Go on")
        assert chat.ask("Go on").tokens == want


def test_points_are_kept_as_they_were() -> None:
    points = Points().with_one(Mark(3, 4, 1), b"abc", 2).with_one(Mark(5, 9, 1), b"", 2).with_one(Mark(7, 11), b"x", 2)
    found, rest = Points.unpacked(bytearray(points.packed() + b"state"), 3)
    assert dict(found.states) == {Mark(5, 9, 1): b"", Mark(7, 11): b"x"}
    assert rest == b"state"
    assert dict(points.until(9).states) == {Mark(5, 9, 1): b""}
    with pytest.raises(ValueError, match="too short"):
        Points.unpacked(bytearray(points.packed()[:-1]), 3)


# --- Gemma 4 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_sizes(seed: int) -> None:
    from transformers.models.gemma4.image_processing_pil_gemma4 import get_aspect_ratio_preserving_size

    rng = np.random.default_rng(seed)
    for _ in range(300):
        height, width = (int(x) for x in np.exp(rng.uniform(0, np.log(8000), 2)))
        n, patch = int(rng.choice([70, 140, 280, 560, 1120])), int(rng.choice([4, 16]))
        want = get_aspect_ratio_preserving_size(height, width, patch, 9 * n, 3)
        assert filled_size(height, width, 3 * patch, n) == want, (height, width)


def test_plan(case: Case, tmp_path: Path) -> None:
    check_plan(case, MERGED, tmp_path)


def test_explain(cases: dict[str, Case], tmp_path: Path) -> None:
    check_explain(cases["gemma4"], MERGED, tmp_path)


def test_cached(cases: dict[str, Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_cached(cases["gemma4"], tmp_path, monkeypatch)


def test_a_picture_that_fits_no_batch_is_refused(cases: dict[str, Case]) -> None:
    paths = cases["gemma4"].llm.model.paths
    with pytest.raises(UsageError, match=r"n_ubatch is 64, .* give at least 70"):
        VisionLLM.load(paths.model, paths.mmproj, config=LoadConfig(n_ubatch=64))
