"""The process in which a model file is tried out: it loads our libraries and nothing else, to begin at once.

Upstream ends a process where a file is not what it takes for granted; then this one ends. Its parent is rehearsal.py.
"""

from __future__ import annotations

import os
from ctypes import c_char_p, c_int32

from ..child import Message, Parent
from ..errors import AimError
from . import aborts, log
from .binding import bind
from .library import MTMD, libmtmd

# int32_t aim_rehearse_text(const char * path)
_text = bind(libmtmd, "aim_rehearse_text", [c_char_p])
# int32_t aim_rehearse_vision(const char * path)
_vision = bind(libmtmd, "aim_rehearse_vision", [c_char_p])
# int32_t aim_check_weights(const char * path, int32_t n_threads)
_weights = bind(libmtmd, "aim_check_weights", [c_char_p, c_int32])


def answer(message: Message) -> Message:
    """What is wrong with a model's files, "" for nothing."""
    n_threads = int(message["n_threads"])
    steps = {"text": _text, "vision": _vision, "weights": lambda path: _weights(path, n_threads)}
    for kind, path in message["steps"]:
        log.clear()
        try:
            MTMD.checked(steps[kind](os.fsencode(path)))
        except AimError as e:
            return {"wrong": " ".join(log.last_error(str(e)).split())}
    return {"wrong": ""}


if __name__ == "__main__":
    aborts.leave_advice()
    Parent().serve(answer)
