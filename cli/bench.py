"""`aim-local bench`: what this machine does, stage by stage, and what a setting or our patch changes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import _log
from . import _options as opt
from ._table import print_json, print_table

if TYPE_CHECKING:
    from aim_local.lab.bench.benchmark import BenchResult

SHAPE_HELP = (
    "A random model of a real shape instead: 0.5b, 7b, a custom layers=24,embd=896,ff=4864,heads=14,kv=2, "
    "or 0.5b,vlayers=2 with a smaller vision tower."
)
SKIP_HELP = "No vision tower: random visual tokens go into the language model."
STOCK_HELP = "Pair with llama.cpp without our patches, built once into the cache; language model only."


def bench(
    model: opt.ModelArg = None,
    mmproj: opt.Mmproj = None,
    shape: Annotated[str | None, typer.Option(help=SHAPE_HELP, metavar="SHAPE")] = None,
    type: Annotated[str, typer.Option(help="Weights of a random model.", metavar="TYPE")] = "q4_0",
    vision_type: Annotated[str, typer.Option(help="Weights of a random vision tower.", metavar="TYPE")] = "f16",
    frames: Annotated[
        str | None,
        typer.Option(
            help="Frames, such as 8,32. Default: the model's own number; of a random model 8,32.", metavar="N,N"
        ),
    ] = None,
    tokens: Annotated[
        str, typer.Option(help="Settings to measure; each may be refined: paper:keep=0.5.", metavar="SETTING,SETTING")
    ] = "off,paper,fast",
    video: Annotated[
        Path | None, typer.Option(help="A clip. Default: a bundled or a synthetic one.", metavar="FILE")
    ] = None,
    rounds: Annotated[
        int, typer.Option(help="Rounds that count, after a warm-up.", metavar="N", parser=opt.parse_whole)
    ] = 3,
    n_decode: Annotated[
        int, typer.Option("--n-decode", help="Tokens decoded in each run.", metavar="N", parser=opt.parse_whole)
    ] = 32,
    skip_vision: Annotated[bool, typer.Option("--skip-vision", help=SKIP_HELP)] = False,
    against_stock: Annotated[bool, typer.Option("--against-stock", help=STOCK_HELP)] = False,
    stock: Annotated[
        Path | None, typer.Option(help="--against-stock with the libraries in this folder.", metavar="FOLDER")
    ] = None,
    threads: opt.Threads = None,
    gpu_layers: opt.GpuLayers = 0,
    type_k: opt.TypeK = "f16",
    type_v: opt.TypeV = "f16",
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Measure this machine: every stage apart, settings in turns with the unreduced one, medians with their spread.

    A ratio says how many times less time than the first column, measured side by side in each round.
    """
    from aim_local.lab.bench.grid import parse_frames, parse_list
    from aim_local.lab.bench.shapes import parse_shape

    load = opt.load_config(None, threads, gpu_layers, type_k, type_v, opt.FlashAttn.AUTO)
    chosen = parse_shape(shape) if shape is not None else None
    numbers, settings = parse_frames(frames) if frames else [], parse_list(tokens, "--tokens")
    from aim_local.lab.bench.benchmark import BenchConfig, run_bench

    config = BenchConfig(
        model=model, mmproj=mmproj, shape=chosen, text_type=type, vision_type=vision_type, frames=tuple(numbers),
        settings=tuple(settings), video=video, rounds=rounds, n_decode=n_decode, skip_vision=skip_vision,
        stock=against_stock or stock is not None, stock_folder=stock, load=load,
    )  # fmt: skip
    result = run_bench(config, (lambda line: None) if quiet else _log.say)
    if json:
        print_json(result.to_dict())
    else:
        print_result(result)


def print_result(result: BenchResult) -> None:
    facts = result.to_dict()
    machine = facts["machine"]
    print(f"{result.paths.name} on {machine['processor']}, {machine['physical_cores']} cores, {machine['system']}")
    print(f"median (low..high) of {result.config.rounds} rounds; {' '.join(facts['command'])}")
    for rows in result.tables():
        print()
        print_table(rows, right=range(1, len(rows[0])))
    if result.notes:
        print()
    for note in result.notes:
        print(f"- {note}")
