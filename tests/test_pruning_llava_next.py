"""Merging and pruning of LLaVA-NeXT's pictures and clips, against an oracle that really removes tokens.

Base view and grid are merged apart, newlines never; frames one by one. Truth as in test_pruning.py.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from checkpoints import Shape  # noqa: E402
from limits import LIMITS  # noqa: E402
from llava_next_case import KINDS, Pair, clip, make_pair, picture  # noqa: E402
from pruning_case import Case, Loaded, draw_tokens  # noqa: E402
from reference_merging import numpy_merge  # noqa: E402
from reference_ward import ward_merge  # noqa: E402
from test_pruning import check_greedy, check_kept, embed_prompt, encode, oracle  # noqa: E402
from thorough import few  # noqa: E402

from aim_local import GenerateConfig, VisualTokenConfig  # noqa: E402
from aim_local.reduction.planner import layer_counts, layer_shares  # noqa: E402

N_CONFIGS = 15
PROMPTS = {
    1: "USER: <__media__>\nWhat happens? ASSISTANT:",
    2: "USER: <__media__> and <__media__>\nWhat happens? ASSISTANT:",
}


def draw(seed: int, folder: Path) -> tuple[Loaded, Pair]:
    rng = np.random.default_rng(1000 + seed)
    kind, n_layer = KINDS[seed % len(KINDS)], int(rng.integers(4, 8))
    shape = Shape(grid=2 * int(rng.integers(2, 4)), n_text=n_layer, heads_kv=int(rng.choice([2, 4])), seed=seed)
    tokens = draw_tokens(rng, n_layer)
    if seed % 5 == 4:
        tokens = VisualTokenConfig(merge_by="ward", merge_retain=0.3, prune_layers=tokens.prune_layers)
    sizes = [tuple(int(n) for n in rng.integers(8, 90, 2)) for _ in range(int(rng.integers(1, 3)))]
    moving = kind == "video" and bool(rng.integers(3))
    media = [clip(int(rng.integers(1, 5)), *size) if moving else picture(*size, seed) for size in sizes]
    pair = make_pair(folder, shape, kind, n_ubatch=int(rng.choice([16, 64, 512])))
    case = Case(kind, shape, media, tokens, 0)
    return Loaded(case, pair.reference.model, pair.reference, pair.llm, PROMPTS[len(media)]), pair


def merge(rows: np.ndarray, tokens: VisualTokenConfig) -> tuple[np.ndarray, list[int]]:
    if tokens.merge_by == "ward":
        found = ward_merge(rows, max(1, math.floor(len(rows) * tokens.merge_retain + 1e-9)), by_medoid=False)
        return found[0], list(found[1])
    found = numpy_merge(rows, tokens.merge_retain)
    return found[0], found[1]


def merged_item(item: np.ndarray, rows: np.ndarray, loaded: Loaded) -> np.ndarray:
    tokens, patches = loaded.case.tokens, loaded.case.shape.grid
    if item.ndim == 4:
        return np.concatenate([merge(frame, tokens)[0] for frame in np.split(rows, len(item))])
    newline = loaded.model.model.image_newline.detach().numpy()
    base, rest = rows[: patches**2], rows[patches**2 :]
    n_rows = int((np.abs(rest - newline).max(1) == 0).sum())
    wide = len(rest) // n_rows - 1
    grid = rest.reshape(n_rows, wide + 1, -1)[:, :wide].reshape(n_rows * wide, -1)
    kept, slots = merge(grid, tokens)
    out = [merge(base, tokens)[0]]
    for y in range(n_rows):
        of_row = [row for row, slot in zip(kept, slots, strict=True) if slot // wide == y]
        out.append(np.stack([*of_row, newline]))
    return np.concatenate(out)


@pytest.mark.parametrize("seed", few(range(N_CONFIGS), 3))
def test_whole_path(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded, pair = draw(seed, tmp_path)
    media, tokens = loaded.case.media, loaded.case.tokens
    with loaded.llm as llm:
        found = llm.prefill(loaded.prompt, media, tokens, raw=True)
        answer = llm.generate(loaded.prompt, media, tokens, GenerateConfig(max_tokens=32), raw=True)
        ours = encode(loaded, VisualTokenConfig.off())
        for item, got in zip(media, ours, strict=True):
            want = pair.reference.rows(item)
            assert got.shape == want.shape
            assert np.abs(got - want).max() < LIMITS.rows * max(1.0, np.abs(want).max())
        # numpy merges our own unmerged rows: those of transformers, 3e-7 beside, may fall on the other side of a tie
        rows = [merged_item(item, got, loaded) for item, got in zip(media, ours, strict=True)]
        for got, want in zip(encode(loaded, tokens), rows, strict=True):
            assert got.shape == want.shape
            assert np.abs(got - want).max() < 1e-5 * max(1.0, np.abs(want).max())
        n_visual = sum(len(r) for r in rows)
        counts = layer_counts(n_visual, layer_shares(tokens, llm.text.n_layer))
        assert [len(k) for k in found.trace.kept] == counts
        reference = oracle(loaded)
        embeds, flags = embed_prompt(loaded, reference, rows)
        forced = {il: kept.tolist() for il, kept in enumerate(found.trace.kept)}
        result = reference.prefill(embeds, flags, counts, forced=forced)
        apart = check_kept(result, found.trace.kept)
        logits = result.logits.numpy()
        difference = np.abs(found.logits[: len(logits)] - logits).max() / np.abs(logits).max()
        with capsys.disabled():
            print(f"\n  {loaded.case.kind}, {counts}: logits {difference:.1e}, other rows {apart:.1e} apart")
        assert difference < LIMITS.whole
        check_greedy(reference, result.logits, answer.tokens, llm)
