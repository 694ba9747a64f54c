"""Outlines: what is said of a media item before its pixels are read is what reading it gives."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageFile
import PIL.PngImagePlugin
import pytest
from media_fixtures import CLIPS, cut, picture, write_animation, write_clip, write_sound, write_two_sizes

from aim_local.errors import MediaError, UsageError
from aim_local.media import FrameSampling, Outline, Video, open_media, outline_media
from aim_local.media.given import MediaItem

SEVEN = FrameSampling(n_frames=7)


def check(item: MediaItem, sampling: FrameSampling = SEVEN) -> Outline:
    """The outline is the shape of what is read; only the digest needs the whole file."""
    found, real = outline_media(item, sampling), open_media(item, sampling)
    assert real.digest
    assert found.shape.digest == ""
    np.testing.assert_equal(asdict(found.shape), asdict(replace(real.shape, digest="")))
    assert found.warnings == real.warnings
    assert found.n_source_frames == (real.n_source_frames if isinstance(real, Video) else 1)
    assert found.n_pictures == (len(real.frames) if isinstance(real, Video) else 1)
    pixels = real.frames[0] if isinstance(real, Video) else real.pixels
    assert (found.height, found.width) == pixels.shape[:2]
    assert found.n_file_bytes == (os.stat(item).st_size if isinstance(item, str | Path) else 0)
    return found


@pytest.mark.parametrize("name", CLIPS)
def test_clips(name: str, clip_of: Callable[[str], Path]) -> None:
    found = check(clip_of(name))
    assert found.shape.kind == "video"
    assert found.n_decoded >= 7
    assert found.n_packets >= found.n_source_frames


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_turned_clips(tmp_path: Path, turn: int) -> None:
    found = check(write_clip(tmp_path / "r.mp4", n_frames=9, rotation=turn))
    assert (found.width, found.height) == ((64, 96) if turn % 180 else (96, 64))


def test_clips_with_warnings_and_ranges(tmp_path: Path, mp4: Path) -> None:
    check(mp4, FrameSampling(n_frames=7, start=0.2, end=1.5))
    check(mp4, FrameSampling(n_frames=None, fps=3.0))
    assert check(mp4, FrameSampling(n_frames=500)).warnings
    assert check(cut(write_clip(tmp_path / "good.mkv", n_frames=120), tmp_path / "cut.mkv", 0.5)).warnings
    changing = write_two_sizes(tmp_path)
    assert asdict(outline_media(changing).shape) == asdict(replace(open_media(changing).shape, digest=""))


def test_packets_to_decode(tmp_path: Path) -> None:
    """Key frames every 100 packets; the frames asked for are 0 and 299."""
    options = {"sc_threshold": "0"}
    path = write_clip(tmp_path / "a.mp4", n_frames=300, gop=100, b_frames=0, size=(32, 32), options=options)
    outline = outline_media(path, FrameSampling(n_frames=2, start=0.0))
    assert outline.n_packets == 300
    assert outline.n_decoded == 1 + 100  # frame 0, then from the key frame 200 to 299


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations(tmp_path: Path, suffix: str) -> None:
    found = check(write_animation(tmp_path / f"a.{suffix}", 9, [100, 50, 200] * 3))
    assert (found.n_packets, found.n_decoded) == (9, 7)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tiff", "a.gif", "a.avif", "a.jp2", "a.ico"])
def test_stills(tmp_path: Path, name: str) -> None:
    PIL.Image.fromarray(picture(77)).save(tmp_path / name)
    found = check(tmp_path / name)
    assert (found.shape.kind, found.n_packets, found.n_decoded) == ("image", 0, 1)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "avif"])
def test_stills_that_are_to_be_turned(tmp_path: Path, suffix: str) -> None:
    for orientation in range(1, 9):
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.{suffix}"
        PIL.Image.fromarray(picture(9)).save(path, exif=exif)
        found = check(path)
        assert (found.width, found.height) == ((64, 96) if orientation >= 5 else (96, 64)), path


def test_a_png_that_tells_its_orientation_behind_its_pixels(tmp_path: Path) -> None:
    """As some programs write it; the plain file's chunks are taken apart and joined in that order."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    xmp = PIL.PngImagePlugin.PngInfo()
    xmp.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    comment = PIL.PngImagePlugin.PngInfo()
    comment.add_text("Comment", "upright")
    cases = {"exif": ({"exif": exif}, (64, 96)), "xmp": ({"pnginfo": xmp}, (64, 96))}
    cases["text"] = ({"pnginfo": comment}, (96, 64))
    for name, (told, size) in cases.items():
        path = tmp_path / f"{name}.png"
        PIL.Image.fromarray(picture(9)).save(path, **told)
        data = path.read_bytes()
        start = min(at for at in (data.find(b"eXIf"), data.find(b"iTXt"), data.find(b"tEXt")) if at > 0) - 4
        end = start + 12 + int.from_bytes(data[start : start + 4])
        path.write_bytes(data[:start] + data[end:-12] + data[start:end] + data[-12:])
        found = check(path)
        assert (found.width, found.height) == size, name


def test_pages_and_previews(tmp_path: Path) -> None:
    first, *more = [PIL.Image.fromarray(picture(i)) for i in range(3)]
    first.save(tmp_path / "pages.tiff", save_all=True, append_images=more)
    assert check(tmp_path / "pages.tiff").warnings == ("the file holds 3 pictures; only the first is used",)
    first.save(tmp_path / "preview.mpo", save_all=True, append_images=more)
    assert check(tmp_path / "preview.mpo").warnings == ()


def test_stills_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / name for name in ("a.jpg", "a.png", "a.webp", "a.bmp", "a.tiff")]
    for path in paths:
        PIL.Image.fromarray(picture(1)).save(path)
    monkeypatch.setattr(PIL.ImageFile.ImageFile, "load", None)
    for path in paths:
        assert outline_media(path).shape.width == 96


def test_arrays() -> None:
    frames = np.stack([picture(i) for i in range(5)])
    assert check(frames).shape.n_frames == 5
    assert check(frames[0]).shape.kind == "image"


def test_what_cannot_be_read_has_no_outline(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.mp4", write_sound(tmp_path / "sound.m4a")):
        with pytest.raises(MediaError) as real:
            open_media(path)
        with pytest.raises(MediaError) as found:
            outline_media(path)
        assert str(found.value) == str(real.value)
    items: list[Any] = [np.zeros((4, 4), np.uint8), 17]
    for item in items:
        with pytest.raises(UsageError):
            outline_media(item)
    with pytest.raises(UsageError, match="need a file"):
        outline_media(np.zeros((2, 4, 4, 3), np.uint8), FrameSampling(fps=1))
