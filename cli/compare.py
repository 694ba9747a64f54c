"""`aim-local compare`: models x settings over a suite of questions, against one reference cell."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aim_local.errors import AimError, UsageError
from aim_local.settings import parse_setting
from aim_local.visible import shell_word

from . import _extra, _hub, _log, _out
from . import _options as opt
from ._groups import Without
from ._interrupt import INTERRUPTIONS
from ._suite import SuiteOptions
from ._table import print_table
from ._values import parse_list, parse_size

if TYPE_CHECKING:
    from aim_local.lab.compare.records import Report

_SETTINGS_HELP = (
    "Settings to compare, separated by commas: off, auto, paper, fast, late-drop, merge-only, prune-only, random, "
    "grid, pagerank_relative, last_query, question, question_value, average, ward, authors, budget=SHARE; with "
    "changes, paper:keep=0.5:weigh=size, ward:window=4."
)
_TYPES_HELP = "Quantise each language tower to these, such as f16,q8_0,q4_0."
_LOADS_HELP = (
    "Load every model in each of these ways: NAME=VALUE of the load options, several with a colon between, such as "
    "type_k=f16,type_k=q8_0:type_v=q8_0."
)
_REFERENCE_HELP = "What the others are compared with. Default: the first model, with off."
_MARGIN_HELP = "Points of accuracy that may be lost: a cell that surely loses less keeps its accuracy."
_MEMORY_HELP = "Address space of a cell's process, such as 4G; beyond it the cell fails."


def compare(
    *,
    models: Annotated[
        list[str] | None, typer.Argument(help=opt.MODEL_HELP, metavar="[MODEL]...", show_default=False)
    ] = None,
    suite: SuiteOptions,
    tokens: Annotated[str, opt.text(_SETTINGS_HELP, "SETTING,...")] = "off,paper",
    types: Annotated[str | None, opt.text(_TYPES_HELP, "TYPE,...")] = None,
    vision_types: Annotated[str | None, opt.text("Quantise each vision tower to these.", "TYPE,...")] = None,
    loads: Annotated[str | None, opt.text(_LOADS_HELP, "OPTION,...")] = None,
    reference: Annotated[str | None, opt.text(_REFERENCE_HELP, "'MODEL / SETTING'")] = None,
    margin: Annotated[float, opt.number(_MARGIN_HELP)] = 1.0,
    out: Annotated[Path | None, opt.file("Folder of results. Default: compare-SUITE.", "FOLDER")] = None,
    frames: opt.Frames = None,
    pick: opt.Picking = opt.Pick.AUTO,
    max_tokens: opt.MaxTokens = 64,
    kld_tokens: Annotated[int, opt.whole("Next-token distributions compared per question.")] = 16,
    no_kld: Annotated[bool, opt.flag("No KL divergence.", "--no-kld")] = False,
    memory_limit: Annotated[int | None, typer.Option(help=_MEMORY_HELP, metavar="SIZE", parser=parse_size)] = None,
    cluster: opt.Cluster = None,
    load: Annotated[opt.LoadOptions, Without("no_cache")] = opt.MEASURED,
    output: opt.OutputOptions,
) -> None:
    """Compare models and visual-token settings.

    Accuracy, divergence, time, memory, and a verdict. Every cell runs in a process of its own. Results are kept in
    --out as they come: the same command again goes on where it stopped. The report is there as .html, .md and .json.
    """
    # 1. everything that can be wrong without a model
    suite.check()
    if kld_tokens < 1:
        raise UsageError(f"--kld-tokens is {kld_tokens}; give 1 or more, or --no-kld")
    from aim_local.batch.cluster import Cluster as connect
    from aim_local.lab.compare.job import Options
    from aim_local.lab.compare.runner import compare as run_comparison
    from aim_local.lab.compare.verdict import check_margin
    from aim_local.lab.compare.workspace import Folder

    from ._cell_progress import CellProgress

    check_margin(margin)
    options = Options(
        max_tokens=max_tokens, kld_tokens=0 if no_kld else kld_tokens, n_frames=frames, load=load.load_config(),
        memory_limit=memory_limit, pick=pick.value,
    )  # fmt: skip
    settings, language = _settings(tokens), parse_list(types, "--types")
    vision = parse_list(vision_types, "--vision-types")
    target = suite.folder if out is None else out
    # 2. the folder is ours alone before anything in it is touched: a drawn suite is written there
    with ExitStack() as stack:
        folder = stack.enter_context(Folder(target))
        questions = suite.read(target)
        for model in models or ():
            _hub.ready(model, **load.asking(output))
        # 3. the cells
        watch = stack.enter_context(CellProgress(output.quiet))
        try:
            there = stack.enter_context(connect(cluster)) if cluster is not None else None
            report = run_comparison(
                questions, target, models or (), settings, types=language, vision_types=vision,
                loads=parse_list(loads, "--loads"), reference=reference, options=options, margin=margin, watch=watch,
                command=" ".join(map(shell_word, ["aim-local", *sys.argv[1:]])), cluster=there, folder=folder,
            )  # fmt: skip
        except ModuleNotFoundError as e:
            raise _extra.missing(e) from e
        except INTERRUPTIONS:
            watch.stop()
            _log.say(f"what is answered is kept in {target}; the same command goes on from there")
            raise

    # 4. the report
    _show(report, target, output)
    _fail(report)


def _settings(tokens: str) -> list[str]:
    """Raises UsageError."""
    settings = parse_list(tokens, "--tokens")
    for setting in settings:
        parse_setting(setting)
    return settings


def _show(report: Report, out: Path, output: opt.OutputOptions) -> None:
    if output.json:
        _out.json(report.to_dict())
    else:
        from aim_local.lab.compare.markdown import TERMINAL_RIGHT, terminal_notes, terminal_rows

        print_table(terminal_rows(report), TERMINAL_RIGHT)
        for line in [] if output.quiet else terminal_notes(report):
            _out.line(line)
    if not output.quiet:
        _log.say(f"report: {out / 'report.html'}")


def _fail(report: Report) -> None:
    """Raises AimError where a cell failed."""
    failed = [cell for cell in report.cells if cell.status == "failed"]
    if failed:
        which = f"{failed[0].key}: {failed[0].reason}" + (f", and {len(failed) - 1} more" if len(failed) > 1 else "")
        raise AimError(
            f"{len(failed)} of {len(report.cells)} cells failed ({which}); the same command tries them again"
        )
