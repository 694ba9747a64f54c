"""`quantize`: a language GGUF, or both towers of a model folder, in other weight types.

Says what is done to which file; quantize_text.py and quantize_vision.py do it.
"""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from aim_local.config import MAX_THREADS
from aim_local.errors import ModelError
from aim_local.store import MANIFEST, MMPROJ, MODEL, ModelPaths
from aim_local.store.manifest import check_contents, note_contents

from .checkpoint import read_json
from .errors import ConvertError
from .quantize_text import check_source, run_worker, type_name
from .quantize_vision import quantize_vision
from .quantized import Progress, QuantizeResult, open_gguf, types_of
from .staging import staged_file, staged_folder
from .usable import look_through, unusable
from .writer import file_sha256


def quantize(
    src: Path | str,
    out: Path | str,
    type: str = "q4_k_m",
    progress: Progress | None = None,
    threads: int | None = None,
    vision_type: str | None = None,
) -> QuantizeResult:
    """Quantise the language GGUF `src` into the file `out`, or a model folder into a new one.

    `type`: one of QUANTIZE_TYPES. `vision_type`: of a folder's mmproj, one of WEIGHT_TYPES; None copies it.
    `src` holds f32, f16 or bf16 weights. `progress(tensors done, in all, name)`.
    Raises ConvertError with one line; whatever is raised, nothing half-written stays.
    """
    started = time.monotonic()
    src, out = Path(src), Path(out).absolute()
    name = type_name(type)
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise ConvertError(f"threads is {threads}; give 1 to {MAX_THREADS}, or leave it out for all cores")
    n_threads = threads or os.cpu_count() or 1
    folder = src.is_dir()
    source, model = (src / MODEL, out / MODEL) if folder else (src, out)
    check_source(source, out)
    if folder:
        check_folder(src)
        check_contents(ModelPaths(src.name, source, src / MMPROJ))
        with staged_folder(out) as stage:
            run_worker(source, stage / MODEL, name, n_threads, progress)
            digests = copy_rest(src, stage, name, vision_type)
            _look_through(src, stage / MODEL, stage / MMPROJ if vision_type is not None else None)
        note_contents(out, digests)
    elif vision_type is not None:
        raise ConvertError(f"{src} is a language file; the vision type is for a model folder or an mmproj")
    else:
        with staged_file(out) as partial:
            run_worker(source, partial, name, n_threads, progress)
    return QuantizeResult(
        path=out,
        model=model,
        type=name,
        n_bytes_before=source.stat().st_size,
        n_bytes=model.stat().st_size,
        types=types_of(open_gguf(model, "a language GGUF")),
        seconds=time.monotonic() - started,
    )


def check_folder(src: Path) -> None:
    lacking = [name for name in (MMPROJ, MANIFEST) if not (src / name).is_file()]
    if lacking:
        raise ConvertError(
            f"{src} is not a folder that `aim-local convert` wrote, it lacks {' and '.join(lacking)}; "
            f"name the file {src / MODEL} to quantise it alone"
        )


def _look_through(src: Path, model: Path, mmproj: Path | None) -> None:
    """What was made, so that its first load need not. Raises ConvertError."""
    try:
        look_through(model, mmproj)
    except ModelError as e:
        raise unusable(src, "was quantised", model.parent, e) from e


def copy_rest(src: Path, stage: Path, name: str, vision_type: str | None) -> dict[str, str]:
    """The vision tower, as it is or in its new type, and the manifest with the new files.

    Returns sha256 (hex) of those that are new, by name.
    """
    content = read_json(src / MANIFEST)
    content["files"]["model"] |= facts(stage / MODEL, name)
    if vision_type is None:
        shutil.copyfile(src / MMPROJ, stage / MMPROJ)
    else:
        quantize_vision(src / MMPROJ, stage / MMPROJ, vision_type)
        content["files"]["mmproj"] |= facts(stage / MMPROJ, vision_type.lower())
    (stage / MANIFEST).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    made = ("model",) if vision_type is None else ("model", "mmproj")
    return {content["files"][key]["path"]: content["files"][key]["sha256"] for key in made}


def facts(path: Path, name: str) -> dict[str, Any]:
    """What the manifest says of a file."""
    return {"type": name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
