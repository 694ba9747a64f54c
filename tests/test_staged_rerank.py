"""Earlier rows ranked again: a conversation that goes on against one prefill of all of it in a fresh context.

Rows of earlier turns, decoded answers among them, are in the context; a turn runs the first stage for its own rows
only. Truth is the same library's prefill of the whole conversation, whose own truth is test_staged_parity.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from limits import LIMITS
from staged_models import COUNTS, SHAPE, Models, Prompt, distance, make_prompt, open_context, run, stages_of
from tiny_text import TextShape

from aim_local.errors import AimError, ContextError, ModelError, NativeError, UsageError
from aim_local.native.library import llama
from aim_local.native.staged import StagedContext
from aim_local.reduction.planner import TextShape as Sizes
from aim_local.reduction.planner import held_row_bytes, layer_counts

N_EXACT, N_FLASH, TOLERANCE, SCORE_TOLERANCE = 20, 12, LIMITS.whole, 0.05
Logits = np.ndarray[Any, Any]


# --- drawn conversations ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A model, its schedule, and turns: the rows of a prompt, and the tokens of its answer."""

    shape: TextShape
    shares: tuple[float, ...]
    turns: list[tuple[Prompt, list[int]]]
    options: dict[str, Any]
    ranking: dict[str, Any]

    def upto(self, n: int) -> tuple[Prompt, list[int]]:
        """The conversation up to the n-th prompt, counted from 0, and the visual rows that enter each layer."""
        turns, last = self.turns[:n], self.turns[n][0]
        ids = [i for prompt, answer in turns for i in (*prompt.ids, *answer)] + last.ids
        whole = Prompt(ids, torch.cat([*(prompt.visual for prompt, _ in turns), last.visual]))
        return whole, layer_counts(sum(whole.is_visual), self.shares)


def draw(seed: int, *, flash: bool) -> Case:
    rng = np.random.default_rng(seed)
    kv = str(rng.choice(["f32", "f16", "q8_0"] if flash else ["f32", "f16"]))
    shape = TextShape(
        arch=str(rng.choice(["qwen2", "llama"])), n_layer=int(rng.integers(3, 8)), n_kv=int(rng.choice([1, 2, 4])),
        d_head=64 if kv == "q8_0" else SHAPE.d_head, seed=seed,
    )  # fmt: skip
    turns = []
    for i in range(int(rng.integers(2, 5))):
        n_media = int(rng.integers(1, 3)) if i == 0 else int(rng.integers(0, 2))
        parts = [int(n) for _ in range(n_media) for n in (rng.integers(0, 9), rng.integers(1, 40))]
        prompt = make_prompt(shape, [*parts, int(rng.integers(1, 12))], seed=100 * seed + i)
        turns.append((prompt, rng.integers(0, shape.n_vocab, int(rng.integers(0, 7))).tolist()))
    options = {"type_k": kv, "type_v": kv, "flash_attn": flash, "n_ubatch": int(rng.choice([8, 64, 512]))}
    how = ("pagerank", "pagerank", "last_query", "pagerank", "random", "grid")[seed % 6]
    ranking: dict[str, Any] = {"importance": how, "seed": seed}
    if seed % 6 == 3:
        ranking = {"select": lambda il, scores, n: np.argsort(scores)[:n]}  # the lowest stay
    if flash and how in ("pagerank", "last_query"):  # scores that differ by rounding must not decide
        ranking = {"importance": how, "select": lambda il, scores, n: range(len(scores) - n, len(scores))}
    return Case(shape, draw_shares(rng, shape.n_layer), turns, options, ranking)


def draw_shares(rng: np.random.Generator, n_layer: int) -> tuple[float, ...]:
    """1 up to l1, then falling, now and then to nothing at once."""
    l1 = int(rng.integers(0, n_layer - 1))
    later = np.sort(np.round(rng.uniform(0, 0.99, n_layer - 1 - l1), 2))[::-1]
    return (*[1.0] * (l1 + 1), *(later * bool(rng.integers(4))).tolist())


def open_case(case: Case, models: Models, hold: str, **options: Any) -> StagedContext:
    whole, counts = case.upto(len(case.turns) - 1)
    plan = stages_of(counts, len(whole.ids) + 8)
    return StagedContext(models.load(case.shape), plan, n_threads=1, hold=hold, **{**case.options, **options})


def go_on(ctx: StagedContext, case: Case, n: int) -> Logits:
    """The n-th turn's rows behind those before it, which are ranked again."""
    whole, counts = case.upto(n)
    turn = case.turns[n][0]
    assert ctx.n_past == len(whole.ids) - len(turn.ids)
    embd = turn.visual.numpy() if len(turn.visual) else None
    keep = [counts[il] for il in ctx.plan.il_begin]
    return ctx.prefill(whole.rows, whole.ids, embd, keep, n_held=ctx.n_past, **case.ranking)


