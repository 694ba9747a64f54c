"""Any picture of Pillow's as 8-bit RGB: transparency, more than 8 bits a channel, floats, CMYK, LAB.

What is transparent shows white: under it stand whatever colours a program left there. Values of more than 8 bits are
scaled by the depth that the file says. Leaves to others: opening files and orientation.
"""

from __future__ import annotations

import struct
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
_LEAST, _MOST = (280, 340), (281, 341)  # TIFF's (S)MinSampleValue, (S)MaxSampleValue
_PNG_HEAD = 8
_DARK = 4095  # 16-bit values that stay below look nearly black, and are 12 bits more likely


def to_rgb(path: Path, image: PIL.Image.Image) -> Frames:
    """uint8 [H, W, 3]. Raises MediaError for pixels whose range is not known."""
    if image.mode.startswith("I") or image.mode == "F":
        return _from_grey(path, image)
    if image.mode == "LAB":
        image = _from_lab(image)
    if image.has_transparency_data:
        return on_white(_with_alpha(image))
    return np.asarray(image.convert("RGB"))


def on_white(image: PIL.Image.Image) -> Frames:
    """RGBA, colours not multiplied by alpha -> uint8 [H, W, 3] RGB over white."""
    ground = PIL.Image.new("RGBA", image.size, (255, 255, 255, 255))
    return np.asarray(PIL.Image.alpha_composite(ground, image).convert("RGB"))


def depth_warnings(path: Path, image: PIL.Image.Image) -> tuple[str, ...]:
    """What a loaded picture of 16-bit grey leaves open."""
    if not image.mode.startswith("I;16") or _bits(path, image) is not None or _is_inverted(image):
        return ()
    most = int(np.asarray(image).max())
    if not 255 < most <= _DARK:
        return ()
    return (f"its 16-bit values go up to {most} only, and the file does not say that it has fewer bits: it looks dark",)


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


def _from_grey(path: Path, image: PIL.Image.Image) -> Frames:
    """Grey of 16 or 32 bits or of floats: [H, W] -> uint8 [H, W, 3]."""
    values = np.asarray(image)
    key = image.info.get("transparency")
    if image.mode == "F":
        grey = _from_floats(path, image, values.astype(np.float64))
    else:
        grey = _from_whole(path, image, values.astype(np.int64))
    if _is_inverted(image):
        grey = 255 - grey
    if isinstance(key, int):
        grey = np.where(values == key, 255, grey).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _from_whole(path: Path, image: PIL.Image.Image, values: NDArray[np.int64]) -> NDArray[np.uint8]:
    least, most = int(values.min()), int(values.max())
    bits = _bits(path, image)
    if bits is None or most >= 2**bits:
        bits = 16  # PNG asks writers to scale values up; Pillow does so with JPEG 2000 and PGM
    if least < 0 or most > 65535:
        raise MediaError(f"{path}: has 32-bit grey values; save it with 8 or 16 bits per channel")
    if bits == 16:
        # pillow's convert("RGB") saturates 16-bit grey to white above 255
        return (values >> 8).astype(np.uint8)
    top = 2**bits - 1
    scaled: NDArray[np.int64] = (values * 255 + top // 2) // top
    return scaled.astype(np.uint8)


def _from_floats(path: Path, image: PIL.Image.Image, values: NDArray[np.float64]) -> NDArray[np.uint8]:
    if not np.isfinite(values).all():
        raise MediaError(
            f"{path}: has floating-point pixels that are no numbers; save it with 8 or 16 bits per channel"
        )
    low, high = _limit(image, _LEAST), _limit(image, _MOST)
    if low is None or high is None or not low < high:
        low, high = 0.0, 1.0  # as float pictures are usually written
    if values.min() < low or values.max() > high:
        raise MediaError(
            f"{path}: has floating-point pixels from {values.min():.4g} to {values.max():.4g}, and does not say what"
            " is black and what white; scale them to 0..1, or save it with 8 or 16 bits per channel"
        )
    return np.round((values - low) / (high - low) * 255).astype(np.uint8)


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
