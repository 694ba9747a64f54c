"""How fast a file is read: what is timed is the file that was given, and times become seconds of a sampling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from media_fixtures import write_clip
from PIL import Image

from aim_local.media import FrameSampling, open_media, outline_media
from aim_local.media.reader import digest_item
from aim_local.media.seek import SEEK_COST
from aim_local.media.speed import ReadingSpeed, measure_reading


def halved(frame: np.ndarray) -> np.ndarray:
    return frame[::2, ::2]


@pytest.mark.parametrize("n_frames", [1, 2, 3, 4, 5, 40])
def test_clips_of_any_length(tmp_path: Path, n_frames: int) -> None:
    path = write_clip(tmp_path / "clip.mp4", n_frames=n_frames, size=(64, 48))
    indexed, speed = measure_reading(path, lambda shape: halved)
    assert speed.digest == digest_item(path)
    assert indexed.outline(FrameSampling(n_frames=2)) == outline_media(path, FrameSampling(n_frames=2))
    assert 0 < speed.digest_s < speed.open_s
    assert min(speed.start_s, speed.decoded_s, speed.kept_s) >= 0
    outline = indexed.outline(FrameSampling(n_frames=n_frames))
    assert speed.decode(outline) + speed.keep(outline) > 0


def test_pictures_and_arrays(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.new("RGB", (40, 30)).save(path)
    frames = np.zeros((3, 32, 32, 3), np.uint8)
    for item, kept in ((path, False), (frames[0], False), (frames, True)):
        indexed, speed = measure_reading(item, lambda shape: halved)
        assert speed.digest == open_media(item).digest
        assert (speed.kept_s > 0) == kept
        assert speed.decode(indexed.outline()) == 0


def test_seconds_of_a_sampling(tmp_path: Path) -> None:
    """Frames on the way, jumps and kept frames; frames that were counted while the file was opened are not again."""
    speed = ReadingSpeed("", 1.0, 0.5, start_s=2.0, decoded_s=0.25, kept_s=0.125)
    path = write_clip(tmp_path / "clip.mp4", n_frames=200, size=(64, 48))
    outline = outline_media(path, FrameSampling(n_frames=4))
    assert speed.decode(outline) == 2.0 + 0.25 * (outline.n_decoded + SEEK_COST * outline.n_jumps)
    assert speed.decode(replace(outline, n_counted=3)) == speed.decode(outline) - 0.75
    assert speed.keep(outline) == 0.5
