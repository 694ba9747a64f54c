"""Pulling a model: what will be fetched and what it will be called, and then the doing of it.

A pair stays in the hub's cache, the store gets a note of where it lies; a checkpoint is converted into the store.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from .. import store
from ..errors import HubError, UsageError
from ..store.files import Part
from ..store.known import Reference, parse_reference
from ..store.locks import held, lock_beside
from ..store.names import make_folder
from ..store.pulled import Origin, read_origin, write_origin
from .choose import Choice, choose
from .contents import checked_pair
from .download import Report, cached, download, name_branch, partial_bytes, sized
from .listing import Listing, cache_root, list_repo

SPARE = 64 << 20  # bytes of the disk that are left alone
Progress = Callable[[int, int, str], None]  # bytes done, bytes in all, file


@dataclass(frozen=True)
class Pull:
    """What a pull will do. name: of the model in the store; n_missing: bytes that are still to come.

    is_here: no file is to come, not even an empty one.
    """

    reference: Reference
    listing: Listing
    choice: Choice
    name: str
    n_missing: int
    is_here: bool

    @property
    def origin(self) -> Origin:
        choice, listing = self.choice, self.listing
        pair = (choice.model[0].name, choice.mmproj.name) if choice.mmproj else ("", "")
        files = tuple(file.name for file in choice.files)
        return Origin(listing.repo, listing.revision, choice.quant, choice.default, str(listing.cache), files, *pair)


@dataclass(frozen=True)
class Pulled:
    """name: how the model is called from now on; notes: of a conversion, for the user."""

    name: str
    paths: store.ModelPaths
    notes: tuple[str, ...]


def plan_pull(model: str, name: str | None = None) -> Pull:
    """Asks the hub what `model` (a known name or OWNER/NAME, with :QUANT or without) is. name: wanted in the store.

    Raises UsageError, HubError, ModelError.
    """
    reference = parse_reference(model)
    if reference is None:
        raise UsageError(
            f"{model!r} names no model on the hub; give OWNER/NAME, OWNER/NAME:QUANT, or a name from "
            "`aim-local models --known`"
        )
    if name is not None:
        store.store_path(name)  # tells what cannot be a name
    listing = list_repo(reference.repo)
    choice = _sized(listing, choose(listing, reference.quant, reference.known.quant if reference.known else ""))
    if name is not None and not _is_free(name, listing, choice):
        raise UsageError(f"a model called {name} is in the store already; give another name=NAME, or remove that one")
    missing = [file for file in choice.files if cached(listing, file) is None]
    n_missing = sum(max(0, file.size - partial_bytes(listing, file)) for file in missing)
    return Pull(reference, listing, choice, name or _free_name(reference, listing, choice), n_missing, not missing)


def _sized(listing: Listing, choice: Choice) -> Choice:
    model = tuple(sized(listing, file) for file in choice.model)
    return replace(choice, model=model, mmproj=sized(listing, choice.mmproj) if choice.mmproj else None)


def find_here(model: str, name: str | None = None) -> Pulled | None:
    """The model that a pull would make, where every file of it is here already. Asks no hub."""
    stored = store.exact_name(model)
    if stored is None or parse_reference(model) is None or name not in (None, stored):
        return None
    if read_origin(store.models_folder() / stored) is None or store.find_entry(stored).problem:
        return None
    return Pulled(stored, store.resolve(stored), ())


def _free_name(reference: Reference, listing: Listing, choice: Choice) -> str:
    """A name for the store: short, with the quantisation where that was asked, with the owner where it is taken."""
    for earlier in store.pulled_names(listing.repo):
        if _is_of(store.models_folder() / earlier, listing, choice):
            return earlier
    owner, _, title = listing.repo.partition("/")
    base = reference.known.name if reference.known else re.sub(r"[-_.]gguf$", "", title, flags=re.IGNORECASE)
    suffix = "" if choice.default else f"-{choice.quant.lower().removesuffix('.gguf')}"
    for candidate in (base + suffix, f"{owner}-{base}{suffix}"):
        if _is_free(candidate, listing, choice):
            return candidate
    raise UsageError(f"a model called {base + suffix} is in the store already; give this one another with name=NAME")


def _is_free(name: str, listing: Listing, choice: Choice) -> bool:
    """Whether a model can have that name: nothing has it, or an earlier pull of the same."""
    if name.lower() == store.BUNDLED:
        return False
    folder = store.store_path(name)
    return not folder.exists() or _is_of(folder, listing, choice)


def _is_of(folder: Path, listing: Listing, choice: Choice) -> bool:
    origin = read_origin(folder)
    return origin is not None and (origin.repo, origin.quant) == (listing.repo, choice.quant)


def fetch(pull: Pull, progress: Progress, converting: Progress) -> Pulled:
    """Fetches what is missing, checks all of it, and makes the model known to the store.

    progress: of the download over all files; converting: of a checkpoint's conversion. Raises HubError, and
    ConvertError where a checkpoint cannot be converted; what is downloaded stays for the next try.
    """
    _check_writable(pull)
    _check_space(pull)
    done = 0
    for file in pull.choice.files:
        download(pull.listing, file, _part_of(progress, done, pull.choice.n_bytes, file.name))
        done += file.size
    name_branch(pull.listing)
    notes = _note_pair(pull) if pull.choice.is_pair else _convert(pull, converting)
    return Pulled(pull.name, store.resolve(pull.name), notes)


def _part_of(progress: Progress, before: int, total: int, name: str) -> Report:
    return lambda n: progress(before + n, total, name)


def _check_writable(pull: Pull) -> None:
    """Raises HubError, before anything is fetched, where a file cannot be made in the cache or the store."""
    places = {store.models_folder(): f"set {store.HOME_VARIABLE}"}
    if any(cached(pull.listing, file) is None for file in pull.choice.files):
        places = {cache_root(): "set HF_HOME", **places}
    for place, way in places.items():
        try:
            make_folder(place)
            tempfile.TemporaryFile(dir=place).close()
        except OSError as e:
            why = "it is a file" if place.is_file() else e.strerror
            raise HubError(
                f"{place} cannot be written ({why}), nothing was downloaded; check its permissions, or {way} to "
                "another folder"
            ) from e


def _check_space(pull: Pull) -> None:
    """Raises HubError where the files do not fit."""
    free = shutil.disk_usage(cache_root()).free if pull.n_missing else 0
    if pull.n_missing and free < pull.n_missing + SPARE:
        raise HubError(
            f"{pull.reference.text} needs {pull.n_missing / 1e9:.1f} GB more, and {cache_root()} has {free / 1e9:.1f} "
            "GB free; free space, or set HF_HOME to another disk"
        )


def _note_pair(pull: Pull) -> tuple[str, ...]:
    origin = checked_pair(pull.origin)
    with _appearing(pull) as folder:
        write_origin(folder, origin)
    return ()


def _convert(pull: Pull, converting: Progress) -> tuple[str, ...]:
    """The checkpoint, converted into the store."""
    from ..convert import ConvertConfig, convert

    config = ConvertConfig(text_type=pull.choice.quant.lower(), name=pull.name)
    with _appearing(pull) as folder:
        result = convert(pull.origin.snapshot, folder, config, progress=converting)
        write_origin(folder, pull.origin)
    return tuple(result.notes)


@contextmanager
def _appearing(pull: Pull) -> Iterator[Path]:
    """A folder to write; when the block ends well it is the model in the store, else it is gone.

    Waits where another process writes the same. Raises UsageError where that took the name for another model.
    """
    target = store.store_path(pull.name)
    try:
        make_folder(target.parent)
        with held(lock_beside(target), HubError, wait=True, stays=False):
            if not _is_free(pull.name, pull.listing, pull.choice):
                raise UsageError(f"a model called {pull.name} came into the store meanwhile; give another name=NAME")
            with Part(target, is_folder=True) as part:
                yield part.at
                part.keep()
    except OSError as e:
        raise HubError(f"{target.parent} cannot be written ({e.strerror}); check its permissions") from e
