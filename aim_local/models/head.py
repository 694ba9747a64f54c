"""What heads of both halves of a model are checked with: rules for values, types of weights, biases; and what is said.

The loaders of llama.cpp end the process at a value of another kind, and compute with any number, so a damaged head is
refused before it gets there. Which keys there are: tower_head.py for a mmproj, text_head.py for a language model.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ..errors import ModelError
from ..store.gguf_header import ArrayInfo, GgufHeader, type_name

CURE = "The file is damaged: download or convert it again"
_NEWER = "Update aim-local, or convert the model again"
_F32, _NO_WEIGHTS = 0, (24, 25, 26, 27, 28)  # enum ggml_type: I8 to I64 and F64 are no types of weights
_COPIED = ("newline", "class_embd", "separator")  # rows that become rows of the prompt themselves
LAYER = re.compile(r"((?:[av]\.)?blk\.)(\d+)(\..+)")  # a tensor of a layer: what stands around its number
TOWER_LAYERS = "v.blk."
SCALES = re.compile(r"\.(l[ns]\d|\w*norm|\w*_ln)\.(weight|bias)")  # one value for each that they are multiplied with
BIAS_OF_PATCHES = "v.patch_embd.bias"
_MOST = (1 << 31) - 1  # llama.cpp keeps every number in an int
WHOLE = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "bool")
MANY = tuple(f"array of {kind}" for kind in WHOLE)


@dataclass(frozen=True)
class Rule:
    """kinds: as the file may keep the value; least, most: of a number, of each where there are several.

    length: of an array, 0 for any. words: of a text, () for any. zero: 0 is allowed as well, for "none".
    """

    kinds: tuple[str, ...]
    least: float = 0
    most: float = _MOST
    length: int = 0
    words: tuple[str, ...] = ()
    zero: bool = False

    @property
    def allowed(self) -> str:
        """In words."""
        if self.words:
            return " or ".join(map(repr, self.words))
        if self.kinds[0].endswith(("text", "bool")):
            return self.kinds[0]
        name = "a whole number" if self.kinds == WHOLE else " or ".join(self.kinds)
        if len(self.kinds) > len(WHOLE):
            name = "a whole number, or one for each layer"
        elif self.kinds == MANY:
            name = "whole numbers"
        count = f"{self.length} of " if self.length else ""
        none = "0, or " if self.zero else ""
        return f"{name}, {none}{count}{self.least:g} to {self.most:g}"

    def fits(self, kind: str, value: Any) -> bool:
        if kind not in self.kinds:
            return False
        if kind.endswith("text"):
            return not self.words or value in self.words
        if isinstance(value, ArrayInfo):  # of so many numbers that they were not kept
            return False
        values = value if isinstance(value, tuple) else (value,)
        right = len(values) == self.length or not self.length
        return right and all(
            math.isfinite(v) and (self.least <= v <= self.most or (self.zero and v == 0)) for v in values
        )


TEXT, BOOL = Rule(("text",)), Rule(("bool",))


def check_rules(header: GgufHeader, rules: Mapping[str, Rule]) -> None:
    """Raises ModelError for the first value that its key's rule does not allow."""
    for key, value in header.metadata.items():
        rule = rules.get(key)
        if rule is None and key.startswith("aim."):
            raise damaged(header, key, "this version of aim-local knows no such key", _NEWER)
        if rule is not None and not rule.fits(header.kinds[key], value):
            raise damaged(header, key, f"it has to be {rule.allowed}")


def check_types(header: GgufHeader) -> None:
    """Weights of types that the graphs compute with. Raises ModelError.

    What is added to rows or multiplied with them is float32 (ggml-cpu/binary-ops.cpp), as all converters write it.
    """
    for tensor in header.tensors:
        is_row = len(tensor.shape) == 1 and not any(word in tensor.name for word in _COPIED)
        wanted = "F32" if is_row else "a type of floating point" if tensor.type in _NO_WEIGHTS else ""
        if wanted and tensor.type != _F32 and "tid2eid" not in tensor.name:  # a table of whole numbers
            raise damaged_tensor(header, tensor.name, f"is of type {type_name(tensor.type)}; it has to be {wanted}")


def check_biases(header: GgufHeader) -> None:
    """A bias has one number for each that its weight makes, and all layers have it or none. Raises ModelError.

    Both loaders take most biases as they come: one that is missing, or short, changes answers without a word.
    """
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    places = defaultdict[tuple[str, str], set[int]](set)  # layers that have it, by what stands around their number
    for name, shape in shapes.items():
        weight = shapes.get(f"{name.removesuffix('.bias')}.weight", ()) if name.endswith(".bias") else ()
        has_rows = 1 <= len(weight) <= 2 or name == BIAS_OF_PATCHES
        if weight and has_rows and prod(shape) != weight[-1]:
            raise damaged_tensor(header, name, f"has {prod(shape)} values, and its weight makes {weight[-1]}")
        layer = LAYER.fullmatch(name)
        if layer:
            places[layer[1], layer[3]].add(int(layer[2]))
    for (begin, end), layers in places.items():
        weights = places.get((begin, f"{end.removesuffix('.bias')}.weight"), layers)
        if begin == TOWER_LAYERS and SCALES.fullmatch(end):
            weights = places.get((begin, ".attn_out.weight"), layers)
        if (end.endswith(".bias") or SCALES.fullmatch(end)) and weights - layers:
            missing = min(weights - layers)
            raise damaged_tensor(header, f"{begin}{missing}{end}", "is missing, and other layers have it")


def check_together(header: GgufHeader, begin: str, parts: Sequence[str], *, needed: bool = False) -> None:
    """The parts of a layer that are there have a bias all, or none of them. Raises ModelError.

    begin: of the layers' names, "blk." or "v.blk.". needed: they have one all.
    """
    names = {tensor.name for tensor in header.tensors}
    layers = {(m[1], m[2]) for m in map(LAYER.fullmatch, names) if m and m[1] == begin}
    for start, number in sorted(layers, key=lambda layer: int(layer[1])):
        weights = [f"{start}{number}.{part}" for part in parts if f"{start}{number}.{part}.weight" in names]
        missing = [name for name in weights if f"{name}.bias" not in names]
        if missing and (needed or len(missing) < len(weights)):
            why = "models of its kind have it" if needed else "parts like it have one"
            raise damaged_tensor(header, f"{missing[0]}.bias", f"is missing, and {why}")


def projector_of(header: GgufHeader) -> str:
    values = header.metadata
    return str(values.get("clip.projector_type") or values.get("clip.vision.projector_type", ""))


def damaged_tensor(header: GgufHeader, name: str, what: str) -> ModelError:
    return ModelError(f"{header.path}: the tensor {name!a} {what}. {CURE}")


def damaged(header: GgufHeader, key: str, needed: str, cure: str = CURE) -> ModelError:
    """What to raise for the value of a key. needed: what is allowed, such as "it has to be text"; cure: what to do."""
    shown = "missing"
    if key in header.metadata:
        value = header.metadata[key]
        shown = f"an array of {value.length}" if isinstance(value, ArrayInfo) else repr(value)
        shown = f"{shown if len(shown) <= 80 else f'{shown[:77]}...'} ({header.kinds[key]})"
    named = key if key.isprintable() else ascii(key)
    return ModelError(f"{header.path}: {named} is {shown}; {needed}. {cure}")
