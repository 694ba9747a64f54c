"""How much a picture or clip may ask of the decoders: everything is counted in pixels, before it is decoded.

One number, max_pixels (LoadConfig), bounds a picture or a frame, and so the memory; multiples of it bound what is
decoded one after the other, and so the time. Knows numbers. Leaves to others: reading them from files.
"""

from __future__ import annotations

import math

from aim_local.config import MAX_PIXELS
from aim_local.errors import MediaBudgetError

STEPS = 2  # so many times max_pixels are stepped through of an animated picture, from its first frame on
SCANS = 12  # and of a JPEG, each of whose scans is a pass over all pixels: usual are 1 to 12
CLIP = 512  # so many times max_pixels are decoded of a clip: 4,100 frames of 8K, 66,000 of 1080p
MAX_PACKETS = 4_000_000  # of a clip's index: a day at 46 frames a second
MAX_SIDE = 2**20  # pixels of a row or column: Pillow cannot take much longer ones
_LEAST = 2**15  # pixels as which a step counts at least: it takes time of its own, however small its frame is


def check_frame(name: object, what: str, height: int, width: int, max_pixels: int = MAX_PIXELS) -> None:
    """what: "a picture (PNG)". Raises MediaBudgetError for one that is too large, or too long."""
    if max(height, width) > MAX_SIDE:
        came = f"{name}: {what} of {width} x {height} pixels; a side has at most {MAX_SIDE:,}"
        raise MediaBudgetError(f"{came}: crop it first")
    if height * width > max_pixels:
        came = f"{what} of {width} x {height} = {height * width:,} pixels"
        raise _beyond(name, came, max_pixels, height * width)


def check_steps(name: object, n_frames: int, height: int, width: int, max_pixels: int = MAX_PIXELS) -> None:
    """Of an animated picture. Raises MediaBudgetError."""
    total = n_frames * max(_LEAST, height * width)
    if total > STEPS * max_pixels:
        least = f", a frame counted as {_LEAST:,} at least" if height * width < _LEAST else ""
        came = f"{n_frames:,} frames of {width} x {height} = {total:,} pixels to step through{least}"
        raise _beyond(name, came, STEPS * max_pixels, math.ceil(total / STEPS))


def most_steps(max_pixels: int = MAX_PIXELS) -> int:
    """Frames of an animated picture that may be stepped through, however small they are."""
    return STEPS * max_pixels // _LEAST


def check_scans(name: object, n_scans: int, height: int, width: int, max_pixels: int = MAX_PIXELS) -> None:
    """Of a JPEG. Raises MediaBudgetError."""
    total = n_scans * height * width
    if total > SCANS * max_pixels:
        came = f"{n_scans:,} scans of a JPEG of {width} x {height} = {total:,} pixels to go through"
        raise _beyond(name, came, SCANS * max_pixels, math.ceil(total / SCANS))


def check_decoded(name: object, n_frames: int, height: int, width: int, max_pixels: int = MAX_PIXELS) -> None:
    """n_frames: of a clip, that must be decoded for the chosen ones. Raises MediaBudgetError."""
    total = n_frames * height * width
    if total > CLIP * max_pixels:
        came = f"{n_frames:,} frames of {width} x {height} = {total:,} pixels have to be decoded for the chosen frames"
        raise _beyond(
            name, came, CLIP * max_pixels, math.ceil(total / CLIP), "choose fewer frames or a shorter range, "
        )


def _beyond(name: object, came: str, allowed: int, wanted: int, less: str = "") -> MediaBudgetError:
    return MediaBudgetError(
        f"{name}: {came}, at most {allowed:,} are allowed; {less}scale it down, or give max_pixels={wanted} or more"
    )
