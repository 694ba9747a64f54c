"""A checkpoint through llama.cpp's own converter: for the families of families/upstream.py.

That converter is part of the package, as it is (native/installed.py says where), and runs in a process of its own
(upstream_worker.py). It writes f32, f16, bf16 and q8_0; weight types beyond are made of its files by quantize_text.py
and quantize_vision.py. Here: is everything there, what is to be run, and the way from its messages to our progress.
"""

import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from aim_local.child import ERROR, Child
from aim_local.native.installed import converter_folder
from aim_local.store import MMPROJ, MODEL

from .checkpoint import Checkpoint, section
from .errors import ConvertError, Unsupported, some
from .families import UpstreamFamily, check_fields, with_families
from .preprocess import image_processor, video_processor
from .progress import Meter
from .quantized import open_gguf
from .refusals import check_safetensors
from .requantise import requantised, through_type, written
from .templates import check_question, template_notes, written_notes
from .types import ORIGIN_KEY
from .vocab import Vocab, read_vocab
from .writer import Written

DIRECT = ("f32", "f16", "bf16", "q8_0")  # what upstream's converter writes itself
UNUSED = re.compile(r"rotary_emb\.inv_freq$|position_ids$|^mtp\.")  # buffers; layers that draft tokens
TABLE = "embed_tokens.weight"
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class TowerJob:
    """One file to write. `type`: of DIRECT."""

    kind: str  # "text" or "mmproj"
    architecture: str
    type: str
    path: str


@dataclass(frozen=True)
class Job:
    """What the child is told. `pre`: the word splitter, where upstream does not know it. `added`: (id, text, kind).

    `keys`: numbers of our own for the mmproj. `origin`: text of our own for both files, by its key.
    """

    source: str
    name: str
    towers: tuple[TowerJob, TowerJob]
    renames: Mapping[str, str]
    pre: str
    added: tuple[tuple[int, str, int], ...]
    keys: Mapping[str, int]
    origin: Mapping[str, str]


@dataclass(frozen=True)
class UpstreamWork:
    """A conversion that is planned. `kinds`: the types asked for, language and vision."""

    family: UpstreamFamily
    checkpoint: Checkpoint
    name: str
    kinds: tuple[str, str]
    text_class: str
    vocab: Vocab
    notes: tuple[str, ...] = ()

    @property
    def architecture(self) -> str:
        return self.family.name

    @property
    def through(self) -> tuple[str, str]:
        """The types that upstream's converter is to write; from the checkpoint's own, others are quantised."""
        own = through_type(self.checkpoint.tensors)
        text, vision = (kind if kind in DIRECT else own for kind in self.kinds)
        return text, vision

    @property
    def n_bytes(self) -> int:
        """The room that is needed, about: files on the way too. Exact sums come from the child."""
        n_values = sum(prod(ref.shape) for ref in self.checkpoint.tensors.values())
        return n_values * max(4 if kind == "f32" else 2 for kind in self.through)

    def write(self, stage: Path, meter: Meter) -> dict[str, Written]:
        """Both GGUF files, written into `stage`."""
        sizes: list[int] = []
        more = [kind != through for kind, through in zip(self.kinds, self.through, strict=True)]
        for message in run_converter(self.job(stage)):
            if "left" in message:
                self.check_left(message["left"])
            elif "sizes" in message:
                sizes = message["sizes"]
                meter.begin(sum(sizes) + sum(n for n, again in zip(sizes, more, strict=True) if again))
            else:
                meter.add(message["name"], message["more"])
        files = []
        for (path, kind), again, size in zip(self.paths(stage), more, sizes, strict=True):
            check_finite(path)
            files.append(requantised(path, kind, size, meter) if again else written(path))
        return dict(zip(("model", "mmproj"), files, strict=True))

    def check_left(self, names: list[str]) -> None:
        """Raises ConvertError for tensors that no tower takes: a left-over would be a part nobody runs."""
        left = [name for name in names if not UNUSED.search(name)]
        if left:
            raise ConvertError(
                f"the checkpoint has {len(left)} tensors that a {self.family.name} model does not know ({some(left)}); "
                "it is a variant this converter does not support"
            )

    def written_notes(self, files: Mapping[str, Written]) -> tuple[str, ...]:
        return written_notes(files["model"].path, files["mmproj"].path)

    def facts(self, files: Mapping[str, Written]) -> dict[str, str]:
        """What the manifest says of the model itself."""
        text, vision = (open_gguf(files[key].path, "a converted file").fields for key in ("model", "mmproj"))
        projector = vision.get("clip.projector_type") or vision["clip.vision.projector_type"]
        return {
            "text_architecture": str(text["general.architecture"].contents()),
            "projector": str(projector.contents()),
        }

    def paths(self, stage: Path) -> tuple[tuple[Path, str], tuple[Path, str]]:
        return (stage / MODEL, self.kinds[0]), (stage / MMPROJ, self.kinds[1])

    def job(self, stage: Path) -> Job:
        text, vision = self.through
        towers = (
            TowerJob("text", self.text_class, text, str(stage / MODEL)),
            TowerJob("mmproj", self.family.vision, vision, str(stage / MMPROJ)),
        )
        added = tuple((i, text, int(kind)) for i, (text, kind, _) in self.vocab.tokens.items() if kind in ADDED)
        pre = "" if self.vocab.pre == "default" else self.vocab.pre
        source, keys = str(self.checkpoint.folder.resolve()), own_keys(self.family, self.checkpoint)
        origin = {ORIGIN_KEY: self.checkpoint.origin}
        return Job(source, self.name, towers, self.family.renames, pre, added, keys, origin)


