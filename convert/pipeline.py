"""`convert`: a checkpoint folder in, a model folder out. A table of contents; each step has its own file."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np

from aim_local.store import MANIFEST, MMPROJ, MODEL

from .checkpoint import Checkpoint, TensorRef, open_checkpoint
from .errors import ConvertError, some
from .families import Family, read_model
from .names import sanitize_all
from .plan import Planned
from .staging import check_space, staged_folder
from .templates import read_template
from .text import plan_text, text_metadata
from .types import MMPROJ_ARCH, is_quantized, parse_type
from .vision import is_unused_layer, plan_vision, vision_metadata
from .vocab import Vocab, read_vocab, vocab_metadata
from .writer import Report, Written, write_gguf

FORMAT = 1
CONVERTER = "aim-local convert 1"
Progress = Callable[[int, int, str], None]  # bytes done, bytes in all, tensor name


@dataclass(frozen=True)
class ConvertConfig:
    """Options of a conversion. Types: f32 f16 bf16 q8_0 q5_1 q5_0 q4_1 q4_0, each tower its own.

    `vision_tower`: folder of the vision tower, for the authors' releases that do not carry it.
    `name`: the model's name in the files; default is the source folder's name.
    """

    text_type: str = "f16"
    vision_type: str = "f16"
    vision_tower: Path | str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        parse_type(self.text_type, "text type")
        parse_type(self.vision_type, "vision type")


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


@dataclass(frozen=True)
class Work:
    """Everything a conversion writes, known before the first byte is. `kinds`: types of text and vision."""

    model: Family
    name: str
    vocab: Vocab
    template: str
    text: list[Planned]
    vision: list[Planned]
    kinds: tuple[gguf.GGMLQuantizationType, gguf.GGMLQuantizationType]
    notes: tuple[str, ...]

    @property
    def n_bytes(self) -> int:
        """Of all tensors, without keys and padding."""
        return sum(p.n_bytes for p in self.text + self.vision)


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
    work = plan_work(Path(src), config)
    report = counter(progress, work.n_bytes)
    with staged_folder(out) as stage:
        check_space(stage, work.n_bytes, out)
        files = write_files(stage, work, report)
        (stage / MANIFEST).write_text(manifest(work.model, work.name, files, config), encoding="utf-8")
    return ConvertResult(
        folder=out,
        model=out / MODEL,
        mmproj=out / MMPROJ,
        architecture=work.model.name,
        name=work.name,
        tensors={k: f.tensors for k, f in files.items()},
        n_bytes={k: f.n_bytes for k, f in files.items()},
        types={k: f.types for k, f in files.items()},
        notes=work.notes,
        seconds=time.monotonic() - started,
    )


def plan_work(src: Path, config: ConvertConfig) -> Work:
    """What the conversion of `src` will write. Reads headers and small files; raises ConvertError."""
    # 1. what is it?
    checkpoint = open_checkpoint(src)
    tower = open_checkpoint(Path(config.vision_tower)) if config.vision_tower else None
    model = read_model(checkpoint, tower)
    # 2. is everything there?
    tensors = gather(checkpoint, tower, model)
    model = fit_head(fit_vocab(model, tensors), tensors)
    kinds = parse_type(config.text_type, "text type"), parse_type(config.vision_type, "vision type")
    text = plan_text(model.text, tensors, kinds[0])
    vision = plan_vision(model, tensors, kinds[1])
    check_unused(tensors, text + vision, model)
    vocab = read_vocab(checkpoint, model.text.arch, model.text.vocab_size)
    # 3. what to write and to say of it
    template, own_template = read_template(checkpoint, model.chat_template)
    notes = [*tower_notes(checkpoint, tower), *vocab.notes, *model_notes(model, own_template)]
    notes += [*model.notes(), *fallback_notes(text, vision, kinds)]
    name = config.name or checkpoint.folder.resolve().name
    return Work(model, name, vocab, template, text, vision, kinds, tuple(notes))


def write_files(stage: Path, work: Work, report: Report) -> dict[str, Written]:
    """Both GGUF files, written into `stage`."""

    def text_keys(writer: gguf.GGUFWriter) -> None:
        text_metadata(writer, work.model.text, work.name, work.kinds[0])
        vocab_metadata(writer, work.vocab, work.model.text.vocab_size)
        writer.add_chat_template(work.template)

    def vision_keys(writer: gguf.GGUFWriter) -> None:
        vision_metadata(writer, work.model, work.name, work.kinds[1])

    return {
        "model": write_gguf(stage / MODEL, work.model.text.arch, text_keys, work.text, report),
        "mmproj": write_gguf(stage / MMPROJ, MMPROJ_ARCH, vision_keys, work.vision, report),
    }


def gather(checkpoint: Checkpoint, tower: Checkpoint | None, model: Family) -> dict[str, TensorRef]:
    """All tensors under our names; the tower's come from its own folder where the checkpoint has none."""
    tensors = sanitize_all(checkpoint.tensors)
    if any(name.startswith("vision.") for name in tensors):
        return tensors
    if tower is None:
        wanted = checkpoint.config.get("mm_vision_tower", "the one it was trained with")
        raise ConvertError(
            f"{checkpoint.folder} does not carry its vision tower ({wanted}); "
            "download that and pass its folder as --vision-tower"
        )
    found = {n: ref for n, ref in sanitize_all(tower.tensors, tower=True).items() if n.startswith("vision.")}
    if not found:
        raise ConvertError(
            f"--vision-tower {tower.folder} holds no vision tower; "
            f"pass the folder of a {model.vision.kind.name.upper()} checkpoint"
        )
    return tensors | found


