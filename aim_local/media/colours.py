"""Any picture of Pillow's as 8-bit RGB: transparency, more than 8 bits a channel, floats, CMYK, LAB.

What is transparent shows white: under it stand whatever colours a program left there. Values of more than 8 bits are
scaled by the depth that the file says. Leaves to others: opening files and orientation.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.TiffImagePlugin
from numpy.typing import NDArray

from aim_local.errors import MediaError
from aim_local.media.types import Frames

_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
_FORMAT, _SIGNED = 339, 2  # TIFF's SampleFormat
_LEAST, _MOST = (280, 340), (281, 341)  # TIFF's (S)MinSampleValue, (S)MaxSampleValue
_PNG_HEAD = 8
_DARK = 4095  # 16-bit values that stay below look nearly black, and are 12 bits more likely


@dataclass(frozen=True)
class Colours:
    """to_rgb: from a picture, or rows of it cut out, to uint8 [h, w, 3]; warnings: what the file leaves open."""

    to_rgb: Callable[[PIL.Image.Image], Frames]
    warnings: tuple[str, ...] = ()


def colours_of(path: Path, image: PIL.Image.Image) -> Colours:
    """Of a loaded picture. Raises MediaError for pixels whose range is not known."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = _grey_of(path, image)
        return Colours(partial(_from_grey, grey, image.info.get("transparency")), _depth_warnings(path, image))
    if image.mode == "L" and _tag(image, _FORMAT) == _SIGNED and _extremes(image)[1] > 127:
        raise MediaError(
            f"{path}: has grey values below zero (8 bits, signed); scale them to 0..255, and save it again"
        )
    return Colours(_from_colours)


def _from_colours(image: PIL.Image.Image) -> Frames:
    if image.mode == "LAB":
        image = _from_lab(image)
    if image.has_transparency_data:
        return on_white(_with_alpha(image))
    return np.asarray(image.convert("RGB"))


def on_white(image: PIL.Image.Image) -> Frames:
    """RGBA, colours not multiplied by alpha -> uint8 [H, W, 3] RGB over white."""
    ground = PIL.Image.new("RGBA", image.size, (255, 255, 255, 255))
    return np.asarray(PIL.Image.alpha_composite(ground, image).convert("RGB"))


def _depth_warnings(path: Path, image: PIL.Image.Image) -> tuple[str, ...]:
    if not image.mode.startswith("I;16") or _bits(path, image) is not None or _is_inverted(image):
        return ()
    most = _extremes(image)[1]
    if not 255 < most <= _DARK:
        return ()
    said = (
        f"its 16-bit values go up to {most:.0f} only, and the file does not say that it has fewer bits: it looks dark"
    )
    return (said,)


def _with_alpha(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    key = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:
        # a transparent colour of 16 bits beside pixels that Pillow made 8 bits of
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in key)
    return image.convert("RGBA")


def _from_lab(image: PIL.Image.Image) -> PIL.Image.Image:
    lab, rgb = PIL.ImageCms.createProfile("LAB"), PIL.ImageCms.createProfile("sRGB")
    found = PIL.ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB")
    assert found is not None, "not done in place"
    return found


def _from_grey(grey: Callable[[NDArray[Any]], NDArray[np.uint8]], key: object, image: PIL.Image.Image) -> Frames:
    """Grey of 16 or 32 bits or of floats: [h, w] -> uint8 [h, w, 3]. key: the value that is transparent."""
    values = np.asarray(image)
    found = grey(values)
    if isinstance(key, int):
        found = np.where(values == key, np.uint8(255), found)
    return np.repeat(found[..., None], 3, axis=2)


def _grey_of(path: Path, image: PIL.Image.Image) -> Callable[[NDArray[Any]], NDArray[np.uint8]]:
    """From values of more than 8 bits to 8. Raises MediaError."""
    scale: Callable[[NDArray[Any]], NDArray[np.uint8]] = _high_byte
    if image.mode == "F":
        scale = partial(_scaled, *_range(path, image))
    elif (bits := _whole_bits(path, image)) < 16:
        scale = partial(_scaled, 0.0, 2.0**bits - 1)
    return (lambda values: 255 - scale(values)) if _is_inverted(image) else scale


