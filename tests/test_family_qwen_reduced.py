"""Token merging and pruning of Qwen-VL's prompts against an implementation that really removes rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import qwen_case  # noqa: E402
from family_case import OFF, Case  # noqa: E402
from family_reduced import oracle  # noqa: E402
from limits import LIMITS  # noqa: E402
from qwen_case import ASKED, QWEN, Asked, distance  # noqa: E402
from qwen_reduced import encoded, merged, reference_of, run_reference, whole_prompt  # noqa: E402
from thorough import few  # noqa: E402

from aim_local import GenerateConfig, VisualTokenConfig  # noqa: E402
from aim_local.errors import UsageError  # noqa: E402

case = qwen_case.case

N_CONFIGS = 14
N_ANSWER = 8
MEDIA = ["8 frames", "picture", "5 frames", "picture and video", "two pictures", "8 resized frames"]
ROWS = 3e-3  # of the largest: ggml has patches and GELU in half floats


def draw(family: str, seed: int) -> tuple[str, VisualTokenConfig]:
    rng = np.random.default_rng(100 * QWEN.index(family) + seed)
    how: dict[str, Any] = {
        "merge_retain": float(rng.choice([1.0, 0.7, 0.5, 0.3, 0.25])),
        "merge_by": ("similarity", "ward")[seed // 2 % 2],
        "weigh": str(rng.choice(["equal", "size"])),
        "importance": ("pagerank", "question", "last_query", "pagerank")[seed // 3 % 4],
    }
    if how["merge_by"] == "ward" and family != "qwen3_vl":
        how["merge_window"] = int(rng.choice([1, 2, 4, 6]))
    if seed % 3 == 0:
        how |= {"prune_layers": None}
    elif seed % 3 == 1:
        l1 = int(rng.integers(0, 3))
        how |= {"prune_layers": (l1, int(rng.integers(l1 + 1, 5)))}
    else:
        shares = [1.0, *np.sort(np.round(rng.uniform(0, 1, 3), 2))[::-1].tolist()]
        how |= {"prune_layers": None, "retention": shares}
    return MEDIA[seed % len(MEDIA)], VisualTokenConfig(**how)


def test_the_oracle_is_transformers(case: Case) -> None:
    """With its own visual rows and epsilon, nothing reduced."""
    for what in ("text", "picture", "8 frames"):
        asked = ASKED[case.family][what]
        rows = transformers_rows(case, asked)
        plan, _ = encoded(case, asked, OFF)
        at = [i for i, piece in enumerate(plan.pieces) if not hasattr(piece, "tokens")]
        ends = np.cumsum([plan.pieces[i].n for i in at])[:-1]
        visual = dict(zip(at, np.split(rows, ends), strict=True)) if at else {}
        reference = oracle(case)
        got = run_reference(reference, whole_prompt(case, asked, reference, visual), OFF).logits.numpy()
        apart = distance(got, case.loaded.logits(asked.inputs(case)))
        print(f"{what}: {apart:.1e}")
        assert apart < 1e-5


def transformers_rows(case: Case, asked: Asked) -> np.ndarray:
    """Visual rows of one item, and behind them what the first text layers add."""
    inputs, model = asked.inputs(case), case.loaded.model.model
    with torch.inference_mode():
        if "pixel_values" in inputs:
            out = model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
        elif "pixel_values_videos" in inputs:
            out = model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
        else:
            return np.zeros((0, 64))
    rows = [torch.cat(list(out.pooler_output))]
    for deep in getattr(out, "deepstack_features", None) or []:
        rows.append(torch.cat(list(deep)) if isinstance(deep, tuple | list) else deep)
    return torch.cat(rows, dim=1).numpy()


@pytest.mark.parametrize("what", ["picture", "1 frame", "8 frames"])
def test_rows_of_the_tower(case: Case, what: str) -> None:
    asked = ASKED[case.family][what]
    _, found = encoded(case, asked, OFF)
    got, want = np.concatenate([b.rows for b in found.blocks.values()]), transformers_rows(case, asked)
    assert got.shape == want.shape
    print(f"{what}: {distance(got, want):.1e}")
    assert distance(got, want) < ROWS


@pytest.mark.parametrize("seed", few(range(N_CONFIGS), (0, 4, 7)))
def test_reduced(case: Case, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    what, tokens = draw(case.family, seed)
    asked = ASKED[case.family][what]
    reference = reference_of(case)
    prompt = merged(case, asked, whole_prompt(case, asked, reference), tokens)
    _, found = encoded(case, asked, tokens)
    rows = np.concatenate([block.rows for block in found.blocks.values()])
    ids = np.concatenate([block.rotary.ids for block in found.blocks.values() if block.rotary])
    assert rows.shape == prompt.visual.shape
    apart = [float(np.abs(rows - prompt.visual).max() / max(1.0, np.abs(prompt.visual).max()))]
    assert apart[0] < 1e-5
    assert len(ids) == len(rows)

    ours = case.llm.prefill(asked.text, asked.items(case), tokens, sampling=asked.sampling)
    want = run_reference(reference, prompt, tokens, ours.trace.kept)
    ties = [want.apart(il, ours.trace.kept[il].tolist()) for il in want.chosen]
    assert max(ties, default=0.0) < LIMITS.tie
    logits, answer = [want.logits.numpy()], list[int]()
    for _ in range(N_ANSWER):
        answer.append(int(logits[-1].argmax()))
        logits.append(reference.decode(answer[-1]).numpy())
    options = GenerateConfig(max_tokens=1)
    scored = case.llm.score(asked.text, asked.items(case), answer, tokens, options, sampling=asked.sampling)
    apart += [distance(ours.logits, logits[0]), distance(scored.logits, np.stack(logits))]
    with capsys.disabled():
        counts = [len(k) for k in ours.trace.kept]
        how = f"{tokens.merge_by} {tokens.merge_window}, {tokens.weigh}, {tokens.importance}"
        told = f"rows {apart[0]:.1e}, logits {apart[1]:.1e}, answer {apart[2]:.1e}, ties {max(ties, default=0):.1e}"
        print(f"\n  {case.family}, {what}, {tokens.merge_retain:g} by {how}, {counts}: {told}", end="")
    assert max(apart[1:]) < LIMITS.whole


def test_what_cannot_be(case: Case) -> None:
    asked = ASKED[case.family]["8 frames"]
    wrong = {
        "cuts what the vision tower sees at once, 2 frames; take 4": {"merge_by": "ward", "merge_window": 3},
        "as many rows as columns": {"merge_by": "average", "merge_retain": 0.25},
    }
    if case.family == "qwen3_vl":
        wrong = {"frames cannot be merged together": {"merge_by": "ward", "merge_window": 2}}
    for words, how in wrong.items():
        tokens = VisualTokenConfig(**{"prune_layers": None, **how})
        with pytest.raises(UsageError, match=words):
            case.llm.prefill(asked.text, asked.items(case), tokens, sampling=asked.sampling)


def test_a_picture_has_no_window(case: Case) -> None:
    asked = ASKED[case.family]["picture"]
    one, four = (
        encoded(case, asked, VisualTokenConfig(0.3, merge_by="ward", merge_window=window, prune_layers=None))[1]
        for window in (1, 4)
    )
    assert one.groups == four.groups
