"""Models of real shapes with random weights: speed and memory depend on shapes and types, not on the values.

Knows sizes and their text form, and hands them to the converter's own plans, so that a random file has the names, types
and keys of a converted one. Where the files live is cache.py's business, what the bytes are weights.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ...reduction.planner import TextShape, VisionShape
from .weights import write_gguf

N_CTX = 131072  # of the random models: costs nothing, and 192 unreduced frames are 37,633 tokens
BYTE_TOKENS = 256  # the random vocabulary: a token per byte, one merge, the chat's special tokens, padding
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_FORM = "NAME or layers=24,embd=896,ff=4864,heads=14,kv=2, then changes such as vlayers=2"


# names in a custom shape, and the fields they set
TEXT_KEYS = {
    "layers": "n_layer",
    "embd": "n_embd",
    "ff": "n_ff",
    "heads": "n_head",
    "kv": "n_head_kv",
    "vocab": "n_vocab",
}
VISION_KEYS = {
    "vlayers": "n_layer",
    "vembd": "n_embd",
    "vff": "n_ff",
    "vheads": "n_head",
    "image": "image_size",
    "patch": "patch_size",
}


@dataclass(frozen=True)
class VisionSize:
    """A vision tower. Defaults: the published video models' tower, a so400m of 384 pixels, 196 tokens a frame."""

    n_layer: int = 26
    n_embd: int = 1152
    n_ff: int = 4304
    n_head: int = 16
    image_size: int = 384
    patch_size: int = 14

    @property
    def patches_per_side(self) -> int:
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class RandomShape:
    """A video model: a text tower and a vision tower. Raises UsageError for sizes that cannot be."""

    name: str
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    n_vocab: int = 151936
    tied: bool = True
    vision: VisionSize = VisionSize()

    def __post_init__(self) -> None:
        sizes = {**_plain(self, TEXT_KEYS), **_plain(self.vision, VISION_KEYS)}
        for key, value in sizes.items():
            if value < 1:
                raise UsageError(f"shape {self.name!r}: {key} is {value}; give a whole number above 0")
        for what, whole, parts in (
            ("embd in heads", self.n_embd, 2 * self.n_head),  # rotary positions turn pairs
            ("heads in kv", self.n_head, self.n_head_kv),
            ("vembd in vheads", self.vision.n_embd, self.vision.n_head),
        ):
            if whole % parts:
                raise UsageError(f"shape {self.name!r}: {what} does not divide ({whole} by {parts}); change one")
        if self.n_vocab < BYTE_TOKENS + 1 + len(SPECIAL):
            raise UsageError(f"shape {self.name!r}: vocab is {self.n_vocab}; give {BYTE_TOKENS + 1 + len(SPECIAL)} up")
        if self.vision.image_size < self.vision.patch_size:
            raise UsageError(f"shape {self.name!r}: the image is smaller than a patch; change image or patch")

    @property
    def text_shape(self) -> TextShape:
        d_head = self.n_embd // self.n_head
        return TextShape(self.n_layer, self.n_embd, self.n_ff, self.n_head, self.n_head_kv, self.n_vocab, d_head)

    @property
    def vision_shape(self) -> VisionShape:
        v = self.vision
        return VisionShape(
            v.n_layer, v.n_embd, v.n_ff, v.n_head, v.patches_per_side**2, v.patch_size, n_embd_text=self.n_embd
        )


def _plain(item: Any, keys: Mapping[str, str]) -> dict[str, int]:
    return {key: int(getattr(item, field)) for key, field in keys.items()}


SHAPES = {
    "0.5b": RandomShape("0.5b", 24, 896, 4864, 14, 2),
    "7b": RandomShape("7b", 28, 3584, 18944, 28, 4, n_vocab=152064, tied=False),
}


def parse_shape(text: str) -> RandomShape:
    """A shape from its name, from sizes, or from a name with changes: "0.5b,vlayers=2". Raises UsageError."""
    first, comma, rest = text.strip().partition(",")
    if "=" in first:
        return _custom(text, _numbers(text, text))
    if first not in SHAPES:
        raise UsageError(f"shape {text!r} is unknown; give {', '.join(SHAPES)}, or sizes: {_FORM}")
    return _changed(replace(SHAPES[first], name=text.strip()), _numbers(rest, text) if comma else {})


def _custom(text: str, numbers: dict[str, int]) -> RandomShape:
    missing = [key for key in ("layers", "embd", "ff", "heads") if key not in numbers]
    if missing:
        raise UsageError(f"shape {text!r} lacks {', '.join(missing)}; the form is {_FORM}")
    base = RandomShape(text.strip(), 1, 2 * numbers["heads"], 1, numbers["heads"], numbers["heads"])
    return _changed(base, numbers)


def _changed(shape: RandomShape, numbers: dict[str, int]) -> RandomShape:
    vision = {VISION_KEYS[key]: n for key, n in numbers.items() if key in VISION_KEYS}
    own: dict[str, Any] = {TEXT_KEYS[key]: n for key, n in numbers.items() if key in TEXT_KEYS}
    return replace(shape, **own, vision=replace(shape.vision, **vision))


