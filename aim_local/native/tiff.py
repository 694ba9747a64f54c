"""libtiff, which Pillow brings: what it writes to stderr, and which compressions it was built for.

Nothing is known, and nothing happens, where libtiff cannot be found behind Pillow (on Windows).
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from PIL import _imaging


@cache
def silence_libtiff() -> None:
    """For the whole process: what libtiff thinks of a file, Pillow's own errors say again."""
    for kind in ("Error", "Warning"):
        setter = _function(f"TIFFSet{kind}Handler")
        if setter is not None:
            setter.restype, setter.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
            setter(None)


@cache
def lacks_codec(compression: int) -> bool:
    """Whether libtiff is known to have no decoder for this value of a TIFF's Compression."""
    is_there = _function("TIFFIsCODECConfigured")
    if is_there is None:
        return False
    is_there.restype, is_there.argtypes = ctypes.c_int, [ctypes.c_uint16]
    return not is_there(compression)


def _function(name: str) -> Any:
    """None where it is not found."""
    try:
        return getattr(ctypes.CDLL(_imaging.__file__), name)
    except (AttributeError, OSError, TypeError):
        return None
