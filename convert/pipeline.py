"""`convert`: a checkpoint folder in, a model folder out. A table of contents; each step has its own file."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aim_local.store import MANIFEST, MMPROJ, MODEL
from aim_local.store.manifest import note_contents
from aim_local.visible import visible

from .checkpoint import open_checkpoint
from .errors import ConvertError
from .families import upstream_family
from .own import plan_own
from .progress import Meter, Progress
from .quantize_text import QUANTIZE_TYPES, SHORT
from .staging import check_apart, check_space, staged_folder
from .types import WEIGHT_TYPES, parse_type
from .upstream import plan_upstream
from .usable import check_usable
from .writer import Written

FORMAT = 1
CONVERTER = "aim-local convert 1"
TEXT_TYPES = {name: name for name in (*WEIGHT_TYPES, *QUANTIZE_TYPES)} | SHORT  # as --type takes them -> full names


@dataclass(frozen=True)
class ConvertConfig:
    """Options of a conversion, each tower its own type: f32 f16 bf16 q8_0 q5_1 q5_0 q4_1 q4_0.

    The language tower may have any type of QUANTIZE_TYPES too (q4_k_m).
    `vision_tower`: folder of the vision tower, for the authors' releases that do not carry it.
    `name`: the model's name in the files; default is the source folder's name.
    """

    text_type: str = "f16"
    vision_type: str = "f16"
    vision_tower: Path | str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.text_type.lower() not in TEXT_TYPES:
            parse_type(self.text_type, "text type", [name for name in QUANTIZE_TYPES if name not in WEIGHT_TYPES])
        parse_type(self.vision_type, "vision type")

    @property
    def kinds(self) -> tuple[str, str]:
        """Both types by their full names."""
        return TEXT_TYPES[self.text_type.lower()], self.vision_type.lower()


@dataclass(frozen=True)
class ConvertResult:
    """What was written. `types` is per file: {"model": {"F16": 15, ...}, ...}; `notes` are lines for the user."""

    folder: Path
    model: Path
    mmproj: Path
    architecture: str
    name: str
    tensors: dict[str, int]
    n_bytes: dict[str, int]
    types: dict[str, dict[str, int]]
    notes: tuple[str, ...]
    seconds: float


class Work(Protocol):
    """A conversion that is planned: by our own converter or by llama.cpp's."""

    @property
    def name(self) -> str: ...
    @property
    def architecture(self) -> str:
        """The family's name."""

    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def n_bytes(self) -> int:
        """The room that is needed on the disk."""

    def write(self, stage: Path, meter: Meter) -> dict[str, Written]:
        """Both files, "model" and "mmproj", written into `stage`."""

    def written_notes(self, files: Mapping[str, Written]) -> tuple[str, ...]:
        """Notes that only the files can tell."""

    def facts(self, files: Mapping[str, Written]) -> dict[str, str]:
        """What the manifest says of the model itself: text_architecture, projector."""


def convert(
    src: Path | str, out: Path | str, config: ConvertConfig | None = None, progress: Progress | None = None
) -> ConvertResult:
    """Convert the checkpoint folder `src` into the model folder `out` (model.gguf, mmproj.gguf, aim.json).

    `progress(bytes done, bytes in all, tensor name)` is called after every piece written. Raises ConvertError with one
    line for bad input or output; whatever is raised, KeyboardInterrupt too, nothing half-written stays.
    """
    started = time.monotonic()
    config = config or ConvertConfig()
    out = Path(out).absolute()
    for source in (src, config.vision_tower):
        if source is not None:
            check_apart(out, Path(source))
    work = plan_work(Path(src), config)
    with staged_folder(out) as stage:
        check_space(stage, work.n_bytes, out)
        files = work.write(stage, Meter(progress))
        check_usable(Path(src), files["model"].path, files["mmproj"].path)
        more = work.written_notes(files)
        (stage / MANIFEST).write_text(manifest(work, files, config), encoding="utf-8")
    note_contents(out, {file.path.name: file.sha256 for file in files.values()})
    return ConvertResult(
        folder=out,
        model=out / MODEL,
        mmproj=out / MMPROJ,
        architecture=work.architecture,
        name=work.name,
        tensors={k: f.tensors for k, f in files.items()},
        n_bytes={k: f.n_bytes for k, f in files.items()},
        types={k: f.types for k, f in files.items()},
        notes=(*work.notes, *more),
        seconds=time.monotonic() - started,
    )


def plan_work(src: Path, config: ConvertConfig) -> Work:
    """What the conversion of `src` will write. Reads headers and small files; raises ConvertError."""
    checkpoint = open_checkpoint(src)
    name = visible(config.name or src.resolve().name)  # it goes into files, whose strings are UTF-8
    family = upstream_family(checkpoint.config)
    if family is None:
        tower = open_checkpoint(Path(config.vision_tower)) if config.vision_tower else None
        return plan_own(checkpoint, tower, name, *config.kinds)
    if config.vision_tower:
        raise ConvertError(f"a {family.title} checkpoint carries its vision tower; leave vision_tower out")
    return plan_upstream(family, checkpoint, name, config.kinds)


def manifest(work: Work, files: Mapping[str, Written], config: ConvertConfig) -> str:
    """aim.json. Holds no paths and no times: the same checkpoint makes the same file."""
    types = dict(zip(("model", "mmproj"), config.kinds, strict=True))
    content = {
        "format": FORMAT,
        "converter": CONVERTER,
        "name": work.name,
        "architecture": work.architecture,
        **work.facts(files),
        "files": {
            key: {
                "path": file.path.name,
                "type": types[key],
                "bytes": file.n_bytes,
                "sha256": file.sha256,
                "tensors": file.tensors,
            }
            for key, file in files.items()
        },
    }
    return json.dumps(content, indent=2) + "\n"
