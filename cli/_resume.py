"""`chat --resume FILE`: which options the saved conversation settles, and which model and KV types it needs.

Knows the command's options and what a saved conversation says of its model; taking it up is the library's business.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import typer

from aim_local.errors import UsageError

from ._options import FlashAttn, LoadOptions, OnOff, TokenOptions

_PART_OF_IT = (*(option.name for option in fields(TokenOptions)), "system")
_FLASH = {"auto": FlashAttn.AUTO, True: FlashAttn.ON, False: FlashAttn.OFF}


def is_given(context: typer.Context, name: str) -> bool:
    """Whether the user gave an option, its default value included."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def wants_rerank(context: typer.Context, rerank: OnOff, *, is_single: bool) -> bool | None:
    """None where the user said nothing, so that a saved conversation goes on as it was. Raises UsageError.

    is_single: one question of a new conversation, with nothing earlier to rank.
    """
    if not is_given(context, "rerank"):
        return None
    if is_single:
        raise UsageError("--rerank: a single question has no earlier visual tokens to rank; drop it, or drop -p")
    return rerank == OnOff.ON


def taken_up(
    context: typer.Context, path: Path, model: str | None, mmproj: Path | None, load: LoadOptions
) -> tuple[str | None, str | None, Path | None, LoadOptions]:
    """(name, model, mmproj, load options) to go on with; name: the saved model's, which its file may say less well.

    Raises ChatFileError, UsageError.
    """
    saved = saved_model(context, path)
    name = saved["name"] if model is None else None
    return name, _model(path, saved, model), mmproj, saved_cache(context, saved, load)


def saved_model(context: typer.Context, path: Path) -> dict[str, Any]:
    """What the file says of its model. Raises UsageError for options that would change the conversation."""
    from aim_local.store.chat_file import read_header

    given = [f"--{name}" for name in _PART_OF_IT if is_given(context, name)]
    if given:
        raise UsageError(f"{', '.join(given)}: the saved conversation settles that; drop it, or drop --resume")
    saved: dict[str, Any] = read_header(path)["model"]
    return saved


def _model(path: Path, saved: dict[str, Any], model: str | None) -> str:
    """The model that was named; else the saved one, where it is the user's own. Raises ChatFileError."""
    from aim_local.store.chat_model import model_of

    return model if model is not None else model_of(path, saved)


def saved_cache(context: typer.Context, saved: dict[str, Any], load: LoadOptions) -> LoadOptions:
    """`load` with the file's KV types and --frame-tokens where the user gave none.

    What does not fit is told when the file is loaded.
    """
    of_file: dict[str, Any] = {
        "type_k": saved["type_k"],
        "type_v": saved["type_v"],
        "flash_attn": _FLASH[saved["flash_attn"]],
    }
    of_file["frame_tokens"] = saved.get("frame_tokens")
    return replace(load, **{name: value for name, value in of_file.items() if not is_given(context, name)})