def _high_byte(values: NDArray[Any]) -> NDArray[np.uint8]:
    # pillow's convert("RGB") saturates 16-bit grey to white above 255
    return (values.astype(np.int64) >> 8).astype(np.uint8)


def _scaled(low: float, high: float, values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.round((values.astype(np.float64) - low) / (high - low) * 255).astype(np.uint8)


def _whole_bits(path: Path, image: PIL.Image.Image) -> int:
    least, most = _extremes(image)
    if least < 0 or most > 65535:
        raise _beyond(path, least, most)
    bits = _bits(path, image)
    # PNG asks writers to scale values up; Pillow does so with JPEG 2000 and PGM
    return 16 if bits is None or most >= 2**bits else bits


def _beyond(path: Path, least: float, most: float) -> MediaError:
    return MediaError(
        f"{path}: has grey values from {least:.0f} to {most:.0f}; scale them to 0..65535, and save it with 16 bits"
    )


def _range(path: Path, image: PIL.Image.Image) -> tuple[float, float]:
    """The values of black and white in a picture of floats."""
    least, most = _extremes(image)
    if not math.isfinite(least) or not math.isfinite(most):
        raise MediaError(f"{path}: has pixels that are no numbers (NaN); save it with 8 or 16 bits per channel")
    low, high = _limit(image, _LEAST), _limit(image, _MOST)
    if low is None or high is None or not low < high:
        low, high = 0.0, 1.0  # as float pictures are usually written
    if least < low or most > high:
        raise MediaError(
            f"{path}: has floating-point pixels from {least:.4g} to {most:.4g}, and does not say what is black and what"
            " white; scale them to 0..1, or save it with 8 or 16 bits per channel"
        )
    return low, high


def _extremes(image: PIL.Image.Image) -> tuple[float, float]:
    """The least and the highest value; NaN where there is one."""
    values = np.asarray(image)
    return float(values.min()), float(values.max())


def _is_inverted(image: PIL.Image.Image) -> bool:
    return bool(_tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO)


def _limit(image: PIL.Image.Image, tags: tuple[int, int]) -> float | None:
    found = next((value for value in (_tag(image, tag) for tag in reversed(tags)) if value is not None), None)
    return float(found) if isinstance(found, int | float) else None


def _bits(path: Path, image: PIL.Image.Image) -> int | None:
    """Bits of a grey value of more than 8, where the file says so."""
    if image.format == "PNG":
        return _significant_bits(path)
    most = _tag(image, _MOST[0])
    if isinstance(most, int) and 255 < most < 65535:
        return most.bit_length()
    bits = _tag(image, _BITS)
    return bits if isinstance(bits, int) and 8 < bits < 16 else None


def _tag(image: PIL.Image.Image, tag: int) -> Any:
    """The first value of a TIFF's tag; None where there is none."""
    tags = getattr(image, "tag_v2", None)
    value = tags.get(tag) if tags is not None else None
    return value[0] if isinstance(value, tuple) and value else value


def _significant_bits(path: Path) -> int | None:
    """Of a PNG's chunk sBIT, which stands before the pixels."""
    if not path.is_file():
        return None  # a picture that was given open
    with path.open("rb") as file:
        file.seek(_PNG_HEAD)
        while len(head := file.read(8)) == 8:
            n_bytes, name = struct.unpack(">I4s", head)
            if name == b"sBIT" and 0 < n_bytes <= 4:
                return next((bits for bits in file.read(n_bytes)[:1] if 8 < bits <= 16), None)
            if name == b"IDAT":
                return None
            file.seek(n_bytes + 4, 1)  # a checksum follows the data
    return None
