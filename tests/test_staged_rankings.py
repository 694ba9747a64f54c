"""Rankings beside pagerank, against the independent oracle: kept sets, scores and logits; and ranked again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from limits import LIMITS
from reference_aim import RANKINGS, Reference
from staged_models import COUNTS, SHAPE, Models, Prompt, distance, make_prompt, open_context, run
from staged_oracle import Agreement, compare, decode_both
from test_staged_parity import draw
from thorough import few

from aim_local.errors import ModelError, UsageError

NEW = ("pagerank_relative", "question", "question_value")
BY_ATTENTION = ("last_query", "question", "question_value")
N_CONFIGS, MOST = 30, 60
RELATIVE_LIMIT = 2e-3  # as in test_score_kernels.py: over an even walk, scores of all sizes are as large as the largest


@pytest.mark.parametrize("seed", few(range(N_CONFIGS), 5))
def test_parity(models: Models, seed: int) -> None:
    """Every other one with sizes; a third with a question shorter than the text behind the last visual row."""
    how = NEW[seed % 3]
    shape, parts, counts, options = draw(seed)
    prompt = make_prompt(shape, parts, seed, most=MOST if seed // 3 % 2 else None)
    n_query = max(1, parts[-1] // 2) if seed % 4 == 0 else 0
    agreement, reference = Agreement(), Reference(models.twin(shape))
    with open_context(models, shape, counts, n_text=len(prompt.ids) - counts[0] + 40, **options) as ctx:
        ranking: dict[str, Any] = {"importance": how} | ({"n_query": n_query} if n_query else {})
        logits = compare(ctx, reference, prompt, counts, agreement, RANKINGS[how], **ranking)
        decode_both(ctx, reference, logits, 8, agreement)
    print(f"\n{seed:2}: {how}, {shape.arch}, parts {parts}, n_query {n_query}, counts {counts}: {agreement}", end="")
    check(agreement, how)


def check(agreement: Agreement, how: str) -> None:
    assert agreement.logits < LIMITS.logits, str(agreement)
    assert agreement.importance < (RELATIVE_LIMIT if how == "pagerank_relative" else LIMITS.importance), str(agreement)


@pytest.mark.parametrize("how", NEW)
@pytest.mark.parametrize("n_bytes_scores", [1 << 22, 1 << 16, 1])
def test_as_a_device_ranks(models: Models, how: str, n_bytes_scores: int) -> None:
    """ggml's ops, all scores of a head at once, in blocks, row by row."""
    counts = (60, 50, 20, 20, 10, 0)
    prompt, agreement = make_prompt(SHAPE, [40, 30, 9, 30, 30], most=MOST), Agreement()
    with open_context(models, SHAPE, counts, 200) as ctx:
        options = {"importance": how, "n_bytes_scores": n_bytes_scores}
        compare(ctx, Reference(models.twin(SHAPE)), prompt, counts, agreement, RANKINGS[how], **options)
    check(agreement, how)


@pytest.mark.parametrize("how", NEW)
@pytest.mark.parametrize("flash_attn", [False, True])
@pytest.mark.parametrize("kv", ["f32", "f16", "q8_0"])
def test_caches(models: Models, how: str, kv: str, flash_attn: bool) -> None:
    """Values lie by row with flash attention, by column without; and are those of the cache, quantised ones too."""
    if kv == "q8_0" and not flash_attn:
        pytest.skip("llama.cpp has no quantised V cache without flash attention")
    shape, counts = replace(SHAPE, d_head=64), (196, 196, 147, 98, 49, 0)
    prompt, agreement = make_prompt(shape, [10, 196, 20], most=MOST), Agreement()
    with open_context(models, shape, counts, 64, type_k=kv, type_v=kv, flash_attn=flash_attn) as ctx:
        reference = Reference(models.twin(shape))
        compare(ctx, reference, prompt, counts, agreement, RANKINGS[how], exact=False, importance=how)
    print(f"\n{how}, KV {kv}, flash attention {flash_attn}: {agreement}", end="")
    assert min(agreement.overlap) > 0.95
    if how != "pagerank_relative":  # its temperature makes ten times the rounding an exponent
        assert agreement.importance < (LIMITS.importance if (kv, flash_attn) == ("f32", False) else 0.02)


@pytest.mark.parametrize("how", NEW)
def test_second_turn(models: Models, how: str) -> None:
    """Rows of the first turn are keys only, a new clip is ranked by the new question."""
    first, second, agreement = make_prompt(SHAPE, [5, 24, 6]), make_prompt(SHAPE, [3, 12, 4], 1), Agreement()
    counts = [int(12 * share) for share in (1, 1, 0.75, 0.5, 0.25, 0)]
    plan = [a + b for a, b in zip(COUNTS, counts, strict=True)]
    reference = Reference(models.twin(SHAPE))
    with open_context(models, SHAPE, plan, 80, n_ubatch=16) as ctx:
        logits = compare(ctx, reference, first, COUNTS, agreement, RANKINGS[how], importance=how)
        decode_both(ctx, reference, logits, 3, agreement)
        compare(ctx, reference, second, counts, agreement, RANKINGS[how], importance=how)
    check(agreement, how)


# --- ranked again -----------------------------------------------------------------------------------------------------

ANSWER = [7, 8, 9]


