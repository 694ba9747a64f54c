"""Models that came from the hub: a small file in the store says which, and where their files lie in the hub's cache.

Knows that file (hub.json), and the cache's layout as far as a path in it goes. Fetches nothing: hub/ does.
The cache's layout: the guide "Understand caching" of huggingface-hub.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from ..errors import ModelError
from .files import replaced

ORIGIN = "hub.json"
_FORMAT = 1


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
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.pop("format") != _FORMAT:
            raise ValueError("another format")
        origin = Origin(**{**found, "files": tuple(found["files"])})
        if not all(_stays_inside(name) for name in (*origin.files, origin.model, origin.mmproj, origin.revision)):
            raise ValueError("a file outside its repository")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise ModelError(f"{path}: cannot be read ({e}); `aim-local models rm {folder.name}` and pull it again") from e
    return origin


def _stays_inside(name: str) -> bool:
    return isinstance(name, str) and not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts
