"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL beside transformers: prompts, ids of rows, next-token logits, answers.

Tiny random checkpoints in f32, converted by llama.cpp. ggml computes patches and GELU of the towers in half floats,
which is most of the difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from qwen_case import Case, case_of, distance, sampling_of  # noqa: E402
from family_checkpoints import Clip, clip, message, picture  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from limits import LIMITS  # noqa: E402

from aim_local import FrameSampling, GenerateConfig, VisionLLM, VisualTokenConfig  # noqa: E402
from aim_local.engine.contexts import _rotary  # noqa: E402
from aim_local.engine.plan import plan_prompt  # noqa: E402
from aim_local.media import MediaShape  # noqa: E402
from aim_local.media.reader import open_item  # noqa: E402
from aim_local.models.pieces import MediaPiece, TextPiece, VisualBlock  # noqa: E402
from aim_local.models.prompt import Message, references  # noqa: E402

QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
OFF = VisualTokenConfig.off()
QUESTION = "How many shapes are there?"


@dataclass(frozen=True, eq=False)
class Pair:
    case: Case
    llm: VisionLLM


@pytest.fixture(scope="module", params=QWEN)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    case = case_of(request.param, tmp_path_factory.getbasetemp())
    with case.load() as llm:
        yield Pair(case, llm)


@dataclass(frozen=True, eq=False)
class Asked:
    """A question and its media, pictures and clips, in the order of the prompt."""

    media: Sequence[Any] = ()
    text: str = QUESTION

    @property
    def clips(self) -> list[Clip]:
        return [item for item in self.media if isinstance(item, Clip)]

    @property
    def sampling(self) -> FrameSampling | None:
        return sampling_of(self.clips[0]) if self.clips else None

    def inputs(self, case: Case) -> dict[str, Any]:
        # one frame is a pair of equal ones; Qwen3-VL's processor refuses it
        kinds = [("video",) if isinstance(item, Clip) else ("image",) for item in self.media]
        pictures = [item for item in self.media if not isinstance(item, Clip)]
        clips = [twice(c) if len(c.frames) == 1 else c for c in self.clips]
        return case.loaded.inputs([message("user", *kinds, self.text)], pictures, clips)

    def items(self, case: Case) -> list[Any]:
        return [case.video(item) if isinstance(item, Clip) else np.asarray(item) for item in self.media]


def twice(c: Clip) -> Clip:
    """One frame as a pair of equal ones, at the same time."""
    return Clip(np.repeat(c.frames, 2, axis=0), c.fps, (0, 0), 1)


def asked(unit: int) -> dict[str, Asked]:
    """unit: pixels of a visual token's side. Most frames need no resizing: torchvision's is off by up to 2 of 255.

    0.25 and 0.5 frames a second: Qwen2.5-VL's last ids in time are far behind those of rows and columns.
    """
    frames = 4 * unit, 3 * unit
    return {
        "text": Asked(),
        "picture": Asked([picture(100, 160)]),
        "tall picture": Asked([picture(231, 97, 1)]),
        "two pictures": Asked([picture(100, 160, 1), picture(150, 90, 2)]),
        "1 frame": Asked([clip(1, *frames)]),
        "2 frames": Asked([clip(2, *frames, fps=1.0)]),
        "5 frames": Asked([clip(5, *frames, fps=0.5)]),
        "8 frames": Asked([clip(8, *frames, fps=0.25)]),
        "8 resized frames": Asked([clip(8, 60, 90, fps=2.0)]),
        "picked frames": Asked([clip(5, *frames, fps=2.0, indices=(0, 3, 6, 9, 12), total=13)]),
        "picture and video": Asked([picture(80, 120, 3), clip(5, *frames, fps=0.5)]),
        "video and picture": Asked([clip(5, *frames, fps=0.5), picture(80, 120, 3)]),
    }


ASKED = {name: asked(32 if name == "qwen3_vl" else 28) for name in QWEN}


@pytest.mark.parametrize("what", ASKED[QWEN[0]])
def test_prompt_and_logits(pair: Pair, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    case = pair.case
    one = ASKED[case.name][what]
    inputs, items = one.inputs(case), one.items(case)
    assert prompt_ids(pair.llm, one, items) == inputs["input_ids"][0].tolist()
    found = pair.llm.prefill(one.text, items, OFF, sampling=one.sampling)
    apart = distance(found.logits, case.loaded.logits(inputs))
    with capsys.disabled():
        print(f"\n  {case.name}, {what}: {found.stats.n_visual} visual tokens, logits {apart:.1e}", end="")
    assert found.stats.n_prompt == inputs["input_ids"].shape[1]
    assert apart < LIMITS.whole


def prompt_ids(llm: VisionLLM, asked: Asked, items: Sequence[Any]) -> list[int]:
    """Tokens of the prompt with the token of its kind for every visual asked."""
    shapes = [open_item(item, asked.sampling or FrameSampling(1)).shape for item in items]
    rendered = llm.render([Message("user", asked.text, references(shapes))])
    plan = plan_prompt(llm.model, rendered, shapes, OFF)
    pads = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    found: list[int] = []
    for piece in plan.pieces:
        if isinstance(piece, TextPiece):
            found += piece.tokens
        else:
            found += llm.text.tokenize(pads[shapes[piece.media].kind], start=False) * piece.n
    return found


@pytest.mark.parametrize("what", ["picture", "8 frames"])
def test_greedy_answers(pair: Pair, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """32 tokens, whose ids go on behind the text before them. They may part only where transformers itself is undecided."""
    case = pair.case
    one = ASKED[case.name][what]
    inputs = one.inputs(case)
    want = case.loaded.greedy(inputs, 32)
    options = GenerateConfig(max_tokens=32)
    scored = pair.llm.score(one.text, one.items(case), want, OFF, options, sampling=one.sampling)
    rows = scored.logits[:-1, : len(case.loaded.logits(inputs))]
    best = rows.argmax(1).tolist()
    margins = [(float(row.max() - row[token]) / np.abs(row).max()) for row, token in zip(rows, want, strict=True)]
    with capsys.disabled():
        n = sum(a != b for a, b in zip(best, want, strict=True))
        print(f"\n  {case.name}, {what}: {n} of 32 tokens differ, margin {max(margins):.1e}", end="")
    assert max(margins) < LIMITS.whole
    own = scored.answer.tokens
    if max(margins) == 0:  # or ours may have gone another way
        assert own == want[: len(own)]
        assert len(own) == 32 or pair.llm.text.llama.is_eog(want[len(own)])
