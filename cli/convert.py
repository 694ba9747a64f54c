"""`aim-local convert`: a checkpoint folder into a model folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aim_local.config import KV_TYPES

from . import _extra, _log, _out
from . import _options as opt
from ._option_names import in_options
from ._progress import ByteBar
from ._table import print_table, size, types

if TYPE_CHECKING:
    from aim_local.convert import ConvertResult

_SRC_HELP = "Checkpoint folder: config.json and weights."
_OUT_HELP = "Folder to write. Default: the local store, under --name."
_TYPE_HELP = (  # the same names as the cache's; a test compares them
    f"Type of the language tower: {' '.join(KV_TYPES)}, or another that quantize makes (q4_k_m)."
)
_TOWER_HELP = "Folder of the vision tower, for checkpoints that do not carry it."
_NAME_HELP = "The model's name. Default: the source folder's."


def convert(
    src: Annotated[Path, typer.Argument(help=_SRC_HELP, metavar="SRC", show_default=False)],
    *,
    out: Annotated[Path | None, opt.text(_OUT_HELP, "DIR", show_default=False)] = None,
    type: Annotated[str, opt.text(_TYPE_HELP, "TYPE", "--type")] = "f16",
    vision_type: Annotated[str, opt.text("Type of the vision tower.", "TYPE")] = "f16",
    vision_tower: Annotated[Path | None, opt.text(_TOWER_HELP, "DIR", show_default=False)] = None,
    name: Annotated[str | None, opt.text(_NAME_HELP, "NAME", "--name", show_default=False)] = None,
    output: opt.OutputOptions,
) -> None:
    """Convert a checkpoint of a vision-language model to GGUF."""
    from aim_local import store

    target = out if out is not None else _place(src, name)
    converter = _extra.import_converter()
    replaces = (target / store.MANIFEST).is_file()
    config = converter.ConvertConfig(text_type=type, vision_type=vision_type, vision_tower=vision_tower, name=name)
    try:
        with ByteBar("converting", "bytes", wanted=not output.quiet) as bar:
            result = converter.convert(src, target, config, progress=bar)
    except ModuleNotFoundError as e:
        raise _extra.missing(e) from e
    if output.json:
        _out.json(asdict(result))
        return
    _print(result)
    if not output.quiet:
        if replaces:
            _log.say(f"note: it took the place of the model that was in {target}")
        for note in result.notes:
            _log.say(f"note: {in_options(note)}")
        _log.say(f"try it: aim-local chat {_name_for(result, out)} CLIP")


def _place(src: Path, name: str | None) -> Path:
    """The model's folder in the store. Raises UsageError, and ConvertError where SRC is a file, not a checkpoint."""
    from aim_local import store

    if name is None and src.is_file():  # what SRC is goes before what its name cannot be
        _extra.import_converter().check_folder(src)
    return store.store_path(name or src.resolve().name)


def _print(result: ConvertResult) -> None:
    rows = [("FILE", "TENSORS", "SIZE", "TYPES")]
    for key, path in (("model", result.model), ("mmproj", result.mmproj)):
        rows.append((str(path), str(result.tensors[key]), size(result.n_bytes[key]), types(result.types[key])))
    print_table(rows, right=(1, 2))
    total = sum(result.n_bytes.values())
    _out.line(f"{result.name} ({result.architecture}): {size(total)} in {result.seconds:.1f} s")


def _name_for(result: ConvertResult, out: Path | None) -> str:
    return str(out) if out is not None else result.folder.name
