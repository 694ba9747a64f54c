"""The edge to other people's decoders: whatever Pillow and PyAV raise becomes one line, and they print nothing.

Knows exceptions and warnings. Leaves to others: which call may fail, and what can be saved then.
"""

from __future__ import annotations

import builtins
import logging
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from aim_local.errors import AimError, MediaError, MediaMemoryError

_SHOWN = 160  # characters of a decoder's own words
_CODE = re.compile(r"(?:\[Errno -?\d+\] ?|decoder error )?[-+]?\d*")  # all that some decoders have to say
# what Python says of these errors is about a program's code, not about a file
_OF_CODE: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((IndexError, struct.error), "its data end early"),
    ((KeyError, AssertionError, AttributeError, TypeError), "a part of it is missing, or is not what it should be"),
)
_OF_KIND: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((EOFError, StopIteration), "its data end early"),
    ((ArithmeticError,), "a number in it cannot be"),
    ((RecursionError,), "its parts are nested too deeply"),
    ((NotImplementedError, ImportError), "it is of a kind that its decoder does not know"),
)
_NO_REASON = "its data cannot be decoded"
# what Pillow logs would go to stderr where a program has set up no logging
logging.getLogger("PIL").addHandler(logging.NullHandler())


@contextmanager
def decoding(name: object, failed: str = "is a damaged picture") -> Iterator[None]:
    """For calls into a decoder alone. Raises MediaError for what they raise, MediaMemoryError where memory ran out.

    Errors of ours and Ctrl-C pass. Pillow's warnings say what we find out by ourselves (sizes, damage, EXIF), so they
    are told to nobody.
    """
    with _quiet:
        try:
            yield
        except AimError:
            raise
        except MemoryError as e:
            raise no_memory(name) from e
        except Exception as e:
            raise MediaError(f"{name}: {failed} ({reason(e)}); copy or download it again") from e


def no_memory(name: object) -> MediaMemoryError:
    return MediaMemoryError(
        f"{name}: there is no memory for its decoder; free some, or scale it down (damaged: copy it)"
    )


def reason(e: BaseException) -> str:
    """What an exception says, on one short printable line, in words also where it has none for a user."""
    for kinds, words in _OF_CODE:
        if isinstance(e, kinds):
            return words
    text = getattr(e, "strerror", None) or str(e)
    clean = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    if _CODE.fullmatch(clean) or clean == type(e).__name__ or clean in vars(builtins):
        return next((words for kinds, words in _OF_KIND if isinstance(e, kinds)), _NO_REASON)
    return clean if len(clean) <= _SHOWN else f"{clean[:_SHOWN]}..."


class _Quiet:
    """Drops warnings that come from Pillow's own files while any thread is in it.

    warnings.catch_warnings would put back filters that another thread has set meanwhile.
    """

    def __init__(self) -> None:
        self._lock, self._n = threading.Lock(), 0
        self._filter: object = None

    def __enter__(self) -> None:
        with self._lock:
            self._n += 1
            if self._n == 1 or self._filter not in warnings.filters:
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self._filter = warnings.filters[0]

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._n -= 1
            if self._n == 0:
                with suppress(ValueError):  # somebody else has set up all filters anew
                    warnings.filters.remove(self._filter)  # type: ignore[attr-defined]


_quiet = _Quiet()
