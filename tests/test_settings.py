"""Settings by name, and averaging as the plain alternative to token merging."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aim_local.config import GenerateConfig, LoadConfig, VisualTokenConfig
from aim_local.errors import UsageError
from aim_local.reduction.merging import average_squares, merged
from aim_local.reduction.planner import layer_shares, merge_count
from aim_local.settings import PRESETS, parse_setting, refine_load

CLIP = Path(__file__).parents[1] / "aim_local" / "data" / "clips" / "needle.mp4"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("off", VisualTokenConfig.off()),
        ("budget=0.15", VisualTokenConfig.budget(0.15)),
        ("paper:keep=0.5:prune=6-9", VisualTokenConfig(merge_retain=0.5, prune_layers=(6, 9))),
        ("random:seed=3", VisualTokenConfig(importance="random", seed=3)),
        ("budget=0.3:importance=grid", VisualTokenConfig(flops_share=0.3, importance="grid")),
        ("prune-only:prune=off", VisualTokenConfig.off()),
        ("ward", VisualTokenConfig(merge_by="ward", merge_retain=0.1)),
        ("ward:keep=0.2", VisualTokenConfig(merge_by="ward", merge_retain=0.2)),
        ("ward:window=4", VisualTokenConfig(merge_by="ward", merge_retain=0.1, merge_window=4)),
        ("paper:window=4:merge=ward", VisualTokenConfig(merge_by="ward", merge_window=4)),
        ("ward:merge=average:keep=0.25", VisualTokenConfig(merge_by="average")),
        ("budget=0.3:merge=ward", VisualTokenConfig(flops_share=0.3, merge_by="ward")),
    ],
)
def test_names(text: str, wanted: VisualTokenConfig) -> None:
    assert parse_setting(text) == wanted


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("papre", "is unknown; give off, auto, paper"),
        ("budget", "is unknown"),
        ("budget=x", "'x' is no number"),
        ("budget=2", "budget is 2.0"),
        ("paper:keep=0", "merge_retain is 0.0"),
        ("paper:kepe=0.5", "'kepe=0.5' is unknown; the form is"),
        ("paper:prune=6", "is no pair of layers"),
        ("paper:prune=9-6", "l1 must be"),
        ("paper:importance=luck", "allowed are pagerank"),
        ("budget=0.2:keep=0.5", "a budget plans what keep says"),
        ("ward:merge=kmeans", "merge: merge_by is 'kmeans'; allowed are similarity, average, ward"),
        ("ward:window=0", "window: merge_window is 0; give a whole number above 0"),
        ("ward:window=x", "'x' is no whole number"),
        ("paper:window=4", "merge_window is 4 with merge_by 'similarity'; only 'ward' merges several frames"),
        ("ward:window=4:merge=average", "merge_window is 4 with merge_by 'average'"),
    ],
)
def test_unknown(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse_setting(text)


def test_load_options_by_name() -> None:
    load = LoadConfig(n_threads=2)
    assert refine_load(load, "type_k=q8_0:type_v=q8_0") == LoadConfig(n_threads=2, type_k="q8_0", type_v="q8_0")
    assert refine_load(load, "n_ubatch=64:flash_attn=off") == LoadConfig(n_threads=2, n_ubatch=64, flash_attn=False)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("type_q=f16", "'type_q=f16' is none; the form is NAME=VALUE of n_ctx"),
        ("type_k", "'type_k' is none"),
        ("type_k=f16:type_k=q8_0", "'type_k=q8_0' is none"),
        ("type_k=f17", "load option 'type_k=f17': type_k is 'f17'; allowed are"),
        ("n_ubatch=x", "'x' is no whole number"),
        ("flash_attn=maybe", "'maybe' is unknown; give auto, on, off"),
    ],
)
def test_unknown_load_options(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        refine_load(LoadConfig(), text)


def test_late_drop_keeps_everything_up_to_l2() -> None:
    assert layer_shares(PRESETS["late-drop"], 28) == [1.0] * 22 + [0.0] * 6


@pytest.mark.parametrize(("side", "k"), [(4, 2), (14, 2), (6, 3), (4, 4)])
def test_average_is_the_mean_over_squares(side: int, k: int) -> None:
    rows = np.random.default_rng(side * k).standard_normal((side * side, 5), np.float32)
    found = average_squares(rows, 1 / k**2)
    grid = rows.reshape(side, side, 5).astype(np.float64)
    n = side // k
    assert len(found.rows) == n * n == merge_count(side * side, 1 / k**2)
    for i in range(n * n):
        y, x = divmod(i, n)
        square = grid[y * k : y * k + k, x * k : x * k + k].reshape(-1, 5)
        np.testing.assert_allclose(found.rows[i], square.mean(axis=0), atol=1e-6)
        assert found.slots[i] == y * k * side + x * k
        assert np.count_nonzero(found.owners == i) == k * k
        assert found.owners[found.slots[i]] == i


def test_average_that_does_not_tile() -> None:
    for n, retain in ((16, 0.5), (49, 0.25), (12, 0.25)):
        with pytest.raises(UsageError, match="cannot be averaged"):
            average_squares(np.zeros((n, 2), np.float32), retain)


def test_nothing_is_averaged_at_a_share_of_one() -> None:
    rows = np.random.default_rng(0).standard_normal((9, 3), np.float32)
    np.testing.assert_array_equal(merged(rows, VisualTokenConfig(merge_by="average", merge_retain=1.0)).rows, rows)


def test_average_is_another_prompt_of_the_same_size() -> None:
    from aim_local import VisionLLM

    with VisionLLM.load() as llm:
        found = {name: llm.prefill("What appears?", [CLIP], parse_setting(name)) for name in ("paper", "average")}
        with pytest.raises(UsageError, match="not available for pictures of any resolution"):
            llm.prefill("What is it?", [np.zeros((50, 80, 3), np.uint8)], parse_setting("average"))
    assert [len(k) for k in found["paper"].trace.kept] == [len(k) for k in found["average"].trace.kept]
    assert not np.array_equal(found["paper"].logits, found["average"].logits)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, value) for name in ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty")
          for value in ("1", None, float("nan"), 9.0, True)),
        *((name, value) for name in ("seed", "top_k", "logprobs") for value in ("1", 1.5, -1, True, 2**70)),
        ("stop", "END"), ("stop", ("",)), ("stop", (None,)),
        ("grammar", 5), ("json_schema", "object"), ("json_schema", [1]), ("json_schema", True),
    ],
)  # fmt: skip
def test_generate_options_of_odd_types(field: str, value: Any) -> None:
    """One line that names the option, at once: not a TypeError while the answer comes."""
    with pytest.raises(UsageError, match=f"{field} is"):
        GenerateConfig(**{field: value})
