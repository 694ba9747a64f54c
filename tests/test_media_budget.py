"""What a picture or clip may ask of the decoders: counted before it is decoded, raised by one option."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from media_fixtures import picture, write_animation, write_clip, write_two_sizes
from server_files import long_gif, peak_memory, tall_png, with_claims

from aim_local.config import MAX_PIXELS, LoadConfig
from aim_local.errors import MediaBudgetError, MediaError, UsageError
from aim_local.media import FrameSampling, container, open_media, outline_media, probe_video, read_image, read_video
from aim_local.media.pictures import picture_kind

MIB = 2**20
ONE_GROUP = {"x264-params": "keyint=60:scenecut=0:bframes=0"}
PHONE = (16320, 12240)  # of 200 megapixels


def refusal(path: Path, max_pixels: int = MAX_PIXELS) -> str:
    """Of looking at an item, by an outline as well as by reading it, in the same words; memory stays as it was."""
    told = list[str]()
    for look in (outline_media, open_media):
        grown = peak_memory(partial(_refused, partial(look, path, max_pixels=max_pixels), told))
        assert grown < 50 * MIB
    assert told[0] == told[1]
    assert "\n" not in told[0]
    return told[0]


def _refused(look: Callable[[], object], told: list[str]) -> None:
    with pytest.raises(MediaError) as found:
        look()
    told.append(str(found.value))


def many_scans(n: int, size: tuple[int, int]) -> bytes:
    """A progressive JPEG whose last scan is there n times."""
    out = io.BytesIO()
    PIL.Image.new("L", size, 128).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    last = data.rfind(b"\xff\xda")
    return data[:last] + data[last:-2] * n + b"\xff\xd9"


def many_pages(n: int) -> bytes:
    """A TIFF of n pages of one pixel, 122 bytes each."""
    tags = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 0), (277, 1), (278, 1), (279, 1)]
    entries = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    step = len(entries) + 4
    pages = [entries + struct.pack("<I", 8 + (i + 1) * step if i + 1 < n else 0) for i in range(n)]
    return b"II*\0\x08\0\0\0" + b"".join(pages)


def claiming_apng(path: Path, n: int) -> bytes:
    """An animated PNG that announces n frames."""
    data = path.read_bytes()
    at = data.index(b"acTL")
    chunk = b"acTL" + struct.pack(">I", n) + data[at + 8 : at + 12]
    return data[:at] + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[at + 16 :]


def large_webp() -> bytes:
    """Its head claims 16383 x 16383 pixels."""
    out = io.BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(out, "WEBP", lossless=True)
    data = out.getvalue()
    at = data.index(b"VP8L") + 9
    return data[:at] + struct.pack("<I", 16382 | 16382 << 14) + data[at + 4 :]


BOMBS = {
    "a GIF of 5,000 large frames": (lambda: long_gif(5_000, 8_000, 4_000), "5,000 frames of 8000 x 4000"),
    "a GIF of 20,000 small frames": (lambda: long_gif(20_000, 20, 20), "20,000 frames of 20 x 20"),
    "a PNG of 400 megapixels": (lambda: tall_png(100_000, 4_000), "100000 x 4000 = 400,000,000 pixels"),
    "a PNG of one row": (lambda: tall_png(150_000_000, 1), "a side has at most 1,048,576"),
    "a PPM of one comment": (lambda: b"P6 #" + b"x" * 2**21, "has no size in its first 65,536 bytes"),
    "a WebP of 268 megapixels": (large_webp, "takes 178,956,970 pixels of this format at most: scale it down, or save"),
    "a JPEG of 900 scans": (lambda: many_scans(900, (2_000, 2_000)), "905 scans of a JPEG of 2000 x 2000"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_are_decoded(tmp_path: Path, name: str) -> None:
    make, words = BOMBS[name]
    path = tmp_path / "bomb"
    path.write_bytes(make())
    assert words in refusal(path)


def test_a_phones_picture_is_let_in(tmp_path: Path) -> None:
    """Guards 200 megapixels, which Pillow takes for an attack. Its head alone is read here."""
    path = tmp_path / "phone.png"
    path.write_bytes(tall_png(*PHONE))
    found = outline_media(path)
    assert (found.width, found.height) == PHONE
    assert found.warnings == ()


@pytest.mark.parametrize("how", [{}, {"compression": "tiff_lzw"}, {"exif": 6}, {"mode": "I;16"}])
def test_a_large_tiff_is_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]) -> None:
    """Guards what Pillow takes for an attack as its pixels are read; a scan of 180 megapixels is one."""
    options, tags = dict(how), PIL.Image.Exif()
    mode = options.pop("mode", "RGB")
    if options.pop("exif", 0):
        tags[0x0112] = 6
    image = PIL.Image.fromarray(picture(3)).convert("I" if mode == "I;16" else mode).convert(mode)
    image.save(tmp_path / "a.tif", exif=tags, **options)
    wanted = read_image(tmp_path / "a.tif")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 6144 // 2 - 1)
    found = read_image(tmp_path / "a.tif")
    assert np.array_equal(found.pixels, wanted.pixels)
    assert found.warnings == wanted.warnings


def test_the_line_names_what_allows_it(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    PIL.Image.fromarray(picture(3)).save(path)
    line = refusal(path, max_pixels=6143)
    assert line == (
        f"{path}: a picture (PNG) of 96 x 64 = 6,144 pixels, at most 6,143 are allowed; scale it down, "
        "or give max_pixels=6144 or more"
    )
    assert np.array_equal(read_image(path, max_pixels=6144).pixels, picture(3))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_animations_count_all_their_frames(tmp_path: Path, suffix: str) -> None:
    path = write_animation(tmp_path / f"a.{suffix}", 6)
    least = 6 * 2**17 // 8
    assert f"max_pixels={least} or more" in refusal(path, max_pixels=least - 1)
    assert open_media(path, max_pixels=least).shape.n_frames == 6


def test_an_animation_that_announces_more_frames_than_it_has_bytes(tmp_path: Path) -> None:
    path = write_animation(tmp_path / "a.png", 4)
    path.write_bytes(claiming_apng(path, 2**31 - 1))
    found = open_media(path)
    assert found.shape.n_frames == 4
    assert "the animation is damaged" in found.warnings[0]


def test_pages_are_counted_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page takes a hundred bytes, and only the first is read."""
    monkeypatch.setattr("aim_local.media.pictures._MOST_PAGES", 10)
    for n, words in ((9, "holds 9 pictures"), (5000, "holds 10 or more pictures")):
        path = tmp_path / "pages.tif"
        path.write_bytes(many_pages(n))
        found = picture_kind(path)
        assert found is not None
        assert words in str(outline_media(path).warnings)


