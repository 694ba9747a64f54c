"""InternVL 3 and 3.5 against transformers, from the GGUF pair that llama.cpp's converter writes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from family_case import Case, check, open_case
from family_prompts import PROMPTS, drawn
from family_reduced import check_pruned


@pytest.fixture(scope="module", params=["internvl3", "internvl3_5"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    found = open_case(request.param, tmp_path_factory.mktemp(request.param))
    yield found
    found.llm.close()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_like_transformers(case: Case, prompt: str) -> None:
    check(case, *PROMPTS[prompt])


@pytest.mark.parametrize("seed", range(12))
def test_merged_and_pruned(case: Case, seed: int) -> None:
    check_pruned(case, *drawn(seed, case.llm.model.text.n_layer, prunes=True))
