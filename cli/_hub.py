"""A MODEL that is on the hub and not here yet: what will be fetched is shown, asked, and then fetched.

Every command that takes a MODEL comes by here before it loads one (`ready`). Which files: aim_local/hub.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from aim_local.errors import ModelError, UsageError

from . import _extra, _log
from ._progress import ByteBar
from ._table import size

if TYPE_CHECKING:
    from aim_local.hub import Pull, Pulled


def ready(model: object, *, yes: bool = False, quiet: bool = False) -> None:
    """Fetches the model that `model` names, where it names one on the hub that is not here; else does nothing.

    Raises UsageError where nobody can be asked, HubError, ModelError.
    """
    if isinstance(model, str) and is_missing(model):
        pull(model, None, yes=yes, quiet=quiet)


def is_missing(model: str) -> bool:
    """Whether it names a model on the hub that would have to be fetched. Asks no hub."""
    from aim_local import store
    from aim_local.store.known import parse_reference

    try:
        store.resolve(model)
    except ModelError:
        stored = store.stored_name(model)
        if stored is None:
            return parse_reference(model) is not None
        origin = store.read_origin(store.models_folder() / stored)
        return origin is not None and origin.is_pair and parse_reference(model) is not None
    return False


def pull(model: str, name: str | None, *, yes: bool, quiet: bool) -> Pulled:
    """Shows, asks, fetches. Raises UsageError, HubError, ModelError, ConvertError."""
    from aim_local import hub

    plan = hub.plan_pull(model, name)
    if not quiet or not yes:
        _show(plan)
    if not yes and plan.n_missing:
        _ask(plan)
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
        _log.say(f"{choice.quant or 'the only one'} by default; there is also {other} ({plan.listing.repo}:QUANT)")
    here = choice.n_bytes - plan.n_missing
    _log.say(
        f"to download: {size(plan.n_missing)}{f' ({size(here)} are here)' if here else ''} into {plan.listing.cache}"
        f"{'' if choice.is_pair else f'; then converted to {choice.quant} into the store'}"
    )


def _ask(plan: Pull) -> None:
    asked = sys.stdin is not None and sys.stdin.isatty() and sys.stderr is not None and sys.stderr.isatty()
    if not asked:
        raise UsageError(
            f"{plan.reference.text} is not here yet and {size(plan.n_missing)} would be downloaded; nobody can be "
            f"asked without a terminal: add --yes, or run `aim-local pull {plan.reference.text} --yes` first"
        )
    if not typer.confirm("download?", default=True, err=True):
        raise UsageError("nothing was downloaded")
