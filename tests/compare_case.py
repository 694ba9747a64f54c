"""What tests of `compare` share: a few drawn clips, the bundled demo model, short answers."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aim_local import VisualTokenConfig
from aim_local.child import reason_of
from aim_local.lab.compare import cell, runner
from aim_local.lab.compare.demo_suite import draw_demo_suite
from aim_local.lab.compare.job import Job, Options
from aim_local.lab.compare.records import ItemResult, Report, Suite
from aim_local.lab.compare.suite import load_suite
from aim_local.results import Stats
from aim_local.store.names import bundled_folder

FOLDER = bundled_folder() or Path()
SHORT = Options(max_tokens=6, kld_tokens=4)
OFF, PAPER = VisualTokenConfig.off(), VisualTokenConfig.paper()
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


@pytest.fixture(scope="module")
def suite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_demo_suite(tmp_path_factory.mktemp("suite"), n=6)


@pytest.fixture(scope="module")
def suite(suite_file: Path) -> Suite:
    return load_suite(suite_file, limit=3)


class Heard:
    """What a cell says to its parent."""

    def __init__(self, on_item: Callable[[], None]) -> None:
        self._on_item = on_item

    def say(self, **message: Any) -> None:
        if message["event"] == "item":
            self._on_item()


def run_here(job: Job, log: Path, on_item: Callable[[], None], held: tuple[int, ...]) -> str:
    """A cell without a process of its own, whose start is most of it."""
    try:
        cell.run(job, job.tasks, Heard(on_item))
    except Exception as e:
        return reason_of(e)
    return ""


@contextmanager
def cells_here() -> Iterator[None]:
    """For what a comparison makes of its cells' answers; their processes are other tests' business."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "run_process", run_here)
        patch.setattr("aim_local.native.log.echo_native_log", lambda **_: None)
        yield


@pytest.fixture
def here() -> Iterator[None]:
    with cells_here():
        yield


def cells(report: Report) -> dict[str, Any]:
    return {cell.key: cell for cell in report.cells}


def lines(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Every cell's lines, without what a clock or the memory says."""
    found = {}
    for path in sorted((out / "cells").glob("*/items.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row["stats"] = {k: v for k, v in row["stats"].items() if not k.endswith(("_ms", "_tps"))}
            row.pop("first"), row.pop("peak_rss_bytes")
        found[path.parent.name] = sorted(rows, key=lambda row: str(row["id"]))
    return found


def item_row(name: str, **fields: Any) -> ItemResult:
    stats = Stats(ttft_ms=1.0, n_visual=4, n_visual_full=8, flops=0.5, flops_full=1.0, kv_bytes=100).to_dict()
    return replace(ItemResult(name, name, [1], name, None, None, None, stats), **fields)


def other_words(root: Path) -> Path:
    """The demo model with one token of another name, which no merge makes."""
    shutil.copytree(FOLDER, root / "other", ignore=shutil.ignore_patterns("aim.json"))  # it tells of the model's sha256
    path = root / "other" / "model.gguf"
    data = path.read_bytes()
    start = data.index(b"tokenizer.ggml.tokens")
    at = data.index(b"<|endoftext|>", start)
    path.write_bytes(data[:at] + b"<|ENDOFTEXT|>" + data[at + 13 :])
    return root / "other"
