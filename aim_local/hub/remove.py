"""Removing a model from the store, and what was fetched for it from the hub's cache.

Asks no hub. A file of the cache goes when a pull of ours fetched it and no other model of the store, and no other
revision, has it. Files that a user named by path are in neither place, and are never touched.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from .. import store
from ..errors import ModelError, UsageError
from ..store.known import parse_reference
from ..store.pulled import ORIGIN, Origin, read_origin


@dataclass(frozen=True)
class Removal:
    """What will go. folder: in the store; fetched: in the hub's cache, entries of snapshots and the blobs they show.

    n_bytes: what that frees. kept: files of the cache that another model needs; foreign: those that no pull fetched,
    as they were there before. snapshot: the revision's folder in the cache, None for what was not pulled.
    damage: why nothing of the cache goes, though the model was pulled; "" for none.
    """

    name: str
    folder: Path
    fetched: tuple[Path, ...]
    kept: tuple[str, ...]
    foreign: tuple[str, ...]
    n_bytes: int
    snapshot: Path | None = None
    damage: str = ""


def plan_removal(name: str) -> Removal:
    """Raises UsageError, ModelError for what is not a model of the store."""
    if name == store.BUNDLED:
        raise UsageError(f"{name} is the bundled model, a part of the package; it cannot be removed")
    if not name.strip():
        raise UsageError(f"{name!r} is no model name; give one that `aim-local models` lists")
    stored = store.exact_name(name)  # another quantisation is another model: nobody asked to remove that
    if stored is None:
        if Path(os.path.expanduser(name)).exists():
            raise UsageError(f"{name} is a file or folder of yours, not a model of the store; delete it yourself")
        here = store.pulled_names(name)
        if here:
            raise ModelError(f"{name} is not here, {' and '.join(here)} {'is' if len(here) == 1 else 'are'}; name that")
        if parse_reference(name) is not None:
            raise ModelError(f"{name} is not on this machine: nothing to remove; `aim-local models` lists what is here")
        store.resolve(name)
        raise ModelError(f"{name} is not in the store; `aim-local models` lists what is")
    folder = store.models_folder() / stored
    origin = _origin_of(folder)
    own = 0 if folder.is_symlink() else sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file())
    if origin is None:
        damage = f"{ORIGIN} does not tell which files it was pulled with" if (folder / ORIGIN).exists() else ""
        return Removal(stored, folder, (), (), (), own, damage=damage)
    if not _lies_in_cache(origin):
        damage = f"{origin.snapshot} is a link out of the hub's cache"
        return Removal(stored, folder, (), (), (), own, damage=damage)
    needed = _needed_by_others(stored, origin)
    cached = {n: origin.file(n) for n in origin.files if origin.file(n) not in needed and origin.file(n).exists()}
    entries = [path for path in cached.values() if store.was_fetched(path)]
    foreign = tuple(n for n, path in cached.items() if path not in entries)
    kept = tuple(n for n in origin.files if origin.file(n) in needed)
    blobs = _unshared_blobs(origin, entries)
    size = sum(p.lstat().st_size for p in (*entries, *blobs) if not p.is_symlink())
    return Removal(stored, folder, (*entries, *blobs), kept, foreign, own + size, origin.snapshot)


def remove(removal: Removal) -> None:
    """Raises ModelError where a file cannot be deleted."""
    try:
        if removal.folder.is_symlink():
            removal.folder.unlink()
        else:
            shutil.rmtree(removal.folder)
        for path in removal.fetched:
            path.unlink(missing_ok=True)
            _drop_empty(path.parent)
        store.forget_fetched(removal.fetched)
        _drop_ref(removal.snapshot)
    except OSError as e:
        raise ModelError(f"{e.filename}: {e.strerror}; check its permissions, then remove the model again") from e


def _origin_of(folder: Path) -> Origin | None:
    try:
        return read_origin(folder)
    except ModelError:  # damaged: the folder goes all the same, the cache stays as it is
        return None


def _lies_in_cache(origin: Origin) -> bool:
    """Whether what the snapshot shows are entries of the repository's own folder in the cache, no links out of it."""
    inside = (Path(origin.cache) / "snapshots").resolve()
    own = Path(origin.cache).resolve()
    folders = {origin.file(name).parent.resolve() for name in origin.files}
    return inside.parent == own and all(inside in folder.parents for folder in folders)


def _needed_by_others(name: str, origin: Origin) -> set[Path]:
    """Entries of the same cache folder that other models of the store have."""
    found = set[Path]()
    for other in store.store_names():
        theirs = _origin_of(store.models_folder() / other) if other != name else None
        if theirs is not None and Path(theirs.cache).resolve() == Path(origin.cache).resolve():
            found |= {replace(theirs, cache=origin.cache).file(file) for file in theirs.files}
    return found


def _unshared_blobs(origin: Origin, entries: list[Path]) -> list[Path]:
    """Blobs that these entries show and no other does."""
    cache = Path(origin.cache)
    shown = {entry.resolve() for entry in entries if entry.is_symlink()}
    others = {p.resolve() for p in (cache / "snapshots").rglob("*") if p.is_symlink() and p not in entries}
    blobs = cache.resolve() / "blobs"  # not resolved any further: as a link it would lead out of the cache
    return sorted(blob for blob in shown - others if blobs in blob.parents)


def _drop_ref(snapshot: Path | None) -> None:
    """The branch's name for a revision that nothing is left of."""
    if snapshot is not None and not snapshot.exists():
        ref = snapshot.parent.parent / "refs" / "main"
        if ref.is_file() and ref.read_text(encoding="utf-8").strip() == snapshot.name:
            ref.unlink()


def _drop_empty(folder: Path) -> None:
    """A folder of the cache that nothing is left in, and those above it, up to the repository's own."""
    while not any(folder.iterdir()):
        folder.rmdir()
        if folder.name in ("snapshots", "blobs"):
            return
        folder = folder.parent