def following(case: Case, kept: list[Any], apart: list[float]) -> Callable[[int, Any, int], Any]:
    """A selector that keeps what the conversation kept. apart: how near the rows are that only its own choice differs
    in, from the best to the worst of them as a share of the best; 0 where both choose the same."""
    rule = case.ranking.get("select", lambda il, scores, n: np.argsort(-scores, kind="stable")[:n])

    def select(il: int, scores: Any, n: int) -> Any:
        taken = np.searchsorted(kept[il], kept[il + 1])
        other = scores[np.setxor1d(taken, np.asarray(rule(il, scores, n), dtype=np.int64))]
        best = max(other, default=0.0)
        apart.append((best - min(other)) / best if best > 1e-30 else 0.0)  # zero in float32
        return taken

    return select


def compare(models: Models, case: Case) -> tuple[float, list[float]]:
    """The largest difference of any logits, and how far apart other rows were at each cut: near ties, or it fails."""
    worst, apart = 0.0, list[float]()
    with open_case(case, models, "queries") as ctx:
        for n, (_, answer) in enumerate(case.turns):
            logits = go_on(ctx, case, n)
            kept = [ctx.kept(il) for il in range(case.shape.n_layer)]
            ranking = case.ranking
            if ranking.get("importance") not in ("random", "grid"):  # those have no scores that could be near
                ranking = {**ranking, "select": following(case, kept, apart)}
            with open_case(case, models, "nothing") as fresh:
                want = run(fresh, *case.upto(n), **ranking)
                assert max(apart, default=0.0) < LIMITS.tie, f"turn {n} keeps other rows, {max(apart):.1e} apart"
                for il in range(case.shape.n_layer):
                    assert kept[il].tolist() == fresh.kept(il).tolist(), f"turn {n}, layer {il}"
                    scores = fresh.importance(il)
                    assert scores is None or distance(ctx.importance(il), scores) < SCORE_TOLERANCE
                worst = max(worst, distance(logits, want))
                for token in answer:
                    worst = max(worst, distance(ctx.decode(token), fresh.decode(token)))
    return worst, apart


def told(case: Case, worst: float, apart: list[float]) -> str:
    how, (_, counts) = case.ranking.get("importance", "callback"), case.upto(len(case.turns) - 1)
    model = f"{case.shape.arch}, {case.shape.n_kv} of 4 KV heads, {case.options['type_k']}"
    other = [share for share in apart if share > 0]
    ties = f", {len(other)} with other rows, {max(other):.1e} apart" if other else ""
    return f"{model}, {how}, {len(case.turns)} turns, {counts}: {worst:.1e}; {len(apart)} ranked cuts{ties}"


