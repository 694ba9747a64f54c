"""`aim-local quantize`: llama.cpp's own quantiser on the language tower, ours on the vision tower."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from aim_local.config import KV_TYPES

from . import _extra, _hub, _out
from . import _options as opt
from ._progress import ByteBar
from ._table import print_table, size, types

DEFAULT = "q4_k_m"
_SRC_HELP = "A language GGUF, a model folder, or a name in the store, with f32, f16 or bf16 weights."
_OUT_HELP = "File or folder to write. Default: SRC's name with the type, beside it; of the bundled model in the store."
_TYPE_HELP = f"q4_k_m, q5_k_m, q6_k, q8_0, q4_0, iq4_xs and others. Default: {DEFAULT}."
_VISION_HELP = f"Type of the vision tower, of a folder's or of an mmproj file: {opt.span(KV_TYPES[1:], 4)}."


def quantize(
    src: Annotated[str, typer.Argument(help=_SRC_HELP, metavar="SRC")],
    out: Annotated[Path | None, typer.Argument(help=_OUT_HELP, metavar="OUT", show_default=False)] = None,
    *,
    type: Annotated[str | None, opt.text(_TYPE_HELP, "TYPE", "--type", show_default=False)] = None,
    vision_type: Annotated[str | None, opt.text(_VISION_HELP, "TYPE")] = None,
    threads: opt.Threads = None,
    output: opt.OutputOptions,
) -> None:
    """Quantise a model's language tower.

    A folder's vision tower is copied, unless --vision-type says otherwise. An mmproj file is quantised by
    --vision-type alone.
    """
    from aim_local import store

    converter = _extra.import_converter()
    _hub.ready(src, quiet=output.quiet)
    source = store.source_of(src)
    alone = vision_type if vision_type is not None and type is None and source.is_file() else None
    target = out if out is not None else store.beside(source, alone or type or DEFAULT)
    with ByteBar("quantising", "tensors", wanted=not output.quiet) as bar:
        if alone is not None:
            result = converter.quantize_vision(source, target, alone, progress=bar)
        else:
            result = converter.quantize(source, target, type or DEFAULT, bar, threads, vision_type)
    if output.json:
        _out.json(asdict(result))
        return
    rows = [("FILE", "BEFORE", "AFTER", "TYPES")]
    rows.append((str(result.model), size(result.n_bytes_before), size(result.n_bytes), types(result.types)))
    print_table(rows, right=(1, 2))
