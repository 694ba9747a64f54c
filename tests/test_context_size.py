"""Contexts of a size that the user gave: rounded up to 256 cells; too small a one is told before any output."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from test_ward_ways import clip

from aim_local import Chat, GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.errors import ContextError
from aim_local.models.rows import RowsTower

AUTO, OPTIONS = VisualTokenConfig.auto(), GenerateConfig(max_tokens=20)


@pytest.fixture(scope="module")
def bundled() -> Iterator[VisionLLM]:
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as loaded:
        yield loaded


def sized(bundled: VisionLLM, n_ctx: int) -> VisionLLM:
    """The bundled text model behind a tower of 196 tokens a frame, with contexts of n_ctx tokens."""
    model = bundled.model.with_tower(RowsTower(bundled.model.text))
    return VisionLLM(model.with_config(LoadConfig(n_threads=1, n_ctx=n_ctx)))


@pytest.mark.parametrize("n_ctx", [1, 100, 150, 256])
def test_visual_tokens_leave_the_rounded_rest_to_text(bundled: VisionLLM, n_ctx: int) -> None:
    """125 visual tokens: of 1 or 100 cells they would leave less than nothing."""
    llm = sized(bundled, n_ctx)
    wanted = sized(bundled, 256).generate("What?", [clip(4).frames], AUTO, OPTIONS)
    found = llm.generate("What?", [clip(4).frames], AUTO, OPTIONS)
    assert (found.tokens, found.stats.n_ctx) == (wanted.tokens, 256)
    with llm.chat(AUTO, generate=OPTIONS) as chat:
        assert chat.ask("What?", [clip(4).frames]).tokens == wanted.tokens
        assert chat.n_ctx == 256


def test_too_small_is_told_before_any_output(bundled: VisionLLM) -> None:
    said: list[str] = []
    with pytest.raises(ContextError, match=r"the prompt needs \d+ tokens .* the context holds 256: load with n_ctx"):
        sized(bundled, 1).generate("What?", [clip(10).frames], AUTO, OPTIONS, said.append)
    assert not said


def test_a_saved_conversation_needs_room_for_its_visual_tokens(bundled: VisionLLM, tmp_path: Path) -> None:
    with sized(bundled, 512).chat(AUTO, generate=OPTIONS) as chat:
        chat.ask("What?", [clip(10).frames])
        path = chat.save(tmp_path / "talk.aimchat")
    with pytest.raises(ContextError, match=r"holds \d+ tokens, the context 256; load with n_ctx=\d+ or more"):
        Chat.load(sized(bundled, 1).model, bundled.turns, path)
    with Chat.load(sized(bundled, 257).model, bundled.turns, path) as again:
        assert again.ask("And then?").stats.n_ctx == 512
