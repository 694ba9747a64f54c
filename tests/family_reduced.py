"""Merging and pruning of a family's prompt against implementations that really remove rows.

The rows before merging are the runtime's own, which parity holds: 1e-4 beside transformers' they may fall on the other
side of a tie. They are merged by numpy or scipy, and what is left goes through the float64 language model of
reference_aim, or, where rows are merged only, through transformers' own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from family_case import OFF, Case, Run, blocks_of, planned, run
from family_prompts import PROMPTS
from limits import LIMITS
from numpy.typing import NDArray
from reference_aim import Reference
from reference_merging import numpy_merge
from reference_ward import ward_merge

from aim_local import VisualTokenConfig
from aim_local.models.pieces import MediaPiece, TextPiece
from aim_local.reduction.planner import layer_counts, layer_shares

Rows = NDArray[np.floating[Any]]


def merged_parts(case: Case, prompt: str, tokens: VisualTokenConfig) -> tuple[list[Rows], list[list[int]]]:
    """Rows of each visual part after merging, and how many of the tower's rows each stands for."""
    reading, plan = planned(case, *PROMPTS[prompt], OFF)
    whole = blocks_of(case, plan, reading.items)
    parts = [p for p in plan.pieces if isinstance(p, MediaPiece)]
    tower: Any = case.llm.model.tower
    rows, sizes = list[Rows](), list[list[int]]()
    for part, block in zip(parts, whole, strict=True):
        found = [p for p in tower.arrange(reading.items[part.media].shape) if not isinstance(p, str)][part.part]
        ends = np.cumsum([tile.n for tile in found])[:-1]
        merged = [merged_tile(r, tokens) for r in np.split(block.rows, ends)]
        rows.append(np.concatenate([r for r, _ in merged]))
        sizes.append([n for _, counts in merged for n in counts])
    return rows, sizes


def merged_tile(rows: Rows, tokens: VisualTokenConfig) -> tuple[Rows, list[int]]:
    n_keep = max(1, math.floor(len(rows) * tokens.merge_retain + 1e-9))
    if tokens.merge_by == "ward":
        means, _, owners = ward_merge(rows, n_keep, by_medoid=False)
    else:
        means, _, owners = numpy_merge(rows, tokens.merge_retain)
    return means, [owners.count(i) for i in range(len(means))]


def check_merged(case: Case, prompt: str, tokens: VisualTokenConfig) -> tuple[list[Rows], list[list[int]]]:
    """The runtime's merged rows are the independent ones, which are returned."""
    rows, sizes = merged_parts(case, prompt, tokens)
    reading, plan = planned(case, *PROMPTS[prompt], tokens)
    apart = [0.0]
    for block, want, counts in zip(blocks_of(case, plan, reading.items), rows, sizes, strict=True):
        assert block.rows.shape == want.shape
        assert block.sizes is not None
        assert block.sizes.tolist() == counts
        apart.append(float(np.abs(block.rows - want).max() / max(1.0, np.abs(want).max())))
    print(f"{prompt}: {sum(len(r) for r in rows)} merged rows differ by {max(apart):.1e}")
    assert max(apart) < LIMITS.rows
    return rows, sizes


def laid_out(found: Run, rows: Sequence[Rows]) -> list[tuple[TextPiece, None] | tuple[MediaPiece, Rows]]:
    left, out = list(rows), list[Any]()
    for piece in found.plan.pieces:
        out.append((piece, None if isinstance(piece, TextPiece) else left.pop(0)))
    return out


# --- pruning ---------------------------------------------------------------------------------------------------------


def oracle(case: Case) -> Reference:
    """The language model of a checkpoint as the oracle reads it."""
    whole = case.loaded.model
    inner = getattr(whole.model, "text_model", None) or whole.model.language_model

    class Text:
        config = whole.config.text_config

        @staticmethod
        def state_dict() -> dict[str, Any]:
            names = {f"model.{name}": value for name, value in inner.state_dict().items()}
            return {**names, "lm_head.weight": whole.lm_head.weight.detach()}

    return Reference(Text())


def check_pruned(case: Case, prompt: str, tokens: VisualTokenConfig) -> None:
    """Merged rows, kept sets, logits and an answer are those of an implementation that removes rows."""
    rows, sizes = check_merged(case, prompt, tokens)
    reference = oracle(case)
    with run(case, *PROMPTS[prompt], tokens) as found:
        embeds, flags, counted = list[torch.Tensor](), list[bool](), list[int]()
        for piece, merged in laid_out(found, rows):
            is_text = isinstance(piece, TextPiece)
            embeds.append(reference.embed(piece.tokens) if is_text else torch.tensor(merged).double())
            flags += [not is_text] * piece.n
            counted += [1] * piece.n if is_text else sizes.pop(0)
        kept = found.filled.trace.kept
        counts = layer_counts(sum(flags), layer_shares(tokens, reference.n_layer))
        assert [len(k) for k in kept] == counts
        forced = {il: k.tolist() for il, k in enumerate(kept)}
        weights = counted if tokens.weigh == "size" else None
        want = reference.prefill(torch.cat(embeds), flags, counts, forced=forced, sizes=weights)
        apart = max([0.0, *(want.apart(il, kept[il].tolist()) for il in want.chosen)])
        assert apart < LIMITS.tie, f"other rows are kept, {apart:.1e} of the cut's score apart"
        compare_answers(found, want.logits.numpy(), lambda token: reference.decode(token).numpy())
        print(f"{tokens.merge_by}, weighed {tokens.weigh}, rows {counts}, other rows {apart:.1e} apart")


def compare_answers(found: Run, want: NDArray[Any], decode: Any, n: int = 8) -> None:
    """Logits after the prompt and after each of n greedy tokens of the oracle."""
    apart = list[float]()
    for _ in range(n):
        got = found.context.logits()[: len(want)]
        apart.append(float(np.abs(got - want).max() / np.abs(want).max()))
        token = int(want.argmax())
        found.context.decode_tokens([token], logits=True)
        want = decode(token)
    print(f"logits differ by {apart[0]:.1e} of the largest, by {max(apart):.1e} in the answer")
    assert max(apart) < LIMITS.whole


# --- merging alone ---------------------------------------------------------------------------------------------------


def check_merged_only(case: Case, prompt: str, tokens: VisualTokenConfig) -> None:
    """As transformers' language model has it, given the merged rows."""
    rows, _ = check_merged(case, prompt, tokens)
    model = case.loaded.model
    with run(case, *PROMPTS[prompt], tokens) as found, torch.inference_mode():
        embed = model.get_input_embeddings()
        embeds, kinds = list[torch.Tensor](), list[int]()
        for piece, merged in laid_out(found, rows):
            is_text = isinstance(piece, TextPiece)
            embeds.append(embed(torch.tensor(piece.tokens)) if is_text else torch.tensor(merged).float())
            kinds += [0 if is_text else 1] * piece.n

        def logits() -> NDArray[Any]:
            types = torch.tensor([kinds])
            whole = torch.cat(embeds)[None]
            return np.asarray(model(inputs_embeds=whole, token_type_ids=types).logits[0, -1].numpy())

        def decode(token: int) -> NDArray[Any]:
            embeds.append(embed(torch.tensor([token])))
            kinds.append(0)
            return logits()

        compare_answers(found, logits(), decode)
