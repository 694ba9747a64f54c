"""A MODEL that is on the hub and not here yet: what will be fetched is shown, asked, and then fetched.

Every command that takes a MODEL comes by here before it loads one (`ready`). Which files: aim_local/hub.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aim_local.errors import ModelError, UsageError

from . import _extra, _log, _media, _out
from ._progress import ByteBar
from ._table import size

if TYPE_CHECKING:
    from aim_local.hub import Pull, Pulled


def ready(model: object, *, yes: bool = False, quiet: bool = False) -> None:
    """Fetches the model that `model` names, where it names one on the hub that is not here; else does nothing.

    Raises UsageError where nobody can be asked, HubError, ModelError.
    """
    if not isinstance(model, str):
        return
    if _media.has_media_suffix(model):
        raise UsageError(
            f"{model} is named as clips are, and a model is wanted here; `aim-local chat` asks about a clip"
        )
    if is_missing(model):
        pull(model, None, yes=yes, quiet=quiet)
    elif not quiet:
        _tell_other(model)


def _tell_other(model: str) -> None:
    """One line where the only model here of a repository answers for another quantisation of it."""
    from aim_local import store

    stored = store.stored_name(model)
    if stored is not None and store.exact_name(model) is None:
        _log.say(
            f"note: using {stored}, the only one of {model} that is here; `aim-local pull {model}` fetches the default"
        )


def is_missing(model: str) -> bool:
    """Whether it names a model on the hub that would have to be fetched. Asks no hub."""
    from aim_local import store
    from aim_local.store.known import parse_reference

    stored = store.stored_name(model)
    if stored is None and "/" in model and Path(os.path.expanduser(model)).exists():
        return False  # a path of the user's; what is wrong with it is told when it is opened
    try:
        store.resolve(model)
    except ModelError:
        if stored is None:
            return parse_reference(model) is not None
        origin = store.read_origin(store.models_folder() / stored)
        return origin is not None and origin.is_pair and parse_reference(model) is not None
    return False


def pull(model: str, name: str | None, *, yes: bool, quiet: bool) -> Pulled:
    """Shows, asks, fetches; nothing of that where every file is here.

    Raises UsageError, HubError, ModelError, ConvertError.
    """
    from aim_local import hub, store

    here = hub.find_here(model, name)
    if here is not None:
        if not quiet:
            _log.say(f"{here.name} is here already")
        return here
    try:
        plan = hub.plan_pull(model, name)
    except ModuleNotFoundError as e:
        raise _extra.missing(e) from e
    if not quiet or not yes:
        _show(plan)
    if not yes and not plan.is_here:
        _ask(plan, store.pulled_names(model))
    try:
        with (
            ByteBar("downloading", "bytes", wanted=not quiet) as down,
            ByteBar("converting", "bytes", wanted=not quiet) as converting,
        ):
            return hub.fetch(plan, down, converting)
    except ModuleNotFoundError as e:
        raise _extra.missing(e) from e


def _show(plan: Pull) -> None:
    choice = plan.choice
    for file in choice.files:
        if choice.is_pair or file.size > 10_000_000:
            _log.say(f"{plan.listing.repo}: {file.name}, {size(file.size)}")
    if choice.default and choice.others:
        other = ", ".join(choice.others[:8]) + (" ..." if len(choice.others) > 8 else "")
        _log.say(f"{choice.quant or 'the only one'} by default; there is also {other} ({plan.reference.name}:QUANT)")
    here = choice.n_bytes - plan.n_missing
    _log.say(
        f"to download: {size(plan.n_missing)}{f' ({size(here)} are here)' if here else ''} into {plan.listing.cache}"
        f"{'' if choice.is_pair else f'; then converted to {choice.quant} into the store'}"
    )


def _ask(plan: Pull, others: Sequence[str]) -> None:
    """others: models of the same repository that are here."""
    asked = sys.stdin is not None and sys.stdin.isatty() and sys.stderr is not None and sys.stderr.isatty()
    also = f"{' and '.join(others)} {'is' if len(others) == 1 else 'are'} here and can be named instead"
    if not asked:
        raise UsageError(
            f"{plan.reference.text} is not here yet and {size(plan.n_missing)} would be downloaded; nobody can be "
            f"asked without a terminal: add --yes, or run `aim-local pull {plan.reference.text} --yes` first"
            f"{f'; {also}' if others else ''}"
        )
    if others:
        _log.say(also)
    if not _out.confirm("download?", default=True):
        raise UsageError("nothing was downloaded")
