"""Token merging in numpy, by the formulas: what the native one is compared with. Nothing is shared with the C++."""

from __future__ import annotations

import math

import numpy as np


def drawn_rows(seed: int, n: int, n_embd: int) -> np.ndarray:
    """Rows with neighbours alike, as pictures have: a slow wave plus noise."""
    rng = np.random.default_rng(seed)
    wave = np.sin(np.arange(n)[:, None] / 3 + rng.uniform(0, 6, n_embd))
    return (wave + 0.3 * rng.standard_normal((n, n_embd))).astype(np.float32)


def numpy_merge(rows: np.ndarray, retain: float) -> tuple[np.ndarray, list[int], list[int]]:
    """The formulas of AIM section 3.1, as sets of members: nothing shared with the C++."""
    target = max(1, math.floor(len(rows) * retain + 1e-9))
    x = [row.astype(np.float64) for row in rows]
    members = [[i] for i in range(len(rows))]
    slots = list(range(len(rows)))
    while len(x) > target:
        r = min(len(x) - target, len(x) // 2)
        m = np.stack([row / np.linalg.norm(row) for row in x])
        similar = m[0::2] @ m[1::2].T
        nearest, score = similar.argmax(1), similar.max(1)
        gone = sorted(range(len(score)), key=lambda i: (-score[i], i))[:r]
        for j in range(len(x) // 2):
            joining = [2 * i for i in gone if nearest[i] == j]
            x[2 * j + 1] = np.mean([x[2 * j + 1], *(x[i] for i in joining)], axis=0)
            for i in joining:
                members[2 * j + 1] += members[i]
        left = [i for i in range(len(x)) if i not in {2 * g for g in gone}]
        x, members, slots = [x[i] for i in left], [members[i] for i in left], [slots[i] for i in left]
    owners = [0] * len(rows)
    for out, group in enumerate(members):
        for i in group:
            owners[i] = out
    return np.stack(x), slots, owners
