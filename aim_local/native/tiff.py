"""libtiff, which Pillow brings, writes what it thinks of a file to stderr. Pillow's own errors say it again."""

from __future__ import annotations

import ctypes
from functools import cache

from PIL import _imaging


@cache
def silence_libtiff() -> None:
    """For the whole process. Nothing happens where libtiff cannot be found behind Pillow (on Windows)."""
    try:
        pillow = ctypes.CDLL(_imaging.__file__)
        setters = [getattr(pillow, f"TIFFSet{kind}Handler") for kind in ("Error", "Warning")]
    except (AttributeError, OSError, TypeError):
        return
    for setter in setters:
        setter.restype, setter.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        setter(None)
