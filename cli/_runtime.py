"""The one door to the model: what the commands load goes through `load`, so that tests put a fake in one place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from . import _hub, _log

if TYPE_CHECKING:
    from aim_local import VisionLLM
    from aim_local.config import LoadConfig


def load(
    model: str | None, mmproj: Path | None, config: LoadConfig, *, yes: bool = False, quiet: bool = False
) -> VisionLLM:
    """yes: do not ask before a download; quiet: say nothing of what is fetched or of how the model is run."""
    from aim_local import store

    _hub.ready(model, yes=yes, quiet=quiet)
    store.resolve(model, mmproj)  # an unknown name is told before the native libraries are loaded
    from aim_local import VisionLLM
    from aim_local.native.log import echo_native_log

    echo_native_log(_log.debug)
    llm = VisionLLM.load(model, mmproj, config)
    if not quiet:
        for note in llm.notes:
            _log.say(f"note: {note}")
        _log.warn(llm.model.warnings, once=True)
    return llm
