"""Models that came from the hub: a small file in the store says which, and where their files lie in the hub's cache.

Knows that file (hub.json), and the cache's layout as far as a path in it goes. Fetches nothing: hub/ does.
The cache's layout: the guide "Understand caching" of huggingface-hub.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from ..errors import ModelError
from ..visible import is_visible
from .files import replaced
from .foreign_names import fault_of
from .plain_json import read_object

ORIGIN = "hub.json"
_FORMAT = 1
_MAX_PART, _MAX_PATH = 255, 4000  # bytes
_TEXTS = ("repo", "revision", "quant", "cache", "model", "mmproj")


@dataclass(frozen=True)
class Origin:
    """Where a model came from.

    cache: the repository's folder in the hub's cache; files: names in the repository of all that was fetched.
    model, mmproj: the pair among them; both "" where the model folder holds what was converted from them.
    default: whether the quantisation was chosen for want of a wish.
    """

    repo: str
    revision: str
    quant: str
    default: bool
    cache: str
    files: tuple[str, ...]
    model: str = ""
    mmproj: str = ""

    @property
    def snapshot(self) -> Path:
        return Path(self.cache) / "snapshots" / self.revision

    @property
    def is_pair(self) -> bool:
        return bool(self.model)

    def file(self, name: str) -> Path:
        return self.snapshot.joinpath(*PurePosixPath(name).parts)

    @property
    def text(self) -> str:
        return f"{self.repo}:{self.quant}" if self.quant else self.repo


def write_origin(folder: Path, origin: Origin) -> None:
    """Raises OSError."""
    with replaced(folder / ORIGIN) as partial:
        partial.write_text(json.dumps({"format": _FORMAT, **asdict(origin)}, indent=2) + "\n", encoding="utf-8")


def read_origin(folder: Path) -> Origin | None:
    """None for a model that did not come from the hub. Raises ModelError for a damaged file."""
    path = folder / ORIGIN
    if not path.is_file():
        return None
    try:
        return _checked(read_object(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise ModelError(
            f"{path}: cannot be read ({e}); remove it with `aim-local models rm {folder.name}` and pull it again"
        ) from e


def _checked(found: dict[str, object]) -> Origin:
    """The origin that hub.json tells. Anybody can have written that file. Raises ValueError, KeyError, TypeError."""
    if found.pop("format", None) != _FORMAT:
        raise ValueError(f"it is not of format {_FORMAT}")
    texts = {key: _text(found.pop(key, ""), key) for key in _TEXTS}
    files, default = found.pop("files", None), found.pop("default", None)
    if not isinstance(files, list) or not isinstance(default, bool):
        raise ValueError("files must be a list and default true or false")
    if found:
        raise ValueError(f"it has {', '.join(map(ascii, found))}, which means nothing")
    origin = Origin(files=tuple(_text(name, "files") for name in files), default=default, **texts)
    pair = [name for name in (origin.model, origin.mmproj) if name]
    if len(pair) == 1 or not set(pair) <= set(origin.files):
        raise ValueError("model and mmproj must both be among its files")
    faults = [fault for name in origin.files if (fault := fault_of(name))]
    if faults:
        raise ValueError(f"it names a file that {faults[0]}")
    if fault_of(origin.revision) or "/" in origin.revision:
        raise ValueError(f"{origin.revision!r} is no revision")
    if not _is_cache_of(origin.repo, Path(origin.cache)):
        raise ValueError(f"{origin.cache!r} is not the folder of {origin.repo!r} in a hub's cache")
    if any(map(_is_too_long, (origin.snapshot, *map(origin.file, origin.files)))):
        raise ValueError("it names a path that is longer than file systems have them")
    return origin


def _text(value: object, key: str) -> str:
    if not isinstance(value, str) or not is_visible(value):
        raise ValueError(f"{key} is {value!a:.60}, not a text of visible characters")
    return value


def _is_too_long(path: Path) -> bool:
    """Where asking whether it is there would be an OSError on Linux, macOS or Windows."""
    parts = [len(os.fsencode(part)) for part in path.parts]
    return max(parts) > _MAX_PART or sum(parts) + len(parts) > _MAX_PATH


def _is_cache_of(repo: str, cache: Path) -> bool:
    """By its name: the hub library calls a repository's folder models--OWNER--NAME."""
    is_repo = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo) is not None
    return is_repo and cache.is_absolute() and cache.name.lower() == f"models--{repo.replace('/', '--')}".lower()
