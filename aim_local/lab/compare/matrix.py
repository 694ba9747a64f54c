"""The cells of a comparison: models x settings, which of them is the reference, and what makes no sense together.

Pure but for the heads of the model files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...config import LoadConfig
from ...errors import ModelError, UsageError
from ...settings import parse_setting, refine_load
from ...store.gguf_header import array_sha256
from .records import CellSpec
from .variants import Variant

TOKENS = "tokenizer.ggml.tokens"


@dataclass(frozen=True)
class Cell:
    """A cell before it runs. problem: why it cannot, "" if it can."""

    spec: CellSpec
    problem: str = ""


def matrix(variants: Sequence[Variant], settings: Sequence[str]) -> list[Cell]:
    """Model by model, setting by setting."""
    return [Cell(CellSpec(v.label, s, v.model, v.mmproj, v.load), v.problem) for v in variants for s in settings]


def check_matrix(variants: Sequence[Variant], settings: Sequence[str]) -> None:
    """Raises UsageError for an unknown setting and for cells that are one and the same."""
    if not settings:
        raise UsageError("no setting was given; give one or more, such as off,paper")
    seen: dict[str, str] = {}
    for text in settings:
        meaning = repr(parse_setting(text))
        if meaning in seen:
            label, other = variants[0].label, seen[meaning]
            raise UsageError(f"cells {label} / {other} and {label} / {text} are the same; drop one")
        seen[meaning] = text


def check_loads(loads: Sequence[str], load: LoadConfig) -> None:
    """Raises UsageError for unknown load options, and for two changes that load alike."""
    seen: dict[LoadConfig, str] = {}
    for text in loads:
        changed = refine_load(load, text)
        if changed in seen:
            raise UsageError(f"load options {seen[changed]!r} and {text!r} are the same; drop one")
        seen[changed] = text


def find_reference(variants: Sequence[Variant], settings: Sequence[str], wanted: str | None) -> str:
    """The reference cell's key. Raises UsageError for one that is not in the matrix."""
    keys = [cell.spec.key for cell in matrix(variants, settings)]
    if wanted is None:
        return f"{variants[0].label} / {'off' if 'off' in settings else settings[0]}"
    if wanted not in keys:
        shown = ", ".join(keys[:6]) + (" ..." if len(keys) > 6 else "")
        raise UsageError(f"the reference {wanted!r} is no cell of this comparison; cells are {shown}")
    return wanted


def others(cells: Sequence[Cell], reference: str) -> set[str]:
    """Keys of the cells whose vocabulary is not the reference's: next-token distributions cannot be compared there.

    A file that cannot be read fails later, with its reason.
    """
    known: dict[Path, str] = {}
    for path in dict.fromkeys(cell.spec.model_path for cell in cells if not cell.problem):
        with contextlib.suppress(ModelError):
            known[path] = array_sha256(path, TOKENS)
    own = {cell.spec.key: known.get(cell.spec.model_path, "") for cell in cells}
    return {key for key, words in own.items() if words and own[reference] and words != own[reference]}
