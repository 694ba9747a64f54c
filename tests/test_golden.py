"""The whole path with nothing but public names: greedy answers of the bundled model on the four bundled clips.

Media, template, tower, merging, pruning, KV cache, sampler and detokeniser all have to be right for these texts. The
model is sure of them, so that another processor's rounding changes none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import aim_local
from aim_local import GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig

CLIPS = Path(aim_local.__file__).parent / "data" / "clips"
GREEDY = GenerateConfig(max_tokens=16)
# clip, question, text, tokens
ANSWERS = [
    ("needle.mp4", "What appears in the middle?", "red cross", [303, 316]),
    ("direction.mp4", "Which way does the yellow cross move?", "left", [354]),
    ("order.mp4", "Which colour comes last?", "red", [303]),
    ("time.mp4", "When does the blue cross appear?", "middle", [373]),
]
# setting, visual tokens that enter each of the 12 layers
SETTINGS = {
    "off": (VisualTokenConfig.off(), [129] * 12),
    "paper": (VisualTokenConfig.paper(), [33] * 7 + [22, 11, 0, 0, 0]),
    "fast": (VisualTokenConfig.fast(), [17] * 7 + [11, 5, 0, 0, 0]),
}


@pytest.fixture(scope="module")
def llm() -> Iterator[VisionLLM]:
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as loaded:
        yield loaded


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(("clip", "question", "text", "tokens"), ANSWERS, ids=[clip for clip, *_ in ANSWERS])
def test_one_prompt(llm: VisionLLM, clip: str, question: str, text: str, tokens: list[int], setting: str) -> None:
    config, counts = SETTINGS[setting]
    answer = llm.generate(question, [CLIPS / clip], config, GREEDY)
    assert (answer.text, answer.tokens, answer.stats.stop_reason) == (text, tokens, "eos")
    assert [len(kept) for kept in answer.trace.kept] == counts


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_conversation(llm: VisionLLM, setting: str) -> None:
    """The same answers as the first turn of a conversation, whose context is another one."""
    with llm.chat(SETTINGS[setting][0], generate=GREEDY) as chat:
        for clip, question, text, tokens in ANSWERS:
            answer = chat.ask(question, [CLIPS / clip])
            assert (answer.text, answer.tokens) == (text, tokens)
            chat.reset()
