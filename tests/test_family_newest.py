"""Qwen3.5 and Gemma 4 against transformers, from the GGUF pairs that llama.cpp's converter writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import newest_checkpoints
from family_case import Case
from family_checkpoints import picture
from family_prompts import ASK, PROMPTS, drawn
from family_use import check_cached, check_explain, check_plan
from newest_case import check, check_merged_only, open_newest

from aim_local import LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.config import MERGE_AUTO
from aim_local.engine.plan import default_tokens
from aim_local.errors import ModelError, UsageError
from aim_local.media import MediaShape
from aim_local.models.gemma4 import filled_size

NAMES = tuple(newest_checkpoints.NEWEST)
MERGED = VisualTokenConfig(0.5, prune_layers=None)
CLIP = MediaShape("video", 2, 240, 320, "", "", (0.0, 1.0), (0, 1), 2.0)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Case]]:
    found = {name: open_newest(name, tmp_path_factory.mktemp(name)) for name in NAMES}
    yield found
    for case in found.values():
        case.llm.close()


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    return cases[request.param]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_like_transformers(case: Case, prompt: str) -> None:
    check(case, *PROMPTS[prompt])


@pytest.mark.parametrize("seed", range(12))
def test_merged(case: Case, seed: int) -> None:
    check_merged_only(case, *drawn(seed, case.llm.model.text.n_layer, prunes=False))


@pytest.mark.parametrize(
    ("name", "why"), [("qwen3_5", "some of its layers are recurrent"), ("gemma4", "text architecture gemma4")]
)
@pytest.mark.parametrize("asked", [VisualTokenConfig.paper(), VisualTokenConfig.auto()])
def test_what_needs_stages_is_refused(cases: dict[str, Case], name: str, why: str, asked: VisualTokenConfig) -> None:
    with pytest.raises(ModelError, match=rf"{why}.*use --(prune off|weigh equal)") as error:
        cases[name].llm.prefill(ASK, [picture(112, 112)], asked)
    assert "\n" not in str(error.value)


def test_default_is_merging(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(case.llm.model.tower), "reduces_by_default", True)
    found = default_tokens(case.llm.model, [CLIP])
    assert (found.merge_by, found.merge_retain, found.weigh, found.prunes) == ("ward", MERGE_AUTO, "equal", False)


def test_kv_bytes(case: Case) -> None:
    """What 64 more tokens add to a saved state, beside positions, is what the file's keys say."""
    text = case.llm.model.text
    with_state = []
    from aim_local.engine.contexts import open_plain

    for n in (16, 80):
        context = open_plain(case.llm.model, 512)
        context.decode_tokens([5] * n, logits=True)
        with_state.append(len(context.state()))
        context.close()
    grown, said = with_state[1] - with_state[0], 64 * text.kv_bytes_per_cell()
    print(f"{grown} bytes of state, {said} of K and V")
    assert said <= grown <= said + 64 * 2 * 16  # two caches with a position and a sequence each


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