def _numbers(text: str, whole: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key not in TEXT_KEYS | VISION_KEYS or not value.isascii() or not value.isdigit() or key in found:
            keys = ", ".join(TEXT_KEYS | VISION_KEYS)
            raise UsageError(f"shape {whole!r}: {part!r} is no size; the form is {_FORM}, the sizes are {keys}")
        found[key] = int(value)
    for key in ("heads", "vheads"):
        if found.get(key) == 0:
            raise UsageError(f"shape {whole!r}: {key} is 0; give a whole number above 0")
    return found


# --- files -----------------------------------------------------------------------------------------------------------


def text_plan(shape: RandomShape, type_name: str) -> list[Any]:
    """The text tower's tensors as the converter plans them: names, shapes, types, bytes."""
    from aim_local.convert.text import plan_text, text_needs
    from aim_local.convert.types import parse_type

    spec = _text_spec(shape)
    return list(plan_text(spec, _refs(text_needs(spec)), parse_type(type_name, "text type")))


def vision_plan(shape: RandomShape, type_name: str) -> list[Any]:
    """As text_plan, of vision tower and projector."""
    from aim_local.convert.types import parse_type
    from aim_local.convert.vision import plan_vision

    model = _model(shape)
    refs = _refs(need for need, _ in model.vision_needs())
    return list(plan_vision(model, refs, parse_type(type_name, "vision type")))


def write_text_gguf(
    shape: RandomShape, path: Path, type_name: str = "q4_0", report: Callable[[int], None] | None = None
) -> None:
    """A text tower with random weights, 4.8 GB for "7b" at q4_0. report: bytes just written."""
    from aim_local.convert.text import text_metadata
    from aim_local.convert.types import parse_type
    from aim_local.convert.vocab import vocab_metadata

    spec = _text_spec(shape)

    def keys(writer: Any) -> None:
        text_metadata(writer, spec, f"random {shape.name}", parse_type(type_name, "text type"))
        vocab_metadata(writer, byte_vocab(), shape.n_vocab)

    write_gguf(path, spec.arch, keys, text_plan(shape, type_name), report)


def write_vision_gguf(
    shape: RandomShape, path: Path, type_name: str = "f16", report: Callable[[int], None] | None = None
) -> None:
    """A mmproj with random weights for the text tower of the same shape."""
    from aim_local.convert.types import MMPROJ_ARCH, parse_type
    from aim_local.convert.vision import vision_metadata

    def keys(writer: Any) -> None:
        vision_metadata(writer, _model(shape), f"random {shape.name}", parse_type(type_name, "vision type"))

    write_gguf(path, MMPROJ_ARCH, keys, vision_plan(shape, type_name), report)


def _text_spec(shape: RandomShape) -> Any:
    """The text tower as the converter describes one that it read."""
    from aim_local.convert.text import Rope, TextSpec

    return TextSpec(
        "qwen2", shape.n_vocab, shape.n_embd, shape.n_ff, shape.n_layer, shape.n_head, shape.n_head_kv,
        shape.n_embd // shape.n_head, n_ctx=N_CTX, rms_eps=1e-6, rope=Rope(1e6), tied=shape.tied,
        qkv_bias=True, o_bias=False, mlp_bias=False,
    )  # fmt: skip


def _model(shape: RandomShape) -> Any:
    """The shape as a model that the converter has read."""
    from aim_local.convert.families import plain_model

    return plain_model(_text_spec(shape), **_plain(shape.vision, {field: field for field in VISION_KEYS.values()}))


def _refs(needs: Any) -> dict[str, Any]:
    """Each need as a tensor of a checkpoint that is never read."""
    from aim_local.convert.checkpoint import TensorRef

    return {need.name: TensorRef(need.name, Path(), 0, "F32", need.shape) for need in needs}


def byte_vocab() -> Any:
    """A token per byte, so that a prompt of n ASCII characters is n tokens."""
    from gguf import TokenType

    from aim_local.convert.vocab import Vocab

    alphabet = byte_alphabet()
    pair = alphabet[-1] * 2  # llama.cpp wants a merge; these two bytes never meet in UTF-8
    texts = [*alphabet, pair]
    tokens = {i: (text, TokenType.NORMAL, 0.0) for i, text in enumerate(texts)}
    tokens |= {len(texts) + i: (text, TokenType.CONTROL, 0.0) for i, text in enumerate(SPECIAL)}
    ids = {"eos": len(texts) + 2, "pad": len(texts)}
    return Vocab("gpt2", "qwen2", tokens, [f"{alphabet[-1]} {alphabet[-1]}"], special_ids=ids)


def byte_alphabet() -> list[str]:
    """How byte-level BPE writes each byte: itself where it prints, else the next character from 256 on (GPT-2)."""
    prints = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in prints]
    return [chr(b) if b in prints else chr(256 + hidden.index(b)) for b in range(256)]
