"""`aim-local bench`: what this machine does, stage by stage, and what a setting or our patch changes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from . import _hub, _log, _out
from . import _options as opt
from ._groups import Without
from ._option_names import in_options
from ._table import print_markdown, print_table
from ._values import parse_frames, parse_list

if TYPE_CHECKING:
    from aim_local.lab.bench.benchmark import BenchResult

_SHAPE_HELP = (
    "A random model of a real shape instead: 0.5b, 7b, a custom layers=24,embd=896,ff=4864,heads=14,kv=2, "
    "or 0.5b,vlayers=2 with a smaller vision tower."
)
_FRAMES_HELP = "Frames, such as 8,32. Default: the model's own number; of a random model 8,32."
_TOKENS_HELP = "Settings to measure; each may be refined: paper:keep=0.5."
_SKIP_HELP = "No vision tower: random visual tokens go into the language model."
_MARKDOWN_HELP = "Print the tables as Markdown."
_STOCK_HELP = (
    "Pair with llama.cpp without our patches, built once into the cache, from the clip's frames to the first token."
)


def bench(
    *,
    model: opt.ModelArg = None,
    mmproj: opt.Mmproj = None,
    shape: Annotated[str | None, opt.text(_SHAPE_HELP, "SHAPE", "--shape")] = None,
    type: Annotated[str, opt.text("Weights of a random model.", "TYPE", "--type")] = "q4_0",
    vision_type: Annotated[str, opt.text("Weights of a random vision tower.", "TYPE")] = "f16",
    frames: Annotated[str | None, opt.text(_FRAMES_HELP, "N,N")] = None,
    tokens: Annotated[str, opt.text(_TOKENS_HELP, "SETTING,SETTING")] = "off,paper,fast",
    pick: opt.Picking = opt.Pick.AUTO,
    video: Annotated[Path | None, opt.media_file("A clip. Default: a bundled or a synthetic one.")] = None,
    rounds: Annotated[int, opt.whole("Rounds that count.")] = 3,
    warm_up: Annotated[int, opt.whole("Rounds before them that do not count.", "--warm-up")] = 1,
    n_decode: Annotated[int, opt.whole("Tokens decoded in each run.", "--n-decode")] = 32,
    skip_vision: Annotated[bool, opt.flag(_SKIP_HELP, "--skip-vision")] = False,
    against_stock: Annotated[bool, opt.flag(_STOCK_HELP, "--against-stock")] = False,
    stock: Annotated[Path | None, opt.text("--against-stock with the libraries in this folder.", "FOLDER")] = None,
    markdown: Annotated[bool, opt.flag(_MARKDOWN_HELP, "--markdown")] = False,
    load: Annotated[opt.LoadOptions, Without("ctx", "flash_attn", "vision_reuse", "no_cache")] = opt.MEASURED,
    output: opt.OutputOptions,
) -> None:
    """Measure how fast this machine is, stage by stage.

    Settings in turns with the unreduced one, medians with their spread. A ratio says how many times less time than
    the first column, measured side by side in each round.
    """
    from aim_local.errors import UsageError
    from aim_local.lab.bench.benchmark import BenchConfig, run_bench
    from aim_local.lab.bench.shapes import parse_shape

    if markdown and output.json:
        raise UsageError("--markdown and --json were given; give one of them")
    config = BenchConfig(
        model=model, mmproj=mmproj, shape=None if shape is None else parse_shape(shape), text_type=type,
        vision_type=vision_type, frames=tuple(parse_frames(frames, "--frames")),
        settings=tuple(parse_list(tokens, "--tokens")), video=video, rounds=rounds, warm_up=warm_up, n_decode=n_decode,
        skip_vision=skip_vision, stock=against_stock or stock is not None, stock_folder=stock,
        load=load.load_config(), pick=pick.value,
    )  # fmt: skip
    _hub.ready(model, **load.asking(output))
    result = run_bench(config, (lambda line: None) if output.quiet else _log.say)
    if output.json:
        _out.json(result.to_dict())
    else:
        _print(result, markdown)


def _print(result: BenchResult, markdown: bool) -> None:
    facts = result.to_dict()
    machine = facts["machine"]
    _out.line(f"{result.paths.name} on {machine['processor']}, {machine['physical_cores']} cores, {machine['system']}")
    rounds = f"{result.config.rounds} rounds after {result.config.warm_up} of warm-up"
    _out.line(f"median (low..high) of {rounds}; {' '.join(facts['command'])}")
    for rows in result.tables():
        _out.line()
        if markdown:
            print_markdown(rows)
        else:
            print_table(rows, right=range(1, len(rows[0])))
    if result.notes:
        _out.line()
    for note in result.notes:
        _out.line(f"- {in_options(note)}")