def fit_vocab(model: Family, tensors: Mapping[str, TensorRef]) -> Family:
    """Embedding tables may be longer than config.json says (padded for speed); then the table counts."""
    table = tensors.get("text.embed_tokens.weight")
    if table is None or len(table.shape) != 2 or table.shape[0] <= model.text.vocab_size:
        return model
    return replace(model, text=replace(model.text, vocab_size=table.shape[0]))


def fit_head(model: Family, tensors: Mapping[str, TensorRef]) -> Family:
    """A config that says "tied" beside another output table is wrong: transformers trusts the weights, as we do."""
    table, head = tensors.get("text.embed_tokens.weight"), tensors.get("text.lm_head.weight")
    if not model.text.tied or table is None or head is None or same_values(table, head):
        return model
    return replace(model, text=replace(model.text, tied=False))


def same_values(a: TensorRef, b: TensorRef, step: int = 4096) -> bool:
    """Whether two tensors hold the same numbers; reads both, `step` rows at a time."""
    if (a.path, a.offset, a.shape) == (b.path, b.offset, b.shape):
        return True
    if a.shape != b.shape:
        return False
    pieces = [(begin, min(begin + step, a.shape[0])) for begin in range(0, a.shape[0], step)]
    return all(np.array_equal(a.read_rows(*piece), b.read_rows(*piece)) for piece in pieces)


def check_unused(tensors: Mapping[str, TensorRef], plan: list[Planned], model: Family) -> None:
    """Every tensor of the checkpoint is written or known to be unused: a left-over would be a part nobody runs."""
    used = {p.source.name for p in plan}
    tied = {"text.lm_head.weight"} if model.text.tied else set()
    left = [
        ref.name
        for name, ref in tensors.items()
        if ref.name not in used and name not in tied and not is_unused_layer(model, name)
    ]
    if left:
        raise ConvertError(
            f"the checkpoint has {len(left)} tensors that a {model.name} model does not know ({some(sorted(left))}); "
            "it is a variant this converter does not support"
        )


def tower_notes(checkpoint: Checkpoint, tower: Checkpoint | None) -> list[str]:
    own = any(name.startswith("vision.") for name in sanitize_all(checkpoint.tensors))
    return ["the checkpoint carries its vision tower: --vision-tower's weights were not used"] if own and tower else []


def model_notes(model: Family, own_template: bool) -> list[str]:
    notes = []
    if not own_template:
        notes.append("the checkpoint has no chat template for media: the family's own was written")
    if model.preprocess.default:
        kind = model.vision.kind.name.upper()
        notes.append(f"the checkpoint names no image processor: {kind}'s published numbers were written")
    if model.vision.n_layer < model.vision.n_layer_full:
        notes.append(
            f"{model.vision.n_layer} of {model.vision.n_layer_full} vision layers are run, the others were left out"
        )
    return notes


def fallback_notes(
    text: list[Planned], vision: list[Planned], kinds: tuple[gguf.GGMLQuantizationType, gguf.GGMLQuantizationType]
) -> list[str]:
    """How many matrices could not have the type asked for because their rows are not whole blocks."""
    notes = []
    for tower, plan, kind in (("language", text, kinds[0]), ("vision", vision, kinds[1])):
        f16 = gguf.GGMLQuantizationType.F16
        fell = [p for p in plan if is_quantized(kind) and p.type == f16 and p.name != "v.patch_embd.weight"]
        if fell:
            notes.append(
                f"{len(fell)} {tower} tensors are F16 instead of {kind.name}: "
                f"rows of {fell[0].source.shape[-1]} values are not whole blocks of 32"
            )
    return notes


def counter(progress: Progress | None, total: int) -> Report:
    done = 0

    def report(name: str, n: int) -> None:
        nonlocal done
        done = min(done + n, total)  # alignment padding is not counted in the total
        if progress is not None:
            progress(done, total, name)

    return report


def manifest(model: Family, name: str, files: Mapping[str, Written], config: ConvertConfig) -> str:
    """aim.json. Holds no paths and no times: the same checkpoint makes the same file."""
    types = {"model": config.text_type.lower(), "mmproj": config.vision_type.lower()}
    content = {
        "format": FORMAT,
        "converter": CONVERTER,
        "name": name,
        "architecture": model.name,
        "text_architecture": model.text.arch,
        "projector": model.projector,
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
