"""What goes into and comes out of the media layer: options and results.

Knows: which values are allowed. Leaves to others: reading files and choosing frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from aim_local.arguments import settle, take_real, whole
from aim_local.errors import UsageError
from aim_local.media.shape import MediaShape

Frames = NDArray[np.uint8]
Seconds = NDArray[np.float64]
Indices = NDArray[np.int64]
Size = tuple[int, int]  # height, width
Pick = Literal["auto", "time", "index"]
PICKS: tuple[str, ...] = get_args(Pick)


@dataclass(frozen=True)
class FrameSampling:
    """Which frames of a clip to use.

    n_frames: int >= 1, so many frames spread evenly over the range (the cap when fps is given); None: no cap, needs fps
    fps:      frames per second of clip time, > 0; None: n_frames alone decides
    start:    seconds from the first frame, >= 0; None: the first frame
    end:      seconds from the first frame, >= start, included; None: the last frame
    pick:     what n_frames frames are spread over evenly. "index": the frames' numbers, as the video models' authors
              do; "time": seconds; "auto": numbers, and seconds in a clip whose frame rate varies much (sampling.py)

    Raises UsageError for any other value.
    """

    n_frames: int | None = 32
    fps: float | None = None
    start: float | None = None
    end: float | None = None
    pick: Pick = "auto"

    def __post_init__(self) -> None:
        if self.n_frames is not None:
            rule = "it must be a whole number, 1 or more"
            settle(self, "n_frames", whole("number of frames", self.n_frames, rule, 1))
        if not isinstance(self.pick, str) or self.pick not in PICKS:
            raise UsageError(f"pick is {self.pick!r:.80}; it must be {', '.join(PICKS[:-1])} or {PICKS[-1]}")
        rule = "it must be frames per second above 0, for example 1 or 0.5"
        take_real(self, "fps", rule, lambda fps: 0 < fps < math.inf, optional=True)
        rule = "it must be seconds from the start of the clip, 0 or more"
        for name in ("start", "end"):
            take_real(self, name, rule, lambda time: 0 <= time < math.inf, optional=True)
        if self.n_frames is None and self.fps is None:
            raise UsageError("neither a number of frames nor fps was given; give at least one of them")
        if self.start is not None and self.end is not None and self.start > self.end:
            raise UsageError(
                f"start {self.start:g} s is after end {self.end:g} s; start must come first: swap them or drop one"
            )


DEFAULT_SAMPLING = FrameSampling()


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """Facts about a clip, learnt without decoding it (see `probe_video`).

    width, height: pixels as displayed, rotation applied; rotation: degrees clockwise from stored to displayed
    timestamps: float64 [n_frames], seconds from the first frame, in display order
    duration: seconds, the last frame's own duration included; fps: mean rate, n_frames / duration (still image: 0.0)
    """

    source: str
    container: str
    codec: str
    pixel_format: str
    width: int
    height: int
    rotation: int
    n_frames: int
    duration: float
    fps: float
    timestamps: Seconds = field(repr=False)
    has_audio: bool
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.timestamps.shape == (self.n_frames,), "one timestamp per frame"


@dataclass(frozen=True, eq=False)
class Video:
    """Sampled frames of one clip.

    frames:     uint8 [T, H, W, 3], RGB, rotation applied; resized or fitted where that was asked
    timestamps: float64 [T], seconds from the first frame of the clip; NaN where unknown (frames given as an array)
    indices:    int64 [T], frame index in the source, display order
    duration, source_fps: of the whole clip, in seconds and frames per second; NaN where unknown
    digest:     sha256 (hex) of the file's bytes, or of an array's shape and bytes
    source_size: (height, width) of the source as displayed, before resizing or fitting; None: that of `frames`
    is_sound:   all chosen frames are there, and the decoder refused nothing and made nothing up
    """

    frames: Frames = field(repr=False)
    timestamps: Seconds
    indices: Indices
    source: str
    duration: float
    n_source_frames: int
    source_fps: float
    warnings: tuple[str, ...]
    digest: str
    source_size: Size | None = None
    is_sound: bool = True

    def __post_init__(self) -> None:
        assert self.frames.dtype == np.uint8
        assert self.frames.shape[3:] == (3,)
        assert self.timestamps.shape == self.indices.shape == self.frames.shape[:1] != (0,)

    @property
    def n_bytes(self) -> int:
        return self.frames.nbytes

    @property
    def shape(self) -> MediaShape:
        """Sizes and times without the pixels."""
        height, width = self.source_size or self.frames.shape[1:3]
        return MediaShape(
            kind="video",
            n_frames=len(self.frames),
            height=height,
            width=width,
            source=self.source,
            digest=self.digest,
            timestamps=tuple(self.timestamps.tolist()),
            indices=tuple(self.indices.tolist()),
            duration=self.duration,
        )


@dataclass(frozen=True, eq=False)
class Image:
    """One still picture: pixels uint8 [H, W, 3], RGB, EXIF orientation applied; digest as in `Video`."""

    pixels: Frames = field(repr=False)
    source: str
    warnings: tuple[str, ...]
    digest: str

    def __post_init__(self) -> None:
        assert self.pixels.dtype == np.uint8
        assert self.pixels.shape[2:] == (3,)

    @property
    def n_bytes(self) -> int:
        return self.pixels.nbytes

    @property
    def shape(self) -> MediaShape:
        """Sizes without the pixels."""
        height, width = self.pixels.shape[:2]
        return MediaShape("image", 1, height, width, self.source, self.digest, (), (), math.nan)
