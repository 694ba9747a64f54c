"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL beside transformers: prompts, rotary ids, next-token logits, answers.

Tiny random checkpoints in f32, converted by llama.cpp. ggml computes patches and GELU of the towers in half floats,
which is most of the difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import qwen_case  # noqa: E402
from family_case import OFF, Case  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from limits import LIMITS  # noqa: E402
from qwen_case import ASKED, QWEN, Asked, distance  # noqa: E402
from thorough import examples  # noqa: E402

from aim_local import FrameSampling, GenerateConfig, VisionLLM  # noqa: E402
from aim_local.engine.plan import Plan, plan_prompt  # noqa: E402
from aim_local.media import MediaShape  # noqa: E402
from aim_local.media.reader import open_item  # noqa: E402
from aim_local.models.pieces import TextPiece  # noqa: E402
from aim_local.models.prompt import Message, references  # noqa: E402

case = qwen_case.case


@pytest.mark.parametrize("what", ASKED[QWEN[0]])
def test_prompt_and_logits(case: Case, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ASKED[case.family][what]
    inputs, items = asked.inputs(case), asked.items(case)
    assert prompt_ids(case.llm, asked, items) == inputs["input_ids"][0].tolist()
    found = case.llm.prefill(asked.text, items, OFF, sampling=asked.sampling)
    apart = distance(found.logits, case.loaded.logits(inputs))
    with capsys.disabled():
        print(f"\n  {case.family}, {what}: {found.stats.n_visual} visual tokens, logits {apart:.1e}", end="")
    assert found.stats.n_prompt == inputs["input_ids"].shape[1]
    assert apart < LIMITS.whole


def prompt_ids(llm: VisionLLM, asked: Asked, items: Sequence[Any]) -> list[int]:
    """Tokens of the prompt, with the token of its kind for every visual one."""
    shapes = [open_item(item, asked.sampling or FrameSampling(1)).shape for item in items]
    pads = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    found: list[int] = []
    for piece in planned(llm, asked.text, shapes).pieces:
        if isinstance(piece, TextPiece):
            found += piece.tokens
        else:
            found += llm.text.tokenize(pads[shapes[piece.media].kind], start=False) * piece.n
    return found


def planned(llm: VisionLLM, text: str, shapes: Sequence[MediaShape]) -> Plan:
    return plan_prompt(llm.model, llm.render([Message("user", text, references(shapes))]), shapes, OFF)


@pytest.mark.parametrize("what", ["picture", "8 frames"])
def test_greedy_answers(case: Case, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """32 tokens, whose ids go on behind the text before them. They may part where transformers itself is undecided."""
    asked = ASKED[case.family][what]
    inputs = asked.inputs(case)
    want, n_vocab = case.loaded.greedy(inputs, 32), case.loaded.model.config.text_config.vocab_size
    options = GenerateConfig(max_tokens=32)
    scored = case.llm.score(asked.text, asked.items(case), want, OFF, options, sampling=asked.sampling)
    rows = scored.logits[:-1, :n_vocab]
    rows[:, case.end_ids] = -np.inf  # transformers was told not to end
    margins = [float(row.max() - row[token]) for row, token in zip(rows, want, strict=True)]
    apart = max(margins) / np.abs(scored.logits[:-1, :n_vocab][np.isfinite(rows)]).max()
    with capsys.disabled():
        n = sum(margin > 0 for margin in margins)
        print(f"\n  {case.family}, {what}: {n} of 32 tokens differ, margin {apart:.1e}", end="")
    assert apart < LIMITS.whole
    own = case.llm.generate(asked.text, asked.items(case), OFF, options, sampling=asked.sampling).tokens
    assert own == scored.answer.tokens
    own = [token for token in own if token not in case.end_ids]
    assert own == want[: len(own)] or n > 0


# --- rotary ids -------------------------------------------------------------------------------------------------------


@settings(max_examples=examples(25), deadline=None)
@given(
    n=st.integers(1, 9), each=st.integers(1, 7), fps=st.sampled_from([0.1, 0.5, 1.0, 2.0, 24.0, 29.97]),
    height=st.integers(30, 200), width=st.integers(30, 200), first=st.booleans(),
)  # fmt: skip
def test_rotary_ids(case: Case, n: int, each: int, fps: float, height: int, width: int, first: bool) -> None:
    """Of a whole prompt with a picture and a clip, n frames out of n * each, as get_rope_index has them."""
    indices = np.linspace(0, n * each - 1, n, dtype=int)
    shape = MediaShape(
        "video", n, height, width, "x", "", tuple((indices / fps).tolist()), tuple(indices.tolist()), n * each / fps
    )
    shapes = [MediaShape("image", 1, width, height, "y", "", (), (), math.nan), shape][:: 1 if first else -1]
    got, kinds, grids = laid_out(case.llm, planned(case.llm, "What?", shapes), shapes)
    seconds = {"second_per_grid_ts": [2 / (n / (n * each) * fps)]} if case.family == "qwen2_5_vl" else {}
    want, _ = case.loaded.model.model.get_rope_index(
        torch.zeros(1, len(kinds), dtype=torch.long), torch.tensor([kinds]), **grids, **seconds
    )
    assert got.T.tolist() == want[:, 0].tolist()


def laid_out(llm: VisionLLM, plan: Plan, shapes: Sequence[MediaShape]) -> tuple[np.ndarray, list[int], dict[str, Any]]:
    """Rotary ids [n, 3], transformers' kinds of tokens, and its grids of patches."""
    tower: Any = llm.model.tower
    ids, kinds, first = list[np.ndarray](), list[int](), 0
    grids: dict[str, Any] = {}
    for piece in plan.pieces:
        if isinstance(piece, TextPiece):
            ids.append(np.arange(piece.n)[:, None].repeat(3, 1) + first)
            kinds, first = kinds + [0] * piece.n, first + piece.n
            continue
        shape = shapes[piece.media]
        tiles = [part for part in tower.arrange(shape) if not isinstance(part, str)][piece.part]
        rotary = tower.rotary(tiles, shape)
        ids.append(rotary.ids + first)
        kinds, first = kinds + [1 if shape.kind == "image" else 2] * piece.n, first + rotary.advance
        all_tiles = tower.tiles(shape)
        grid = torch.tensor([[len(all_tiles), 2 * tiles[0].rows, 2 * tiles[0].cols]])
        grids[f"{shape.kind}_grid_thw"] = grid
    return np.concatenate(ids), kinds, grids
