"""What planning sees of a media item: its sizes and times.

Knows: plain numbers, and how they are written into a saved conversation. Leaves to others: pixels and files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self


@dataclass(frozen=True)
class MediaShape:
    """What planning sees of a media item: sizes and times, no pixels.

    n_frames:      sampled frames of a video; 1 for an image
    height, width: pixels as displayed in the source, rotation applied, before any fitting
    digest:        as in `Video`; "" where the file was not read through (an outline)
    timestamps:    seconds from the clip's first frame, one per sampled frame, NaN where unknown; () for an image
    indices:       frame numbers in the source, one per sampled frame; () for an image
    duration:      seconds of the whole clip, NaN where unknown or for an image

    NaN differs from itself, so two shapes with unknown times are never equal: compare digests.
    """

    kind: Literal["video", "image"]
    n_frames: int
    height: int
    width: int
    source: str
    digest: str
    timestamps: tuple[float, ...]
    indices: tuple[int, ...]
    duration: float

    def __post_init__(self) -> None:
        assert min(self.n_frames, self.height, self.width) >= 1
        n_times = self.n_frames if self.kind == "video" else 0
        assert len(self.timestamps) == len(self.indices) == n_times, "one time and one number per frame of a video"
        assert self.kind == "video" or self.n_frames == 1

    def thinned(self, n: int) -> Self:
        """A video with at most n of its frames, evenly spread; anything else as it is."""
        if self.kind != "video" or n >= self.n_frames:
            return self
        rows = [i * (self.n_frames - 1) // max(1, n - 1) for i in range(n)]
        times, indices = tuple(self.timestamps[i] for i in rows), tuple(self.indices[i] for i in rows)
        return replace(self, n_frames=n, timestamps=times, indices=indices)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: source, digest, "shape" [T, H, W, 3] or [H, W, 3], of a video also its times.

        An unknown time is None. Frame numbers are left out: only frames still to be encoded need them.
        """
        facts: dict[str, Any] = {"source": self.source, "digest": self.digest}
        if self.kind == "image":
            return facts | {"shape": [self.height, self.width, 3]}
        times = [_or_none(seconds) for seconds in self.timestamps]
        shape = [self.n_frames, self.height, self.width, 3]
        return facts | {"shape": shape, "timestamps": times, "duration": _or_none(self.duration)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; frames are numbered from 0. Without times (older versions) these are unknown.

        Raises KeyError, TypeError, ValueError for what `to_dict` did not write.
        """
        *counts, height, width, channels = (int(n) for n in data["shape"])
        times = data.get("timestamps") or [None] * sum(counts)
        if channels != 3 or len(counts) > 1 or len(times) != sum(counts) or min(*counts, height, width) < 1:
            raise ValueError(f"a media item of shape {data['shape']} with {len(times)} times; it must be [T, H, W, 3]")
        return cls(
            kind="video" if counts else "image",
            n_frames=counts[0] if counts else 1,
            height=height,
            width=width,
            source=str(data["source"]),
            digest=str(data["digest"]),
            timestamps=tuple(_or_nan(seconds) for seconds in times),
            indices=tuple(range(sum(counts))),
            duration=_or_nan(data.get("duration")),
        )


def _or_none(seconds: float) -> float | None:
    # JSON has no NaN
    return None if math.isnan(seconds) else float(seconds)


def _or_nan(seconds: float | None) -> float:
    return math.nan if seconds is None else float(seconds)
