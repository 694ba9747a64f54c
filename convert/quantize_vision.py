"""A vision tower's GGUF (mmproj) in another weight type, from f32, f16 or bf16.

llama.cpp's quantiser knows no mmproj; tensors get the types that `convert --vision-type` gives them (types.py), and
what is no matrix of a layer or of the projector (positions, patch kernels, queries) stays as it is.
"""

import re
import time
from pathlib import Path
from typing import Any

import gguf

from .checkpoint import TensorRef
from .errors import ConvertError
from .plan import Planned
from .quantized import Progress, QuantizeResult, architecture_of, check_unquantized, open_gguf
from .staging import staged_file
from .types import FILE_TYPES, MMPROJ_ARCH, UNQUANTIZED, is_quantized, parse_type, vision_type
from .writer import write_gguf

LAYER = re.compile(r"(v|mm)\..+\.weight")
EMBEDDING = re.compile(r"embd|pos_emb|class|query|newline|norm")
FILE_TYPE = gguf.Keys.General.FILE_TYPE
QUANT_VERSION = gguf.Keys.General.QUANTIZATION_VERSION


def quantize_vision(src: Path | str, out: Path | str, type: str, progress: Progress | None = None) -> QuantizeResult:
    """Write the mmproj `src` as `out` with weights of `type`, one of WEIGHT_TYPES.

    `progress(tensors done, in all, name)`.
    Raises ConvertError with one line; whatever is raised, nothing half-written stays.
    """
    started = time.monotonic()
    src, out = Path(src), Path(out).absolute()
    wanted = parse_type(type, "vision type")
    reader = open_mmproj(src, out)
    plan = [planned(src, tensor, wanted) for tensor in reader.tensors]

    def metadata(writer: gguf.GGUFWriter) -> None:
        for field in reader.fields.values():
            if field.name != QUANT_VERSION or not is_quantized(wanted):
                copy_key(writer, field, {FILE_TYPE: int(FILE_TYPES[wanted])})
            if field.name == FILE_TYPE and is_quantized(wanted):
                writer.add_quantization_version(gguf.GGML_QUANT_VERSION)

    with staged_file(out) as partial:
        written = write_gguf(partial, MMPROJ_ARCH, metadata, plan, reporter(plan, progress))
    return QuantizeResult(
        path=out,
        model=out,
        type=type.lower(),
        n_bytes_before=src.stat().st_size,
        n_bytes=written.n_bytes,
        types=written.types,
        seconds=time.monotonic() - started,
    )


def open_mmproj(src: Path, out: Path) -> gguf.GGUFReader:
    if not src.is_file():
        raise ConvertError(f"{src} does not exist; name a vision tower's GGUF (mmproj)")
    if out.exists() and out.samefile(src):
        raise ConvertError(f"{out} is the source itself; name another output")
    reader = open_gguf(src, "a vision tower's GGUF (mmproj)")
    if architecture_of(reader) != MMPROJ_ARCH:
        raise ConvertError(f"{src} is no mmproj (vision tower); give a language model a type, not a vision type")
    check_unquantized(src, reader, "vision_type=f16")
    return reader


def planned(src: Path, tensor: Any, wanted: gguf.GGMLQuantizationType) -> Planned:
    name, shape = str(tensor.name), tuple(int(n) for n in reversed(tensor.shape))
    source = TensorRef(name, src, int(tensor.data_offset), str(tensor.tensor_type.name), shape)
    return Planned(name, source, new_type(name, shape, tensor.tensor_type, wanted))


def new_type(
    name: str, shape: tuple[int, ...], now: gguf.GGMLQuantizationType, wanted: gguf.GGMLQuantizationType
) -> gguf.GGMLQuantizationType:
    """The converter's type for what the converter writes; other tensors that are no layer's matrix keep theirs."""
    known = name in ("v.patch_embd.weight", "v.position_embd.weight") or len(shape) == 1
    matrix = len(shape) == 2 and LAYER.fullmatch(name) is not None and not EMBEDDING.search(name)
    return vision_type(name, shape, wanted) if (known and now in UNQUANTIZED) or matrix else now


def copy_key(writer: gguf.GGUFWriter, field: Any, instead: dict[str, int]) -> None:
    """One key as it is, or with the value in `instead`. The architecture and GGUF.* are the writer's own."""
    if field.name == gguf.Keys.General.ARCHITECTURE or field.name.startswith("GGUF."):
        return
    kind = field.types[0]
    sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
    try:
        value = instead.get(field.name, field.contents())
    except UnicodeDecodeError as e:
        raise ConvertError(f"{field.name!a} is a text that is not UTF-8; download or convert the mmproj again") from e
    writer.add_key_value(field.name, value, kind, sub_type=sub)


def reporter(plan: list[Planned], progress: Progress | None) -> Any:
    """Bytes written as tensors done."""
    left = {p.name: p.n_bytes for p in plan}
    done = 0

    def report(name: str, n_bytes: int) -> None:
        nonlocal done
        if name not in left or not n_bytes:
            return
        left[name] -= n_bytes
        if left[name] <= 0:
            del left[name]
            done += 1
            if progress is not None:
                progress(done, len(plan), name)

    return report
