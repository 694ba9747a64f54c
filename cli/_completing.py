"""What can stand next: models that are here, media files and folders. For the shell's Tab and the conversation's.

Knows names. Nothing heavy is imported: a shell asks at every Tab.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from aim_local.visible import is_visible

from . import _media

# in no name that is offered, nor what cannot be seen: an end of line would be two names, and zsh evaluates what stands
# behind a backslash: typer's script writes "\\$(command)" for the file \$(command)
_UNSAFE = "\\"


def complete_models(incomplete: str) -> list[str]:
    """Models in the store and the bundled one, then GGUF files and folders."""
    return [*_names(incomplete), *paths(incomplete, _is_gguf)]


def complete_media(incomplete: str) -> list[str]:
    """Media files and folders."""
    return list(paths(incomplete, _media.has_media_suffix))


def complete_words(incomplete: str) -> list[str]:
    """Models, GGUF and media files, folders."""
    return [*_names(incomplete), *paths(incomplete, lambda name: _is_gguf(name) or _media.has_media_suffix(name))]


def complete_files(incomplete: str) -> list[str]:
    """All files and folders."""
    return list(paths(incomplete, lambda name: True))


def paths(incomplete: str, wanted: Callable[[str], bool]) -> Iterator[str]:
    """Folders, with their slash, and the files whose names are wanted, that go on from a path as it is typed."""
    begin = incomplete.rpartition("/")[2]
    folder = incomplete[: len(incomplete) - len(begin)]
    try:
        entries = sorted(os.scandir(Path(os.path.expanduser(folder or "."))), key=lambda entry: entry.name)
    except (OSError, RuntimeError, ValueError):  # no such folder, no such user
        return
    for entry in entries:
        if (
            not entry.name.startswith(begin)
            or (entry.name.startswith(".") and not begin)
            or not _is_offered(entry.name)
        ):
            continue
        if _is_folder(entry):
            yield f"{folder}{entry.name}/"
        elif wanted(entry.name):
            yield f"{folder}{entry.name}"


def _is_offered(name: str) -> bool:
    return _UNSAFE not in name and is_visible(name)


def _is_gguf(name: str) -> bool:
    return name.lower().endswith(".gguf")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _names(incomplete: str) -> list[str]:
    from aim_local import store
    from aim_local.errors import AimError

    try:
        here = [store.BUNDLED, *store.store_names()]
    except AimError:  # a store that cannot be read is told by the command
        here = [store.BUNDLED]
    return [name for name in here if name.startswith(incomplete)]
