"""Chat templates rendered in a process of their own, which is ended when it goes beyond its bounds.

A template comes with a model's file, from a stranger, and is a program: it may never end, or write gigabytes. Its
process has few seconds and little memory (template_worker.py); it lives on between texts, and a new one is started
after one that was ended. One for all models and threads of this process. Needs no Jinja here.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..child import Child
from ..child import Message as Sent
from ..errors import ModelError, NativeError

SOURCE_CHARS = 1 << 18  # published templates have 20,000 at most
MEMORY_MIB = 256  # beside what its process has when it starts
CPU_SECONDS = 2.0  # of computing, for one prompt
WALL_SECONDS = 15.0  # for it to be there; on a system without the clock above this is the only bound
_MODULE = f"{__package__}.template_worker"
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "MALLOC_ARENA_MAX": "1",
}  # sets have one order; memory is counted alike each time


@dataclass(frozen=True)
class Failed:
    """A template has no text for what it was given. why: in one line."""

    why: str


def described_bounds() -> str:
    """What a template may use on this system, for people."""
    seconds = f"{CPU_SECONDS:.0f} s of computing" if sys.platform != "win32" else f"{WALL_SECONDS:.0f} s"
    memory = f"{MEMORY_MIB} MiB" if sys.platform == "linux" else "memory without a bound, which this system has not"
    return f"in a process of their own: at most {seconds}, {memory}"


class TemplateProcess:
    """Use the one of `template_process()`. Any thread may call; texts are rendered one at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._ready = False  # it has said so: the time that its start takes is not the template's
        self._others: list[Child] = []  # of the processes that this one was forked from

    def start(self) -> None:
        """Does not wait for it: a process that starts while the model is loaded costs no time."""
        with self._lock:
            self._started()

    def texts(self, source: str, forms: Sequence[Mapping[str, Any]], most: int) -> Iterator[str | Failed]:
        """A template's text for each of `forms`, plain values. They share one bound of time.

        most: characters that a text may have. Raises ModelError for what is no template, or crossed a bound.
        """
        if len(source) > SOURCE_CHARS:
            raise ModelError(_refused(f"is {len(source)} characters long; at most {SOURCE_CHARS} are read"))
        if not source.strip():
            raise ModelError(_refused("is empty"))
        cpu_s, wall_s = CPU_SECONDS, WALL_SECONDS
        for arguments in forms:
            began = time.monotonic()
            answer = self._answer(wall_s, source=source, arguments=arguments, most=most, cpu_s=cpu_s)
            cpu_s, wall_s = max(0.01, cpu_s - answer["spent"]), max(0.01, wall_s - (time.monotonic() - began))
            if "invalid" in answer:
                raise ModelError(_refused(f"is not valid Jinja ({answer['invalid']})"))
            if "bound" in answer:
                too_long = f"writes more than {most} characters"
                raise ModelError(_refused(too_long if answer["bound"] == "text" else "takes too much memory"))
            yield Failed(answer["failed"]) if "failed" in answer else str(answer["text"])

    def _answer(self, wall_s: float, **message: Any) -> Sent:
        with self._lock:
            try:
                answer = self._asked(wall_s, message)
            except BaseException:  # what it would say next is the answer to this
                self.close()
                raise
            if "bound" in answer:
                self.close()
        return answer

    def _started(self) -> Child:
        if self._child and not self._child.is_alive:  # ended from outside, between two texts
            self.close()
        if self._child is None:
            self._ready = False
            try:
                self._child = Child("the process of the chat template", ["-m", _MODULE], env=_ENVIRONMENT)
            except OSError as e:
                raise NativeError(
                    f"no process can be started for the chat template ({e}); close other programs, or give the prompt "
                    "as it is (raw=True)"
                ) from e
        return self._child

    def _asked(self, wall_s: float, message: Sent) -> Sent:
        child, late = self._started(), threading.Event()
        if not self._ready and child.receive() is None:
            raise NativeError(f"{child.name}: {child.death()}")
        self._ready = True

        def end() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(wall_s, end)
        timer.daemon = True
        timer.start()
        try:
            child.send(**message)
            answer = child.receive()
        finally:
            timer.cancel()
        if answer is None:
            raise ModelError(_refused(_LATE if late.is_set() else _ended(child)))
        return answer

    def close(self) -> None:
        """Ends the process; the next text starts another."""
        child, self._child = self._child, None
        if child:
            child.close()

    def forget(self) -> None:
        """In a forked process: the process belongs to the one it was forked from."""
        child, self._child, self._lock = self._child, None, threading.Lock()
        if child:
            child.forget()
            self._others.append(child)


_LATE = f"takes more than {WALL_SECONDS:.0f} s"


def _ended(child: Child) -> str:
    code = child.wait()
    if sys.platform != "win32" and code == -signal.SIGPROF:
        return f"takes more than {CPU_SECONDS:.0f} s of computing"
    return f"cannot be rendered ({child.death()})"


def _refused(what: str) -> str:
    return f"the model's chat template {what}; take the model from elsewhere, or leave its template out (raw=True)"


_PROCESS = TemplateProcess()
atexit.register(_PROCESS.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_PROCESS.forget)


def template_process() -> TemplateProcess:
    return _PROCESS
