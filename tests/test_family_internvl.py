"""InternVL 3 and 3.5 against transformers, from the GGUF pair that llama.cpp's converter writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from family_case import Case, check, open_case
from family_checkpoints import clip, message, picture

ASK = "Describe it."


@pytest.fixture(scope="module", params=["internvl3", "internvl3_5"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    found = open_case(request.param, tmp_path_factory.mktemp(request.param))
    yield found
    found.llm.close()


PROMPTS: dict[str, tuple[list[Any], list[Any]]] = {
    "text": ([message("user", "How many shapes are there?")], []),
    "picture": ([message("user", ("image",), ASK)], [picture(100, 160)]),
    "small picture": ([message("user", ("image",), ASK)], [picture(60, 50)]),
    "two pictures": ([message("user", ("image",), ("image",), ASK)], [picture(100, 160), picture(300, 120, 1)]),
    "2 frames": ([message("user", ("video",), ASK)], [clip(2, 240, 320)]),
    "5 frames": ([message("user", ("video",), ASK)], [clip(5, 130, 120, fps=1.0)]),
    "8 frames": ([message("user", ("video",), ASK)], [clip(8, 160, 120, fps=0.1)]),
    "picture and video": (
        [message("user", ("image",), ("video",), ASK)], [picture(150, 150), clip(3, 240, 320)],
    ),
    "turns": (
        [
            message("user", ("image",), "What is it?"),
            message("assistant", "The red circle."),
            message("user", ("video",), "And then?"),
            message("assistant", "The blue square follows it."),
            message("user", "How many shapes are there?"),
        ],
        [picture(100, 160), clip(2, 240, 320)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("prompt", PROMPTS)
def test_like_transformers(case: Case, prompt: str) -> None:
    check(case, *PROMPTS[prompt])
