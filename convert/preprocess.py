"""How a checkpoint prepares pictures: the image and video processors' numbers.

Reads processor_config.json (new), preprocessor_config.json (old), or the vision tower folder's own.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .checkpoint import Checkpoint, section
from .defaults import BICUBIC, N_FRAMES, PROCESSOR_NUMBERS
from .errors import ConvertError, unsupported
from .towers import VisionSpec


@dataclass(frozen=True)
class Preprocess:
    """From pixels to the tower's input, as the checkpoint's image processor does it. `resample` is PIL's number."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: int
    video_resample: int
    n_frames: int
    shortest_edge: int | None  # None: both sides are resized to the tower's size
    crop: bool
    pad_square: bool
    pinpoints: tuple[tuple[int, int], ...]  # (height, width)
    max_tiles: int
    default: bool  # the checkpoint names no processor: these are the tower's published numbers


def read_preprocess(
    checkpoint: Checkpoint, tower: Checkpoint | None, vision: VisionSpec, family: str, original: bool
) -> Preprocess:
    """The numbers of `checkpoint`, or of the `tower` folder; where neither has any, the tower's published ones."""
    processor = checkpoint.json("processor_config.json")
    image = section(processor, "image_processor") or checkpoint.json("preprocessor_config.json")
    if not image and tower is not None:
        image = tower.json("preprocessor_config.json")
    video = section(processor, "video_processor") or checkpoint.json("video_preprocessor_config.json")
    mean, std = PROCESSOR_NUMBERS[vision.kind]
    resample = int(image.get("resample", BICUBIC))
    shortest, crop = read_size(image, vision, family)
    onevision = family == "llava_onevision"
    return Preprocess(
        mean=triple(image.get("image_mean", mean)),
        std=triple(image.get("image_std", std)),
        resample=resample,
        video_resample=int(video.get("resample", resample)),
        n_frames=int(video.get("num_frames") or N_FRAMES),
        shortest_edge=shortest,
        crop=crop,
        pad_square=bool(image.get("do_pad")) or (original and checkpoint.config.get("image_aspect_ratio") == "pad"),
        pinpoints=read_pinpoints(checkpoint.config, vision.image_size, original) if onevision else (),
        max_tiles=read_max_tiles(checkpoint.config, original) if onevision else 1,
        default=not image,
    )


def triple(values: Any) -> tuple[float, float, float]:
    if not isinstance(values, list | tuple) or len(values) != 3:
        raise ConvertError(f"the image processor's mean or std is {values!r}; three numbers are expected")
    return (float(values[0]), float(values[1]), float(values[2]))


def read_size(image: Mapping[str, Any], vision: VisionSpec, family: str) -> tuple[int | None, bool]:
    """(shortest edge or None for both sides, centre crop). The picture must end at the tower's size."""
    side = vision.image_size
    clip = family == "llava"
    size = image.get("size", {"shortest_edge": side} if clip else {"height": side, "width": side})
    crop_size = image.get("crop_size") or side
    crop = clip and bool(image.get("do_center_crop", True))
    size = {"shortest_edge": size} if isinstance(size, int) else size
    shortest = size.get("shortest_edge")
    resized = {shortest} if shortest else {size.get("height"), size.get("width")}
    cropped = {crop_size} if isinstance(crop_size, int) else {crop_size.get("height"), crop_size.get("width")}
    final = cropped if crop else resized
    if final != {side}:
        got = "x".join(str(s) for s in sorted(final, key=str))
        raise ConvertError(
            f"the image processor makes pictures of {got} pixels, the vision tower takes {side}; mend one config"
        )
    return (int(shortest) if clip and shortest else None), crop


def read_pinpoints(config: Mapping[str, Any], side: int, original: bool) -> tuple[tuple[int, int], ...]:
    """Tile layouts as (height, width).

    The original code reads its list as (width, height), and knows the short form "(1x1),...,(6x6)" in tiles.
    """
    listed = config.get("image_grid_pinpoints")
    if listed is None:
        return tuple((side * h, side * w) for h in range(1, 7) for w in range(1, 7))
    if isinstance(listed, str):
        ends = [int(n) for n in re.findall(r"\d+", listed)]
        if len(ends) < 4:
            raise ConvertError(f"image_grid_pinpoints {listed!r} is not of the form '(1x1),...,(6x6)'")
        return tuple((side * b, side * a) for a in range(ends[0], ends[-2] + 1) for b in range(ends[1], ends[-1] + 1))
    pairs = [(int(a), int(b)) for a, b in listed]
    return tuple((b, a) if original else (a, b) for a, b in pairs)


def read_max_tiles(config: Mapping[str, Any], original: bool) -> int:
    """9 of "anyres_max_9"."""
    ratio = str(config.get("image_aspect_ratio" if original else "vision_aspect_ratio", "anyres_max_9"))
    found = re.fullmatch(r"anyres_max_(\d+)", ratio)
    if not found:
        raise unsupported(f"image aspect ratio {ratio!r} is not supported ('anyres_max_9' is)")
    return int(found[1])