@pytest.mark.parametrize("seed", range(N_EXACT))
def test_equals_a_fresh_prefill(models: Models, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    case = draw(seed, flash=False)
    worst, apart = compare(models, case)
    with capsys.disabled():
        print(f"\n  {told(case, worst, apart)}", end="")
    assert worst < TOLERANCE


@pytest.mark.parametrize("seed", range(100, 100 + N_FLASH))
def test_equals_a_fresh_prefill_with_flash_attention(
    models: Models, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its kernel rounds to 16 bits, otherwise for one row than for many: prefills differ by their batch as well."""
    case = draw(seed, flash=True)
    worst, apart = compare(models, case)
    prefills = []
    for n_ubatch in (1, 8, 512):
        with open_case(case, models, "nothing", n_ubatch=n_ubatch) as fresh:
            prefills.append(run(fresh, *case.upto(len(case.turns) - 1), **case.ranking))
    noise = max(distance(a, prefills[-1]) for a in prefills[:-1])
    with capsys.disabled():
        print(f"\n  {told(case, worst, apart)}; prefills by batch {noise:.1e}", end="")
    assert worst < max(TOLERANCE, 3 * noise)


# --- what is held -----------------------------------------------------------------------------------------------------


FIRST, LATER = make_prompt(SHAPE, [5, 24, 6]), make_prompt(SHAPE, [0, 0, 7], seed=9)
TALK = Case(SHAPE, tuple(n / 24 for n in COUNTS), [(FIRST, [7, 8, 9]), (LATER, [])], {}, {})


def begun(models: Models, hold: str = "queries", n_text: int = 64) -> StagedContext:
    """A context that holds the first turn and its answer."""
    ctx = open_context(models, SHAPE, COUNTS, n_text, hold=hold)
    run(ctx, FIRST, COUNTS)
    for token in TALK.turns[0][1]:
        ctx.decode(token)
    return ctx


def test_a_turn_taken_back_and_asked_otherwise(models: Models) -> None:
    with begun(models) as ctx, begun(models) as calm:
        go_on(ctx, TALK, 1)
        ctx.decode(3)
        ctx.truncate(len(FIRST.ids) + 3)
        assert distance(go_on(ctx, TALK, 1), go_on(calm, TALK, 1)) < 1e-6


def test_whatever_fails_leaves_the_context(models: Models) -> None:
    """Aborted after each node in turn: every stage holds what it held, and the next try succeeds."""
    left, texts = [0], set[str]()

    def asked(_: Any) -> bool:
        left[0] -= 1
        return left[0] == 0

    callback = llama.ggml_abort_callback(asked)
    with begun(models) as ctx, begun(models) as calm:
        want = go_on(calm, TALK, 1)
        before = ctx.state()
        llama.llama_set_abort_callback(ctx.ctx, callback, None)
        for node in range(1, 10_000):
            left[0] = node
            try:
                found = go_on(ctx, TALK, 1)
                break
            except NativeError as e:
                texts.add(str(e))
            left[0] = 0
            assert ctx.state() == before
        assert node > 100
        assert np.array_equal(found, want)
    assert {"aborted in layers 0 to 1", "aborted in layers 2 to 2", "aborted in the scores of a layer"} <= texts


def test_a_selection_that_gives_up(models: Models) -> None:
    def give_up(il: int, scores: Any, n: int) -> list[int]:
        raise ValueError(f"layer {il}")

    with begun(models) as ctx:
        before = ctx.state()
        with pytest.raises(ValueError, match="layer 3"):
            go_on(
                ctx, replace(TALK, ranking={"select": lambda il, s, n: give_up(il, s, n) if il == 3 else range(n)}), 1
            )
        assert ctx.state() == before


def test_rows_come_back_with_a_state(models: Models) -> None:
    """In a larger context, with other cells; a context that holds nothing passes over them."""
    with begun(models) as ctx, begun(models, "nothing") as plain:
        state = ctx.state()
        extra = len(state) - len(plain.state())
        want = go_on(ctx, TALK, 1)
    n_rows = len(FIRST.ids) + 3
    row = held_row_bytes(Sizes(6, 64, 96, 4, 2, 128, 16), TALK.shares)
    assert extra == 12 + n_rows * row
    print(f"\n  {n_rows} rows of {row} bytes, the state grows by {extra}")
    with open_context(models, SHAPE, COUNTS, 80, hold="queries") as other:
        other.restore(state)
        assert other.held_row_bytes == row
        assert distance(go_on(other, TALK, 1), want) < 1e-6
    with open_context(models, SHAPE, COUNTS, 80) as other:
        other.restore(state)
        assert other.held_row_bytes == 0
        assert other.n_past == n_rows
        other.decode(3)


def test_a_damaged_state_leaves_an_empty_context(models: Models) -> None:
    with begun(models) as ctx:
        state = ctx.state()
    with open_context(models, SHAPE, COUNTS, 80, hold="queries") as other:
        with pytest.raises(NativeError, match="does not fit"):
            other.restore(state[:-100])
        assert other.n_past == 0
    with open_context(models, SHAPE, COUNTS, 80, hold="rows") as other:
        with pytest.raises(NativeError, match="does not fit"):
            other.restore(state)
        assert other.n_past == 0


def test_moved_rows_are_not_ranked_again(models: Models) -> None:
    with begun(models) as ctx:
        llama.llama_memory_seq_add(ctx.memory, 0, 0, -1, 3)
        assert ctx.held_row_bytes == 0
        llama.llama_memory_seq_add(ctx.memory, 0, 0, -1, -3)
        with pytest.raises(ModelError, match="does not hold the rows of all its positions"):
            go_on(ctx, TALK, 1)
        ctx.clear()
        assert ctx.held_row_bytes > 0


@pytest.mark.parametrize(
    ("hold", "change", "error", "words"),
    [
        ("nothing", {}, ModelError, "holds no rows that could be ranked again"),
        ("rows", {}, ModelError, "holds no queries"),
        ("queries", {"n_held": 37}, UsageError, "n_held is 37, the context has 38 rows up to position 37"),
        ("queries", {"n_held": 45}, UsageError, "at least one new row"),
        ("queries", {"n_keep": [30, 18, 11, 4, 0]}, UsageError, r"n_keep\[0\] is 30, the rows have 24"),
        ("queries", {"n_text": 43}, ContextError, "the context is full: layers"),
    ],
)
def test_refused(models: Models, hold: str, change: dict[str, Any], error: type[AimError], words: str) -> None:
    whole, counts = TALK.upto(1)
    with begun(models, hold, change.get("n_text", 64) - 24) as ctx:
        before, keep = ctx.state(), change.get("n_keep", [counts[il] for il in ctx.plan.il_begin])
        with pytest.raises(error, match=words):
            ctx.prefill(whole.rows, whole.ids, None, keep, n_held=change.get("n_held", 38))
        assert ctx.state() == before


def test_rows_alone_where_nothing_ranks_there(models: Models) -> None:
    """A drop of everything, and rankings that need no queries of earlier rows."""
    for shares, ranking in (((1, 1, 1, 0, 0, 0), {}), (TALK.shares, {"importance": "last_query"})):
        case = replace(TALK, shares=tuple(map(float, shares)), ranking=ranking, options=TALK_OPTIONS)
        with open_case(case, models, "rows") as ctx, open_case(case, models, "nothing") as fresh:
            run(ctx, *case.upto(0), **ranking)
            for token in case.turns[0][1]:
                ctx.decode(token)
            assert distance(go_on(ctx, case, 1), run(fresh, *case.upto(1), **ranking)) < LIMITS.again


TALK_OPTIONS = {"type_k": "f32", "type_v": "f32", "flash_attn": False}
