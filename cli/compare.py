"""`aim-local compare`: models x settings over a suite of questions, against one reference cell."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from aim_local.errors import AimError, UsageError

from . import _extra, _log
from . import _options as opt
from ._table import print_json, print_table

if TYPE_CHECKING:
    from rich.progress import Progress

    from aim_local.lab.compare.records import CellSummary, Report, Suite

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?B)?", re.IGNORECASE)
_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_size(text: str | int) -> int:
    """Bytes from "800M", "2G", "1.5GiB": units are powers of 1024. Raises BadParameter."""
    found = _SIZE.fullmatch(str(text).strip())
    if not found or not float(found[1]):
        raise typer.BadParameter(f"{text!r} is no size; give one such as 800M or 2G")
    return int(float(found[1]) * 1024 ** _UNITS[found[2].upper()])


def _text(help: str, metavar: str, *names: str) -> Any:
    return typer.Option(*names, help=help, metavar=metavar)


def _whole(help: str) -> Any:
    return typer.Option(help=help, metavar="N", parser=opt.parse_whole)


SETTINGS_HELP = (
    "Settings to compare, separated by commas: off, paper, fast, late-drop, merge-only, prune-only, random, grid, "
    "last_query, budget=SHARE; with changes, paper:keep=0.5."
)


def compare(
    models: Annotated[
        list[str] | None, typer.Argument(help=opt.MODEL_HELP, metavar="[MODEL]...", show_default=False)
    ] = None,
    suite: Annotated[
        Path | None, _text("Questions: a JSONL suite, or annotations of VideoMME or MVBench.", "FILE")
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Draw a suite of clips with the bundled generator.")] = False,
    n: Annotated[int, _whole("Clips that --demo draws.")] = 200,
    seed: Annotated[int, _whole("Which clips --demo draws.")] = 0,
    media: Annotated[Path | None, _text("Where a published suite's videos are.", "FOLDER")] = None,
    limit: Annotated[int | None, _whole("Only the first N questions.")] = None,
    tokens: Annotated[str, _text(SETTINGS_HELP, "SETTING,...")] = "off,paper",
    types: Annotated[
        str | None, _text("Quantise each language tower to these, such as f16,q8_0,q4_0.", "TYPE,...")
    ] = None,
    vision_types: Annotated[str | None, _text("Quantise each vision tower to these.", "TYPE,...")] = None,
    reference: Annotated[
        str | None,
        _text("What the others are compared with. Default: the first model, with off.", "'MODEL / SETTING'"),
    ] = None,
    out: Annotated[Path | None, _text("Folder of results. Default: compare-SUITE.", "FOLDER")] = None,
    frames: opt.Frames = None,
    max_tokens: opt.MaxTokens = 64,
    kld_tokens: Annotated[int, _whole("Next-token distributions compared per question.")] = 16,
    no_kld: Annotated[bool, typer.Option("--no-kld", help="No KL divergence; vocabularies may differ.")] = False,
    memory_limit: Annotated[
        int | None,
        typer.Option(
            help="Address space of a cell's process, such as 4G; beyond it the cell fails.",
            metavar="SIZE",
            parser=parse_size,
        ),
    ] = None,
    ctx: opt.Ctx = None,
    threads: opt.Threads = None,
    gpu_layers: opt.GpuLayers = 0,
    type_k: opt.TypeK = "f16",
    type_v: opt.TypeV = "f16",
    flash_attn: opt.FlashAttnOption = opt.FlashAttn.AUTO,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Compare models and visual-token settings: accuracy, divergence, time and memory.

    Every cell runs in a process of its own. Results are kept in --out as they come: the same command again goes on
    where an interrupted one stopped. The report is there as report.html, report.md and report.json.
    """
    # 1. everything that can be wrong without a model
    if demo == (suite is not None):
        raise UsageError("give either --suite FILE or --demo")
    if kld_tokens < 1:
        raise UsageError(f"--kld-tokens is {kld_tokens}; give 1 or more, or --no-kld")
    engine = _import_engine()
    options = engine.Options(
        max_tokens=max_tokens,
        kld_tokens=0 if no_kld else kld_tokens,
        n_frames=frames,
        load=opt.load_config(ctx, threads, gpu_layers, type_k, type_v, flash_attn),
        memory_limit=memory_limit,
    )
    settings = _split(tokens, "--tokens")
    for setting in settings:
        _check_setting(setting)
    target = out or Path("compare-demo" if suite is None else f"compare-{_stem(suite)}")
    questions = _read_suite(suite, target, n, seed, media, limit)

    # 2. the cells
    with Reporter(quiet) as watch:
        try:
            report = engine.compare(
                questions,
                target,
                models or (),
                settings,
                types=_split(types, "--types"),
                vision_types=_split(vision_types, "--vision-types"),
                reference=reference,
                options=options,
                watch=watch,
                command=_command(),
            )
        except ModuleNotFoundError as e:
            raise _extra.missing(e) from e
        except KeyboardInterrupt:
            watch.stop()
            _log.say(f"what is answered is kept in {target}; the same command goes on from there")
            raise

    # 3. the report
    _show(report, target, json=json, quiet=quiet)
    _fail(report)


