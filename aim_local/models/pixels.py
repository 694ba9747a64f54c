"""Pixels for the vision tower: what transformers' PIL processors do, on uint8 arrays, without torch.

Each picture ends as tiles uint8 [n, side, side, 3]; dividing by 255, mean and std happen in the library, in one place.
transformers resizes 8-bit pictures too and rounds there, so the tiles are the same bytes.
Where the pieces come from: LlavaOnevisionImageProcessorPil, LlavaNextImageProcessorPil, LlavaImageProcessorPil and
CLIPImageProcessorPil of transformers 5 (models/*/image_processing_pil_*.py, image_transforms.py). Reading media files
is media/'s concern.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MediaError, ModelError
from ..media.canvas import resize_rgb
from ..native.visual import AnyresPlan

Pixels = NDArray[np.uint8]

LANCZOS, BILINEAR, BICUBIC = 1, 2, 3  # PIL's numbers
_STRIP = 1 << 22  # pixels that are worked on at a time
MAX_PADDED = 1 << 29  # pixels, with what is padded beside them
MAX_RESIZED = 1 << 27  # pixels; LLaVA-1.5 resizes a whole strip before it cuts the middle out
KINDS = ("onevision", "anyres", "clip-center-crop")
ANYRES = (
    "onevision",
    "anyres",
)  # pictures become a base view and tiles; "anyres" has no limit, and cuts frames as CLIP
NO_LIMIT = 1 << 20  # tiles
MAX_TILES = 256  # of a picture, whatever a file says: known models have 37 at most


@dataclass(frozen=True)
class PreprocessConfig:
    """What the mmproj says about pictures. Sizes are pixels; `resample` is PIL's number of the filter."""

    kind: str  # one of KINDS
    side: int
    mean: tuple[float, ...]
    resample: int = BICUBIC
    video_resample: int = BICUBIC
    pinpoints: tuple[tuple[int, int], ...] = ()  # (height, width), onevision
    max_tiles: int = 9
    shortest_edge: int = 0  # clip-center-crop; 0: both sides are resized to `side`
    center_crop: bool = True
    pad_square: bool = False

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> PreprocessConfig:
        """From the keys of a mmproj GGUF. One without aim.* keys is LLaVA-1.5 or LLaVA-NeXT as others write it."""
        is_next = bool(metadata.get("clip.vision.image_grid_pinpoints"))
        kind = str(metadata.get("aim.preprocess", "anyres" if is_next else "clip-center-crop"))
        side = int(metadata.get("clip.vision.image_size", 0))
        if kind not in KINDS or side <= 0:
            known = ", ".join(KINDS)
            raise ModelError(
                f"the mmproj asks for pictures {kind!r} at {side} pixels, known: {known}; convert it again"
            )
        resample = int(metadata.get("aim.vision.resample", BICUBIC))
        return cls(
            kind=kind,
            side=side,
            mean=tuple(float(m) for m in metadata.get("clip.vision.image_mean", (0.5, 0.5, 0.5))),
            resample=resample,
            video_resample=int(metadata.get("aim.video.resample", resample)),
            pinpoints=_pinpoints(metadata.get("clip.vision.image_grid_pinpoints", ()), side),
            max_tiles=int(metadata.get("aim.vision.max_tiles", 9)) if kind == "onevision" else NO_LIMIT,
            shortest_edge=int(metadata.get("aim.vision.shortest_edge", side)),
            center_crop=bool(metadata.get("aim.vision.do_center_crop", True)),
            pad_square=bool(metadata.get("aim.vision.do_pad", False)),
        )


def _pinpoints(flat: Sequence[int], side: int) -> tuple[tuple[int, int], ...]:
    """GGUF keeps them flat and as width, height (clip.cpp reads them so); none means the whole image is one tile."""
    pairs = tuple((int(h), int(w)) for w, h in zip(flat[::2], flat[1::2], strict=True))
    return pairs or ((side, side),)


# --- what is made of a picture ---------------------------------------------------------------------------------------


def plan_image(height: int, width: int, config: PreprocessConfig, patches: int) -> AnyresPlan:
    """Tiles and tokens of one image of any resolution. `patches`: per tile side.

    Raises ModelError where a file asks for more tiles, or larger ones, than any model has.
    """
    found = AnyresPlan.of(height, width, config.side, patches, config.pinpoints, config.max_tiles)
    if found.n_tiles > MAX_TILES or found.best_h * found.best_w > MAX_RESIZED:
        raise ModelError(
            f"the mmproj cuts a picture of {width}x{height} into {found.n_tiles:,} tiles of {config.side} pixels, at"
            f" most {MAX_TILES} are allowed; its image_grid_pinpoints are damaged: convert it again"
        )
    return found


def image_tiles(image: Pixels, config: PreprocessConfig) -> Pixels:
    """uint8 [H, W, 3] -> [n, side, side, 3]: base view and tile grid, or the one cropped picture."""
    if config.kind in ANYRES:
        return anyres_tiles(image, config)
    return clip_tile(image, config)[None]


