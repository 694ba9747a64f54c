"""Python functions that native code calls. ctypes prints what they raise and goes on; here it is kept, and raised again
in the thread that made the native call, as soon as that returns (`reraise`).

A Ctrl-C is raised at the first instruction of the next Python function that runs, outside of any `try` in it, and while
native code computes that is a callback. Such an exception is seen by `sys.unraisablehook` alone, so it is taken there.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

_ours: WeakSet[Callable[..., Any]] = WeakSet()


class _Kept(threading.local):
    """What a callback of this thread's native call raised first."""

    raised: BaseException | None = None


_kept = _Kept()


def as_callback(kind: Any, function: Callable[..., Any], failed: Any = None) -> Any:
    """`function` as a callback of the ctypes type `kind`. failed: what native code is told where it raises.

    A failure at the first instruction, a Ctrl-C, is told as 0. Whoever makes the native call calls `reraise` behind it.
    """

    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except BaseException as e:
            keep(e)
            return failed

    _ours.add(call)
    return kind(call)


def keep(e: BaseException) -> None:
    """For `reraise`; what was kept before goes first."""
    if _kept.raised is None:
        _kept.raised = e


def reraise() -> None:
    """After a native call of this thread: raises what a callback raised in it, if any did."""
    e = forget()
    if e is not None:
        raise e


def forget() -> BaseException | None:
    """What `reraise` would raise, which it does not any more."""
    e, _kept.raised = _kept.raised, None
    return e


def take(lost: Any, before: Callable[[Any], Any] = sys.unraisablehook) -> None:
    if callable(lost.object) and lost.object in _ours and lost.exc_value is not None:
        keep(lost.exc_value)
    else:
        before(lost)


sys.unraisablehook = take
