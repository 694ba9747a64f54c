"""A language tower's GGUF in another weight type: llama.cpp's own quantiser, in a child process.

It makes the K-quants that numpy cannot make. It knows no mmproj: those are quantize_vision.py's business.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections import deque
from pathlib import Path

import gguf

from .errors import ConvertError
from .quantize_worker import PROGRESS
from .quantized import Progress, architecture_of, check_unquantized, open_gguf
from .staging import size_text
from .types import MMPROJ_ARCH

QUANTIZE_TYPES: dict[str, gguf.LlamaFileType] = {
    name: gguf.LlamaFileType[f"MOSTLY_{name.upper()}"]
    for name in (
        *("q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k"),
        *("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "iq4_xs", "f16", "bf16"),
    )
}
SHORT = {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m"}


def type_name(type: str) -> str:
    """The full name of a type, one of QUANTIZE_TYPES. Raises ConvertError."""
    name = SHORT.get(type.lower(), type.lower())
    if name not in QUANTIZE_TYPES:
        raise ConvertError(f"type {type!r} is unknown; allowed are {', '.join(QUANTIZE_TYPES)}")
    return name


def check_source(source: Path, out: Path) -> None:
    """One line for whatever llama.cpp would refuse, or would do badly."""
    if not source.is_file():
        raise ConvertError(f"{source} does not exist; name a language GGUF or a folder that `aim-local convert` wrote")
    if out.exists() and out.samefile(source if out.is_file() else source.parent):
        raise ConvertError(f"{out} is the source itself; name another output")
    reader = open_gguf(source, "a language GGUF")
    if architecture_of(reader) == MMPROJ_ARCH:
        raise ConvertError(
            f"{source} is an mmproj (vision tower); llama.cpp's quantiser takes language models only: "
            "give --vision-type alone, or convert the checkpoint again with --vision-type q8_0 or another type"
        )
    check_unquantized(source, reader, "--type f16")


def run_worker(source: Path, target: Path, type: str, threads: int, progress: Progress | None) -> None:
    """Run quantize_worker.py to its end; the child dies with us. `type`: one of QUANTIZE_TYPES."""
    command = [sys.executable, "-P", "-m", f"{__package__}.quantize_worker", str(source), str(target)]
    command += [str(int(QUANTIZE_TYPES[type])), str(threads)]
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
