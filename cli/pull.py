"""`aim-local pull`: a model from the hub into the store."""

from __future__ import annotations

from typing import Annotated

import typer

from . import _hub, _log, _out
from . import _options as opt
from ._table import print_table, size

_REPO_HELP = (
    "OWNER/NAME, OWNER/NAME:QUANT (such as Q4_K_M or Q8_0), or a name from `aim-local models --known`, with :QUANT or "
    "without."
)
_NAME_HELP = "The model's name here. Default: the repository's, or the known name."


def pull(
    model: Annotated[str, typer.Argument(help=_REPO_HELP, metavar="MODEL")],
    *,
    name: Annotated[str | None, opt.text(_NAME_HELP, "NAME", "--name", show_default=False)] = None,
    yes: Annotated[bool, opt.flag("Do not ask.", "--yes", "-y")] = False,
    output: opt.OutputOptions,
) -> None:
    """Download a model by its name.

    What comes is its language GGUF and its vision tower, or a checkpoint, which is converted. Files stay in the
    hub's cache (HF_HOME), checked against their checksums; an interrupted download goes on where it stopped.
    HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean elsewhere.
    """
    from aim_local import store

    pulled = _hub.pull(model, name, yes=yes, quiet=output.quiet)
    entry = store.find_entry(pulled.name)
    if output.json:
        _out.json(entry.to_dict())
        return
    files = [pulled.paths.model, *([pulled.paths.mmproj] if pulled.paths.mmproj else [])]
    print_table([("FILE", "SIZE"), *((str(path), size(path.stat().st_size)) for path in files)], right=(1,))
    if not output.quiet:
        for note in pulled.notes:
            _log.say(f"note: {note}")
        _log.say(f"try it: aim-local chat {pulled.name} CLIP")