@pytest.mark.parametrize("how", [*BY_ATTENTION, "pagerank_relative"])
@pytest.mark.parametrize("parts", [[9], [3, 12, 7]], ids=["text", "clip"])
@pytest.mark.parametrize("flash_attn", [False, True])
def test_earlier_rows_ranked_again(models: Models, how: str, parts: list[int], flash_attn: bool) -> None:
    """By the later question alone: the oracle's prefill of all of it and a fresh context's, told the same question.

    What ranks by attention needs no queries of earlier rows.
    """
    first, later = make_prompt(SHAPE, [5, 24, 6], most=MOST), make_prompt(SHAPE, parts, seed=9, most=MOST)
    sizes = [*(first.sizes or []), *[1] * len(ANSWER), *(later.sizes or [])]
    whole = Prompt([*first.ids, *ANSWER, *later.ids], torch.cat([first.visual, later.visual]), sizes)
    counts = [int(sum(whole.is_visual) * n / 24 + 1e-9) for n in COUNTS]
    options: dict[str, Any] = {"importance": how, "n_query": parts[-1]}
    agreement, reference = Agreement(), Reference(models.twin(SHAPE))
    hold = "rows" if how in BY_ATTENTION else "queries"
    with (
        open_context(models, SHAPE, counts, 80, hold=hold, flash_attn=flash_attn) as ctx,
        open_context(models, SHAPE, counts, 80, flash_attn=flash_attn) as fresh,
    ):
        run(ctx, first, [int(n * counts[0] / 24) for n in COUNTS] if counts[0] < 24 else COUNTS, importance=how)
        for token in ANSWER:
            ctx.decode(token)
        keep = [counts[il] for il in ctx.plan.il_begin]
        embd = later.visual.numpy() if len(later.visual) else None
        logits = ctx.prefill(whole.rows, whole.ids, embd, keep, n_held=ctx.n_past, sizes=sizes, **options)
        kept = [ctx.kept(il).tolist() for il in range(SHAPE.n_layer)]
        want = run(fresh, whole, counts, **options)
        assert kept == [fresh.kept(il).tolist() for il in range(SHAPE.n_layer)]
        assert distance(logits, want) < (LIMITS.logits if not flash_attn else 1e-2)
        if flash_attn:
            return
        compare(fresh_again(fresh), reference, whole, counts, agreement, RANKINGS[how], **options)
        decode_both(ctx, reference, torch.tensor(logits).double(), 4, agreement)
    check(agreement, how)


def fresh_again(ctx: Any) -> Any:
    ctx.clear()
    return ctx


def test_the_question_is_the_later_one(models: Models) -> None:
    """What the other tests compare is no accident: earlier text as part of the question ranks otherwise."""
    prompt, found = make_prompt(SHAPE, [5, 24, 30]), []
    for n_query in (4, 30, 0):
        with open_context(models, SHAPE, COUNTS) as ctx:
            run(ctx, prompt, COUNTS, importance="question", n_query=n_query)
            scores = ctx.importance(1)
            assert scores is not None
            found.append(scores.tolist())
    assert found[1] == found[2]
    assert distance(found[0], found[1]) > 0.1


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"n_query": 7}, UsageError, "n_query is 7; of the rows at the end, 6 are new tokens"),
        ({"n_query": -1}, UsageError, "n_query is -1"),
        ({"importance": "best"}, UsageError, "importance 'best' is unknown; there are pagerank"),
        ({"importance": "grid", "select": lambda il, s, n: range(n)}, UsageError, "any importance but random and grid"),
    ],
)
def test_refused(models: Models, options: dict[str, Any], error: type[Exception], words: str) -> None:
    with open_context(models, SHAPE, COUNTS) as ctx:
        with pytest.raises(error, match=words):
            run(ctx, make_prompt(SHAPE, [5, 24, 6]), COUNTS, **options)
        assert ctx.n_past == 0


def test_what_walks_needs_queries(models: Models) -> None:
    prompt, later = make_prompt(SHAPE, [5, 24, 6]), make_prompt(SHAPE, [4], seed=1)
    with open_context(models, SHAPE, COUNTS, hold="rows") as ctx:
        run(ctx, prompt, COUNTS)
        keep, rows, ids = (
            [COUNTS[il] for il in ctx.plan.il_begin],
            [*prompt.rows, *later.rows],
            [*prompt.ids, *later.ids],
        )
        with pytest.raises(ModelError, match="which importance 0 and 4"):
            ctx.prefill(rows, ids, None, keep, n_held=35, importance="pagerank_relative")
        with pytest.raises(UsageError, match="n_query is 5; of the rows at the end, 4 are new tokens"):
            ctx.prefill(rows, ids, None, keep, n_held=35, importance="question", n_query=5)
        assert np.isfinite(ctx.prefill(rows, ids, None, keep, n_held=35, importance="question")).all()


# --- the pull to the front --------------------------------------------------------------------------------------------


def test_an_even_walk_is_one_everywhere(models: Models) -> None:
    """Where every row attends evenly, which queries of zero do, no row is more important than another."""
    twin = models.twin(replace(SHAPE, seed=5))
    with torch.no_grad():
        for name, value in twin.state_dict().items():
            if "q_proj" in name:
                value.zero_()
    prompt = make_prompt(SHAPE, [5, 24, 6])
    with open_context(models, replace(SHAPE, seed=5), COUNTS) as ctx:
        run(ctx, prompt, COUNTS, importance="pagerank_relative")
        relative = ctx.importance(1)
    with open_context(models, replace(SHAPE, seed=5), COUNTS) as ctx:
        run(ctx, prompt, COUNTS)
        plain = ctx.importance(1)
    assert relative is not None
    assert plain is not None
    assert np.abs(relative - 1).max() < 1e-5
    assert (np.diff(plain) < 0).all()  # plain pagerank falls from each row to the next
