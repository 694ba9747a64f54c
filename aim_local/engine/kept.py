"""A media item as an entry of the store: what is written beside its rows, and a video made of it again.

Knows plain values. How an entry is kept is store/encoded.py's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..media import Image, MediaShape, Video
from ..store.encoded import Entry, Frames


def described(media: Video | Image, *, whole: bool) -> tuple[Frames | None, dict[str, Any]]:
    """The frames to keep and the facts of an item. whole: keep its frames, which are as the tower sees them."""
    if isinstance(media, Image):
        return None, {"kind": "image", "source": media.source}
    height, width = media.source_size or media.frames.shape[1:3]
    facts = {
        "kind": "video",
        "source": media.source,
        "timestamps": [_or_none(seconds) for seconds in media.timestamps.tolist()],
        "indices": media.indices.tolist(),
        "duration": _or_none(media.duration),
        "n_source_frames": media.n_source_frames,
        "source_fps": _or_none(media.source_fps),
        "warnings": list(media.warnings),
        "size": [height, width],
    }
    return media.frames if whole else None, facts


def video_of(
    entry: Entry, source: object, digest: str, row_shapes: Callable[[MediaShape], list[tuple[int, int]]]
) -> Video | None:
    """The video of an entry with frames, as it was decoded; None where the item has to be decoded all the same.

    row_shapes: (rows, width) of every tile that the tower makes of a video; an entry that has others is not used.
    """
    facts: Mapping[str, Any] = entry.facts
    if entry.frames is None or facts.get("kind") != "video":
        return None
    try:
        height, width = facts["size"]
        video = Video(
            frames=entry.frames,
            timestamps=np.array([_or_nan(seconds) for seconds in facts["timestamps"]], np.float64),
            indices=np.array(facts["indices"], np.int64),
            source="array" if isinstance(source, np.ndarray) else str(source),
            duration=_or_nan(facts["duration"]),
            n_source_frames=int(facts["n_source_frames"]),
            source_fps=_or_nan(facts["source_fps"]),
            warnings=tuple(str(line) for line in facts["warnings"]),
            digest=digest,
            source_size=(int(height), int(width)),
        )
        wanted = row_shapes(video.shape)
    except (KeyError, TypeError, ValueError, OverflowError, AssertionError):
        return None
    return video if [rows.shape for rows in entry.rows] == wanted else None


def fits(entry: Entry, video: Video | None, shape: MediaShape, n_embd: int) -> bool:
    """Whether the rows are those of the item: of the stored video, or of one that is decoded again beside them."""
    if video is None and (entry.frames is not None or entry.facts.get("kind") != shape.kind):
        return False
    return all(rows.shape[1] == n_embd for rows in entry.rows)


def _or_none(seconds: float) -> float | None:
    return None if math.isnan(seconds) else float(seconds)  # JSON has no NaN


def _or_nan(seconds: Any) -> float:
    return math.nan if seconds is None else float(seconds)
