"""Merged visual tokens that count as the patches they stand for, through the whole runtime.

Truth: numpy's token merging, which tells who was merged into whom, and the float64 language model of reference_aim.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import pruning_case  # noqa: E402
import runtime_case  # noqa: E402
from limits import LIMITS  # noqa: E402
from prompt_steps import encoded  # noqa: E402
from pruning_case import Case, Loaded, draw, load  # noqa: E402
from reference_merging import numpy_merge  # noqa: E402
from runtime_case import one_line, video  # noqa: E402
from test_chat_rerank import afresh, distance, logits_of, same_kept  # noqa: E402
from test_pruning import check_greedy, check_kept, embed_prompt, oracle, visual_rows  # noqa: E402
from thorough import few  # noqa: E402

from aim_local import GenerateConfig, VisionLLM, VisualTokenConfig  # noqa: E402
from aim_local.errors import ModelError, UsageError  # noqa: E402
from aim_local.models.text import TextModel  # noqa: E402
from aim_local.reduction.planner import layer_counts, layer_shares  # noqa: E402
from aim_local.settings import parse_setting, refine  # noqa: E402
from aim_local.store.chat_file import tokens_from_dict, tokens_to_dict  # noqa: E402

checkpoint, model, llm, loaded = runtime_case.checkpoint, runtime_case.model, runtime_case.llm, pruning_case.loaded

N_CONFIGS = 12
MERGED = VisualTokenConfig(merge_retain=0.3, prune_layers=None, weigh="size")
PRUNED = VisualTokenConfig(merge_retain=0.5, prune_layers=(0, 2), weigh="size")
SHORT, ONE = GenerateConfig(max_tokens=5), GenerateConfig(max_tokens=1)


def sizes_of(loaded: Loaded, tokens: VisualTokenConfig) -> list[int]:
    """Patches of every visual token, from numpy's merging of the runtime's unmerged rows."""
    unmerged = encoded(loaded.llm, loaded.prompt, loaded.case.media, replace(tokens, merge_retain=1.0)).blocks.values()
    out: list[int] = []
    for item, block in zip(loaded.case.media, unmerged, strict=True):
        is_video = item.ndim == 4
        for frame in np.split(block.rows[:-1], len(item)) if is_video else [block.rows]:
            owners = numpy_merge(frame, tokens.merge_retain)[2]
            out += [owners.count(i) for i in range(max(owners) + 1)]
        out += [1] * is_video  # the newline
    return out


def weighed(case: Case, seed: int) -> Case:
    """Every third one merged only."""
    layers: dict[str, Any] = {"prune_layers": None, "retention": None} if seed % 3 == 0 else {}
    return replace(case, tokens=replace(case.tokens, weigh="size", **layers))


@pytest.mark.parametrize("seed", few(range(N_CONFIGS), 3))
def test_whole_path(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load(tmp_path, weighed(draw(seed), seed))
    with loaded.llm as llm:
        tokens, media = loaded.case.tokens, loaded.case.media
        found = llm.prefill(loaded.prompt, media, tokens, raw=True)
        answer = llm.generate(loaded.prompt, media, tokens, GenerateConfig(max_tokens=32), raw=True)
        equal = llm.prefill(loaded.prompt, media, replace(tokens, weigh="equal"), raw=True)
        reference, rows, sizes = oracle(loaded), visual_rows(loaded), sizes_of(loaded, tokens)
        counts = layer_counts(len(sizes), layer_shares(tokens, llm.text.n_layer))
        embeds, flags = embed_prompt(loaded, reference, rows)
        drawn = iter(sizes)
        of_rows = [next(drawn) if is_visual else 1 for is_visual in flags]
        forced = {il: kept.tolist() for il, kept in enumerate(found.trace.kept)}
        want = reference.prefill(embeds, flags, counts, forced=forced, sizes=of_rows)
        check_kept(want, found.trace.kept)
        apart, matters = (distance(a.logits, want.logits.numpy()) for a in (found, equal))
        with capsys.disabled():
            print(
                f"\n  {loaded.case.kind}, {counts}, up to {max(sizes)} patches: {apart:.1e}, equal {matters:.1e}",
                end="",
            )
        assert apart < LIMITS.whole
        assert matters > 2 * LIMITS.whole or max(sizes) == 1
        check_greedy(reference, want.logits, answer.tokens, llm)


def test_off_is_the_context_it_was(llm: VisionLLM) -> None:
    """Nothing merged: sizes of one, in a context of one stage, change nothing but rounding."""
    off = llm.prefill("what is it?", [video()], VisualTokenConfig.off())
    one = llm.prefill("what is it?", [video()], replace(VisualTokenConfig.off(), weigh="size"))
    assert distance(one.logits, off.logits) < LIMITS.again
    assert one.stats.n_visual == off.stats.n_visual


# --- conversations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [MERGED, PRUNED], ids=["merged", "pruned"])
@pytest.mark.parametrize("saved", [False, True])
def test_a_conversation(
    llm: VisionLLM, tokens: VisualTokenConfig, saved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text first, then two clips: as the whole conversation prefilled anew. It outgrows its first context."""
    monkeypatch.setattr("aim_local.chat._SPARE_TEXT", 8)
    chat = llm.chat(tokens)
    chat.ask("hello", (), SHORT)
    chat.ask("what is it?", [video()], SHORT)
    if saved:
        path = chat.save(tmp_path / "talk.aimchat")
        chat.close()
        chat = llm.load_chat(path)
    with chat:
        chat.ask("and then?", (), SHORT)
        answer = chat.ask("once more", [video(2, 5)], ONE)
        fresh = afresh(llm, chat, [video(), video(2, 5)], tokens)
        apart = distance(logits_of(chat), fresh.logits)
        assert apart < LIMITS.whole
        if tokens is PRUNED and not saved:  # a saved clip's places are not in the file
            same_kept(answer, fresh)
        equal = afresh(llm, chat, [video(), video(2, 5)], replace(tokens, weigh="equal"))
        assert distance(logits_of(chat), equal.logits) > 2 * LIMITS.whole


