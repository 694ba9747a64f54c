"""What reduction costs a model that was not taught it: accuracy by method, share, ranking and schedule, as tables.

Runs `compare` (its own cells, intervals and paired figures) with the toy of benchmarks/untaught over clips of the
varied world, in groups that the tables below need, and goes on where an interrupted run stopped. Clips are encoded
once and kept beside the results.

    python benchmarks/untaught.py [--n 1000] [--frames 8] [--group merging ranking equal inside] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from aim_local import LoadConfig
from aim_local.demo import FAMILIES, WORLDS
from aim_local.errors import AimError
from aim_local.lab.compare.figures import points, points_interval
from aim_local.lab.compare.job import Options
from aim_local.lab.compare.records import CellSummary, Report, Suite
from aim_local.lab.compare.runner import compare
from aim_local.lab.compare.suite import draw_demo_suite, load_suite
from aim_local.lab.measure import machine

MODEL = Path(__file__).with_name("untaught")
MARGIN = 2.0  # points: less than this is called "not worse"

SHARES = (0.5, 0.25, 0.125, 0.0625, 0.03)
METHODS = {
    "AIM": "merge=similarity",
    "AIM, weighed": "merge=similarity:weigh=size",
    "Ward": "merge=ward",
    "Ward, weighed": "merge=ward:weigh=size",
    "Ward, 4 frames": "merge=ward:window=4",
    "Ward, 4 frames, weighed": "merge=ward:window=4:weigh=size",
    "squares": "merge=average",
    "random": "merge=random",
    "even": "merge=grid",
}
SQUARES = {0.25: "0.25", 0.125: "0.1111111111111111", 0.03: "0.027777777777777776"}  # 2 x 2, 3 x 3 and 6 x 6 of 6 x 6

RANKINGS = ("pagerank", "pagerank_relative", "last_query", "question", "question_value", "random", "grid")
SCHEDULES = {"the paper's": "auto", "late drop": "late", "from layer 3 to 9": "3-9"}
BEFORE = "merge=ward:keep=0.25:weigh=size"  # what the rankings get to see

WAYS = ("", ":merge=ward", ":merge=ward:weigh=size")  # of merging, for the settings of equal FLOPs
EQUAL = ("paper", "fast", "paper:keep=0.1")  # and late-drop, which ranks nothing


def equal_settings() -> list[str]:
    """Settings of equal FLOPs after each other: the paper's and its neighbours, by merging and by ranking."""
    half = [f"merge-only:keep=0.5{way}" for way in WAYS]
    ranked = [f"{name}{way}{rank}" for name in EQUAL for rank in ("", ":importance=question") for way in WAYS]
    return [*half, *ranked, *(f"late-drop{way}" for way in WAYS)]


DEFAULT = (
    "off",
    "paper",
    "merge-only:keep=0.16",
    "merge-only:keep=0.16:weigh=size",
    "auto",
    "auto:keep=0.08",
    "auto:keep=0.08:window=4",
)
INSIDE = (
    "vision_merge=1",
    "vision_merge=0.5:vision_merge_depth=0.34",
    "vision_merge=0.5:vision_merge_depth=0.67",
    "vision_merge=0.25:vision_merge_depth=0.67",
)


def merging_settings() -> dict[tuple[str, float], str]:
    """By method and share, without pruning."""
    found = {}
    for share in SHARES:
        for name, how in METHODS.items():
            keep = SQUARES.get(share) if name == "squares" else f"{share:g}"
            if keep:
                found[name, share] = f"merge-only:keep={keep}:{how}"
    return found


def ranking_settings() -> dict[tuple[str, str], str]:
    """By ranking and schedule; dropping all at one layer ranks nothing."""
    found = {}
    for schedule, prune in SCHEDULES.items():
        for name in RANKINGS if prune != "late" else RANKINGS[:1]:
            found[name, schedule] = f"paper:{BEFORE}:prune={prune}:importance={name}"
    return found


# --- tables ----------------------------------------------------------------------------------------------------------


def cells_of(report: Report) -> tuple[dict[str, CellSummary], CellSummary]:
    """Cells by setting, and the reference. Raises AimError for a cell that did not end."""
    for cell in report.cells:
        if cell.status != "done":
            raise AimError(f"{cell.key}: {cell.status} {cell.reason}")
    return {cell.setting: cell for cell in report.cells}, next(c for c in report.cells if c.is_reference)


def percent(cell: CellSummary) -> str:
    assert cell.accuracy is not None
    return f"{100 * cell.accuracy.share:.1f}"


