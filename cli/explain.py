"""`aim-local explain`: pictures of which visual tokens were merged, ranked and kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aim_local.errors import UsageError

from . import _log, _runtime
from . import _options as opt
from ._table import print_json
from ._turn import Turn
from .chat import TYPICAL_FRAMES, check_media

if TYPE_CHECKING:
    from aim_local.lab.explain import Explanation

DEFAULT_FOLDER = Path("explain")


def explain(
    model: opt.ModelArg = None,
    video: opt.Videos = None,
    image: opt.Images = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The question. What is kept depends on it.", metavar="TEXT")
    ] = None,
    mmproj: opt.Mmproj = None,
    frames: opt.Frames = None,
    fps: opt.Fps = None,
    start: opt.Start = None,
    end: opt.End = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            help="Visual tokens, as in chat. Default: paper, also for pictures and the bundled model.",
            metavar="SETTING",
        ),
    ] = None,
    keep: opt.Keep = None,
    prune: opt.Prune = None,
    importance: opt.Importance = None,
    ctx: opt.Ctx = None,
    threads: opt.Threads = None,
    gpu_layers: opt.GpuLayers = 0,
    type_k: opt.TypeK = "f16",
    type_v: opt.TypeV = "f16",
    flash_attn: opt.FlashAttnOption = opt.FlashAttn.AUTO,
    max_tokens: opt.MaxTokens = 128,
    system: opt.System = None,
    layer: Annotated[
        list[int] | None,
        typer.Option(
            help="Draw this layer in the PNG; may be given several times. Default: where something changes.",
            metavar="N",
            parser=opt.parse_whole,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write explain.png and explain.html there. Default: explain.", metavar="FOLDER")
    ] = None,
    png: Annotated[Path | None, typer.Option(help="Write the contact sheet to this file.", metavar="FILE")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the page to this file.", metavar="FILE")] = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Show which visual tokens a question keeps: a contact sheet (PNG) and a page with a layer slider (HTML).

    Merged tokens, what survives into each layer, and importance as a heat map, on the frames the model saw. Files that
    exist are replaced. With --json and no place to write to, only the numbers are printed.
    """
    # 1. everything that can be wrong without the model
    if prompt is None or not prompt.strip():
        raise UsageError("the question is missing; give one: -p 'What happens?'")
    media = [*(video or []), *(image or [])]
    if not media:
        raise UsageError("nothing to explain without a picture; give --video FILE or --image FILE")
    check_media(video or [], image or [])
    opt.frame_sampling(frames, fps, start, end, TYPICAL_FRAMES)
    reduction = opt.visual_tokens(tokens, keep, prune, importance)
    config = opt.load_config(ctx, threads, gpu_layers, type_k, type_v, flash_attn)
    generate = opt.generate_config(max_tokens, None, None, opt.ONE_SHOT_TEMPERATURE)
    places = output_files(out, png, html, json)

    # 2. the model, the question, the files
    with _runtime.load(model, mmproj, config) as llm:
        from aim_local.drawing.layers import check_layers
        from aim_local.lab import explain as library

        check_layers(layer or [], llm.text.n_layer)
        sampling = opt.frame_sampling(frames, fps, start, end, llm.default_frames or TYPICAL_FRAMES)
        options: dict[str, Any] = {"generate": generate, "sampling": sampling, "system": system}
        with Turn(bars=not quiet, text=False) as turn:
            found = library.explain(llm, prompt.strip(), media, reduction, progress=turn.progress, **options)
    if found.answer.stats.stop_reason == "interrupted":
        raise KeyboardInterrupt
    written = library.write_files(found, places, layer)
    _print(found, written, json=json, quiet=quiet)


def output_files(out: Path | None, png: Path | None, html: Path | None, json: bool) -> dict[str, Path]:
    """Where "png" and "html" go. Raises UsageError where they cannot go, before anything is computed."""
    if out is not None and (png is not None or html is not None):
        raise UsageError("--out names a folder for both files; give it, or --png and --html")
    if png is None and html is None:
        if out is None and json:
            return {}
        folder = out or DEFAULT_FOLDER
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file; --out takes a folder")
        folder.mkdir(parents=True, exist_ok=True)
        _check_writable(folder)
        return {"png": folder / "explain.png", "html": folder / "explain.html"}
    files = {kind: path for kind, path in (("png", png), ("html", html)) if path is not None}
    for kind, path in files.items():
        _check_file(kind, path)
    return files


def _check_file(kind: str, path: Path) -> None:
    if path.suffix.lower() != f".{kind}":
        raise UsageError(f"--{kind} {path}: the name must end in .{kind}")
    if path.is_dir():
        raise UsageError(f"--{kind} {path} is a folder; give a file in it")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--{kind} {path}: the folder {path.parent} does not exist; make it first")
    _check_writable(path.absolute().parent)


def _check_writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{folder}: nothing can be written there; check its permissions, or give another folder")


def _print(found: Explanation, written: dict[str, Path], *, json: bool, quiet: bool) -> None:
    from aim_local.lab.explain import heading, report

    if not quiet:
        _log.warn(found.answer.warnings)
    if json:
        print_json({**report(found), "files": {kind: str(path) for kind, path in written.items()}})
        return
    for line in heading(found)[1:]:
        if not (quiet and line.startswith("Note:")):
            print(line)
    for path in written.values():
        print(f"wrote {path}")