def test_a_file_of_an_earlier_version_weighs_equally(llm: VisionLLM) -> None:
    data = tokens_to_dict(MERGED)
    assert tokens_from_dict(data) == MERGED
    assert data is not None
    del data["weigh"]
    assert tokens_from_dict(data) == replace(MERGED, weigh="equal")


# --- settings ---------------------------------------------------------------------------------------------------------


def test_settings() -> None:
    assert parse_setting("paper:weigh=size") == VisualTokenConfig(weigh="size")
    assert parse_setting("budget=0.2:weigh=size").weigh == "size"
    assert refine(VisualTokenConfig(weigh="size"), {"weigh": "equal"}, "--") == VisualTokenConfig()
    with pytest.raises(UsageError, match="weigh is 'heavy'; allowed are equal, size"):
        parse_setting("paper:weigh=heavy")


def test_a_budget_keeps_it(loaded: Loaded) -> None:
    budget = VisualTokenConfig.budget(0.5)
    found = [
        loaded.llm.prefill(loaded.prompt, loaded.case.media, replace(budget, weigh=how), raw=True)
        for how in ("equal", "size")
    ]
    assert found[0].stats.n_visual == found[1].stats.n_visual
    assert distance(found[1].logits, found[0].logits) > 1e-3


@pytest.mark.parametrize(("tokens", "words"), [(MERGED, 'weigh="equal"'), (PRUNED, "prune_layers=None")])
def test_what_cannot_be_honoured_is_refused(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch, tokens: VisualTokenConfig, words: str
) -> None:
    monkeypatch.setattr(TextModel, "prune_refusal", lambda _: "gemma3 is not among qwen2, llama")
    with pytest.raises(ModelError, match="gemma3 is not among qwen2, llama") as error:
        loaded.llm.prefill("What?", loaded.case.media, tokens)
    assert words in one_line(error)
    with pytest.raises(ModelError, match="gemma3"):
        loaded.llm.chat(tokens)


def test_pictures_of_every_kind_tell_their_sizes(llm: VisionLLM) -> None:
    """Base view and tile grid of a picture, each newline one: together all slots and newlines."""
    picture = np.random.default_rng(0).integers(0, 256, (40, 90, 3), np.uint8)
    prompt = "<__media__>x"
    full = encoded(llm, prompt, [picture], VisualTokenConfig.off()).blocks
    found = encoded(llm, prompt, [picture], replace(MERGED, merge_retain=0.3)).blocks
    for i, block in found.items():
        assert block.sizes is not None
        assert block.sizes.sum() == len(full[i].rows)
        assert block.sizes.max() > 1
