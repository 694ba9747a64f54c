"""Cells of a comparison: labels, the reference, and a summary by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from compare_case import item_row

from aim_local.config import LoadConfig
from aim_local.errors import UsageError
from aim_local.lab.compare import matrix
from aim_local.lab.compare.records import CellSpec, Item
from aim_local.lab.compare.summary import CellRun, summarise
from aim_local.lab.compare.variants import Variant, plan_variants, unique_labels
from aim_local.store.names import ModelPaths


def test_labels_are_short_and_unique(tmp_path: Path) -> None:
    found = [ModelPaths(n, Path(p), None) for n, p in (("ov", "/a/ov/model.gguf"), ("ov", "/b/ov/model.gguf"))]
    found.append(ModelPaths("small", Path("/a/small.gguf"), None))
    assert unique_labels(found) == ["a/ov", "b/ov", "small"]
    with pytest.raises(UsageError, match="model ov is given twice"):
        unique_labels([found[0], found[0]])
    labels = [v.label for v in plan_variants(["demo"], ["f16", "q8_0"], ["f16", "q4_0"])]
    assert labels == [f"demo {t} vision-{v}" for t in ("f16", "q8_0") for v in ("f16", "q4_0")]
    assert [v.label for v in plan_variants([], [], [])] == ["demo"]


def test_a_model_loaded_in_several_ways() -> None:
    loads = ["type_k=f16", "type_k=q8_0:flash_attn=on"]
    found = plan_variants([], ["q8_0"], [], loads)
    assert [v.label for v in found] == [f"demo q8_0 {load}" for load in loads]
    assert [cell.spec.load for cell in matrix.matrix(found, ["off", "paper"])] == [load for load in loads for _ in "12"]
    matrix.check_loads(loads, LoadConfig())
    with pytest.raises(UsageError, match=r"'type_k=q8_0' and 'type_k=q8_0:n_ubatch=512' are the same; drop one"):
        matrix.check_loads(["type_k=q8_0", "type_k=q8_0:n_ubatch=512"], LoadConfig())


def test_the_reference_is_the_first_model_unreduced() -> None:
    variants = [Variant("a", Path("a"), None), Variant("b", Path("b"), None)]
    assert matrix.find_reference(variants, ["paper", "off"], None) == "a / off"
    assert matrix.find_reference(variants, ["paper", "fast"], None) == "a / paper"
    assert matrix.find_reference(variants, ["paper", "off"], "b / paper") == "b / paper"
    with pytest.raises(UsageError, match="the reference 'c / off' is no cell of this comparison; cells are a / paper"):
        matrix.find_reference(variants, ["paper", "off"], "c / off")


def test_the_same_cell_twice_is_refused() -> None:
    variants = [Variant("a", Path("a"), None)]
    with pytest.raises(UsageError, match="cells a / off and a / off are the same; drop one"):
        matrix.check_matrix(variants, ["off", "off"])
    with pytest.raises(UsageError, match="cells a / off and a / merge-only:keep=1 are the same"):
        matrix.check_matrix(variants, ["off", "merge-only:keep=1"])


def test_summary_by_hand() -> None:
    """Three questions: the reference has the first two right, the cell the first and the third."""
    items = [Item(str(i), (), "?", "x", tags=("odd",) if i % 2 else ()) for i in range(3)]
    reference = CellRun(CellSpec("a", "off", Path("a"), None), status="done")
    cell = CellRun(CellSpec("a", "paper", Path("a"), None), status="done")
    there = [item_row(str(i), right=i < 2, text="yes") for i in range(3)]
    times, late = {**there[0].stats, "ttft_ms": 900.0}, {**there[2].stats, "ttft_ms": 3.0, "kv_bytes": 400}
    here = [
        replace(there[0], right=True, stats=times, first=True, kld=[0.0, 0.5], top1=[True, False]),
        replace(there[1], right=False, text="no", kld=[0.25], top1=[True]),
        replace(there[2], right=True, stats=late, kld=[1.0], top1=[True]),
    ]
    found = summarise(replace(cell, rows=here), items, replace(reference, rows=there), True)
    assert found.accuracy is not None
    assert (found.accuracy.k, found.accuracy.n) == (2, 3)
    assert {tag: (rate.k, rate.n) for tag, rate in found.by_tag.items()} == {"odd": (0, 1)}
    assert found.paired is not None
    assert (found.paired.only_reference, found.paired.only_here) == (1, 1)
    assert found.agreement is not None
    assert (found.agreement.k, found.agreement.n) == (2, 3)
    assert found.divergence is not None
    assert (found.divergence.mean, found.divergence.median, found.divergence.n) == (0.4375, 0.375, 4)
    assert found.divergence.top1.k == 3
    assert found.ttft_ms is not None
    assert (found.ttft_ms.median, found.ttft_ms.n) == (2.0, 2)  # 1 and 3; the warm-up's 900 is out
    assert (found.kv_bytes, found.n_visual, found.flops_share) == (200, 4, 0.5)
    # a reference that failed half-way is none
    broken = replace(reference, rows=there[:1], status="failed")
    alone = summarise(replace(cell, rows=[replace(row, kld=None, top1=None) for row in here]), items, broken, True)
    assert (alone.paired, alone.agreement, alone.divergence) == (None, None, None)
    assert alone.notes == ("the reference failed: nothing is paired",)
