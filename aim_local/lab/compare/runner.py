"""A comparison from start to end: what is left to do in each cell, a process for it, and the report.

Knows the order of the work. The cells are matrix.py's business, answering cell.py's, files workspace.py's, figures
summary.py's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from ...batch.cluster import Cluster
from ...batch.files import write_text
from ...errors import AimError, ModelError
from ...native.bindings import bindings_version
from ...settings import parse_setting, refine_load
from ...store.gguf_header import ArrayInfo, read_header
from ...store.toy import is_toy, toy_line
from ...visible import json_text, visible_lines
from ..measure import machine
from .cell import logits_path
from .cluster import CellCluster
from .demo_suite import beyond_demo
from .job import Job, Options, Task
from .matrix import TOKENS, Cell, check_loads, check_matrix, find_reference, matrix, others
from .process import run_process
from .questions import guessing
from .records import CellSpec, CellSummary, ItemResult, Report, Suite
from .summary import CellRun, summarise
from .variants import Variant, make, plan_variants
from .verdict import check_margin, judged
from .workspace import CellFolder, Folder, Workspace, size_of

LARGE = 100 * 2**20  # bytes of reference logits worth a word before they are written


class Watch:
    """What a comparison reports while it runs. Every method may be overridden; these do nothing."""

    def note(self, line: str) -> None:
        """Something the user should know."""

    def start(self, total: int) -> None:
        """Cells will begin; `total` questions in all of them."""

    def quantising(self, done: int, total: int, label: str) -> None:
        """Tensors of a quantised copy."""

    def cell(self, key: str, done: int, total: int) -> None:
        """A cell begins, with `done` of its `total` questions answered by an earlier run."""

    def item(self, key: str) -> None:
        """A question was answered."""

    def finished(self, summary: CellSummary) -> None:
        """A cell has ended, one way or the other."""


def compare(
    suite: Suite,
    out: str | Path,
    models: Sequence[str | Path] = (),
    settings: Sequence[str] = ("off", "paper"),
    *,
    types: Sequence[str] = (),
    vision_types: Sequence[str] = (),
    loads: Sequence[str] = (),
    reference: str | None = None,
    options: Options | None = None,
    margin: float = 1.0,
    watch: Watch | None = None,
    command: str = "",
    cluster: Cluster | None = None,
    folder: Folder | None = None,
) -> Report:
    """Runs what is not done yet of models x types x loads x settings over a suite; all is in the folder `out`.

    models: none for the bundled one. settings: see settings.parse_setting. types, vision_types: quantised copies of
    either tower are made in `out`. loads: changes of options.load (settings.refine_load), each one a way that every
    model is loaded in. reference: "MODEL / SETTING", None for the first model with "off" (or its first
    setting). margin: percentage points of accuracy that may be lost (verdict.py); it changes the report alone, no cell
    runs again for it. cluster: its workers run the cells, instead of processes here. folder: `out`, where the caller
    holds it already. A cell that fails is a row with a reason. Raises AimError for what is wrong before anything runs,
    KeyboardInterrupt after writing the report of what is there: the same call goes on from there.
    """
    out, options, watch = Path(out), options or Options(), watch or Watch()
    check_loads(loads, options.load)
    check_margin(margin)
    variants = plan_variants(models, types, vision_types, loads)
    check_matrix(variants, settings)
    first = find_reference(variants, settings, reference)
    with nullcontext(folder) if folder else Folder(out) as own:
        space = Workspace(out)
        if options.kld_tokens:
            _check_disk(space, suite, variants, options, watch)
        made = [make(variant, space, watch.quantising) for variant in variants]
        crew = CellCluster(cluster, suite) if cluster is not None else Here(own.handles)
        runner = Runner(space, suite, matrix(made, settings), first, options, watch, crew)
        try:
            runner.run()
        finally:
            report = runner.report(command, margin)
            write_report(report, out)
    return report


def _check_disk(space: Workspace, suite: Suite, variants: Sequence[Variant], options: Options, watch: Watch) -> None:
    """Says how much the reference's logits may take, where that is much. Raises AimError where it does not fit."""
    tokens = None
    with contextlib.suppress(ModelError):
        tokens = read_header(variants[0].model).metadata.get(TOKENS)
    n_vocab = tokens.length if isinstance(tokens, ArrayInfo) else 0
    there = sum(path.stat().st_size for path in space.logits.glob("*.npy"))
    need = len(suite.items) * options.kld_tokens * n_vocab * 4
    free = shutil.disk_usage(space.path).free
    if need - there > free:
        raise AimError(
            f"{space.path}: the reference's logits may take {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "lower kld_tokens, give kld_tokens=0, or name another folder with out=DIR"
        )
    if need > LARGE and there < need / 2:
        watch.note(f"the reference's logits will take up to {need / 1e9:.1f} GB in {space.logits}")


