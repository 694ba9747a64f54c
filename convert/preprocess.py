"""How a checkpoint prepares pictures: the numbers of its image and video processors that every family has.

Reads processor_config.json (new), preprocessor_config.json (old), or the vision tower folder's own. What a family does
beside resizing and normalising (tiles, crops) is its own business.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .checkpoint import Checkpoint, section
from .errors import ConvertError
from .vision_towers import TowerKind

BICUBIC = 3  # PIL's number
N_FRAMES = 32


@dataclass(frozen=True)
class Preprocess:
    """From pixels to the tower's input. `resample` is PIL's number; `n_frames` are sampled from a video."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: int
    video_resample: int
    n_frames: int
    default: bool  # the checkpoint names no processor: these are the tower's published numbers


PROCESSOR, IMAGE, VIDEO = "processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"
Source = tuple[str, str, dict[str, Any]]  # a file, the way to an object in it, the object


def image_processor(checkpoint: Checkpoint, tower: Checkpoint | None) -> dict[str, Any]:
    """The image processor's JSON: the checkpoint's, else the `tower` folder's; empty where neither has one."""
    return image_source(checkpoint, tower)[2]


def video_processor(checkpoint: Checkpoint) -> dict[str, Any]:
    """The video processor's JSON; empty where there is none."""
    return video_source(checkpoint)[2]


def image_source(checkpoint: Checkpoint, tower: Checkpoint | None) -> Source:
    """The image processor, as transformers looks for it: the new file's object counts before the old file."""
    if found := section(checkpoint.json(PROCESSOR), "image_processor"):
        return PROCESSOR, "image_processor.", found
    found = checkpoint.json(IMAGE)
    if found or tower is None:
        return IMAGE, "", found
    return str(tower.folder / IMAGE), "", tower.json(IMAGE)


def video_source(checkpoint: Checkpoint) -> Source:
    """The video processor, likewise."""
    if found := section(checkpoint.json(PROCESSOR), "video_processor"):
        return PROCESSOR, "video_processor.", found
    return VIDEO, "", checkpoint.json(VIDEO)


def read_preprocess(
    image: Mapping[str, Any], video: Mapping[str, Any], kind: TowerKind, n_frames: int = N_FRAMES
) -> Preprocess:
    """The numbers of two processors. What they leave out is what the tower `kind` was published with.

    `n_frames`: of a video, where the video processor names no number.
    """
    resample = int(image.get("resample", BICUBIC))
    return Preprocess(
        mean=triple(image.get("image_mean", kind.mean)),
        std=triple(image.get("image_std", kind.std)),
        resample=resample,
        video_resample=int(video.get("resample", resample)),
        n_frames=int(video.get("num_frames") or n_frames),
        default=not image,
    )


def triple(values: Any) -> tuple[float, float, float]:
    if not isinstance(values, list | tuple) or len(values) != 3:
        raise ConvertError(f"the image processor's mean or std is {values!r}; three numbers are expected")
    return (float(values[0]), float(values[1]), float(values[2]))


def sides(size: Any) -> set[Any]:
    """The sides of a picture of `size`, as processors write it: a number, a shortest edge, or height and width."""
    if isinstance(size, int):
        return {size}
    shortest = size.get("shortest_edge")
    return {shortest} if shortest else {size.get("height"), size.get("width")}


def check_side(found: Collection[Any], side: int) -> None:
    """Pictures must end at the tower's size."""
    if set(found) != {side}:
        got = "x".join(str(s) for s in sorted(found, key=str))
        raise ConvertError(
            f"the image processor makes pictures of {got} pixels, the vision tower takes {side}; mend one config"
        )
