"""GGUF files of a folder: which is a language model and which a vision tower, by their heads and not by their names.

Knows folders, heads and the names of a split model's parts. Which model a name means: names.py.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import ModelError
from .gguf_header import MAGIC, read_architecture

CLIP = "clip"  # general.architecture of every mmproj
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)


def is_mmproj(path: Path) -> bool:
    """By its head; by its name where the head cannot be read."""
    return (read_architecture(path) or (CLIP if "mmproj" in path.name.lower() else "")) == CLIP


def only_model(folder: Path) -> Path:
    """The one language model of `folder`. Raises ModelError where there is none, or several."""
    found = [p for p in ggufs(folder) if not is_mmproj(p)]
    if len(found) == 1:
        return whole(found[0])
    if found:
        raise ModelError(f"{folder}: holds {len(found)} models ({_some(found)}); name one of the files")
    if (folder / "config.json").is_file():
        raise ModelError(
            f"{folder}: is a checkpoint that is not converted; run `aim-local convert {folder} --out DIR` first"
        )
    raise ModelError(
        f"{folder}: is no model folder, it holds no language GGUF; name a folder written by `aim-local convert`"
    )


def mmproj_beside(folder: Path) -> Path | None:
    """The mmproj in `folder`; None where there is none, ModelError where it would be a guess."""
    found = [p for p in ggufs(folder) if is_mmproj(p)]
    if len(found) > 1:
        raise ModelError(f"{folder}: holds {len(found)} vision towers ({_some(found)}); name one with mmproj=FILE")
    return found[0] if found else None


def ggufs(folder: Path) -> list[Path]:
    """GGUF files of `folder`, whatever their ending; of a split model the first part only. Raises ModelError."""
    try:
        found = sorted(p for p in folder.iterdir() if not p.name.startswith(".") and _is_gguf(p))
    except OSError as e:
        raise ModelError(f"{folder}: cannot be read ({e.strerror}); check its permissions") from e
    shards = {p: _SHARD.search(p.name) for p in found}
    return [p for p, shard in shards.items() if shard is None or int(shard[1]) == 1]


def _is_gguf(path: Path) -> bool:
    if not path.is_file():
        return False
    if path.suffix.lower() == ".gguf":  # a damaged one is told when it is read
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) == MAGIC
    except OSError:  # somebody else's file in that folder
        return False


def parts(path: Path) -> list[Path]:
    """All files of a model: itself, or the parts of a split one of which it is the first."""
    shard = _SHARD.search(path.name)
    if shard is None:
        return [path]
    stem, n = path.name[: shard.start()], int(shard[2])
    return [path.with_name(f"{stem}-{i:05}-of-{n:05}{path.suffix}") for i in range(1, n + 1)]


def whole(path: Path) -> Path:
    """`path`, the first file of a model whose parts are all there. Raises ModelError."""
    shard = _SHARD.search(path.name)
    if shard and int(shard[1]) != 1:
        raise ModelError(f"{path}: is part {int(shard[1])} of {int(shard[2])}; name {parts(path)[0].name} instead")
    for part in parts(path):
        if not part.exists():
            raise ModelError(f"{path}: its part {part.name} is missing; download it again into the same folder")
    return path


def _some(paths: list[Path]) -> str:
    return ", ".join(p.name for p in paths[:3]) + (" ..." if len(paths) > 3 else "")
