"""What is kept of decoded frames: whole, resized or fitted, within the memory limit, with progress."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import av
import numpy as np
import PIL.Image
import pytest
from media_fixtures import CLIPS, Pixels, damage_packets, picture, write_animation, write_clip, write_two_sizes

from aim_local.errors import MediaError, UsageError
from aim_local.media import DEFAULT_SAMPLING, Fit, FrameSampling, Image, Video, canvas, decode, open_media, read_video
from aim_local.media.given import MediaItem

EVERY = FrameSampling(n_frames=None, fps=1e6)


def test_resize_is_pillows_bicubic(mp4: Path) -> None:
    plain = read_video(mp4, FrameSampling(n_frames=3))
    small = read_video(mp4, FrameSampling(n_frames=3), resize=(28, 42))
    assert small.frames.shape == (3, 28, 42, 3)
    for a, b in zip(plain.frames, small.frames, strict=True):
        assert np.array_equal(np.asarray(PIL.Image.fromarray(a).resize((42, 28), PIL.Image.Resampling.BICUBIC)), b)
    with pytest.raises(UsageError, match=r"resize is \(0, 5\); it must be \(height, width\)"):
        read_video(mp4, resize=(0, 5))


def test_only_chosen_frames_are_held(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "many.mp4", n_frames=150, size=(320, 240), options={"preset": "ultrafast"})
    tracemalloc.start()
    read_video(path, FrameSampling(n_frames=150), resize=(24, 32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * 320 * 240 * 3, "150 frames of the source are 34 MB"


def test_a_request_beyond_the_memory_limit_is_refused_before_decoding(
    mp4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canvas, "MAX_FRAME_BYTES", 20 * 96 * 64 * 3)
    monkeypatch.setattr(decode, "decode_onto", None)
    with pytest.raises(MediaError, match=r"21 frames of 96 x 64 need .* use n_frames=\d+ or fewer"):
        read_video(mp4, FrameSampling(n_frames=21))


def test_progress_counts_up_to_the_end(mp4: Path) -> None:
    seen: list[tuple[int, int]] = []
    read_video(mp4, FrameSampling(n_frames=5), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 5) for i in range(1, 6)]


def test_a_change_of_size_inside_the_clip_is_reported(tmp_path: Path) -> None:
    video = read_video(write_two_sizes(tmp_path), EVERY)
    assert video.frames.shape == (20, 64, 96, 3)
    assert "10 of 20 frames are not of the first frame's size: resampled" in video.warnings


# --- a fit: what a model keeps of a frame ---------------------------------------------------------------------------


def shrunk(pixels: Pixels) -> Pixels:
    """uint8 [h, w, 3] -> uint8 [48, 56, 3], by Pillow: every source pixel counts."""
    return np.asarray(PIL.Image.fromarray(pixels).resize((56, 48), PIL.Image.Resampling.BILINEAR))


def check_fit(item: MediaItem, sampling: FrameSampling = EVERY, kind: Literal["auto", "video"] = "auto") -> Video:
    """Fitting while reading is fitting afterwards, byte for byte, and nothing else differs."""
    whole, fitted = open_media(item, sampling, kind), open_media(item, sampling, kind, fit=shrunk)
    assert isinstance(whole, Video)
    assert isinstance(fitted, Video)
    assert np.array_equal(fitted.frames, np.stack([shrunk(frame) for frame in whole.frames]))
    np.testing.assert_equal(asdict(fitted.shape), asdict(whole.shape))
    assert (fitted.shape.height, fitted.shape.width) == whole.frames.shape[1:3]
    assert (fitted.warnings, fitted.digest) == (whole.warnings, whole.digest)
    return fitted


@pytest.mark.parametrize("name", CLIPS)
def test_a_fit_gives_what_fitting_afterwards_gives(name: str, clip_of: Callable[[str], Path]) -> None:
    check_fit(clip_of(name), FrameSampling(n_frames=9))


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_fit_gets_turned_frames_as_plain_arrays(tmp_path: Path, turn: int) -> None:
    path = write_clip(tmp_path / "turned.mp4", n_frames=4, rotation=turn, hflip=True)
    layouts = []

    def noting(pixels: Pixels) -> Pixels:
        layouts.append((pixels.shape, pixels.flags.c_contiguous))
        return pixels

    video = read_video(path, EVERY, fit=noting)
    assert layouts == [(video.frames.shape[1:], True)] * 4
    check_fit(path)


def test_a_fit_of_pictures_and_arrays(tmp_path: Path) -> None:
    for name in ("a.gif", "a.webp", "a.png"):
        check_fit(write_animation(tmp_path / name, 6), FrameSampling(n_frames=4))
    frames = np.stack([picture(i) for i in range(5)])
    check_fit(frames, DEFAULT_SAMPLING)
    check_fit(frames[0], DEFAULT_SAMPLING, kind="video")
    PIL.Image.fromarray(picture(3)).save(tmp_path / "still.bmp")
    check_fit(tmp_path / "still.bmp", FrameSampling(1), kind="video")
    for item in (tmp_path / "still.bmp", frames[0]):
        still = open_media(item, fit=shrunk)
        assert isinstance(still, Image)
        assert still.pixels.shape == (64, 96, 3), "a still picture is not fitted"


def test_a_fit_of_a_clip_with_two_sizes_and_of_a_damaged_one(tmp_path: Path) -> None:
    both = write_two_sizes(tmp_path)
    assert "10 of 20 frames are not of the first frame's size: resampled" in check_fit(both).warnings
    damage_packets(write_clip(tmp_path / "good.mp4", b_frames=2), tmp_path / "bad.mp4", [0, 23, 30])
    video = check_fit(tmp_path / "bad.mp4", FrameSampling(n_frames=60))
    assert len(video.frames) == video.shape.n_frames < 60


def test_progress_counts_fitted_frames(mp4: Path) -> None:
    seen: list[tuple[int, int]] = []
    read_video(mp4, FrameSampling(n_frames=5), lambda done, total: seen.append((done, total)), fit=shrunk)
    assert seen == [(i, 5) for i in range(1, 6)]


def test_the_memory_limit_counts_what_a_fit_keeps(mp4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas, "MAX_FRAME_BYTES", 20 * 48 * 56 * 3)
    assert len(read_video(mp4, FrameSampling(n_frames=20), fit=shrunk).frames) == 20
    n_fitted = []

    def counting(pixels: Pixels) -> Pixels:
        n_fitted.append(pixels.shape)
        return shrunk(pixels)

    with pytest.raises(MediaError, match=r"21 frames of 56 x 48 need .* use n_frames=\d+ or fewer"):
        read_video(mp4, FrameSampling(n_frames=21), fit=counting)
    assert len(n_fitted) == 1, "the first frame tells"


def test_frames_of_the_source_are_never_collected(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "many.mp4", n_frames=150, size=(320, 240), options={"preset": "ultrafast"})
    tracemalloc.start()
    read_video(path, FrameSampling(n_frames=150), fit=lambda pixels: pixels[::10, ::10])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * 320 * 240 * 3, "150 frames of the source are 34 MB"


def test_decoded_frames_are_freed_at_once(tmp_path: Path) -> None:
    """Not when the garbage collector gets to them: pixels of a decoder are memory it does not see."""
    path = write_clip(tmp_path / "turned.mp4", n_frames=30, rotation=90)
    n_alive = []

    def counting(pixels: Pixels) -> Pixels:
        n_alive.append(sum(type(thing) is av.VideoFrame for thing in gc.get_objects()))
        return pixels[:8, :8]

    gc.collect()
    gc.freeze()  # what is there now is not among the objects, which are a million else
    gc.disable()
    try:
        read_video(path, EVERY, fit=counting)
    finally:
        gc.enable()
    assert len(n_alive) == 30
    assert max(n_alive) < 30 / 2, n_alive


def test_a_bad_fit_is_refused(mp4: Path) -> None:
    growing = iter(range(8, 100))
    bad: list[tuple[Fit, str]] = [
        (lambda pixels: pixels[..., 0], r"fit gave an array uint8 \[64, 96\]; it must give uint8 \[H, W, 3\]"),
        (lambda pixels: pixels[:0], r"fit gave an array uint8 \[0, 96, 3\]"),
        (
            lambda pixels: pixels[: next(growing)],
            "a frame of 96 x 9 after one of 96 x 8; it must give one size",
        ),
    ]
    for fit, says in bad:
        with pytest.raises(UsageError, match=says):
            read_video(mp4, FrameSampling(2), fit=fit)
    for item in (mp4, np.zeros((2, 4, 4, 3), np.uint8)):
        with pytest.raises(UsageError, match="resize and fit were both given"):
            open_media(item, resize=(8, 8), fit=shrunk)
