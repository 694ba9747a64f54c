"""Memory of the C library's heap: what was freed goes back to the system, and how much room is set aside."""

from __future__ import annotations

import ctypes

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h


def give_back() -> None:
    """Pages of freed arrays, which glibc keeps for arrays to come. Elsewhere nothing happens.

    What comes next is larger than what glibc would put there: hidden states and caches of a long prompt.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # no glibc; on Windows there is no process to search
        return
    trim(ctypes.c_size_t(0))


def take_one_arena() -> None:
    """Threads share one heap from now on: glibc maps 64 MiB for the heap of each. Elsewhere nothing happens."""
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    set_option(_ARENA_MAX, 1)