def _import_engine() -> Any:
    from aim_local.lab.compare import runner

    return runner


def _split(text: str | None, option: str) -> list[str]:
    if text is None:
        return []
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UsageError(f"{option} {text!r} has an empty entry; separate names by single commas")
    return parts


def _check_setting(text: str) -> None:
    from aim_local.settings import parse_setting

    parse_setting(text)


def _stem(path: Path) -> str:
    return path.resolve().parent.name if path.name == "suite.jsonl" else path.stem


def _read_suite(suite: Path | None, out: Path, n: int, seed: int, media: Path | None, limit: int | None) -> Suite:
    from aim_local.lab.compare.suite import draw_demo_suite, find_suite, load_suite

    if suite is not None:
        return find_suite(suite, media, limit)
    if media is not None:
        raise UsageError("--media is for a published suite; drop it with --demo")
    from dataclasses import replace

    return replace(load_suite(draw_demo_suite(out / "suite", n, seed), limit=limit), name="demo")


def _command() -> str:
    return shlex.join(["aim-local", *sys.argv[1:]])


def _show(report: Report, out: Path, *, json: bool, quiet: bool) -> None:
    if json:
        print_json(report.to_dict())
    else:
        from aim_local.lab.compare.markdown import TERMINAL_RIGHT, terminal_notes, terminal_rows

        print_table(terminal_rows(report), TERMINAL_RIGHT)
        for line in [] if quiet else terminal_notes(report):
            print(line)
    if not quiet:
        _log.say(f"report: {out / 'report.html'}")


def _fail(report: Report) -> None:
    """Raises AimError where a cell failed."""
    failed = [cell for cell in report.cells if cell.status == "failed"]
    if failed:
        which = f"{failed[0].key}: {failed[0].reason}" + (f", and {len(failed) - 1} more" if len(failed) > 1 else "")
        raise AimError(
            f"{len(failed)} of {len(report.cells)} cells failed ({which}); the same command tries them again"
        )


class Reporter:
    """Progress over all questions of all cells on stderr; a line per finished cell where stderr is no terminal."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._progress: Progress | None = None
        self._wanted = not quiet and sys.stderr is not None and sys.stderr.isatty()
        self._total = self._done = self._whole = 0  # questions: in all, answered, of cells that have ended

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    # --- what the engine calls ---

    def note(self, line: str) -> None:
        if not self._quiet:
            self._above(line)

    def start(self, total: int) -> None:
        self._total = total

    def quantising(self, done: int, total: int, label: str) -> None:
        self._show(f"quantising {label}", done, total)

    def cell(self, key: str, done: int, total: int) -> None:
        self._done = self._whole + done
        if self._wanted and done:  # from an earlier run: the estimate must not take it for speed
            self._bar().reset(self._bar().task_ids[0], total=self._total, completed=self._done, description=key)
        self._show(key, self._done, self._total)

    def item(self, key: str) -> None:
        self._done += 1
        self._show(key, self._done, self._total)

    def finished(self, summary: CellSummary) -> None:
        self._whole += summary.n_items
        if not self._wanted and not self._quiet:
            _log.say(cell_line(summary))
        elif summary.status == "failed":
            self.note(cell_line(summary))

    # --- the bar ---

    def _show(self, label: str, done: int, total: int) -> None:
        if self._wanted:
            self._bar().update(self._bar().task_ids[0], description=label, completed=done, total=total)

    def _bar(self) -> Progress:
        if self._progress is None:
            from rich.progress import MofNCompleteColumn, TextColumn, TimeRemainingColumn

            from ._progress import make_progress

            self._progress = make_progress(MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("left, after"))
            self._progress.add_task("", total=None)
            self._progress.start()
        return self._progress

    def _above(self, line: str) -> None:
        if self._progress is not None:
            self._progress.console.print(line, markup=False, highlight=False)
        else:
            _log.say(line)


def cell_line(summary: CellSummary) -> str:
    """A finished cell in one line."""
    counts = f"{summary.key}: {summary.n_done} of {summary.n_items}"
    if summary.status == "failed":
        return f"{counts}, failed: {summary.reason}"
    right = f", {summary.accuracy.share:.1%} right" if summary.accuracy else ""
    kld = f", KLD {summary.divergence.mean:.2g}" if summary.divergence else ""
    return f"{counts}{right}{kld}"
