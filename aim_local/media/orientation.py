"""How a stored picture is to be turned for display.

Knows: the display matrix as FFmpeg hands it over, from the head of MP4, MOV and Matroska, or from EXIF in the frames of
a clip (MJPEG, PNG). Leaves to others: EXIF of pictures (Pillow applies it).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from av import VideoFrame
from av.sidedata.sidedata import SideData, SideDataContainer, Type

from aim_local.media.types import Frames

# not frame.side_data: the frame would keep it and it the frame, whose pixels then wait for the garbage collector
# PyAV types this container as a mapping; it is made from a frame and iterates as a list
_sides_of = cast("Callable[[VideoFrame], Iterable[SideData]]", SideDataContainer)


def _type_without_name(kind: type[Type], value: Any) -> Type:
    found = object.__new__(kind)
    found._name_, found._value_ = f"TYPE_{value}", value
    return found


# PyAV lists FFmpeg's types up to 27. A frame that carries a later one (EXIF is 31) could not be asked for any: there is
# no way to its side data but this container, which looks for the name of each
Type._missing_ = classmethod(_type_without_name)  # type: ignore[assignment, method-assign]


@dataclass(frozen=True)
class Orientation:
    """Swap the axes, then mirror along x and y where asked. warning: what was asked and is not done."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False
    warning: str | None = None

    @property
    def degrees(self) -> int:
        """The turn in it, degrees clockwise; a mirrored picture's mirroring is not counted."""
        if self.transpose:
            return 90 if self.flip_x else 270
        return 180 if self.flip_x and self.flip_y else 0

    def apply(self, pixels: Frames) -> Frames:
        """uint8 [H, W, 3] as stored -> uint8 [H, W, 3] as displayed (height and width swap under transpose)."""
        turned = pixels.transpose(1, 0, 2) if self.transpose else pixels
        return turned[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]


def orientation_of(frame: VideoFrame) -> Orientation:
    """The orientation a decoded frame asks for; angles other than quarter turns are reported and not applied."""
    matrix = next((bytes(side) for side in _sides_of(frame) if side.type is Type.DISPLAYMATRIX), None)
    if matrix is None:
        return Orientation()
    # a stored point (x, y) is displayed at (a x + c y, b x + d y); 16.16 fixed point
    a, b, _, c, d = (int(v) for v in np.frombuffer(matrix, dtype=np.int32)[:5])
    small = max(abs(a), abs(b), abs(c), abs(d)) // 100
    if abs(b) <= small and abs(c) <= small and a and d:
        return Orientation(False, flip_x=a < 0, flip_y=d < 0)
    if abs(a) <= small and abs(d) <= small and b and c:
        return Orientation(True, flip_x=c < 0, flip_y=b < 0)
    return Orientation(
        warning=f"the file asks for a turn by {-frame.rotation % 360} degrees clockwise; only quarter turns are made"
    )
