"""Tiny random text models for tests of staged prefill, their prompts and contexts.

The numbers of such a model mean nothing, their agreement does. The fixture `models` is in conftest.py.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from limits import N_ROWS
from reference_aim import Reference
from tiny_text import TextShape, make_model, write_gguf

from aim_local.native import log
from aim_local.native.library import llama
from aim_local.native.staged import ROW_TOKEN, ROW_VISUAL, StagedContext, StagePlan

SHAPE = TextShape(n_layer=6)
COUNTS = (24, 24, 18, 11, 4, 0)

log.clear()  # llama.cpp's log goes there, and not to the terminal


class Models:
    """Native models by shape and weight type, loaded once; and their transformers twins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.twins: dict[TextShape, Any] = {}
        self.native: dict[tuple[TextShape, str], int] = {}

    def twin(self, shape: TextShape) -> Any:
        if shape not in self.twins:
            self.twins[shape] = make_model(shape)
        return self.twins[shape]

    def path(self, shape: TextShape, weights: str = "F32") -> Path:
        path = self.folder / f"{abs(hash(shape))}-{weights}.gguf"
        if not path.exists():
            write_gguf(self.twin(shape), shape, path, gguf.GGMLQuantizationType[weights])
        return path

    def load(self, shape: TextShape, weights: str = "F32") -> int:
        if (shape, weights) not in self.native:
            params = llama.llama_model_default_params()
            params.n_gpu_layers = 0
            path = str(self.path(shape, weights)).encode()
            self.native[shape, weights] = llama.llama_model_load_from_file(path, params)
        return self.native[shape, weights]

    def close(self) -> None:
        gc.collect()
        for model in self.native.values():
            llama.llama_model_free(model)


@dataclass
class Prompt:
    """Token ids, -1 for a visual row; the visual rows; how many patches each row stands for, None: one each; and time,
    row and column of each row [n, 3] for models that turn by them, None: its position.

    visual: [n, n_embd], and behind that what the first layers add, where they do.
    """

    ids: list[int]
    visual: torch.Tensor
    sizes: list[int] | None = None
    rotary: np.ndarray[Any, Any] | None = None

    @property
    def is_visual(self) -> list[bool]:
        return [i < 0 for i in self.ids]

    @property
    def rows(self) -> list[int]:
        return [ROW_VISUAL if i < 0 else ROW_TOKEN for i in self.ids]

    def embeds(self, reference: Reference) -> torch.Tensor:
        x = reference.embed([max(i, 0) for i in self.ids])
        x[torch.tensor(self.is_visual, dtype=torch.bool)] = self.visual[:, : x.shape[1]].double()
        return x

    def added(self, n_embd: int) -> torch.Tensor:
        """What the first layers add to each row, [layers, n, n_embd]."""
        n_deep = self.visual.shape[1] // n_embd - 1
        x = torch.zeros(n_deep, len(self.ids), n_embd).double()
        x[:, torch.tensor(self.is_visual, dtype=torch.bool)] = (
            self.visual[:, n_embd:].double().unflatten(1, (n_deep, n_embd)).transpose(0, 1)
        )
        return x


def make_prompt(
    shape: TextShape, parts: Sequence[int], seed: int = 0, *, most: int | None = None, first: int = 0
) -> Prompt:
    """parts: rows of text, visual, text, ... in turn. most: visual rows stand for 1 to so many patches. first: rotary
    id of the first row, where it is text."""
    g = torch.Generator().manual_seed(seed)
    ids: list[int] = []
    for i, n in enumerate(parts):
        ids += [-1] * n if i % 2 else torch.randint(0, shape.n_vocab, (n,), generator=g).tolist()
    visual = 0.5 * torch.randn(sum(parts[1::2]), shape.n_embd * (1 + shape.n_deep), generator=g)
    drawn = torch.randint(1, (most or 1) + 1, (len(ids),), generator=g)
    sizes = [int(n) if i < 0 else 1 for i, n in zip(ids, drawn, strict=True)]
    return Prompt(ids, visual, sizes if most else None, rotary_of(parts, seed, first) if shape.sections else None)


def rotary_of(parts: Sequence[int], seed: int, first: int) -> np.ndarray[Any, Any]:
    """Time, row and column of each row. Of a grid some slots are left, as after merging; times pass the others."""
    rng = np.random.default_rng(seed)
    found = [np.zeros((0, 3), int)]
    for i, n in enumerate(parts):
        if i % 2 == 0:
            found.append(np.arange(first, first + n)[:, None].repeat(3, 1))
            first += n
            continue
        h, w, step = (int(k) for k in rng.integers(1, 9, 3))
        slots = np.sort(rng.choice(2 * n, n, replace=False))
        t, rest = np.divmod(slots, h * w)
        found.append(np.stack([t * step, rest // w, rest % w], axis=1) + first)
        first += max(h, w)
    return np.concatenate(found)


def stages_of(counts: Sequence[int], n_text: int) -> StagePlan:
    """One stage per run of equal counts. counts[il]: visual tokens entering layer il; n_text: room for others."""
    begins = [il for il, n in enumerate(counts) if il == 0 or n != counts[il - 1]]
    return StagePlan(tuple(begins), tuple(counts[il] + n_text for il in begins))


def open_context(
    models: Models, shape: TextShape, counts: Sequence[int], n_text: int = 64, weights: str = "F32", **options: Any
) -> StagedContext:
    # one thread: ggml's threads wait by spinning, which on a busy machine takes longer than these models do
    exact: dict[str, Any] = {"type_k": "f32", "type_v": "f32", "flash_attn": False, "n_threads": 1}
    options = exact | options | ({"n_ubatch": N_ROWS} if N_ROWS else {})
    return StagedContext(models.load(shape, weights), stages_of(counts, n_text), **options)


def run(ctx: StagedContext, prompt: Prompt, counts: Sequence[int], **options: Any) -> np.ndarray[Any, Any]:
    embd = prompt.visual.numpy() if len(prompt.visual) else None
    return ctx.prefill(
        prompt.rows,
        prompt.ids,
        embd,
        [counts[il] for il in ctx.plan.il_begin],
        sizes=prompt.sizes,
        rotary=prompt.rotary,
        **options,
    )


def distance(a: Any, b: Any) -> float:
    a, b = torch.as_tensor(a).double(), torch.as_tensor(b).double()
    return float((a - b).abs().max() / b.abs().max())
