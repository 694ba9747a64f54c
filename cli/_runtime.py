"""The one door to the model: what the commands load goes through `load`, so that tests put a fake in one place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from . import _log
from ._interrupt import Interrupts

if TYPE_CHECKING:
    from aim_local import VisionLLM
    from aim_local.config import LoadConfig


def load(model: str | None, mmproj: Path | None, config: LoadConfig) -> VisionLLM:
    from aim_local import store

    store.resolve(model, mmproj)  # an unknown name is told before the native libraries are loaded
    from aim_local import VisionLLM

    if _log.debug:
        from aim_local.native.log import echo_native_log

        echo_native_log()
    with Interrupts() as interrupts:
        llm = VisionLLM.load(model, mmproj, config)
        interrupts.check()
    return llm
