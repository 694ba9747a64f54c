"""`quantize`: llama.cpp's own quantiser over a language GGUF, for the K-quants that numpy cannot make.

llama.cpp's quantiser knows no mmproj: a vision tower is quantize_vision.py's business.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf

from .checkpoint import read_json
from .errors import ConvertError
from .quantize_worker import PROGRESS
from .staging import MANIFEST, MMPROJ, MODEL, os_error, size_text, staged_folder
from .types import UNQUANTIZED
from .writer import file_sha256

QUANTIZE_TYPES: dict[str, gguf.LlamaFileType] = {
    name: gguf.LlamaFileType[f"MOSTLY_{name.upper()}"]
    for name in (
        *("q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k"),
        *("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "iq4_xs", "f16", "bf16"),
    )
}
SHORT = {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m"}
Progress = Callable[[int, int, str], None]  # tensors done, tensors in all, tensor name


@dataclass(frozen=True)
class QuantizeResult:
    """What was written. `path` is a file or, for a folder, the new folder; `types` counts tensors per type."""

    path: Path
    model: Path
    type: str
    n_bytes_before: int
    n_bytes: int
    types: dict[str, int]
    seconds: float


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
    name = SHORT.get(type.lower(), type.lower())
    if name not in QUANTIZE_TYPES:
        raise ConvertError(f"type {type!r} is unknown; allowed are {', '.join(QUANTIZE_TYPES)}")
    if threads is not None and threads < 1:
        raise ConvertError(f"threads is {threads}; at least 1 is needed, leave it out for all cores")
    folder = src.is_dir()
    source = src / MODEL if folder else src
    check_source(source, out)
    if folder:
        check_folder(src)
    elif vision_type is not None:
        raise ConvertError(f"{src} is a language file; the vision type is for a model folder or an mmproj")

    def run(target: Path) -> None:
        run_worker(source, target, QUANTIZE_TYPES[name], threads or os.cpu_count() or 1, progress)

    if folder:
        with staged_folder(out) as stage:
            run(stage / MODEL)
            copy_rest(src, stage, name, vision_type)
        model = out / MODEL
    else:
        with staged_file(out) as partial:
            run(partial)
        model = out
    _, types = describe(model)
    return QuantizeResult(
        path=out,
        model=model,
        type=name,
        n_bytes_before=source.stat().st_size,
        n_bytes=model.stat().st_size,
        types=types,
        seconds=time.monotonic() - started,
    )


def check_source(source: Path, out: Path) -> None:
    """One line for whatever llama.cpp would refuse, or would do badly."""
    if not source.is_file():
        raise ConvertError(f"{source} does not exist; name a language GGUF or a folder that `aim-local convert` wrote")
    if out.exists() and out.samefile(source if out.is_file() else source.parent):
        raise ConvertError(f"{out} is the source itself; name another output")
    arch, types = describe(source)
    if arch == "clip":
        raise ConvertError(
            f"{source} is an mmproj (vision tower); llama.cpp's quantiser takes language models only: "
            "give --vision-type alone, or convert the checkpoint again with --vision-type q8_0 or another type"
        )
    quantised = sorted(set(types) - {t.name for t in UNQUANTIZED})
    if quantised:
        raise ConvertError(
            f"{source} is quantised already ({', '.join(quantised)}); "
            "quantise from an f16 file: convert with --type f16"
        )


def check_folder(src: Path) -> None:
    lacking = [name for name in (MMPROJ, MANIFEST) if not (src / name).is_file()]
    if lacking:
        raise ConvertError(
            f"{src} is not a folder that `aim-local convert` wrote, it lacks {' and '.join(lacking)}; "
            f"name the file {src / MODEL} to quantise it alone"
        )


def describe(path: Path) -> tuple[str, dict[str, int]]:
    """(architecture, tensors per type) of a GGUF."""
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError) as e:
        raise ConvertError(f"{path} is not a readable GGUF ({e}); name a language GGUF") from e
    field = reader.fields.get(gguf.Keys.General.ARCHITECTURE)
    types = Counter(t.tensor_type.name for t in reader.tensors)
    return str(field.contents()) if field else "", dict(sorted(types.items()))


@contextmanager
def staged_file(out: Path) -> Iterator[Path]:
    """A temporary file that becomes `out` when the block ends well and is removed when it does not."""
    if out.is_dir():
        raise ConvertError(f"{out} is a folder; name the file to write, or pass a model folder as the source")
    partial: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{out.name}.partial-", dir=out.parent)
        os.close(handle)
        partial = Path(name)
        yield partial
        sync(partial)
        os.chmod(partial, 0o644)
        os.replace(partial, out)
    except BaseException as e:
        if partial is not None:
            partial.unlink(missing_ok=True)
        if isinstance(e, OSError):
            raise os_error(e, out) from e
        raise


def sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def copy_rest(src: Path, stage: Path, name: str, vision_type: str | None) -> None:
    """The vision tower, as it is or in its new type, and the manifest with the new files."""
    content = read_json(src / MANIFEST)
    content["files"]["model"] |= facts(stage / MODEL, name)
    if vision_type is None:
        shutil.copyfile(src / MMPROJ, stage / MMPROJ)
    else:
        from .quantize_vision import quantize_vision  # which uses this file

        quantize_vision(src / MMPROJ, stage / MMPROJ, vision_type)
        content["files"]["mmproj"] |= facts(stage / MMPROJ, vision_type.lower())
    (stage / MANIFEST).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def facts(path: Path, name: str) -> dict[str, Any]:
    """What the manifest says of a file."""
    return {"type": name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}


def run_worker(
    source: Path, target: Path, file_type: gguf.LlamaFileType, threads: int, progress: Progress | None
) -> None:
    """Run quantize_worker.py to its end; the child dies with us."""
    command = [sys.executable, "-P", "-m", f"{__package__}.quantize_worker", str(source), str(target)]
    command += [str(int(file_type)), str(threads)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    said: deque[str] = deque(maxlen=5)
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        assert child.stdout is not None
        for line in child.stdout:
            word, *rest = line.split()[:4] or [""]
            if word == PROGRESS and progress is not None:
                progress(int(rest[0]), int(rest[1]), rest[2])
            elif word != PROGRESS:
                said.append(line.strip())
        code = child.wait()
    finally:
        with contextlib.suppress(OSError):
            child.kill()
        child.wait()
    if code != 0:
        raise worker_error(target, source, " ".join(s for s in said if s), code)


def worker_error(target: Path, source: Path, said: str, code: int) -> ConvertError:
    free = shutil.disk_usage(target.parent).free
    if "iostream" in said or free < 1 << 20:
        size = size_text(source.stat().st_size)
        return ConvertError(
            f"writing failed with {size_text(free)} free on the disk; up to {size} are needed, free some"
        )
    return ConvertError(f"llama.cpp's quantiser failed on {source} (exit {code}): {said or 'it said nothing'}")