def test_frames_of_a_clip_that_have_to_be_decoded(tmp_path: Path) -> None:
    """The last frame of one group of pictures: all before it count, although one is asked for."""
    path = write_clip(tmp_path / "a.mp4", n_frames=60, options=ONE_GROUP)
    sampling, least = FrameSampling(n_frames=1, start=59 / 25), 96 * 64
    assert outline_media(path, sampling, least).n_decoded == 60
    for look in (outline_media, open_media):
        with pytest.raises(MediaBudgetError, match="a video \\(h264\\) with frames of 96 x 64 = 6,144 pixels"):
            look(path, sampling, max_pixels=least - 1)


def test_a_clip_of_more_frames_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aim_local.media.budget.CLIP", 30)
    clip = write_clip(tmp_path / "a.mp4", n_frames=60, options=ONE_GROUP)
    counted = write_clip(tmp_path / "a.avi", n_frames=60, codec="mpeg4")  # decoded once to count its frames
    for path, sampling in ((clip, FrameSampling(n_frames=1, start=59 / 25)), (counted, FrameSampling(n_frames=1))):
        for look in (outline_media, open_media):
            with pytest.raises(MediaBudgetError, match="60 frames of 96 x 64 = 368,640 pixels have to be decoded") as e:
                look(path, sampling, max_pixels=96 * 64)
            assert str(e.value).endswith("choose fewer frames or a shorter range, scale it down, or give"
                                         " max_pixels=12288 or more")  # fmt: skip
            look(path, sampling, max_pixels=12288)
    assert open_media(clip, FrameSampling(n_frames=1), max_pixels=96 * 64).shape.n_frames == 1


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "interlaced.ts"])
def test_decoding_keeps_to_the_bound_that_the_clip_was_opened_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Guards a clip beyond the default bound, for which a higher one was given."""
    how: dict[str, Any] = {"options": {"x264-params": "tff=1"}} if name == "interlaced.ts" else {"codec": "mpeg4"}
    path, asked, prepare = write_clip(tmp_path / name, n_frames=6, **how), list[int](), container.prepare

    def noted(stream: Any, name: Path | str, max_pixels: int) -> None:
        asked.append(max_pixels)
        prepare(stream, name, max_pixels)

    monkeypatch.setattr(container, "prepare", noted)
    assert len(read_video(path, FrameSampling(3), max_pixels=MAX_PIXELS + 1).frames) == 3
    assert len(asked) >= 2
    assert set(asked) == {MAX_PIXELS + 1}


def test_frames_that_grow_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that begins small may become 16384 x 16384: the decoder refuses, and what came before is used."""
    path = write_two_sizes(tmp_path)
    assert probe_video(path).n_frames == 20
    monkeypatch.setattr(container, "_GROWTH_PIXELS", 96 * 64)
    monkeypatch.setattr(container, "_MARGIN", 64)
    found = open_media(path, FrameSampling(n_frames=20))
    assert 1 <= found.shape.n_frames <= 10, "threads of the decoder may lose some before the damage"
    assert found.shape.height == 64


def test_packets_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mkv", n_frames=30)
    monkeypatch.setattr(container, "MAX_PACKETS", 29)
    with pytest.raises(MediaBudgetError, match="holds more than 29 packets of video"):
        probe_video(path)


def test_an_index_that_claims_millions(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(with_claims(write_clip(path, n_frames=2).read_bytes(), 20_000_000))
    with pytest.raises(MediaError, match="claims 20,000,000 frames"):
        open_media(path)


def test_large_frames_get_fewer_threads() -> None:
    assert container.n_threads(64, 96) > 1
    assert container.n_threads(16384, 16384) == 1


def test_the_option_is_checked() -> None:
    for value in (0, -1, 1.5, True, "many"):
        with pytest.raises(UsageError, match="max_pixels"):
            LoadConfig(max_pixels=value)  # type: ignore[arg-type]