def merging_table(report: Report) -> str:
    """Methods downward, shares across; Ward's loss beside AIM's below."""
    cells, reference = cells_of(report)
    wanted = merging_settings()
    lines = [
        f"| right, % of {report.n_items} | {' | '.join(f'{share:g}' for share in SHARES)} |",
        "|---|" + "---:|" * 5,
    ]
    for name in METHODS:
        found = [cells[wanted[name, s]] if (name, s) in wanted else None for s in SHARES]
        lines.append(f"| {name} | {' | '.join(percent(c) if c else '' for c in found)} |")
    lost = {name: [points(cells[wanted[name, s]], reference) or 0.0 for s in SHARES] for name in ("AIM", "Ward")}
    ratio = [f"{w / a:.2f}" if a else "" for a, w in zip(lost["AIM"], lost["Ward"], strict=True)]
    lines.append(f"| Ward's loss over AIM's | {' | '.join(ratio)} |")
    full = reference.n_visual_full
    return f"All {full:.0f} visual tokens: {percent(reference)} % right.\n\n" + "\n".join(lines)


def ranking_table(report: Report) -> str:
    cells, _ = cells_of(report)
    wanted = ranking_settings()
    lines = [f"| right, % of {report.n_items} | {' | '.join(SCHEDULES)} |", "|---|" + "---:|" * len(SCHEDULES)]
    for name in RANKINGS:
        found = [cells[wanted[name, s]] if (name, s) in wanted else None for s in SCHEDULES]
        lines.append(f"| {name} | {' | '.join(percent(c) if c else '' for c in found)} |")
    return "\n".join(lines)


def lines_table(report: Report, keys: Sequence[str], label: str) -> str:
    """A line per cell: right, difference with its interval, FLOPs, and every family of questions."""
    cells, reference = {cell.key: cell for cell in report.cells}, cells_of(report)[1]
    head = [label, "right, %", "points lost or gained", f"worse by less than {MARGIN:g}", "FLOPs", *FAMILIES]
    lines = [f"| {' | '.join(head)} |", "|---|---:|---:|---|---:|" + "---:|" * len(FAMILIES)]
    for key in keys:
        cell = cells[key]
        change, span = points(cell, reference), points_interval(cell, reference)
        told = f"{change:+.1f} ({span[0]:+.1f} to {span[1]:+.1f})" if change is not None and span else ""
        sure = ("yes" if span[0] > -MARGIN else "not shown") if span else ""
        families = [f"{100 * cell.by_tag[family].share:.1f}" for family in FAMILIES]
        row = [
            key.split(" / ")[-1] if label == "setting" else key,
            percent(cell),
            told,
            sure,
            f"{cell.flops_share:.3f}",
        ]
        lines.append(f"| {' | '.join([*row, *families])} |")
    return "\n".join(lines)


# --- running ---------------------------------------------------------------------------------------------------------


def run_group(name: str, suite: Suite, options: argparse.Namespace) -> str:
    load = LoadConfig(n_threads=1, vision_precision="exact")
    how = Options(max_tokens=8, kld_tokens=0, n_frames=options.frames, load=load)
    out = options.out / f"{name}-{options.frames}"

    def run(settings: Sequence[str], loads: Sequence[str] = ()) -> Report:
        return compare(suite, out, [options.model], list(dict.fromkeys(settings)), loads=loads, options=how)

    if name == "merging":
        return merging_table(run(["off", *merging_settings().values()]))
    if name == "ranking":
        return ranking_table(run(["off", f"merge-only:{BEFORE}", *ranking_settings().values()]))
    if name == "equal":
        report = run(["off", *equal_settings()])
        return lines_table(report, [cell.key for cell in report.cells], "setting")
    if name == "default":
        report = run(DEFAULT)
        return lines_table(report, [cell.key for cell in report.cells], "setting")
    report = run(["off", "auto"], INSIDE)
    return lines_table(report, [cell.key for cell in report.cells], "way of loading")


GROUPS = ("merging", "ranking", "equal", "default", "inside")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--n", type=int, default=1000, help="clips")
    parser.add_argument("--seed", type=int, default=0, help="which clips")
    parser.add_argument("--frames", type=int, default=8, help="of each clip")
    parser.add_argument("--group", nargs="+", choices=GROUPS, default=GROUPS)
    parser.add_argument("--out", type=Path, default=Path("untaught-results"))
    return parser.parse_args()


def main() -> None:
    options = arguments()
    os.environ.setdefault("AIM_LOCAL_HOME", str((options.out / "home").resolve()))  # cells keep encoded clips there
    try:
        suite = load_suite(draw_demo_suite(options.out / "suite", options.n, options.seed, WORLDS["varied"]))
        print(f"{options.n} clips, {options.frames} frames, seed {options.seed}; {machine()['processor']}")
        for name in options.group:
            print(f"\n## {name}\n\n{run_group(name, suite, options)}", flush=True)
    except AimError as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main()