ADDED = (gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED)


def plan_upstream(family: UpstreamFamily, checkpoint: Checkpoint, name: str, kinds: tuple[str, str]) -> UpstreamWork:
    """The conversion of `checkpoint`, which is of `family`. Raises ConvertError where something is missing."""
    check_packages()
    try:
        text_class = family.text_class(checkpoint.config)
    except Unsupported as e:
        raise with_families(e) from e
    check_safetensors(checkpoint.folder)
    rows = [ref.shape[0] for key, ref in checkpoint.tensors.items() if key.endswith(TABLE) and len(ref.shape) == 2]
    if not rows:
        raise ConvertError(f"{checkpoint.folder} has no embedding table; download the missing weights")
    if family.sentencepiece and not (checkpoint.folder / "tokenizer.model").is_file():
        raise ConvertError(
            f"{checkpoint.folder} has no tokenizer.model, which a {family.title} model needs; "
            "copy it from the repository of the model it was made from"
        )
    check_question(checkpoint)
    vocab = read_vocab(checkpoint, "llama" if family.sentencepiece else "gpt2", max(rows))
    read_processors(checkpoint)
    check_fields(family.name, checkpoint, None)
    return UpstreamWork(family, checkpoint, name, kinds, text_class, vocab, template_notes(checkpoint))


def check_packages() -> None:
    """Raises ModuleNotFoundError for a package of the `convert` extra that upstream's converter needs."""
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)


def read_processors(checkpoint: Checkpoint) -> None:
    """Raises ConvertError for processors' files that are missing or cannot be read: the child would not name them."""
    for name in ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"):
        checkpoint.json(name)
    processor = checkpoint.json("processor_config.json")  # upstream reads both files, this one before the other
    image = checkpoint.json("preprocessor_config.json") | processor | section(processor, "image_processor")
    lacking = [key for key in ("image_mean", "image_std") if image.get(key) is None]
    if not image_processor(checkpoint, None):
        raise ConvertError(
            f"{checkpoint.folder} has no preprocessor_config.json, nor an image_processor in processor_config.json, "
            "which say how pictures are prepared; copy the file from the model's repository"
        )
    if lacking:
        raise ConvertError(
            f"{checkpoint.folder} has no {' and no '.join(lacking)} in its image processor (preprocessor_config.json "
            "or processor_config.json); copy the file from the model's repository"
        )


def own_keys(family: UpstreamFamily, checkpoint: Checkpoint) -> dict[str, int]:
    """The family's keys that the checkpoint has numbers for. Raises ConvertError for one that is none."""
    parts = {"image": image_processor(checkpoint, None), "video": video_processor(checkpoint)}
    parts["config"] = dict(checkpoint.config)
    found = {key: next((n for place in places if (n := number_at(parts, place)) is not None), None)
             for key, places in family.keys.items()}  # fmt: skip
    return {key: n for key, n in found.items() if n is not None}


def number_at(parts: Mapping[str, Any], place: str) -> int | None:
    """The whole number or flag at a place, None where it has none. Raises ConvertError for another value."""
    value: Any = parts
    place, is_word, word = place.partition("=")
    for step in place.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    if is_word:
        return int(value == word)
    if value is None:
        return None
    if not isinstance(value, int) or not 0 <= value < 1 << 31:
        raise ConvertError(f"{place} is {value!r} in the checkpoint; it must be a whole number from 0")
    return int(value)


def run_converter(job: Job) -> Iterator[dict[str, Any]]:
    """Runs the child to its end and gives its messages; it dies with us. Raises ConvertError."""
    folder = converter_folder()
    arguments = ["-m", f"{__package__}.upstream_worker"]
    with Child("llama.cpp's converter", arguments, env=ENVIRONMENT, modules=(folder, folder / "gguf-py")) as child:
        child.send(**asdict(job))
        while (message := child.receive()) is not None:
            if ERROR in message:
                raise converter_error(job, str(message[ERROR]))
            yield message
        if child.wait() != 0:
            raise converter_error(job, child.death())


def converter_error(job: Job, said: str) -> ConvertError:
    if "No space left on device" in said:
        return ConvertError("the disk filled up; nothing was left behind: free some space or write to another disk")
    return ConvertError(
        f"llama.cpp's converter cannot read {job.source} ({said}); check that its config.json, tokenizer and weights "
        "are those of one published model"
    )


def check_finite(path: Path) -> None:
    """F16 ends at 65504: a weight beyond it would have become infinite in silence."""
    for tensor in open_gguf(path, "a converted file").tensors:
        if tensor.tensor_type == gguf.GGMLQuantizationType.F16 and not np.isfinite(tensor.data).all():
            raise ConvertError(f"{tensor.name} has values that f16 cannot hold (beyond 65504, or NaN); use bf16 or f32")
