"""Pictures, still and moving, and arrays."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from media_fixtures import (
    code_of,
    codes_of,
    picture,
    write_animation,
)

from aim_local.errors import UsageError
from aim_local.media import (
    FrameSampling,
    Image,
    Video,
    open_media,
    probe_video,
    read_image,
    read_video,
)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations_are_videos_with_their_own_times(tmp_path: Path, suffix: str) -> None:
    delays = [100, 200, 50, 400, 100, 100]
    path = write_animation(tmp_path / f"a.{suffix}", 6, delays)
    video = open_media(path, FrameSampling(n_frames=6))
    assert isinstance(video, Video)
    assert codes_of(video.frames) == list(range(6))
    assert video.timestamps == pytest.approx([0, 0.1, 0.3, 0.35, 0.75, 0.85])
    assert video.duration == pytest.approx(0.95)
    assert read_video(path, FrameSampling(n_frames=3, end=0.8)).indices.tolist() == [0, 3, 4], "evenly in time"
    assert read_video(path, FrameSampling(n_frames=3, end=0.8, pick="index")).indices.tolist() == [0, 2, 4]
    assert probe_video(path).n_frames == 6
    still = open_media(path, kind="image")
    assert isinstance(still, Image)
    assert code_of(still.pixels) == 0
    assert still.warnings == ("the file holds 6 pictures; only the first is used",)


def test_a_gif_without_delays_runs_at_ten_frames_per_second(tmp_path: Path) -> None:
    path = write_animation(tmp_path / "a.gif", 4, [0, 0, 0, 0])
    assert probe_video(path).timestamps == pytest.approx([0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tiff", "a.gif", "a.avif", "a.jp2"])
def test_still_formats(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    PIL.Image.fromarray(picture(77)).save(path)
    image = open_media(path)
    assert isinstance(image, Image)
    assert code_of(image.pixels) == 77
    assert image.pixels.shape == (64, 96, 3)
    assert image.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert image.warnings == ()


def test_a_still_as_video_is_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    PIL.Image.fromarray(picture(3)).save(path)
    video = open_media(path, FrameSampling(n_frames=1), kind="video")
    assert isinstance(video, Video)
    assert (video.frames.shape, video.timestamps.tolist(), video.duration) == ((1, 64, 96, 3), [0.0], 0.0)
    assert video.warnings == ()


def test_exif_orientation(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    PIL.Image.fromarray(np.rot90(picture(9), 1)).save(tmp_path / "a.jpg", exif=exif)
    image = read_image(tmp_path / "a.jpg")
    assert image.pixels.shape == (64, 96, 3)
    assert code_of(image.pixels) == 9


def test_colour_modes_follow_pillows_convert(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    for name, mode in [("a.png", "RGB"), ("b.png", "P"), ("c.png", "L"), ("d.png", "1"), ("e.jpg", "CMYK")]:
        PIL.Image.fromarray(picture(9)).convert(mode).save(tmp_path / name)
        with PIL.Image.open(tmp_path / name) as reference:
            wanted = np.asarray(reference.convert("RGB"))
        assert np.array_equal(read_image(tmp_path / name).pixels, wanted), name
    assert list(recwarn) == []


def test_sixteen_bit_grey_keeps_its_high_byte(tmp_path: Path) -> None:
    grey = (np.arange(64 * 64, dtype=np.uint16) * 16).reshape(64, 64)
    PIL.Image.fromarray(grey).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png").pixels, np.repeat((grey >> 8)[..., None], 3, axis=2))


def test_the_suffix_does_not_matter(tmp_path: Path, mp4: Path) -> None:
    shutil.copy(mp4, tmp_path / "clip.jpg")
    assert isinstance(open_media(str(tmp_path / "clip.jpg")), Video)
    PIL.Image.fromarray(picture(1)).save(tmp_path / "still.mp4", format="png")
    assert isinstance(open_media(tmp_path / "still.mp4"), Image)
    odd = tmp_path / "concat:a|b %03d \u00e9\u4e2d?.mp4"
    shutil.copy(mp4, odd)
    assert isinstance(open_media(odd, FrameSampling(1)), Video)


def test_arrays_are_taken_as_they_are() -> None:
    frames = np.stack([picture(i) for i in range(40)])
    video = open_media(frames)
    assert isinstance(video, Video)
    assert np.array_equal(video.frames, frames)
    assert np.isnan(video.timestamps).all()
    assert video.indices.tolist() == list(range(40))
    small = open_media(frames, resize=(32, 48))
    assert isinstance(small, Video)
    assert small.frames.shape == (40, 32, 48, 3)
    image = open_media(frames[0])
    assert isinstance(image, Image)
    assert np.array_equal(image.pixels, frames[0])
    one = open_media(frames[0], kind="video")
    assert isinstance(one, Video)
    assert one.frames.shape == (1, 64, 96, 3)
    assert len({video.digest, image.digest, one.digest}) == 3
    assert small.digest == video.digest, "the digest is that of what came in"


@pytest.mark.parametrize(
    ("item", "options"),
    [
        (np.zeros((4, 4), np.uint8), {}),
        (np.zeros((4, 4, 5), np.uint8), {}),
        (np.zeros((4, 4, 3), np.float32), {}),
        (np.zeros((0, 4, 4, 3), np.uint8), {}),
        (np.zeros((2, 4, 4, 3), np.uint8), {"kind": "image"}),
        (np.zeros((2, 4, 4, 3), np.uint8), {"sampling": FrameSampling(fps=1)}),
        (17, {}),
        ("x", {"kind": "movie"}),
    ],
)
def test_bad_items_are_refused(item: Any, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        open_media(item, **options)


@pytest.mark.parametrize("name", ["MPO", "TIFF"])
def test_what_stands_beside_a_picture_is_no_frame(tmp_path: Path, name: str) -> None:
    """The map of brightness beside a phone's JPEG, the pages behind the first."""
    first, second = (PIL.Image.fromarray(picture(i)) for i in (5, 6))
    first.save(tmp_path / "a", name, save_all=True, append_images=[second])
    assert codes_of(read_video(tmp_path / "a").frames) == [5]
