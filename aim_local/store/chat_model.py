"""Which model a saved conversation is taken up with, where the user names none: one of the user's own.

A file may come from anybody, and loading a GGUF trusts it. So what the file says of paths is shown and never opened:
the model is looked for in the store, by fingerprint.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .chat_file import ChatFileError, fingerprint, sampled_fingerprint
from .gguf_files import parts
from .names import BUNDLED, ModelPaths, resolve, store_names


def model_of(path: Path, saved: Mapping[str, Any]) -> str:
    """The name of the model that was in use. saved: "model" of a header. Raises ChatFileError saying what to type."""
    for name, paths in _own_models(saved["name"]):
        if _is(paths.model, saved["fingerprints"][0]):
            return name
    named = [str(saved["path"]), *(["--mmproj", str(saved["mmproj"])] if saved["mmproj"] else [])]
    raise ChatFileError(
        f"{path}: was saved with {saved['name']} ({saved['path']}), which is no model of your store, and a file that a "
        f"conversation names is not opened unasked; if you trust it: aim-local chat {shlex.join(named)} --resume "
        f"{shlex.quote(str(path))}"
    )


def typed(paths: ModelPaths) -> list[str]:
    """What to type before --resume for a conversation with this model: nothing, where it is one of the store."""
    if any(own.model.absolute() == paths.model.absolute() for _, own in _own_models(paths.name)):
        return []
    return [str(paths.model), *(["--mmproj", str(paths.mmproj)] if paths.mmproj else [])]


def _own_models(first: str) -> Iterator[tuple[str, ModelPaths]]:
    """The bundled model and those of the store, the one of that name first; what is damaged is left out."""
    names = [BUNDLED, *store_names()]
    for name in sorted(names, key=lambda name: name != first):
        try:
            yield name, resolve(name)
        except ModelError:
            continue


def _is(path: Path, wanted: str) -> bool:
    try:
        return wanted in (fingerprint(*parts(path)), sampled_fingerprint(path))
    except OSError:
        return False
