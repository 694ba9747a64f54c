"""How a picture is to be turned for display, whatever its metadata hold.

Metadata that cannot be read, or ask for no turn there is, are told and ignored: they are no reason to refuse pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import PIL.ExifTags
import PIL.Image

from aim_local.media.types import Frames

# orientation: whether it is mirrored along x and y, after height and width changed places
_FLIPS = {
    1: (False, False),
    2: (True, False),
    3: (True, True),
    4: (False, True),
    5: (False, False),
    6: (True, False),
    7: (True, True),
    8: (False, True),
}
_SWAP_FROM = 5  # orientations from here on swap height and width


class Turn(NamedTuple):
    """orientation: EXIF's, from 1 (as stored) to 8. warnings: what of the metadata is ignored."""

    orientation: int = 1
    warnings: tuple[str, ...] = ()

    @property
    def swaps(self) -> bool:
        """Whether height and width change places."""
        return self.orientation >= _SWAP_FROM

    def displayed(self, stored: Frames) -> Frames:
        """[h, w, 3] as stored -> a view of it as displayed, [H, W, 3]."""
        turned = stored.transpose(1, 0, 2) if self.swaps else stored
        return self._flipped(turned)

    def stored(self, displayed: Frames) -> Frames:
        """The inverse of `displayed`."""
        back = self._flipped(displayed)
        return back.transpose(1, 0, 2) if self.swaps else back

    def _flipped(self, pixels: Frames) -> Frames:
        flip_x, flip_y = _FLIPS[self.orientation]
        return pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1]


def turn_of(read: Callable[[], PIL.Image.Exif]) -> Turn:
    """Of an open picture. read: gives its EXIF data. Raises MemoryError."""
    try:
        found: object = read().get(PIL.ExifTags.Base.Orientation)
    except MemoryError:
        raise
    except Exception as e:  # Pillow's parsers raise whatever the bytes make them stumble over
        return Turn(warnings=(f"its metadata (EXIF) cannot be read ({type(e).__name__}): used as stored, not turned",))
    if found is None or found in (0, 1):  # 0: not known
        return Turn()
    if isinstance(found, int) and found in _FLIPS:
        return Turn(int(found))
    said = repr(found) if len(repr(found)) < 40 else f"{repr(found)[:40]}..."
    return Turn(warnings=(f"its EXIF orientation is {said}, which is none: used as stored, not turned",))
