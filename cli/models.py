"""`aim-local models`: what can be named as MODEL, what is known of one, and removing one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from aim_local.errors import UsageError

from . import _log, _out
from . import _options as opt
from ._groups import Without
from ._table import count, print_table, size, types

if TYPE_CHECKING:
    from aim_local.hub import Removal
    from aim_local.store.names import ModelEntry

_ACTION_HELP = "info: all that is known of a model; rm: remove it from the store. Default: list them."
_NAME_HELP = "The model, for info and rm."


def models(
    action: Annotated[str | None, typer.Argument(help=_ACTION_HELP, metavar="info|rm", show_default=False)] = None,
    name: Annotated[str | None, typer.Argument(help=_NAME_HELP, metavar="NAME", show_default=False)] = None,
    *,
    known: Annotated[bool, opt.flag("List the names that can be pulled.", "--known")] = False,
    yes: Annotated[bool, opt.flag("rm: do not ask.", "--yes", "-y")] = False,
    output: Annotated[opt.OutputOptions, Without("quiet")],
) -> None:
    """List the models that are here; tell of one, or remove one.

    Removing a pulled model frees the files that the pull fetched into the hub's cache too, where no other model needs
    them; files that were there before stay.
    """
    _check(action, name, known, yes)
    if action == "info" and name is not None:
        _info(name, output.json)
    elif action == "rm" and name is not None:
        _remove(name, yes, output.json)
    elif known:
        _known(output.json)
    else:
        _list(output.json)


def _check(action: str | None, name: str | None, known: bool, yes: bool) -> None:
    """Raises UsageError."""
    if action not in (None, "info", "rm"):
        raise UsageError(f"{action!r} is no action of models; give info NAME, rm NAME, or nothing for the list")
    if action is not None and name is None:
        raise UsageError(f"models {action} needs the name of a model; `aim-local models` lists them")
    if action is not None and known:
        raise UsageError(f"--known lists names; drop it, or drop {action}")
    if yes and action != "rm":
        raise UsageError("--yes is for models rm; drop it")


def _list(as_json: bool) -> None:
    from aim_local import store

    entries = store.list_models()
    if as_json:
        _out.json({"store": str(store.models_folder()), "models": [entry.to_dict() for entry in entries]})
        return
    if entries:
        heading = ("NAME", "ARCHITECTURE", "PARAMS", "SIZE", "LANGUAGE", "VISION", "PATH")
        print_table([heading, *map(_row, entries)], right=(2, 3))
    _log.warn([f"{entry.name}: {entry.problem}" for entry in entries if entry.problem])
    if not any(not entry.bundled for entry in entries):
        _log.say(
            f"the store {store.models_folder()} is empty; `aim-local pull NAME` or `aim-local convert SRC --name NAME` "
            "adds a model (`aim-local models --known` lists names)"
        )


def _row(entry: ModelEntry) -> tuple[str, ...]:
    if not entry.architecture:
        return (entry.name, "-", "-", "-", "-", "-", str(entry.path))
    name = f"{entry.name} (bundled)" if entry.bundled else entry.name
    weights = (entry.quantisation or "?", entry.vision_quantisation or "-")
    where = entry.origin.partition("@")[0] or str(entry.path)
    return (name, _architecture(entry), count(entry.n_params), size(entry.n_bytes), *weights, where)


def _architecture(entry: ModelEntry) -> str:
    return f"{entry.architecture}+{entry.projector}" if entry.projector else entry.architecture


def _known(as_json: bool) -> None:
    from aim_local.store.known import known_models

    here = {known.name: _here(known.name) for known in known_models()}
    if as_json:
        _out.json({"known": [{**known.__dict__, "here": here[known.name] == "is here"} for known in known_models()]})
        return
    heading = ("NAME", "DOWNLOAD", "MEMORY", "LANGUAGE", "REPOSITORY", "")
    rows = [
        (
            known.name, size(known.download), size(known.memory), known.quant,
            known.repo + ("" if known.files else " (converted here)"), here[known.name],
        )
        for known in known_models()
    ]  # fmt: skip
    print_table([heading, *rows], right=(1, 2))
    _log.say("sizes are rounded; `aim-local pull NAME` shows the exact ones before anything is fetched")


def _here(name: str) -> str:
    """What is here of a known name."""
    from aim_local import store

    stored = store.exact_name(name)
    if stored is None:
        return ", ".join(f"{other} is here" for other in store.pulled_names(name))
    return "files are gone" if store.find_entry(stored).problem else "is here"


def _info(name: str, as_json: bool) -> None:
    from aim_local import store
    from aim_local.errors import ModelError
    from aim_local.store.memory import CELLS, memory_needed

    entry = store.find_entry(name)
    if entry.problem:
        raise ModelError(f"{entry.name}: {entry.problem}")
    paths = store.resolve(entry.name)
    memory = memory_needed(paths)
    if as_json:
        listed = [{"path": str(path), "bytes": path.stat().st_size} for path in paths.files]
        _out.json({**entry.to_dict(), "files": listed, "memory": memory})
        return
    lines = [("name", entry.name), ("architecture", _architecture(entry)), ("parameters", count(entry.n_params))]
    lines += [("language", f"{entry.quantisation or '?'} ({types((entry.types or {})['model'])})")]
    if entry.vision_quantisation:
        lines += [("vision", f"{entry.vision_quantisation} ({types((entry.types or {})['mmproj'])})")]
    lines += [("from", entry.origin or ("the package" if entry.bundled else "a conversion here"))]
    lines += [("file", f"{path} ({size(path.stat().st_size)})") for path in paths.files]
    lines += [("memory", f"about {size(memory)} with {CELLS} tokens; `aim-local plan {entry.name}` says it exactly")]
    print_table(lines)


def _remove(name: str, yes: bool, as_json: bool) -> None:
    from aim_local import hub

    removal = hub.plan_removal(name)
    if not yes:
        n = sum(path.parent.name != "blobs" for path in removal.fetched)
        goes = f" and {n} files of the hub's cache that it was pulled with" if n else ""
        _log.say(f"{removal.name}: {removal.folder}{goes}{_staying(removal)}")
        if not (sys.stdin is not None and sys.stdin.isatty()):
            raise UsageError(f"nobody can be asked without a terminal; add --yes to remove {removal.name}")
        if not _out.confirm(f"remove {removal.name} and free {size(removal.n_bytes)}?", default=False):
            raise UsageError("nothing was removed")
    hub.remove(removal)
    if as_json:
        told = {
            "name": removal.name,
            "freed": removal.n_bytes,
            "kept": list(removal.kept),
            "foreign": list(removal.foreign),
        }
        _out.json(told)
        return
    _out.line(f"removed {removal.name}, {size(removal.n_bytes)} freed{_staying(removal)}")
    for kept in removal.kept:
        _log.say(f"note: {kept} stays, another model needs it")


def _staying(removal: Removal) -> str:
    """Files of the cache that other programs fetched, or all of them where it is not known which are the model's."""
    if removal.damage:
        return f"; {removal.damage}: the hub's cache stays as it is"
    n = len(removal.foreign)
    return (
        f"; {n} file{' that was' if n == 1 else 's that were'} in the hub's cache before stay{'s' * (n == 1)}"
        if n
        else ""
    )
