"""Gemma 3 against transformers, from the GGUF pair that llama.cpp's converter writes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from family_case import Case, check, open_case
from family_prompts import PROMPTS, drawn
from family_reduced import check_merged_only


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    found = open_case("gemma3", tmp_path_factory.mktemp("gemma3"))
    yield found
    found.llm.close()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_like_transformers(case: Case, prompt: str) -> None:
    check(case, *PROMPTS[prompt])


@pytest.mark.parametrize("seed", range(12))
def test_merged(case: Case, seed: int) -> None:
    check_merged_only(case, *drawn(seed, case.llm.model.text.n_layer, prunes=False))
