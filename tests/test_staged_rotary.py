"""Staged prefill of models whose rows have several rotary ids, and of Qwen3, against the independent oracle.

Rows keep their ids when others go; text counts on behind the text before it. What the vision tower gave for Qwen3-VL's
first layers is added there.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from limits import LIMITS
from reference_aim import RANKINGS, Reference
from staged_models import Models, Prompt, distance, make_prompt, open_context, run, stages_of
from staged_oracle import Agreement, compare, decode_both
from thorough import few
from tiny_text import TextShape

from aim_local.errors import NativeError, UsageError
from aim_local.native.staged import StagedContext

ARCHS = ("qwen3", "qwen2vl", "qwen3vl")
N_CONFIGS = 24
HOWS = ("pagerank", "last_query", "question", "question_value", "pagerank_relative")
COUNTS = (24, 24, 18, 11, 4, 0)


def shape_of(arch: str, **more: Any) -> TextShape:
    return TextShape(arch, **{"n_layer": 6, "n_deep": 3 if arch == "qwen3vl" else 0, **more})


def draw(seed: int) -> tuple[TextShape, list[int], list[int], dict[str, Any]]:
    """A model shape, prompt parts, counts per layer and context options."""
    r = random.Random(seed)
    n_kv, arch = r.choice([1, 2]), ARCHS[seed % 3]
    shape = shape_of(
        arch, n_layer=r.randint(4, 8), n_kv=n_kv, n_head=n_kv * r.choice([1, 2]), d_head=r.choice([16, 32]), seed=seed
    )
    parts = [r.choice([0, 1, 5, 20])]
    for _ in range(r.choice([1, 1, 2, 3])):
        parts += [r.choice([1, 2, 16, 49, 90]), r.randint(1, 12)]
    n_visual = sum(parts[1::2])
    drawn = [r.choice([0.0, r.random(), r.random(), r.random(), 1.0]) for _ in range(shape.n_layer - 1)]
    counts = [int(n_visual * share + 1e-9) for share in [1.0, *sorted(drawn, reverse=True)]]
    return shape, parts, counts, {"n_ubatch": r.choice([7, 32, 512])}


@pytest.mark.parametrize("seed", few(range(N_CONFIGS), 4))
def test_parity(models: Models, seed: int) -> None:
    shape, parts, counts, options = draw(seed)
    how = HOWS[seed // 3 % len(HOWS)]
    prompt = make_prompt(shape, parts, seed, most=9 if seed % 4 == 1 else None)
    agreement, reference = Agreement(), Reference(models.twin(shape))
    with open_context(models, shape, counts, n_text=len(prompt.ids) - counts[0] + 40, **options) as ctx:
        logits = compare(ctx, reference, prompt, counts, agreement, RANKINGS[how], importance=how)
        decode_both(ctx, reference, logits, 16, agreement)
    print(f"\n{seed:2}: {shape.arch}, {how}, parts {parts}, counts {counts}, {options}: {agreement}", end="")
    agreement.check()


@pytest.mark.parametrize("arch", ARCHS)
def test_second_turn(models: Models, arch: str) -> None:
    """Ids of the second turn begin behind those of the first turn's text and answer."""
    shape = shape_of(arch)
    first, agreement = make_prompt(shape, [5, 24, 6]), Agreement()
    counts = [int(12 * share) for share in (1, 1, 0.75, 0.5, 0.25, 0)]
    plan = [a + b for a, b in zip(COUNTS, counts, strict=True)]
    reference = Reference(models.twin(shape))
    with open_context(models, shape, plan, 80, n_ubatch=16) as ctx:
        logits = compare(ctx, reference, first, COUNTS, agreement)
        decode_both(ctx, reference, logits, 5, agreement)
        assert ctx.next_id == reference.n_past
        second = make_prompt(shape, [3, 12, 4], 1, first=ctx.next_id)
        logits = compare(ctx, reference, second, counts, agreement)
        decode_both(ctx, reference, logits, 8, agreement)
    agreement.check()


@pytest.mark.parametrize("arch", ARCHS)
def test_state_and_rewinding(models: Models, arch: str) -> None:
    """Ids are a part of a state; a context that went back goes on as if nothing had been behind."""
    shape = shape_of(arch)
    first = make_prompt(shape, [5, 24, 6])
    with open_context(models, shape, COUNTS) as ctx, open_context(models, shape, COUNTS) as other:
        run(ctx, first, COUNTS)
        at, next_id = ctx.n_past, ctx.next_id
        want = [ctx.decode(token) for token in (3, 4, 5)]
        ctx.truncate(at)
        assert ctx.next_id == next_id
        other.restore(ctx.state())
        assert (other.n_past, other.next_id) == (at, next_id)
        for token, logits in zip((3, 4, 5), want, strict=True):
            assert np.array_equal(ctx.decode(token), logits)
            assert np.array_equal(other.decode(token), logits)


