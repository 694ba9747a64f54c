"""`aim-local convert`: a checkpoint folder into a model folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from . import _extra, _log
from ._options import Debug, Json, Quiet
from ._progress import ByteBar
from ._table import print_json, print_table, size, types


def convert(
    src: Annotated[
        Path, typer.Argument(help="Checkpoint folder: config.json and weights.", metavar="SRC", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write. Default: the local store, under --name.", metavar="DIR", show_default=False
        ),
    ] = None,
    type: Annotated[
        str, typer.Option(help="Type of the language tower: f32 f16 bf16 q8_0 q5_1 q5_0 q4_1 q4_0.", metavar="TYPE")
    ] = "f16",
    vision_type: Annotated[str, typer.Option(help="Type of the vision tower.", metavar="TYPE")] = "f16",
    vision_tower: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the vision tower, for checkpoints that do not carry it.", metavar="DIR", show_default=False
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="The model's name. Default: the source folder's.", metavar="NAME", show_default=False),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Convert a LLaVA-OneVision or LLaVA-1.5 checkpoint to GGUF."""
    from aim_local import store

    target = out if out is not None else store.store_path(name or src.resolve().name)
    converter = _extra.import_converter()
    config = converter.ConvertConfig(text_type=type, vision_type=vision_type, vision_tower=vision_tower, name=name)
    try:
        with ByteBar("converting", "bytes", wanted=not quiet) as bar:
            result = converter.convert(src, target, config, progress=bar)
    except ModuleNotFoundError as e:
        raise _extra.missing(e) from e
    if json:
        print_json(asdict(result))
        return
    _print(result)
    if not quiet:
        for note in result.notes:
            _log.say(f"note: {note}")
        _log.say(f"try it: aim-local chat {_name_for(result, out)} --video CLIP")


def _print(result: Any) -> None:
    rows = [("FILE", "TENSORS", "SIZE", "TYPES")]
    for key, path in (("model", result.model), ("mmproj", result.mmproj)):
        rows.append((str(path), str(result.tensors[key]), size(result.n_bytes[key]), types(result.types[key])))
    print_table(rows, right=(1, 2))
    total = sum(result.n_bytes.values())
    print(f"{result.name} ({result.architecture}): {size(total)} in {result.seconds:.1f} s")


def _name_for(result: Any, out: Path | None) -> str:
    return str(out) if out is not None else result.folder.name
