"""Ward's clustering of visual tokens by scipy, and what becomes of a clip: what the native one is compared with.

Nothing is shared with the runtime: scipy finds the clusters, the rest is written from docs/method.md.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage


def partition(rows: np.ndarray, n_keep: int) -> list[int]:
    """Cluster of each row, numbered in the order of their lowest rows."""
    if len(rows) == 1:
        return [0]
    labels = fcluster(linkage(rows.astype(np.float64), "ward"), n_keep, "maxclust")
    numbers: dict[int, int] = {}
    return [numbers.setdefault(label, len(numbers)) for label in labels.tolist()]


def medoid(rows: np.ndarray, members: list[int]) -> int:
    """The member nearest to the mean; of (nearly) equal ones the lowest."""
    x = rows[members].astype(np.float64)
    far = ((x - x.mean(0)) ** 2).sum(1)
    return members[int(np.argmax(far <= far.min() * (1 + 1e-8)))]


def ward_merge(rows: np.ndarray, n_keep: int, *, by_medoid: bool) -> tuple[np.ndarray, list[int], list[int]]:
    """(means [n_keep, d], slots, owners); rows in the order of their slots."""
    labels = partition(rows, n_keep)
    groups = [[i for i, label in enumerate(labels) if label == c] for c in range(max(labels) + 1)]
    slots = [medoid(rows, members) if by_medoid else members[0] for members in groups]
    order = np.argsort(slots)
    means = np.stack([rows[groups[c]].astype(np.float64).mean(0) for c in order])
    return means, [slots[c] for c in order], [int(np.argsort(order)[label]) for label in labels]


def ward_frames(
    frames: list[np.ndarray], retain: float, window: int = 1, line: tuple[int, np.ndarray] | None = None
) -> tuple[np.ndarray, list[tuple[int, int]], list[np.ndarray]]:
    """Frames [n, d] each -> (rows, (frame, slot) of each, owners of each frame's slots).

    line: slots of a row of the grid and the newline behind each; it has slot -1.
    """
    rows, places, owners = list[np.ndarray](), list[tuple[int, int]](), list[np.ndarray]()
    n = len(frames[0])
    for first in range(0, len(frames), window):
        part = frames[first : first + window]
        n_keep = len(part) * max(1, math.floor(n * retain + 1e-9))
        means, slots, labels = ward_merge(np.concatenate(part), n_keep, by_medoid=window > 1)
        where = dict[int, int]()  # slot of the window -> row of the clip
        for slot in range(n * len(part)):
            if slot in slots:
                where[slot] = len(rows)
                rows.append(means[slots.index(slot)])
                places.append((first + slot // n, slot % n))
            if line and (slot + 1) % line[0] == 0:
                rows.append(line[1])
                places.append((first + slot // n, -1))
        found = np.array([where[slots[label]] for label in labels])
        owners += np.split(found, len(part))
    return np.stack(rows), places, owners