@pytest.mark.parametrize("other", ["qwen2", "qwen3"])
def test_a_state_of_rows_with_other_ids_is_refused(models: Models, other: str) -> None:
    shape, wrong = shape_of("qwen2vl"), shape_of(other)
    with open_context(models, shape, COUNTS) as ctx, open_context(models, wrong, COUNTS) as target:
        run(ctx, make_prompt(shape, [5, 24, 6]), COUNTS)
        with pytest.raises(NativeError, match="does not fit"):
            target.restore(ctx.state())
        run(target, make_prompt(wrong, [5, 24, 6]), COUNTS)
        with pytest.raises(NativeError, match="does not fit"):
            ctx.restore(target.state())


def joined(first: Prompt, answer: list[int], second: Prompt) -> Prompt:
    """A conversation as one prompt."""
    rotary = None
    if first.rotary is not None and second.rotary is not None:
        last = first.rotary[-1].max()
        said = np.arange(last + 1, last + 1 + len(answer))[:, None].repeat(3, 1)
        rotary = np.concatenate([first.rotary, said, second.rotary])
    ids = [*first.ids, *answer, *second.ids]
    return Prompt(ids, torch.cat([first.visual, second.visual]), rotary=rotary)


@pytest.mark.parametrize("n_first", [1, 2, 3, 4])
@pytest.mark.parametrize("how", ["pagerank", "question"])
@pytest.mark.parametrize("arch", ARCHS)
def test_ranked_again(models: Models, arch: str, how: str, n_first: int) -> None:
    """A later question: as one prefill of all. n_first: layers before pruning; features are added in three."""
    shape = shape_of(arch)
    shares = [*[1.0] * n_first, 0.6, *[0.25] * (5 - n_first)]
    first, answer = make_prompt(shape, [5, 24, 6]), [3, 4, 5]
    counts = [[int(n * share) for share in shares] for n in (24, 36)]
    plan = stages_of(counts[1], 60)
    exact: dict[str, Any] = {"type_k": "f32", "type_v": "f32", "flash_attn": False, "n_threads": 1, "hold": "queries"}
    with StagedContext(models.load(shape), plan, **exact) as ctx, open_context(models, shape, counts[1]) as fresh:
        run(ctx, first, counts[0], importance=how)
        for token in answer:
            ctx.decode(token)
        second = make_prompt(shape, [3, 12, 4], 1, first=ctx.next_id)
        whole = joined(first, answer, second)
        zeros = None if whole.rotary is None else whole.rotary.copy()
        if zeros is not None:
            zeros[: ctx.n_past] = 0  # what is held is not read
        keep = [counts[1][il] for il in ctx.plan.il_begin]
        again = {"n_held": ctx.n_past, "importance": how, "n_query": 4, "rotary": zeros}
        got = ctx.prefill(whole.rows, whole.ids, second.visual.numpy(), keep, **again)
        want = run(fresh, whole, counts[1], importance=how, n_query=4)
        assert [ctx.kept(il).tolist() for il in range(6)] == [fresh.kept(il).tolist() for il in range(6)]
        apart = max(distance(got, want), distance(ctx.decode(7), fresh.decode(7)))
    print(f"\n{arch}, {how}: {apart:.1e}", end="")
    assert apart < LIMITS.whole


def test_held_rows_have_what_their_layer_adds(models: Models) -> None:
    """No row goes at the first cut: one graph runs both stages, and holds what leaves the first one."""
    shape, n_visual = shape_of("qwen3vl"), 24
    plan, first = stages_of((24, 24, 24, 23, 23, 23), 60), make_prompt(shape, [5, 24, 6])
    exact: dict[str, Any] = {"type_k": "f32", "type_v": "f32", "flash_attn": False, "n_threads": 1}
    with StagedContext(models.load(shape), plan, hold="queries", **exact) as ctx:
        assert first.rotary is not None
        ctx.prefill(first.rows, first.ids, first.visual.numpy(), [n_visual, n_visual], rotary=first.rotary)
        second = make_prompt(shape, [4], 1, first=ctx.next_id)
        whole = joined(first, [], second)
        got = ctx.prefill(whole.rows, whole.ids, None, [n_visual, 20], n_held=ctx.n_past, rotary=whole.rotary)
    with open_context(models, shape, (24, 24, 24, 20, 20, 20), 60) as fresh:
        want = run(fresh, whole, (24, 24, 24, 20, 20, 20))
    assert distance(got, want) < LIMITS.whole


@pytest.mark.parametrize(
    ("arch", "rotary", "words"),
    [
        ("qwen3", np.zeros((35, 3), int), "no id beside its position"),
        ("qwen2vl", np.zeros((35, 2), int), r"rotary has shape \(35, 2\)"),
        ("qwen2vl", np.full((35, 3), -1), "row 0 has ids -1, -1, -1; allowed are 0 to"),
    ],
)
def test_ids_that_cannot_be(models: Models, arch: str, rotary: Any, words: str) -> None:
    shape = shape_of(arch)
    prompt = make_prompt(shape, [5, 24, 6])
    with open_context(models, shape, COUNTS) as ctx:
        prompt.rotary = rotary
        with pytest.raises(UsageError, match=words):
            run(ctx, prompt, COUNTS)
        assert ctx.n_past == 0
