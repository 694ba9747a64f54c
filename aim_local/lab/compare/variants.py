"""The models of a comparison: files as they are, and quantised copies of either tower, under short unique labels.

Planning reads nothing but heads; `make` writes what is missing. The quantising itself is in convert/.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ... import store
from ...errors import AimError, ModelError, UsageError
from ...store.gguf_header import read_header

if TYPE_CHECKING:
    from .workspace import Workspace

Progress = Callable[[int, int, str], None]  # tensors done, in all, what


@dataclass(frozen=True)
class Variant:
    """A model to compare. type, vision_type: what the towers become, None for what they are.

    load: changes of the load options (settings.refine_load), "" for none.

    model, mmproj: the files; of a tower that is quantised the source, until `make` has written the copy.
    problem: why it cannot be had, "" if it can.
    """

    label: str
    model: Path
    mmproj: Path | None
    type: str | None = None
    vision_type: str | None = None
    problem: str = ""
    load: str = ""


def plan_variants(
    models: Sequence[str | Path], types: Sequence[str], vision_types: Sequence[str], loads: Sequence[str] = ()
) -> list[Variant]:
    """Every model in every type of either tower, loaded in every way; no types means the files as they are.

    loads: changes of the load options, none for one way. Raises ModelError for an unknown model, UsageError for unknown
    types and for a model given twice.
    """
    check_types(types, vision_types)
    paths = [store.resolve(model) for model in models] if models else [store.resolve()]
    labels = unique_labels(paths)
    return [
        Variant(" ".join([label, *_words(kind, vision, load)]), path.model, path.mmproj, kind, vision, load=load)
        for label, path in zip(labels, paths, strict=True)
        for kind in (_lower(types) or [None])
        for vision in (_lower(vision_types) or [None])
        for load in (loads or [""])
    ]


def _lower(types: Sequence[str]) -> list[str | None]:
    return [kind.lower() for kind in types]


def _words(kind: str | None, vision: str | None, load: str) -> list[str]:
    return [word for word in (kind, f"vision-{vision}" if vision else None, load) if word]


def check_types(types: Sequence[str], vision_types: Sequence[str]) -> None:
    """Raises UsageError for a type that is unknown or given twice."""
    if not types and not vision_types:
        return  # the converter is not loaded for nothing
    from ...convert import QUANTIZE_TYPES, WEIGHT_TYPES

    for option, given, known in (
        ("types", types, [*QUANTIZE_TYPES, "f32"]),
        ("vision_types", vision_types, WEIGHT_TYPES),
    ):
        for kind, n in Counter(_lower(given)).items():
            if kind not in known:
                raise UsageError(f"{option} names {kind!r}, which is unknown; allowed are {', '.join(known)}")
            if n > 1:
                raise UsageError(f"{option} names {kind} twice; drop one")


def unique_labels(paths: Sequence[store.ModelPaths]) -> list[str]:
    """Names; where two models have one name, with as many of their folders as tell them apart."""
    seen: set[tuple[Path, Path | None]] = set()
    for path in paths:
        files = (path.model.resolve(), path.mmproj.resolve() if path.mmproj else None)
        if files in seen:
            raise UsageError(f"model {path.name} is given twice; drop one")
        seen.add(files)
    labels, depth = [path.name for path in paths], 0
    while len(set(labels)) < len(labels) and depth < 16:
        counts, depth = Counter(labels), depth + 1
        labels = [
            _longer(path, depth) if counts[label] > 1 else label for label, path in zip(labels, paths, strict=True)
        ]
    return labels


def _longer(path: store.ModelPaths, depth: int) -> str:
    """The name behind `depth` folders; a name that is its folder's is not said twice."""
    folders = list(path.model.resolve().parent.parts)
    if folders and folders[-1] == path.name:
        folders.pop()
    return "/".join([*folders[-depth:], path.name])


def make(variant: Variant, space: Workspace, progress: Progress | None = None) -> Variant:
    """The variant with its own files, quantised into the workspace where that was not done before.

    What cannot be made becomes the variant's problem.
    """
    try:
        model = _language(variant, space, progress)
        return replace(variant, model=model, mmproj=_vision(variant, space, progress))
    except (AimError, OSError, ModuleNotFoundError) as e:
        return replace(variant, problem=" ".join(str(e).split()))


def _language(variant: Variant, space: Workspace, progress: Progress | None) -> Path:
    if variant.type is None or _is_type(variant.model, variant.type):
        return variant.model
    from ...convert import quantize

    target = _target(space, variant.model, variant.type)
    if not target.exists():
        quantize(variant.model, target, variant.type, _named(progress, variant.label))
    return target


def _vision(variant: Variant, space: Workspace, progress: Progress | None) -> Path | None:
    if variant.vision_type is None:
        return variant.mmproj
    if variant.mmproj is None:
        raise ModelError(f"{variant.model} has no mmproj beside it to make {variant.vision_type} of")
    if _is_type(variant.mmproj, variant.vision_type):
        return variant.mmproj
    from ...convert import quantize_vision

    target = _target(space, variant.mmproj, variant.vision_type)
    if not target.exists():
        quantize_vision(variant.mmproj, target, variant.vision_type, _named(progress, variant.label))
    return target


def _is_type(path: Path, kind: str) -> bool:
    return read_header(path).file_type.lower() == kind


def _target(space: Workspace, source: Path, kind: str) -> Path:
    """A name that says what it was made from: other bytes are another file."""
    space.models.mkdir(parents=True, exist_ok=True)
    return space.models / f"{source.stem}-{space.sha256(source)[:12]}-{kind}.gguf"


def _named(progress: Progress | None, label: str) -> Progress | None:
    if progress is None:
        return None
    report = progress
    return lambda done, total, _name: report(done, total, label)
