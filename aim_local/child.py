"""A process that speaks lines of JSON with the one that started it, and what is said when it dies. Both ends are here.

Knows pipes and processes; what the messages mean is up to their two sides. Loads no native library, so that a child may
load another one than ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from .errors import AimError, NativeError, is_out_of_memory

Message = dict[str, Any]  # plain values for JSON

ERROR = "error"  # the key under which a child says why it could not do what was asked
# the first that a child does; one whose parent is gone already ends
_TIED = """
import fcntl, os, runpy, select, signal, sys
line, how, what = int(sys.argv[1]), sys.argv[2], sys.argv[3]
fcntl.fcntl(line, fcntl.F_SETOWN, os.getpid())
fcntl.fcntl(line, fcntl.F_SETSIG, signal.SIGKILL)
fcntl.fcntl(line, fcntl.F_SETFL, fcntl.fcntl(line, fcntl.F_GETFL) | os.O_ASYNC)
gone = select.poll()
gone.register(line, 0)
if gone.poll(0):
    os._exit(1)
sys.argv = sys.argv[3:]
if how == "-m":
    runpy.run_module(what, run_name="__main__", alter_sys=True)
else:
    exec(what, {"__name__": "__main__"})
"""
_LAST_STREAM = 2
_LAST_WORDS = 300  # characters of a dead child's last line


# --- the parent's end ------------------------------------------------------------------------------------------------


class Child:
    """A Python process that gets messages on stdin and says its own on stdout. Own it: `close()` or `with`.

    name: in error messages. arguments: of Python, such as ["-m", module]. env: variables set beside ours.
    modules: folders in which the child finds modules before those that we see.
    log: file for its stderr, written anew; None: a temporary one. held: open file descriptors that it inherits.

    Ctrl-C in the terminal is for the parent alone. A child ends when its parent is gone (Lifeline), and has to end when
    its stdin does, for systems without lifelines.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        modules: Sequence[Path] = (),
        log: Path | None = None,
        held: tuple[int, ...] = (),
    ) -> None:
        self.name = name
        self._errors: IO[bytes] = open(log, "w+b") if log else tempfile.TemporaryFile()  # noqa: SIM115  (see close)
        self._lifeline = Lifeline()
        self._process = subprocess.Popen(
            [sys.executable, "-P", *self._lifeline.tied(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**_environment(modules), **(env or {})},
            pass_fds=(*held, *self._lifeline.inherited),
            start_new_session=True,
        )
        self._lifeline.started()

    def send(self, **message: Any) -> None:
        """To a child that is gone nothing is sent; `receive` tells."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(_line(message))
            self._process.stdin.flush()

    def receive(self) -> Message | None:
        """Its next message, None where it ended. Lines that are no message are passed over."""
        assert self._process.stdout
        return next(_messages(self._process.stdout), None)

    def ask(self, **message: Any) -> Message:
        """Its answer to a message. Raises NativeError for what it could not do, and where it died."""
        self.send(**message)
        answer = self.receive()
        if answer is None:
            raise NativeError(f"{self.name}: {self.death()}")
        if ERROR in answer:
            raise NativeError(f"{self.name}: {answer[ERROR]}")
        return answer

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> int:
        """Its exit code, once it has ended; below zero: the signal that ended it."""
        return self._process.wait()

    def death(self) -> str:
        """One line on how it ended, with the last line it wrote to stderr. Waits for the end."""
        code = self.wait()
        self._errors.seek(0)
        return describe_death(code, self._errors.read().decode(errors="replace"))

    def kill(self) -> None:
        """Ends the process, from any thread: one that waits in `receive` gets None there. `close` is still to come."""
        self._process.kill()

    def close(self) -> None:
        """Ends the process; one that is at work is not waited for."""
        self._process.kill()
        self._process.wait()
        self._lifeline.close()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def forget(self) -> None:
        """In a process that was forked from the parent: gives up its ends of the pipes, which keep the child alive."""
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                os.dup2(nothing, stream.fileno(), inheritable=False)
        os.close(nothing)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class Lifeline:
    """Ends a child when this process is gone, however it ended, and whatever the child is at.

    A pipe that nothing is written to: its other end is this process's alone, so that the kernel closes it with this
    process, and then sends SIGKILL to the child, which has asked for that (fcntl(2), F_SETSIG) before anything else.
    prctl's PR_SET_PDEATHSIG would end children with the thread that started them. Linux alone; elsewhere a child has
    its stdin to go by.
    """

    def __init__(self) -> None:
        self._here = self._there = -1
        if sys.platform == "linux":
            self._there, self._here = map(_no_stream, os.pipe())

    @property
    def inherited(self) -> tuple[int, ...]:
        """File descriptors that the child has to inherit."""
        return (self._there,) if self._there >= 0 else ()

    def tied(self, arguments: Sequence[str]) -> list[str]:
        """Arguments of Python that do what ["-m", module] or ["-c", code] do, in a process that is tied.

        Options of Python may stand in front.
        """
        if self._there < 0:
            return list(arguments)
        begin = next(i for i, argument in enumerate(arguments) if argument in ("-m", "-c"))
        return [*arguments[:begin], "-c", _TIED, str(self._there), *arguments[begin:]]

    def started(self) -> None:
        """The child has its end."""
        if self._there >= 0:
            os.close(self._there)
        self._there = -1

    def close(self) -> None:
        """Once the child has ended; one that has not, ends now. Idempotent."""
        self.started()
        if self._here >= 0:
            os.close(self._here)
        self._here = -1


def _no_stream(fd: int) -> int:
    """The same file under a number that no stream of the child has; where ours are closed, a pipe gets theirs."""
    if sys.platform != "linux" or fd > _LAST_STREAM:
        return fd
    import fcntl

    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LAST_STREAM + 1)
    os.close(fd)
    return moved


def _environment(modules: Sequence[Path]) -> dict[str, str]:
    """Our own, so that the child finds the modules we found; a crash writes no debugger's output."""
    path = os.pathsep.join([*map(str, modules), *filter(None, sys.path)])
    return {**os.environ, "PYTHONPATH": path, "GGML_NO_BACKTRACE": "1"}


def describe_death(code: int, words: str) -> str:
    """One line on a process that ended: its exit code or signal, and the last line of what it wrote to stderr."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    how = f"its process ended with exit code {code}" if code >= 0 else _killed(-code)
    return f"{how}: {lines[-1][:_LAST_WORDS]}" if lines else how


def _killed(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"killed by {name}{', as the system does when memory runs out' if name == 'SIGKILL' else ''}"


# --- the child's end -------------------------------------------------------------------------------------------------


class Parent:
    """The one who started this process. Make one, first of all: from then on standard output is for messages alone.

    What libraries print there goes to stderr.
    """

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)

    def say(self, **message: Any) -> None:
        self._out.write(_line(message))
        self._out.flush()

    def receive(self) -> Message | None:
        """The next message, None where the parent is gone."""
        return next(_messages(sys.stdin.buffer), None)

    def end_with(self) -> None:
        """Ends this process as soon as the parent is gone, even at work. No message can be received any more."""
        self.inbox()

    def inbox(self) -> Iterator[Message]:
        """Messages as they come. From now on this process ends as soon as its parent is gone, even at work."""
        arrived = queue.SimpleQueue[Message]()
        threading.Thread(target=_listen, args=(arrived,), daemon=True).start()
        return iter(arrived.get, None)

    def serve(self, answer: Callable[[Message], Message]) -> None:
        """Answers messages until the parent is gone. What `answer` raises is said instead, and traced to stderr."""
        while (message := self.receive()) is not None:
            try:
                found = answer(message)
            except Exception as e:  # whatever fails is the parent's error line
                traceback.print_exc()
                found = {ERROR: reason_of(e)}
            self.say(**found)


def reason_of(e: BaseException) -> str:
    """One line for what went wrong in a child."""
    text = " ".join(str(e).split())
    if isinstance(e, AimError):
        return text
    if is_out_of_memory(e):
        return f"not enough memory{': ' + text if text else ''}"
    return f"{type(e).__name__}: {text}"


def _listen(arrived: queue.SimpleQueue[Message]) -> None:
    with open(0, "rb", closefd=False) as stream:  # not sys.stdin: its lock would be waited for at exit
        for message in _messages(stream):
            arrived.put(message)
    os._exit(1)


# --- both ------------------------------------------------------------------------------------------------------------


def _line(message: Message) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _messages(stream: IO[bytes]) -> Iterator[Message]:
    """Lines that are messages, as they come."""
    while line := stream.readline():
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                yield found
