"""Merging and pruning of Qwen-VL's prompts by an implementation that really removes rows.

The rows before merging are the runtime's own, which parity holds: beside transformers' they may fall on the other side
of a tie. numpy and scipy merge them, what the first text layers add along with them. get_rope_index of transformers
says how far each row is turned, and the float64 language model of reference_aim does the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from family_case import OFF, Case
from family_reduced import oracle
from numpy.typing import NDArray
from qwen_case import Asked
from reference_aim import RANKINGS, Reference, Result
from reference_merging import numpy_merge
from reference_ward import ward_merge

from aim_local import VisualTokenConfig
from aim_local.engine.encode import Encoded, encode_media
from aim_local.engine.plan import plan_prompt
from aim_local.engine.read import read_media
from aim_local.engine.watch import Watch
from aim_local.models.pieces import TextPiece
from aim_local.models.prompt import Message, references
from aim_local.reduction.planner import layer_counts, layer_shares

Rows = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Prompt:
    """A prompt row by row. rows: [n, width], of text its embedding and zeros; ids: [n, 3]; sizes: patches of each."""

    rows: Rows
    ids: NDArray[np.integer[Any]]
    is_visual: list[bool]
    sizes: list[int]

    @property
    def visual(self) -> Rows:
        return self.rows[self.is_visual]


def encoded(case: Case, asked: Asked, tokens: VisualTokenConfig) -> tuple[Any, Encoded]:
    """The runtime's plan and visual rows."""
    model = case.llm.model
    reading = read_media(model, asked.items(case), asked.sampling, Watch())
    shapes = [item.shape for item in reading.items]
    rendered = model.render([Message("user", asked.text, references(shapes))])
    plan = plan_prompt(model, rendered, shapes, tokens)
    return plan, encode_media(model, plan, dict(enumerate(reading.items)), Watch())


def transformers_ids(case: Case, inputs: dict[str, Any]) -> NDArray[Any]:
    """Time, row and column of every row [n, 3]."""
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw", "second_per_grid_ts")
    found, _ = case.loaded.model.model.get_rope_index(**{k: inputs[k] for k in names if k in inputs})
    return np.asarray(found[:, 0].T.numpy())


def whole_prompt(case: Case, asked: Asked, reference: Reference, visual: dict[int, Rows] | None = None) -> Prompt:
    """Nothing merged. visual: rows by piece of the plan, None: the runtime's."""
    plan, found = encoded(case, asked, OFF)
    visual = visual or {i: block.rows for i, block in found.blocks.items()}
    width = max([len(reference.w["model.norm.weight"]), *(rows.shape[1] for rows in visual.values())])
    rows, flags = list[Rows](), list[bool]()
    for i, piece in enumerate(plan.pieces):
        if isinstance(piece, TextPiece):
            own = reference.embed(piece.tokens).numpy()
            rows.append(np.pad(own, ((0, 0), (0, width - own.shape[1]))))
        else:
            rows.append(visual[i].astype(np.float64))
        flags += [not isinstance(piece, TextPiece)] * piece.n
    ids = transformers_ids(case, asked.inputs(case))
    return Prompt(np.concatenate(rows), ids, flags, [1] * len(flags))


def merged(case: Case, asked: Asked, whole: Prompt, tokens: VisualTokenConfig) -> Prompt:
    """Each tile, or window of tiles, merged by itself. What the first layers add is averaged over the same rows."""
    n_embd = case.llm.text.shape.n_embd
    rows, ids, flags, sizes = list[Rows](), list[NDArray[Any]](), list[bool](), list[int]()
    at = 0
    for is_visual, n in spans(case, asked, tokens):
        own, turned = whole.rows[at : at + n], whole.ids[at : at + n]
        at += n
        if not is_visual:
            rows, ids, flags, sizes = [*rows, own], [*ids, turned], flags + [False] * n, sizes + [1] * n
            continue
        means, slots, owners = clusters(own[:, :n_embd], tokens, by_medoid=is_visual > 1)
        groups = [[j for j, owner in enumerate(owners) if owner == i] for i in range(len(slots))]
        rows.append(np.concatenate([means, [own[group, n_embd:].mean(0) for group in groups]], axis=1))
        ids.append(turned[slots])
        flags += [True] * len(slots)
        sizes += [len(group) for group in groups]
    assert at == len(whole.rows)
    return Prompt(np.concatenate(rows), np.concatenate(ids), flags, sizes)


def spans(case: Case, asked: Asked, tokens: VisualTokenConfig) -> list[tuple[int, int]]:
    """Of the unmerged prompt: (0 for text, 1 for a tile, 2 for tiles in a window; rows)."""
    plan, found = encoded(case, asked, OFF)
    out: list[tuple[int, int]] = []
    for i, piece in enumerate(plan.pieces):
        if isinstance(piece, TextPiece):
            out.append((0, piece.n))
            continue
        tiles = [grid.owners.size for grid in found.blocks[i].grids]
        is_video = found.blocks[i].grids[0].index >= 0
        window = tokens.merge_window // 2 if is_video and tokens.merge_window > 1 else 0
        step = window or 1
        out += [(2 if window else 1, sum(tiles[j : j + step])) for j in range(0, len(tiles), step)]
        assert sum(tiles) == piece.n
    return out


def clusters(rows: Rows, tokens: VisualTokenConfig, *, by_medoid: bool) -> tuple[Rows, list[int], list[int]]:
    """What is left, its slots, and for each row which of them it went into. Tiles of a window have one size."""
    exact = rows.astype(np.float32)
    if tokens.merge_by == "similarity":
        return numpy_merge(exact, tokens.merge_retain)
    return ward_merge(exact, max(1, int(len(rows) * tokens.merge_retain + 1e-9)), by_medoid=by_medoid)


def reference_of(case: Case) -> Reference:
    """The float64 language model. llama.cpp at this version reads no epsilon for the first two, and has 0 there."""
    found = oracle(case)
    found.eps = found.eps if case.family == "qwen3_vl" else 0.0
    return found


def run_reference(
    reference: Reference, prompt: Prompt, tokens: VisualTokenConfig, kept: list[NDArray[Any]] | None = None
) -> Result:
    """kept: the runtime's, per layer; taken over so that one near tie does not hide what comes after it."""
    n_embd = len(reference.w["model.norm.weight"])
    counts = layer_counts(sum(prompt.is_visual), layer_shares(tokens, reference.n_layer))
    rows = torch.tensor(prompt.rows)
    added = rows[:, n_embd:].unflatten(1, (-1, n_embd)).transpose(0, 1) if rows.shape[1] > n_embd else None
    assert isinstance(tokens.importance, str)
    return reference.prefill(
        rows[:, :n_embd], prompt.is_visual, counts,
        forced=None if kept is None else {il: k.tolist() for il, k in enumerate(kept)},
        score=RANKINGS[tokens.importance], sizes=prompt.sizes if tokens.weigh == "size" else None,
        rotary=prompt.ids, added=added,
    )  # fmt: skip
