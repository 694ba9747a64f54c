"""Stopping native work from outside: a Python function that the libraries ask about every 50 ms while they compute.

Knows the callback and what it raised. Which calls there are, and what stops them, is for others to say.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Generator
from ctypes import c_bool, c_void_p
from typing import Any

from . import callbacks
from .binding import bind
from .library import LLAMA, MTMD, libllama, libmtmd

_LATE_S = 1.0  # until a lost machine is known as such

stop_callback = ctypes.CFUNCTYPE(c_bool, c_void_p)

# int32_t aim_set_stop(struct llama_context * ctx, aim_stop_callback poll, void * data)
_set_stop = bind(libllama, "aim_set_stop", [c_void_p, stop_callback, c_void_p])
# int32_t aim_mtmd_set_stop(mtmd_context * ctx, aim_stop_callback poll, void * data)
_mtmd_set_stop = bind(libmtmd, "aim_mtmd_set_stop", [c_void_p, stop_callback, c_void_p])


def _go_on() -> None:
    """The poll of a hook that nobody has set: never stops anything."""


class StopHook:
    """What ends native work from outside: asked about every 50 ms while a graph is computed.

    poll: raises what the call shall end with. It runs on the thread that made the native call; in the main thread a
    Ctrl-C arrives in it as well. One hook serves all contexts of a model, one call at a time, and must outlive them.
    check_lost: raises where another machine that computes was lost meanwhile.
    """

    poll: Callable[[], None]
    check_lost: Callable[[], None]

    def __init__(self) -> None:
        self.poll = self.check_lost = _go_on
        self._raised: BaseException | None = None
        answers = self._answers()
        next(answers)
        self.callback = stop_callback(answers.send)

    def _answers(self) -> Generator[bool, Any, None]:
        """Each question of the native side is a `send`: True stops it, and what was raised is kept.

        A generator, because a Ctrl-C that waits for the next Python code to run is raised at the first instruction of
        a function, outside of any `try` in it, and would be lost in the callback. A generator goes on inside its `try`.
        """
        while True:
            try:
                while True:
                    yield self._raised is not None
                    if self._raised is None:
                        self.poll()
            except GeneratorExit:
                return
            except BaseException as e:
                self._raised = e

    def attach_context(self, ctx: Any) -> None:
        """From now on this can stop what a llama_context computes."""
        LLAMA.checked(_set_stop(ctx, self.callback, None))

    def attach_vision(self, ctx: Any) -> None:
        """From now on this can stop the vision tower of an mtmd_context. Raises ModelError where there is none."""
        MTMD.checked(_mtmd_set_stop(ctypes.cast(ctx, c_void_p), self.callback, None))

    def check(self) -> None:
        """Between native calls: what stops the work comes out here."""
        self.reraise()
        self.poll()

    def check_done(self) -> None:
        """After a native call, whatever it returned: raises what a callback raised in it, and for a lost machine."""
        callbacks.reraise()
        self.check_lost()

    def check_late(self) -> None:
        """Where what came looks as if a machine was lost: that may be known a moment later."""
        end = time.monotonic() + _LATE_S
        while self.check_lost is not _go_on and time.monotonic() < end:
            self.check_lost()
            time.sleep(0.01)

    def reraise(self) -> None:
        """After a native call: raises what stopped it, if anything did."""
        raised = self.forget()
        if raised is not None:
            raise raised

    def forget(self) -> BaseException | None:
        """When nothing is left to stop: what came too late to stop anything."""
        raised, self._raised = self._raised, None
        kept = callbacks.forget()
        return raised or kept