class Crew(Protocol):
    """Who runs cells: processes here, one after the other, or the workers of a cluster (cluster.py)."""

    @property
    def notes(self) -> list[str]:
        """What is to be said before it begins."""

    def each(self, cells: Sequence[Cell], do: Callable[[Cell], None]) -> None:
        """`do` for every cell."""

    def run(self, job: Job, log: Path, on_item: Callable[[], None]) -> str:
        """A cell's tasks; returns why it failed, "" if it did not."""


class Here:
    """Cells one after the other, in a process each. held: file descriptors that the processes inherit."""

    def __init__(self, held: tuple[int, ...]) -> None:
        self._held = held

    @property
    def notes(self) -> list[str]:
        return []

    def each(self, cells: Sequence[Cell], do: Callable[[Cell], None]) -> None:
        for cell in cells:
            do(cell)

    def run(self, job: Job, log: Path, on_item: Callable[[], None]) -> str:
        return run_process(job, log, on_item, self._held)


class Runner:
    """All cells, the reference first."""

    def __init__(
        self,
        space: Workspace,
        suite: Suite,
        cells: Sequence[Cell],
        reference: str,
        options: Options,
        watch: Watch,
        crew: Crew,
    ) -> None:
        self.space, self.suite, self.cells, self.options = space, suite, cells, options
        self.watch, self._crew = watch, crew
        self.runs = {cell.spec.key: CellRun(cell.spec) for cell in cells}
        self._strange = beyond_demo(suite)
        self._first = reference
        self._others = others(cells, reference) if options.kld_tokens else set[str]()
        self._digest: str | None = None  # of the reference's inputs, once it is done

    @property
    def reference(self) -> CellRun:
        return self.runs[self._first]

    def run(self) -> None:
        """Every cell that is not done. Failures are rows; KeyboardInterrupt ends the cell's process and comes out."""
        self.watch.start(len(self.cells) * len(self.suite.items))
        if self._others:
            models = ", ".join(dict.fromkeys(c.spec.model for c in self.cells if c.spec.key in self._others))
            self.watch.note(f"{models}: no KL divergence, because the vocabulary differs from that of {self._first}")
        if self._strange and any(not cell.problem and _is_toy(cell.spec.model_path) for cell in self.cells):
            self.watch.note(toy_line(self._strange))
        for note in self._crew.notes:
            self.watch.note(note)
        self._crew.each([cell for cell in self.cells if cell.spec.key == self._first], self._run_and_tell)
        self._crew.each([cell for cell in self.cells if cell.spec.key != self._first], self._run_and_tell)

    def _run_and_tell(self, cell: Cell) -> None:
        self._run_cell(cell)
        self.watch.finished(self._summary(cell.spec.key))

    def _role(self, key: str) -> str:
        if key == self._first:
            return "reference"
        is_alone = key in self._others or not (self.options.kld_tokens and self._digest)
        return "alone" if is_alone else "paired"

    def _run_cell(self, cell: Cell) -> None:
        spec, role = cell.spec, self._role(cell.spec.key)
        run = CellRun(spec, model_bytes=size_of(spec.model_path), mmproj_bytes=size_of(spec.mmproj_path))
        run = replace(run, other_words=spec.key in self._others)
        run = replace(run, toy=bool(self._strange) and not cell.problem and _is_toy(spec.model_path))
        folder = self.space.cell(spec.key)
        try:
            if cell.problem:
                raise AimError(cell.problem)
            inputs = self._inputs(spec, role)
            rows = self._finished(folder, inputs, spec.key, role)
        except (AimError, OSError) as e:
            self.runs[spec.key] = replace(run, status="failed", reason=" ".join(str(e).split()))
            return
        self.runs[spec.key] = replace(run, rows=rows)
        self.watch.cell(spec.key, len(rows), len(self.suite.items))
        try:
            reason = self._answer(spec, role, folder, rows)
        finally:  # interrupted: what was answered is in the report
            rows = self._in_order(folder.rows())
            self.runs[spec.key] = replace(run, rows=rows)
        status = "failed" if reason else "done"
        self.runs[spec.key] = replace(run, rows=rows, status=status, reason=reason)
        if role == "reference" and status == "done":
            self._digest = _digest(inputs)

    def _inputs(self, spec: CellSpec, role: str) -> dict[str, Any]:
        """Everything a cell's results depend on. Raises OSError for a file that cannot be read."""
        return {
            "model": self.space.sha256(spec.model_path),
            "mmproj": self.space.sha256(spec.mmproj_path) if spec.mmproj_path else None,
            "setting": repr(parse_setting(spec.setting)),
            "suite": self.suite.sha256,
            "options": self._options(spec).result_facts(),
            "role": role,
            "reference": self._digest if role == "paired" else None,
            "versions": {"aim-local": version("aim-local"), "llama-cpp-python": bindings_version()},
        }

    def _options(self, spec: CellSpec) -> Options:
        """The comparison's, loaded as the cell says."""
        return replace(self.options, load=refine_load(self.options.load, spec.load)) if spec.load else self.options

    def _finished(self, folder: CellFolder, inputs: dict[str, Any], key: str, role: str) -> list[ItemResult]:
        """Lines of an earlier run that still count."""
        changed = folder.adopt(inputs)
        if changed:
            what = ", ".join(changed)
            self.watch.note(f"{key}: {what} changed since its last run; its results are set aside in {folder.path}")
        rows = found = folder.rows()
        if role == "reference" and self.options.kld_tokens:
            if not found:
                for path in self.space.logits.glob("*.npy"):
                    path.unlink()
            index = {item.id: n for n, item in enumerate(self.suite.items)}
            rows = [row for row in found if row.id in index and logits_path(self.space.logits, index[row.id]).exists()]
            if len(rows) < len(found):
                folder.keep(rows)
        return self._in_order(rows)

    def _in_order(self, rows: Sequence[ItemResult]) -> list[ItemResult]:
        by_id = {row.id: row for row in rows}
        return [by_id[item.id] for item in self.suite.items if item.id in by_id]

    def _answer(self, spec: CellSpec, role: str, folder: CellFolder, rows: Sequence[ItemResult]) -> str:
        """Runs the cell's process over what is left; returns why it failed, "" if it did not."""
        done = {row.id for row in rows}
        tasks = tuple(self._task(n, role) for n, item in enumerate(self.suite.items) if item.id not in done)
        if not tasks:
            return ""
        job = Job(
            spec.model,
            spec.model_path.absolute(),
            spec.mmproj_path.absolute() if spec.mmproj_path else None,
            spec.setting,
            role,
            self._options(spec),
            tasks,
            folder.items.absolute(),
            self.space.logits.absolute(),
        )
        return self._crew.run(job, folder.log, lambda: self.watch.item(spec.key))

    def _task(self, n: int, role: str) -> Task:
        item = replace(self.suite.items[n], media=tuple(path.absolute() for path in self.suite.items[n].media))
        if role != "paired":
            return Task(n, item)
        n_rows = _n_rows(logits_path(self.space.logits, n))
        return Task(n, item, tuple(self.reference.rows[n].tokens[: n_rows - 1]))

    # --- the report ---

    def _summary(self, key: str) -> CellSummary:
        return summarise(self.runs[key], self.suite.items, self.reference, self.options.kld_tokens > 0)

    def report(self, command: str, margin: float) -> Report:
        found = Report(
            suite=self.suite.name,
            suite_sha256=self.suite.sha256,
            n_items=len(self.suite.items),
            reference=self._first,
            cells=tuple(self._summary(cell.spec.key) for cell in self.cells),
            machine=machine(),
            command=command,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            margin=margin,
            chance=guessing(self.suite.items),
        )
        return judged(found)


def _is_toy(path: Path) -> bool:
    try:
        return is_toy(read_header(path))
    except ModelError:  # a broken file is told when its cell runs
        return False


def _digest(inputs: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _n_rows(path: Path) -> int:
    """Rows of an array on disk, from its head."""
    import numpy as np

    return int(np.load(path, mmap_mode="r").shape[0])


def write_report(report: Report, out: Path) -> None:
    """report.json, report.md and report.html in `out`, each whole or not at all."""
    from .markdown import markdown
    from .page import write_html

    write_text(out / "report.json", json_text(report.to_dict(), indent=2) + "\n")
    write_text(out / "report.md", visible_lines(markdown(report)))
    write_html(report, out / "report.html")
