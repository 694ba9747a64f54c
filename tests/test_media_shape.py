"""Shapes: the sizes and times of what was read, and how saved conversations keep them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from media_fixtures import picture, write_clip

from aim_local.media import FrameSampling, MediaShape, Video, open_media, read_video

FRAMES = np.stack([picture(i) for i in range(3)])


def through_json(shape: MediaShape) -> MediaShape:
    return MediaShape.from_dict(json.loads(json.dumps(shape.to_dict(), allow_nan=False)))


def test_a_shape_is_that_of_the_source(mp4: Path) -> None:
    plain = read_video(mp4, FrameSampling(4))
    small = read_video(mp4, FrameSampling(4), resize=(28, 42))
    assert plain.shape == small.shape
    shape = plain.shape
    assert (shape.kind, shape.n_frames, shape.height, shape.width) == ("video", 4, 64, 96)
    assert (shape.source, shape.digest, shape.duration) == (str(mp4), plain.digest, plain.duration)
    assert shape.timestamps == tuple(plain.timestamps.tolist())
    assert shape.indices == tuple(plain.indices.tolist())
    assert open_media(FRAMES, resize=(32, 48)).shape.height == 64


def test_a_video_made_without_a_source_size_has_that_of_its_frames() -> None:
    times, indices = np.arange(3, dtype=np.float64), np.arange(3, dtype=np.int64)
    made = Video(FRAMES, times, indices, "made", 3.0, 3, 1.0, (), "")
    assert (made.shape.height, made.shape.width) == (64, 96)


def test_written_and_read_again(tmp_path: Path) -> None:
    """Odd times survive to the last bit; frames are numbered anew."""
    path = write_clip(tmp_path / "a.mkv", n_frames=5, ticks=[0, 41, 83, 1007, 1011], ticks_per_second=1000)
    PIL.Image.fromarray(picture(2)).save(tmp_path / "a.png")
    for item in (path, tmp_path / "a.png", FRAMES, FRAMES[0]):
        shape = open_media(item, FrameSampling(3)).shape
        again = asdict(through_json(shape))
        assert again["indices"] == tuple(range(len(shape.indices)))
        np.testing.assert_equal(again, asdict(shape) | {"indices": again["indices"]})


def test_the_shape_written_is_the_one_older_versions_wrote() -> None:
    video, image = open_media(FRAMES).shape.to_dict(), open_media(FRAMES[0]).shape.to_dict()
    assert video["shape"] == [3, 64, 96, 3]
    assert image["shape"] == [64, 96, 3]
    assert (video["timestamps"], video["duration"]) == ([None] * 3, None)
    assert set(image) == {"source", "digest", "shape"}


def test_entries_of_older_versions() -> None:
    video = MediaShape.from_dict({"source": "a.mp4", "digest": "d", "shape": [2, 48, 64, 3]})
    assert (video.kind, video.n_frames, video.height, video.width) == ("video", 2, 48, 64)
    assert (video.source, video.digest, video.indices) == ("a.mp4", "d", (0, 1))
    assert all(math.isnan(seconds) for seconds in (*video.timestamps, video.duration))
    image = MediaShape.from_dict({"source": "a.png", "digest": "d", "shape": [48, 64, 3]})
    assert (image.kind, image.n_frames, image.height, image.width) == ("image", 1, 48, 64)
    assert (image.timestamps, image.indices) == ((), ())


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": [3]},
        {"shape": [0, 4, 4, 3]},
        {"shape": [2, 4, 4, 4]},
        {"shape": [1, 2, 4, 4, 3]},
        {"timestamps": [0.0]},
        {"shape": [4, 4, 3], "timestamps": [0.0]},
        {"duration": "long"},
    ],
)
def test_what_to_dict_never_writes_is_refused(wrong: dict[str, Any]) -> None:
    good = {"source": "a", "digest": "d", "shape": [2, 4, 4, 3]}
    with pytest.raises(ValueError, match=r"unpack|shape|convert"):
        MediaShape.from_dict({**good, **wrong})
