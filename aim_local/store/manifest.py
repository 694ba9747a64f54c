"""What a converted model's manifest (aim.json) says of its files, against the files themselves.

A file that was changed, cut or swapped since is told before anything is made of it. Which files a folder's roles are:
names.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .digests import known_digest, note_digest
from .names import MANIFEST, ModelPaths, manifest_files


def check_contents(paths: ModelPaths) -> None:
    """Raises ModelError for a file whose size or sha256 is not the one in the manifest beside it.

    A file without a manifest, or that it does not tell of, is taken as it is. The sum is worked out once for a file
    (digests.py).
    """
    tables = {folder: _tables(folder) for folder in {path.parent for path in paths.files}}
    for path in paths.files:
        found = [told for told in tables[path.parent] if told.get("path") == path.name]
        if len(found) != 1:
            continue
        (told,) = found
        try:
            n_bytes = path.stat().st_size
            if n_bytes != told.get("bytes", n_bytes):
                raise _differs(path, f"{n_bytes} bytes instead of {told['bytes']}")
            if isinstance(told.get("sha256"), str) and known_digest(path) != told["sha256"].lower():
                raise _differs(path, "another sha256")
        except OSError as e:
            raise ModelError(f"{path}: cannot be read ({e.strerror}); check the disk and permissions") from e


def note_contents(folder: Path, digests: Mapping[str, str]) -> None:
    """Of a folder that was just written: sha256 (hex) by file name, which need not be worked out again."""
    for name, digest in digests.items():
        note_digest(folder / name, digest)


def _differs(path: Path, how: str) -> ModelError:
    return ModelError(
        f"{path}: is not the file that {MANIFEST} beside it tells of ({how}); it was changed or damaged: convert, pull "
        f"or copy the model again, or remove {MANIFEST} where the change is wanted"
    )


def _tables(folder: Path) -> list[dict[str, Any]]:
    """What the folder's manifest says, file by file. One that cannot be read is told by names.py."""
    try:
        return list(manifest_files(folder).values())
    except (OSError, ValueError):
        return []
