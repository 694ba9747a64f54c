"""A checkpoint through our own converter: for the families that have a file in families/.

Is everything there, what is written, and the writing of it. Each step has its own file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np

from aim_local.store import MMPROJ, MODEL

from .checkpoint import Checkpoint, TensorRef
from .errors import ConvertError, some
from .families import Family, read_model
from .names import sanitize_all
from .plan import Planned
from .progress import Meter
from .requantise import requantised, through_type
from .templates import around, read_template
from .text import plan_text, text_metadata
from .types import MMPROJ_ARCH, ORIGIN_KEY, WEIGHT_TYPES, is_quantized
from .vision import is_unused_layer, plan_vision, vision_metadata
from .vocab import Vocab, read_vocab, vocab_metadata
from .writer import Report, Written, write_gguf


@dataclass(frozen=True)
class OwnWork:
    """Everything a conversion writes, known before the first byte is.

    `kinds`: types of text and vision as they are written; `text_type`: what the language tower is to have at last.
    """

    model: Family
    name: str
    origin: str
    vocab: Vocab
    template: str
    text: list[Planned]
    vision: list[Planned]
    kinds: tuple[gguf.GGMLQuantizationType, gguf.GGMLQuantizationType]
    text_type: str
    notes: tuple[str, ...]

    @property
    def architecture(self) -> str:
        return self.model.name

    @property
    def sizes(self) -> list[int]:
        """Bytes of both files' tensors, without keys and padding."""
        return [sum(p.n_bytes for p in part) for part in (self.text, self.vision)]

    @property
    def quantises(self) -> bool:
        return self.text_type not in WEIGHT_TYPES

    @property
    def n_bytes(self) -> int:
        """The room that is needed: for a file on the way too."""
        return sum(self.sizes) + self.quantises * self.sizes[0]

    def write(self, stage: Path, meter: Meter) -> dict[str, Written]:
        """Both GGUF files, written into `stage`."""
        meter.begin(self.n_bytes)
        files = write_files(stage, self, meter.add)
        if self.quantises:
            files["model"] = requantised(files["model"].path, self.text_type, self.sizes[0], meter)
        return files

    def written_notes(self, files: Mapping[str, Written]) -> tuple[str, ...]:
        """All is known before."""
        return ()

    def facts(self, files: Mapping[str, Written]) -> dict[str, str]:
        """What the manifest says of the model itself."""
        return {"text_architecture": self.model.text.arch, "projector": self.model.projector}


def plan_own(checkpoint: Checkpoint, tower: Checkpoint | None, name: str, text_type: str, vision_type: str) -> OwnWork:
    """What the conversion of `checkpoint` will write. Reads headers and small files; raises ConvertError."""
    # 1. what is it?
    model = read_model(checkpoint, tower)
    # 2. is everything there?
    tensors = gather(checkpoint, tower, model)
    model = fit_head(fit_vocab(model, tensors), tensors)
    written = text_type if text_type in WEIGHT_TYPES else through_type(checkpoint.tensors)
    kinds = WEIGHT_TYPES[written], WEIGHT_TYPES[vision_type]
    text = plan_text(model.text, tensors, kinds[0])
    vision = plan_vision(model, tensors, kinds[1])
    check_unused(tensors, text + vision, model)
    vocab = read_vocab(checkpoint, model.text.arch, model.text.vocab_size)
    # 3. what to write and to say of it
    given = around(vocab, model.image_token, model.video_token)
    template, about_template = read_template(checkpoint, model.chat_template, given)
    notes = [*tower_notes(checkpoint, tower), *vocab.notes, *about_template, *model_notes(model)]
    notes += [*model.notes(), *fallback_notes(text, vision, kinds)]
    return OwnWork(model, name, checkpoint.origin, vocab, template, text, vision, kinds, text_type, tuple(notes))


def write_files(stage: Path, work: OwnWork, report: Report) -> dict[str, Written]:
    """Both GGUF files, written into `stage`."""

    def text_keys(writer: gguf.GGUFWriter) -> None:
        text_metadata(writer, work.model.text, work.name, work.kinds[0])
        vocab_metadata(writer, work.vocab, work.model.text.vocab_size)
        writer.add_chat_template(work.template)
        writer.add_string(ORIGIN_KEY, work.origin)

    def vision_keys(writer: gguf.GGUFWriter) -> None:
        vision_metadata(writer, work.model, work.name, work.kinds[1])
        writer.add_string(ORIGIN_KEY, work.origin)

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
            "download that and pass its folder as vision_tower"
        )
    found = {n: ref for n, ref in sanitize_all(tower.tensors, tower=True).items() if n.startswith("vision.")}
    if not found:
        raise ConvertError(
            f"vision_tower {tower.folder} holds no vision tower; "
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
    return ["the checkpoint carries its vision tower: vision_tower's weights were not used"] if own and tower else []


def model_notes(model: Family) -> list[str]:
    notes = []
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