def video_frame(frame: Pixels, config: PreprocessConfig) -> Pixels:
    """uint8 [H, W, 3] -> [side, side, 3]. A frame that has the tower's size is not touched."""
    if config.kind == "onevision":
        return resize(frame, config.side, config.side, config.video_resample)
    return clip_tile(frame, config)


# --- LLaVA-OneVision and LLaVA-NeXT -----------------------------------------------------------------------------------


def anyres_tiles(image: Pixels, config: PreprocessConfig) -> Pixels:
    """Base view first, then the tiles of the best pinpoint row by row."""
    side = config.side
    plan = plan_image(image.shape[0], image.shape[1], config, patches=1)  # the pinpoint does not depend on patches
    fitted = fit(image, plan.best_h, plan.best_w, config.resample)
    tiles = fitted.reshape(plan.tile_rows, side, plan.tile_cols, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    return np.concatenate([resize(image, side, side, config.resample)[None], tiles])


def fit(image: Pixels, height: int, width: int, resample: int) -> Pixels:
    """Resized to fit into height x width, centred on black. ref: _resize_for_patching, _pad_for_patching"""
    old_h, old_w = image.shape[:2]
    by_w, by_h = width / old_w, height / old_h
    if by_w < by_h:
        new_h, new_w = min(math.ceil(old_h * by_w), height), width
    else:
        new_h, new_w = height, min(math.ceil(old_w * by_h), width)
    out = np.zeros((height, width, 3), np.uint8)
    top, left = (height - new_h) // 2, (width - new_w) // 2
    out[top : top + new_h, left : left + new_w] = resize(image, new_h, new_w, resample)
    return out


# --- LLaVA-1.5, and the frames of LLaVA-NeXT-Video --------------------------------------------------------------------


def clip_tile(image: Pixels, config: PreprocessConfig) -> Pixels:
    """[H, W, 3] -> [side, side, 3]: shortest edge resized, then the centre cut out."""
    if config.pad_square:
        resized = resize_padded(image, config)
    else:
        resized = resize(image, *clip_size(image.shape[0], image.shape[1], config), config.resample)
    return center_crop(resized, config.side) if config.center_crop else resized


def clip_size(height: int, width: int, config: PreprocessConfig) -> tuple[int, int]:
    """ref: get_resize_output_image_size(default_to_square=False); the longer edge is cut, not rounded"""
    short = config.shortest_edge
    if not short:
        return config.side, config.side
    long = int(short * max(height, width) / min(height, width))
    if long * short > MAX_RESIZED:
        raise MediaError(f"a picture of {width}x{height} is too long and thin to be resized; crop it first")
    return (long, short) if width <= height else (short, long)


def center_crop(image: Pixels, side: int) -> Pixels:
    """The middle side x side; black where the image is smaller. ref: image_transforms.center_crop"""
    height, width = image.shape[:2]
    out = np.zeros((max(height, side), max(width, side), 3), np.uint8)
    top, left = math.ceil((out.shape[0] - height) / 2), math.ceil((out.shape[1] - width) / 2)
    out[top : top + height, left : left + width] = image
    top, left = (height - side) // 2 + top, (width - side) // 2 + left  # 0 where the image is smaller
    return out[top : top + side, left : left + side]


# --- shared ----------------------------------------------------------------------------------------------------------


def resize_padded(image: Pixels, config: PreprocessConfig) -> Pixels:
    """Centred on a square of the mean colour, then resized.

    Pillow resizes the rows of a square before its columns, and so a few of its rows are here at a time.
    """
    height, width = image.shape[:2]
    side = max(height, width)
    colour = np.array([int(m * 255) for m in config.mean], np.uint8)
    new_h, new_w = clip_size(side, side, config)
    if height * side > MAX_PADDED or side * max(new_h, new_w) > MAX_RESIZED:
        raise MediaError(f"a picture of {width}x{height} is too large to be padded to a square; crop it first")
    top, left = (side - height) // 2, (side - width) // 2
    blank = resize(np.broadcast_to(colour, (1, side, 3)), 1, new_w, config.resample)  # a row above or below the picture
    narrow = np.empty((side, new_w, 3), np.uint8)
    narrow[:] = blank
    n_rows = max(1, _STRIP // side)
    for row in range(0, height, n_rows):
        strip = image[row : row + n_rows]
        wide = np.broadcast_to(colour, (len(strip), side, 3)).copy()
        wide[:, left : left + width] = strip
        narrow[top + row : top + row + len(strip)] = resize(wide, len(strip), new_w, config.resample)
    return resize(narrow, new_h, new_w, config.resample)


def resize(image: Pixels, height: int, width: int, resample: int) -> Pixels:
    """PIL's resize, rounded to 8 bits. The same size is no resize, as in PIL."""
    return resize_rgb(image, (height, width), resample)
