"""Errors a user can act on. Each message says what came, what is allowed and what to do, in one line."""

import errno
import os
import re

from .visible import visible

MAX_LINE, _END = 990, 500  # characters of a message, with "error: " in front below 1000; of its end: what to do
_SHORT = 480  # a message of more characters has no word whole that is longer than a file's name may be
_LONG_WORD, _PART = re.compile(r"\S{256,}"), 100


class AimError(Exception):
    """Base of every error of ours; the command line prints its message alone and exits with `exit_code`.

    What a message quotes may be of any length and hold anything: `str` leaves out the middle of words and messages that
    are too long to read, and has escapes for what a terminal acts on.
    """

    exit_code = 1

    def __str__(self) -> str:
        line = visible(super().__str__())
        if len(line) > _SHORT:
            line = _LONG_WORD.sub(lambda word: f"{word[0][:_PART]}...{word[0][-_PART:]}", line)
        if len(line) <= MAX_LINE:
            return line
        return f"{line[: MAX_LINE - _END - 5]} ... {line[-_END:]}"


class UsageError(AimError):
    """An option or argument that cannot be what was meant."""

    exit_code = 2


class MediaError(AimError):
    """A video or picture that cannot be read."""


class MediaBudgetError(MediaError):
    """A video or picture that would take more work or memory than max_pixels allows."""


class MediaMemoryError(MediaError, MemoryError):
    """A video or picture for whose decoder there is no memory."""


class ModelError(AimError):
    """A model file or folder that cannot be loaded, or does not fit its partner."""


class NotFiniteError(ModelError):
    """Next-token scores that are no numbers, or all the same."""


class HubError(AimError):
    """A model that cannot be had from the hub: not there, not allowed, not reachable, or not whole."""


class NativeError(AimError):
    """The native libraries are missing, stock, or failed."""


class ServerLostError(NativeError):
    """Another machine that held layers of the model is gone; the model has to be loaded anew."""


class ClosedError(NativeError):
    """The model or the conversation was closed, by this thread before or by another one meanwhile."""


class CancelledError(AimError):
    """The call was cancelled from outside before it had an answer."""


class ContextError(AimError):
    """A prompt that does not fit the context."""


class SuiteError(AimError):
    """A suite of questions that cannot be read, or is not what a suite must be."""


# an alternative that only the library has: neither the command line nor a request can give a prompt as it is, or None
_PYTHON_ONLY = re.compile(r",? or [^,;]*\braw=True\b[^,;]*|,? or None(?: for the default)?(?=[,;]|$)")


def without_python_only(message: str) -> str:
    """A message without what only those can do who call the library from Python."""
    return _PYTHON_ONLY.sub("", message)


# of the interpreter, which has no room to make the exception that it means
NO_EXCEPTION = ("without exception set", "without setting an exception")
_NO_MEMORY = ("failed to map segment", "annot allocate memory", "annot create shared object")


def is_out_of_memory(e: BaseException) -> bool:
    """Whether what was raised, by Python, the system or the loader of a library, says that there was no memory."""
    if isinstance(e, OSError):
        is_av = type(e).__module__.startswith("av.") and e.errno == errno.EAGAIN  # no room for a thread's stack
        return is_av or e.errno == errno.ENOMEM or any(words in str(e) for words in _NO_MEMORY)
    if isinstance(e, ImportError):
        return any(words in str(e) for words in _NO_MEMORY)
    if isinstance(e, SystemError):
        return any(words in str(e) for words in NO_EXCEPTION)
    return isinstance(e, MemoryError) or (isinstance(e, RuntimeError) and "start new thread" in str(e))


_FILES = (errno.EMFILE, errno.ENFILE)  # of the process, of the system


def is_out_of_files(e: BaseException) -> bool:
    """Whether what was raised, or what it was raised from, says that no more files could be open."""
    said = tuple(map(os.strerror, _FILES))
    known, left = set[int](), [e]
    while left:
        found = left.pop()
        known.add(id(found))
        if isinstance(found, OSError) and found.errno in _FILES:
            return True
        if isinstance(found, OSError | ImportError | AimError) and any(words in str(found) for words in said):
            return True
        left += [cause for cause in (found.__cause__, found.__context__) if cause and id(cause) not in known]
    return False
