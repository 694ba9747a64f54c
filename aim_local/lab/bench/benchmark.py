"""A benchmark from its options: the model, the arms, the rounds, the report.

A table of contents over its neighbours: how each part is done is theirs.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ... import store
from ...config import LoadConfig, VisualTokenConfig
from ...errors import AimError, MediaError, UsageError
from ...media.types import Pick
from ...models.keys import by_keys
from ...models.tower_head import check_tower_head
from ...settings import parse_setting
from ...store.names import ModelPaths
from .. import measure as machine_facts
from .cache import bench_folder, make_folder, random_model, synthetic_clip
from .grid import Arm, Grid, measure
from .report import Cell, cells, notes, table
from .session import Measured, Session
from .shapes import RandomShape

Say = Callable[[str], None]
OFF, STOCK = "off", "stock"
PAIRED = "stock prefills all tokens, ours what the setting leaves"
SHAPE_FRAMES = (8, 32)  # measured where nothing is asked, of a random model; of a given one its own number


@dataclass(frozen=True)
class BenchConfig:
    """What to measure. model: a name, file or folder, None is the bundled one; shape: a random model instead.

    vision_type: of a random mmproj. frames: () for the default. settings: text forms (settings.py). video: None takes
    a bundled clip, or a synthetic one where that is too short. warm_up: rounds before those that count. stock: pairs
    with the unpatched library, which is in stock_folder or in the cache. pick: as in FrameSampling.
    """

    model: str | None = None
    mmproj: Path | None = None
    shape: RandomShape | None = None
    text_type: str = "q4_0"
    vision_type: str = "f16"
    frames: tuple[int, ...] = ()
    settings: tuple[str, ...] = (OFF, "paper", "fast")
    video: Path | None = None
    rounds: int = 3
    warm_up: int = 1
    n_decode: int = 32
    skip_vision: bool = False
    stock: bool = False
    stock_folder: Path | None = None
    load: LoadConfig = field(default_factory=LoadConfig)
    pick: Pick = "auto"

    def __post_init__(self) -> None:
        if self.shape is not None and self.model is not None:
            raise UsageError(f"a model ({self.model}) and a shape ({self.shape.name}) were given; give one of them")
        if self.shape is not None and self.mmproj is not None:
            raise UsageError("a random model has a random vision tower; leave mmproj out")
        for name, value in (("rounds", self.rounds), ("n_decode", self.n_decode)):
            if value < 1:
                raise UsageError(f"{name} is {value}; give a whole number above 0")
        if self.warm_up < 0:
            raise UsageError(f"warm_up is {self.warm_up}; give 0 or a whole number above it")
        for setting in self.settings:
            if by_keys(parse_setting(setting)):
                raise UsageError(f"setting {setting!r} is for pictures, and bench measures a video; leave it out")
        if self.stock and self.load.rpc:
            raise UsageError("the unpatched library is measured on this machine alone; leave rpc or stock out")
        if self.video is not None and self.skip_vision:
            raise UsageError("without the vision tower no video is read; leave video out")


@dataclass
class BenchResult:
    """paths: of the model; clip: the video that was read; notes: what to know before believing the figures."""

    config: BenchConfig
    paths: ModelPaths
    clip: Path | None
    grid: Grid
    cells: list[Cell]
    notes: list[str]

    def tables(self) -> list[list[list[str]]]:
        """One table per number of frames."""
        groups = [[cell for cell in self.cells if cell.n_frames == n] for n in self.grid.frames]
        return [table(group, self.grid.reference) for group in groups if group]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, every single measurement included."""
        return {
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "machine": machine_facts.machine(),
            "model": {"name": self.paths.name, "model": str(self.paths.model), "mmproj": str(self.paths.mmproj or "")},
            "shape": asdict(self.config.shape) if self.config.shape else None,
            "video": str(self.clip) if self.clip else None,
            "load": asdict(self.config.load),
            "rounds": self.config.rounds,
            "warm_up": self.config.warm_up,
            "n_decode": self.config.n_decode,
            "skipped_vision": self.config.skip_vision,
            "reference": self.grid.reference,
            "cells": [cell.to_dict() for cell in self.cells],
            "notes": self.notes,
            "raw": [asdict(record) for record in self.grid.records],
        }


