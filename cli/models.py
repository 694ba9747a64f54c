"""`aim-local models`: what can be named as MODEL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from . import _log
from ._groups import Without
from ._options import OutputOptions
from ._table import count, print_json, print_table, size

if TYPE_CHECKING:
    from aim_local.store.names import ModelEntry


def models(*, output: Annotated[OutputOptions, Without("quiet")]) -> None:
    """List the bundled model and those in the local store."""
    from aim_local import store

    entries = store.list_models()
    if output.json:
        print_json({"store": str(store.models_folder()), "models": [entry.to_dict() for entry in entries]})
        return
    if entries:
        heading = ("NAME", "ARCHITECTURE", "PARAMS", "SIZE", "LANGUAGE", "VISION", "PATH")
        print_table([heading, *map(_row, entries)], right=(2, 3))
    _log.warn([f"{entry.name}: {entry.problem}" for entry in entries if entry.problem])
    if not any(not entry.bundled for entry in entries):
        _log.say(f"the store {store.models_folder()} is empty; `aim-local convert SRC --name NAME` adds a model")


def _row(entry: ModelEntry) -> tuple[str, ...]:
    if not entry.architecture:
        return (entry.name, "-", "-", "-", "-", "-", str(entry.path))
    architecture = f"{entry.architecture}+{entry.projector}" if entry.projector else entry.architecture
    name = f"{entry.name} (bundled)" if entry.bundled else entry.name
    weights = (entry.quantisation or "?", entry.vision_quantisation or "-")
    return (name, architecture, count(entry.n_params), size(entry.n_bytes), *weights, str(entry.path))
