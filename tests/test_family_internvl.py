"""InternVL 3 and 3.5 against transformers, from the GGUF pair that `convert` has llama.cpp's converter write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from family_case import Case, check, open_case
from family_checkpoints import picture
from family_prompts import PROMPTS, drawn
from family_reduced import check_pruned
from family_stock import check_off_is_stock
from family_use import check_cached, check_chat, check_explain, check_pixels, check_plan, check_without_vision
from thorough import few

from aim_local import VisualTokenConfig
from aim_local.models.internvl import nearest_grid

PRUNED = VisualTokenConfig(0.5, prune_layers=(1, 3))


@pytest.fixture(scope="module", params=few(["internvl3_5", "internvl3"], 1))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    found = open_case(request.param, tmp_path_factory)
    yield found
    found.llm.close()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_like_transformers(case: Case, prompt: str) -> None:
    check(case, *PROMPTS[prompt])


@pytest.mark.parametrize("seed", few(range(12), 2))
def test_merged_and_pruned(case: Case, seed: int) -> None:
    check_pruned(case, *drawn(seed, case.llm.model.text.n_layer, prunes=True))


def test_off_is_stock(case: Case) -> None:
    """But for the order of the position table, which llama.cpp has wrong."""
    check_off_is_stock(case, picture(112, 112), whole=False)


def test_pixels(case: Case) -> None:
    check_pixels(case, crop_to_patches=False)


def test_plan(case: Case, tmp_path: Path) -> None:
    check_plan(case, PRUNED, tmp_path)


def test_without_vision(case: Case) -> None:
    check_without_vision(case)


def test_explain(case: Case, tmp_path: Path) -> None:
    check_explain(case, PRUNED, tmp_path)


def test_saved_chat(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_chat(case, PRUNED, tmp_path, monkeypatch)


def test_cached(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_cached(case, tmp_path, monkeypatch)


def test_grids() -> None:
    """Of drawn sizes and of squares, where many grids are equally near."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    rng = np.random.default_rng(0)
    sizes = [*np.exp(rng.uniform(2, 8, (400, 2))).astype(int).tolist(), *([n, n] for n in range(50, 2000, 50))]
    for height, width in [*sizes, *([n, 2 * n] for n in range(50, 2000, 50))]:
        for least, most in ((1, 12), (1, 6), (4, 9)):
            cols, rows = get_optimal_tiled_canvas((height, width), (448, 448), least, most)
            assert nearest_grid(height, width, 448, least, most) == (rows, cols)