def run_bench(config: BenchConfig, say: Say) -> BenchResult:
    """Measures. say: progress, a line at a time. Raises AimError where nothing can be measured."""
    # 1. what is measured
    paths = _model(config, say)
    frames = config.frames or (SHAPE_FRAMES if config.shape else (_default_frames(paths),))
    clip = None if config.skip_vision else _clip(config, max(frames))
    # 2. the runs
    with ExitStack() as stack:
        found_notes: list[str] = []
        make = _stock_arms if config.stock else _own_arms
        arms = make(config, paths, clip, stack, say, found_notes)
        grid = measure(frames, arms, config.rounds, say, config.warm_up)
    if not grid.records:
        raise AimError(f"nothing could be measured: {next(iter(grid.failures.values()))}")
    # 3. what they say
    found = cells(grid)
    return BenchResult(config, paths, clip, grid, found, [*found_notes, *notes(grid, found)])


def _model(config: BenchConfig, say: Say) -> ModelPaths:
    if config.shape is None:
        return store.resolve(config.model, config.mmproj)
    vision = None if config.skip_vision else config.vision_type
    return random_model(config.shape, config.text_type, vision, say)


def _clip(config: BenchConfig, n_frames: int) -> Path:
    """The clip asked for; else, for a given model, a bundled one if it is long enough; else a synthetic one."""
    from ...media import probe_video

    if config.video is not None:
        found = probe_video(config.video, config.load.max_pixels).n_frames
        if found < n_frames:
            raise MediaError(f"{config.video} has {found} frames, {n_frames} are asked for; take a longer clip")
        return config.video
    folder = store.bundled_folder()
    bundled = folder.parent / "clips" / "needle.mp4" if folder else None
    if config.shape is None and bundled and bundled.is_file() and probe_video(bundled).n_frames >= n_frames:
        return bundled
    return synthetic_clip(n_frames)


def _default_frames(paths: ModelPaths) -> int:
    from ...store.gguf_header import read_header

    if not paths.mmproj:
        return max(SHAPE_FRAMES)
    header = read_header(paths.mmproj)
    check_tower_head(header)
    return int(header.metadata.get("aim.video.n_frames", 8))


def _own_arms(
    config: BenchConfig, paths: ModelPaths, clip: Path | None, stack: ExitStack, say: Say, told: list[str]
) -> list[Arm]:
    """The settings, unreduced first, in this process."""
    session = Session(paths, config.load, video=clip, skip_vision=config.skip_vision, pick=config.pick)
    stack.callback(session.close)
    told += session.model.warnings
    if config.skip_vision:
        told.append("the vision tower was skipped: visual rows are random, the first token's time lacks its part")

    def run(tokens: VisualTokenConfig, n_frames: int) -> Measured:
        return session.run(n_frames, tokens, config.n_decode)

    names = [OFF, *(name for name in config.settings if name != OFF)]
    return [Arm(name, partial(run, parse_setting(name))) for name in names]


def _stock_arms(
    config: BenchConfig, paths: ModelPaths, clip: Path | None, stack: ExitStack, say: Say, told: list[str]
) -> list[Arm]:
    """The unpatched library first, then the settings, each library in its own process."""
    from ...reduction.planner import prefill_flops
    from .stock import find_stock
    from .workers import OurWorker, StockWorker

    folder = find_stock(config.stock_folder, say)
    shared = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=make_folder(bench_folder()), prefix=".pair-")))
    ours = stack.enter_context(OurWorker(paths, config.load, clip, shared, config.pick))
    stock = stack.enter_context(StockWorker(folder, paths, config.load, ours))
    told.append(PAIRED if clip else f"{PAIRED}; the language model alone, without the vision tower")
    if stock.is_patched:
        told.append(f"{folder} holds a patched library: this is no comparison with llama.cpp as it is")

    def run_stock(n_frames: int) -> Measured:
        counts = ours.count(n_frames, OFF)
        shape = ours.shape
        flops = prefill_flops(shape, counts["n_text"], [counts["n_visual_full"]] * shape.n_layer)
        plans = [ours.count(n_frames, name) for name in config.settings]
        lengths = sorted({plan["n_text"] + plan["n_visual"] for plan in plans})
        return stock.run(n_frames, counts, flops, lengths, config.n_decode)

    def run_ours(name: str, n_frames: int) -> Measured:
        # without vision both are given the same text tokens unreduced: what remains is the patch itself
        return ours.run(n_frames, name, config.n_decode, as_tokens=name == OFF and clip is None)

    return [Arm(STOCK, run_stock), *(Arm(name, partial(run_ours, name)) for name in config.settings)]
