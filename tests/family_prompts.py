"""Prompts that every family answers, and settings of merging and pruning drawn at random."""

from __future__ import annotations

from typing import Any

import numpy as np
from family_checkpoints import clip, message, picture

from aim_local import VisualTokenConfig

ASK = "Describe it."
# messages and media; clips have the times of their rate, from eight a second to one in ten seconds
PROMPTS: dict[str, tuple[list[Any], list[Any]]] = {
    "text": ([message("user", "How many shapes are there?")], []),
    "picture": ([message("user", ("image",), ASK)], [picture(100, 160)]),
    "small picture": ([message("user", ("image",), ASK)], [picture(60, 50)]),
    "two pictures": ([message("user", ("image",), ("image",), ASK)], [picture(100, 160), picture(300, 120, 1)]),
    "2 frames": ([message("user", ("video",), ASK)], [clip(2, 240, 320)]),
    "5 frames": ([message("user", ("video",), ASK)], [clip(5, 130, 120, fps=8.0)]),
    "8 frames": ([message("user", ("video",), ASK)], [clip(8, 160, 120, fps=0.1)]),
    "turns": (
        [
            message("user", ("image",), "What is it?"),
            message("assistant", "The red circle."),
            message("user", ("video",), "And then?"),
            message("assistant", "The blue square follows it."),
            message("user", "How many shapes are there?"),
        ],
        [picture(100, 160), clip(2, 240, 320)],
    ),
}


def drawn_pictures(seed: int, n: int) -> tuple[list[Any], list[Any]]:
    """A prompt of n pictures of drawn sizes, from tiny to several squares, square to 8 to 1."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(np.log(20), np.log(400), n)), np.exp(rng.uniform(-2, 2, n))
    pictures = [picture(int(s), max(8, int(s * ratio)), i) for i, (s, ratio) in enumerate(zip(*sizes, strict=True))]
    return [message("user", *[("image",)] * n, ASK)], pictures


def drawn_clips(seed: int, n: int) -> list[tuple[list[Any], list[Any]]]:
    """Prompts of a video each, of drawn sizes."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(40, 500, (n, 2)).tolist()
    return [([message("user", ("video",), ASK)], [clip(2, h, w, i)]) for i, (h, w) in enumerate(sizes)]


MERGED = [name for name in PROMPTS if name not in ("text", "turns")]


def drawn(seed: int, n_layer: int, *, prunes: bool) -> tuple[str, VisualTokenConfig]:
    """A prompt by name and a setting; of 12 seeds a half merges by Ward's clustering. prunes: some layers drop rows."""
    rng = np.random.default_rng(seed)
    name = MERGED[seed % len(MERGED)]
    how: dict[str, Any] = {
        "merge_retain": float(rng.choice([0.7, 0.5, 0.3, 0.16])),
        "merge_by": ["similarity", "ward"][int(rng.integers(2))],
    }
    if not prunes:
        return name, VisualTokenConfig(**how, prune_layers=None)
    how["weigh"] = ["equal", "size"][int(rng.integers(2))]
    which = int(rng.integers(3))
    if which == 0:
        return name, VisualTokenConfig(**how, prune_layers=None)
    if which == 1:
        l1 = int(rng.integers(0, n_layer - 1))
        return name, VisualTokenConfig(**how, prune_layers=(l1, int(rng.integers(l1 + 1, n_layer + 1))))
    shares = [1.0, *sorted((float(s) for s in np.round(rng.uniform(0, 1, n_layer - 1), 2)), reverse=True)]
    return name, VisualTokenConfig(**how, prune_layers=None, retention=shares)
