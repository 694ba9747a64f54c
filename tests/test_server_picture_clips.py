"""Lists of pictures as one clip."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from media_fixtures import codes_of, picture, write_animation, write_clip
from server_files import EXAMPLES, WHERE, Pixels, b64, encoded, find, png, refused, sources, video_url

from aim_local.media import FrameSampling
from aim_local.server.failures import RequestError
from aim_local.server.limits import Limits
from aim_local.server.media import picture_clip
from aim_local.server.media.picture_clip import fit_into
from aim_local.server.media.sources import Sources


@pytest.fixture
def given() -> Iterator[Sources]:
    with sources() as made:
        yield made


def data_url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{b64(data)}"


@pytest.mark.parametrize(("fps", "n"), [(None, 1), (None, 2), (2.0, 2)])
def test_large_pictures_of_several_requests_are_read_in_turn(
    given: Sources, monkeypatch: pytest.MonkeyPatch, fps: float | None, n: int
) -> None:
    """Guards memory: 1 MB of PNG may be a gigabyte of pixels, and many requests are looked at at the same time."""
    at_once, most, read = [0], [0], picture_clip.read_image

    def counted(*args: Any) -> Any:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0.02)
        at_once[0] -= 1
        return read(*args)

    monkeypatch.setattr(picture_clip, "read_image", counted)
    monkeypatch.setattr(picture_clip, "_LARGE", 1)
    frames: dict[str, Any] = {"frames": [data_url(png(i)) for i in range(n)]}
    part = {"type": "input_video", "input_video": frames if fps is None else {**frames, "fps": fps}}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: find(given, part), range(8)))
    assert all(codes_of(kept.pixels) == list(range(n)) for kept in found)
    assert most == [1]


def test_who_waits_for_a_turn_can_be_ended(given: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_clip, "_LARGE", 1)
    part = {"type": "video", "video": [data_url(png())]}
    asked = iter([False] * 3)
    with picture_clip._turn, given.request() as scope, pytest.raises(RequestError) as e:
        scope.find(part, WHERE, lambda: next(asked, True))
    assert e.value.status == 499


def test_every_form_of_a_list(given: Sources) -> None:
    pictures = [png(i) for i in range(5)]
    urls = [data_url(data) for data in pictures]
    raws = ",".join(b64(data) for data in pictures)
    parts: list[dict[str, object]] = [
        {"type": "video", "video": urls},
        {"type": "video", "video": [b64(data) for data in pictures]},
        {"type": "video", "video": {"frames": urls}},
        {"type": "video_url", "video_url": urls},
        {"type": "input_video", "input_video": {"frames": urls}},
        {"type": "input_video", "input_video": urls},
        {"type": "input_video", "input_video": {"frames": [{"url": urls[0]}, {"data": b64(pictures[1])}, *urls[2:]]}},
        video_url(f"data:video/jpeg;base64,{raws}"),  # vLLM's; what the pictures are is seen by their content
        {"type": "input_video", "input_video": {"data": f"data:video/JPEG;base64,{raws}"}},
    ]
    keys = set()
    for part in parts:
        kept = find(given, part)
        assert codes_of(kept.pixels) == [0, 1, 2, 3, 4]
        assert np.isnan(kept.times).all()
        assert kept.found.sampling == FrameSampling(n_frames=5)
        assert kept.found.warnings == ()
        keys.add(kept.found.key)
    assert len(keys) == 1


def test_a_rate_gives_times_and_the_very_pixels(given: Sources) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, 31, 45, 3), dtype=np.uint8)
    urls = [data_url(encoded(frame, "PNG")) for frame in frames]
    for fps in (2, 0.1, 29.97, 1000, 0.001):
        kept = find(given, {"type": "input_video", "input_video": {"frames": urls, "fps": fps}})
        assert np.array_equal(kept.pixels, frames)
        assert kept.times == pytest.approx([i / fps for i in range(4)], abs=1e-5)
        assert isinstance(kept.found.media, Path)
    again = find(given, video_url(f"data:video/jpeg;base64,{','.join(url.split(',')[1] for url in urls)}", fps=2))
    assert again.times == [0, 0.5, 1, 1.5]


def test_keys_tell_clips_apart(given: Sources) -> None:
    urls = [data_url(png(i)) for i in range(3)]
    lists = [urls, urls[::-1], urls[:2], [*urls, urls[2]]]
    keys = {find(given, {"type": "video", "video": found}).found.key for found in lists}
    keys |= {find(given, {"type": "video", "video": urls, "fps": fps}).found.key for fps in (1, 2)}
    assert len(keys) == 6


def test_other_sizes_are_fitted_into_the_first(given: Sources) -> None:
    urls = [data_url(png(1)), data_url(png(2, (192, 128))), data_url(png(3, (96, 128)))]
    for fields in ({}, {"fps": 2}):
        kept = find(given, {"type": "video", "video": urls, **fields})
        assert kept.pixels.shape == (3, 64, 96, 3)
        assert kept.found.warnings == ("2 of 3 pictures are not of the first one's size: fitted into 96 x 64",)
        whole = PIL.Image.fromarray(picture(2, 192, 128)).resize((96, 64), PIL.Image.Resampling.BICUBIC)
        assert np.array_equal(kept.pixels[1], np.asarray(whole)), "the same shape: scaled, nothing else"
        tall = PIL.Image.fromarray(picture(3, 96, 128)).resize((48, 64), PIL.Image.Resampling.BICUBIC)
        assert np.array_equal(kept.pixels[2][:, 24:72], np.asarray(tall))
        assert not kept.pixels[2][:, :24].any()
        assert not kept.pixels[2][:, 72:].any()


SIDES = st.integers(1, 40)


@EXAMPLES
@for_all(SIDES, SIDES, SIDES, SIDES)
def test_a_fitted_picture_is_whole_and_touches_two_edges(h: int, w: int, height: int, width: int) -> None:
    fitted = fit_into(np.full((h, w, 3), 200, np.uint8), (height, width))
    assert fitted.shape == (height, width, 3)
    rows, cols = fitted.any(axis=(1, 2)).sum(), fitted.any(axis=(0, 2)).sum()
    assert rows == height or cols == width
    assert abs(rows / h - cols / w) * min(h, w) <= 1 + max(rows / h, cols / w) / 2


def test_alpha_and_turns_of_pictures(given: Sources) -> None:
    alpha = np.dstack([picture(3, 64, 96), np.full((96, 64), 7, np.uint8)])
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6
    turned = encoded(picture(4), "JPEG", exif=exif, quality=95)  # shown as 64 x 96
    kept = find(given, {"type": "video", "video": [data_url(turned), data_url(encoded(alpha, "PNG"))]})
    assert kept.pixels.shape == (2, 96, 64, 3)
    over_white = picture(3, 64, 96) * (7 / 255) + 255 * (1 - 7 / 255)
    assert np.abs(kept.pixels[1] - over_white).max() <= 1
    assert kept.found.warnings == ()


def moving(folder: Path) -> tuple[bytes, bytes]:
    return write_clip(folder / "a.mp4", n_frames=3).read_bytes(), write_animation(folder / "a.gif", 3).read_bytes()


def test_a_list_holds_still_pictures(given: Sources, tmp_path: Path) -> None:
    for data, words in zip(
        moving(tmp_path), ("picture 2: is a video", "picture 2: is an animated picture"), strict=True
    ):
        error = refused(given, {"type": "video", "video": [data_url(png()), data_url(data)]})
        assert (error.status, error.param) == (400, f"{WHERE}.video[1]")
        assert words in str(error)


@pytest.mark.parametrize(("fields", "param"), [
    ({"frames": 2}, ".frames"), ({"start": 1}, ".start"), ({"end": 1, "fps": 1}, ".end"), ({"fps": 0}, ".fps"),
    ({"fps": -1}, ".fps"), ({"fps": "2"}, ".fps"), ({"fps": True}, ".fps"), ({"fps": float("nan")}, ".fps"),
    ({"fps": float("inf")}, ".fps"), ({"fps": 10**400}, ".fps"), ({"fps": 1e-9}, ".fps"),
])  # fmt: skip
def test_what_a_list_cannot_have(given: Sources, fields: dict[str, object], param: str) -> None:
    for part in ({"type": "video", "video": [b64(png())]}, video_url(f"data:video/jpeg;base64,{b64(png())}")):
        error = refused(given, {**part, **fields})
        assert (error.status, error.param) == (400, WHERE + param)


def test_too_many_pictures_are_refused_before_any_is_decoded() -> None:
    with sources(Limits(n_frames=4)) as few:
        for part, at in (
            ({"type": "video", "video": ["!"] * 5}, ".video"),
            (video_url("data:video/jpeg;base64,!,!,!,!,!"), ".video_url.url"),
            (video_url("data:video/jpeg;base64," + "," * 10**6), ".video_url.url"),
        ):
            error = refused(few, part)
            assert (error.status, error.param) == (413, WHERE + at)
            assert "at most 4 are allowed" in str(error)
            assert "--max-frames" in str(error)


def test_damage_behind_a_pictures_head_names_the_picture(given: Sources) -> None:
    damaged = encoded(np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8), "PNG")[:2000]
    for fields in ({}, {"fps": 2}):
        error = refused(given, {"type": "video", "video": [data_url(png()), data_url(damaged)], **fields})
        assert error.status == 400
        assert "picture 2: is a damaged picture" in str(error)


def test_an_array_can_be_read_as_often_as_wanted(given: Sources) -> None:
    with given.request() as scope:
        found = scope.find({"type": "video", "video": [b64(png(i)) for i in range(3)]}, WHERE)
        assert isinstance(found.media, np.ndarray)
        clip: Pixels = found.media
        assert codes_of(clip) == codes_of(clip) == [0, 1, 2]
        assert clip.dtype == np.uint8
