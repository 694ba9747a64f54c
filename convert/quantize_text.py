"""A language tower's GGUF in another weight type: llama.cpp's own quantiser, in a child process.

It makes the K-quants that numpy cannot make. It knows no mmproj: those are quantize_vision.py's business.
"""

import shutil
from collections import deque
from pathlib import Path

import gguf

from aim_local.child import Child

from .errors import ConvertError
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
            "give vision_type alone, or convert the checkpoint again with vision_type=q8_0 or another type"
        )
    check_unquantized(source, reader, "text_type=f16")


def run_worker(source: Path, target: Path, type: str, threads: int, progress: Progress | None) -> None:
    """Run quantize_worker.py to its end; the child dies with us. `type`: one of QUANTIZE_TYPES."""
    module = f"{__package__}.quantize_worker"
    said: deque[str] = deque(maxlen=5)
    arguments = ["-m", module, str(source), str(target), str(int(QUANTIZE_TYPES[type])), str(threads)]
    with Child("llama.cpp's quantiser", arguments) as child:
        while (message := child.receive()) is not None:
            if "said" in message:
                said.append(message["said"])
            elif progress is not None:
                progress(message["done"], message["total"], message["name"])
        if child.wait() != 0:
            raise worker_error(target, source, " ".join(filter(None, said)) or child.death())


def worker_error(target: Path, source: Path, said: str) -> ConvertError:
    free = shutil.disk_usage(target.parent).free
    if "iostream" in said or free < 1 << 20:
        size = size_text(source.stat().st_size)
        return ConvertError(
            f"writing failed with {size_text(free)} free on the disk; up to {size} are needed, free some"
        )
    return ConvertError(f"llama.cpp's quantiser failed on {source}: {said}")
