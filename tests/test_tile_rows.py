"""Rows of an item's tiles: encoded once, and gone from memory when nothing needs them any more."""

from __future__ import annotations

import gc
import os
import platform
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.sanitizer import RUNNING

from aim_local.engine.tile_rows import ItemRows
from aim_local.models.reuse import Seen, Shared
from aim_local.native.heap import give_back


class Kept:
    """A keeper that notes what it is given."""

    problem = ""

    def __init__(self) -> None:
        self.tiles: list[int] = []

    def add(self, tile: int, rows: Any) -> None:
        assert rows.shape == (4, 2)

    def finish(self, tiles: Any, frames: Any, facts: Any) -> None:
        self.tiles = list(tiles)

    def forget(self) -> None: ...

    def drop(self) -> None: ...


@pytest.mark.parametrize("once", [True, False])
def test_rows_of_one_prompt_are_forgotten(once: bool) -> None:
    kept, encoded = Kept(), list[weakref.ref[Any]]()

    def encode() -> Any:
        rows = np.ones((4, 2), np.float32)
        encoded.append(weakref.ref(rows))
        return rows

    shared = Shared()
    rows = ItemRows(Seen("video", shared, 1), keeper=kept, once=once)
    frames = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), np.uint8)
    for _ in range(2):  # ahead, and for the prompt
        for number, frame in enumerate(frames):
            rows(number, frame, encode)
    assert rows.used() == (3 * 4 * 2 * 4 if once else 0)
    gc.collect()
    assert len(encoded) == 3
    assert [ref() is None for ref in encoded] == [once] * 3
    assert (rows.counts.encoded, rows.counts.all) == (3, 3)
    assert rows.keep(None, {}) == ""
    assert kept.tiles == [0, 1, 2]


def test_rows_of_the_store_are_forgotten_too() -> None:
    stored = [np.zeros((4, 2), np.float32)]
    alive = weakref.ref(stored[0])
    rows = ItemRows(None, stored, once=True)
    assert rows(0, None, lambda: pytest.fail("it is there")) is stored[0]
    stored.clear()
    assert alive() is not None
    rows.used()
    gc.collect()
    assert alive() is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc" or RUNNING, reason="only glibc can be asked, and no sanitizer")
def test_freed_arrays_go_back_to_the_system() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    held = [np.ones(1 << 15, np.uint8) for _ in range(4000)]  # small enough for glibc's heap
    between = held[::100]
    before = resident()
    held.clear()
    give_back()
    print(f"{(before - resident()) >> 20} of 125 MiB given back")
    assert before - resident() > 60 << 20
    assert all(x.all() for x in between)
