"""Damaged and unreadable files: what is there is given, and every bad input gets one clear line."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from unittest.mock import Mock

import av
import numpy as np
import PIL.Image
import pytest
from media_fixtures import (
    codes_of,
    cut,
    damage_packets,
    picture,
    write_animation,
    write_clip,
    write_sound,
)

from aim_local.errors import AimError, MediaError
from aim_local.media import (
    FrameSampling,
    container,
    open_media,
    read_image,
    read_video,
)

KINDS: tuple[Literal["auto", "video", "image"], ...] = ("auto", "video", "image")


def test_damaged_frames_are_skipped_and_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    good = write_clip(tmp_path / "good.mp4", size=(320, 240), b_frames=2, gop=20)
    bad = tmp_path / "bad.mp4"
    lost = damage_packets(good, bad, [23, 30, 45])
    seen: list[tuple[int, int]] = []
    video = read_video(bad, FrameSampling(n_frames=60), progress=lambda done, total: seen.append((done, total)))
    assert video.indices.tolist() == [i for i in range(60) if i not in lost]
    assert video.warnings == ("3 of 60 frames could not be decoded and were skipped",)
    assert seen[-1] == (60, 60)
    assert video.timestamps == pytest.approx(video.indices / 25)
    near = read_video(bad, FrameSampling(n_frames=1, start=28 / 25))
    assert near.warnings == ("the file is damaged near the chosen frames; some may show traces of it",)
    assert capfd.readouterr() == ("", "")


def test_frames_the_decoder_marks_as_corrupt_are_left_out() -> None:
    good, bad = SimpleNamespace(is_corrupt=False), SimpleNamespace(is_corrupt=True)
    stream: Any = SimpleNamespace(decode=lambda packet: [good, bad])
    frames: list[Any] = list(container.decode(stream, None, container.Damage()))
    assert frames == [good]


def test_nothing_but_damage_is_an_error(tmp_path: Path) -> None:
    good = write_clip(tmp_path / "good.mp4")
    first = tmp_path / "all.mp4"
    damage_packets(good, first, range(60))
    with pytest.raises(MediaError, match="none of its 60 pictures could be decoded"):
        read_video(first)
    tail = tmp_path / "tail.mp4"
    lost = damage_packets(good, tail, [57, 58])
    with pytest.raises(MediaError, match="none of the 1 chosen frames could be decoded"):
        read_video(tail, FrameSampling(n_frames=1, start=min(lost) / 25))


def test_a_cut_off_file_with_its_index_in_front_gives_what_is_there(tmp_path: Path) -> None:
    good = write_clip(tmp_path / "good.mp4", container_options={"movflags": "faststart"})
    bad = cut(good, tmp_path / "cut.mp4", 0.75)
    video = read_video(bad, FrameSampling(n_frames=4))
    assert any(w.startswith("the file is cut off: ") and w.endswith("of 60 frames are there") for w in video.warnings)
    assert codes_of(video.frames) == video.indices.tolist()
    assert len(video.indices) >= 3


def test_a_cut_off_mkv_says_where_it_ends(tmp_path: Path) -> None:
    good = write_clip(tmp_path / "good.mkv", n_frames=120)
    video = read_video(cut(good, tmp_path / "cut.mkv", 0.5), FrameSampling(n_frames=4))
    assert any(w.startswith("the file announces 4.8 s, but its pictures end at") for w in video.warnings)


def test_a_cut_off_gif_gives_what_is_there(tmp_path: Path) -> None:
    path = cut(write_animation(tmp_path / "a.gif", 10), tmp_path / "cut.gif", 0.6)
    video = read_video(path, FrameSampling(n_frames=3))
    assert codes_of(video.frames) == video.indices.tolist()
    assert 3 <= video.n_source_frames < 10


def bad_files(folder: Path, mp4: Path) -> dict[str, tuple[Path, str]]:
    """What it is -> the file, and what its error must say."""
    (folder / "folder.mp4").mkdir()
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is not a video\n" * 30)
    (folder / "utf8.mp4").write_text("\u00e9" * 4000)
    (folder / "list.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.ts\n#EXT-X-ENDLIST\n")
    (folder / "noise.mp4").write_bytes(np.random.default_rng(1).bytes(5000))
    (folder / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    PIL.Image.fromarray(picture(1)).save(folder / "good.jpg")
    os.mkfifo(folder / "pipe")
    return {
        "missing": (folder / "missing.mp4", "no such file"),
        "folder": (folder / "folder.mp4", "is a folder; name one video"),
        "empty": (folder / "empty.mp4", "is empty"),
        "text": (folder / "text.mp4", "holds text, not a video or image"),
        "text with a cut character": (folder / "utf8.mp4", "holds text"),
        "playlist": (folder / "list.mp4", "holds text"),
        "noise": (folder / "noise.mp4", "is not a video or image this program reads"),
        "heic": (folder / "photo.heic", "HEIC"),
        "pipe": (folder / "pipe", "not a regular file"),
        "cut mp4": (cut(mp4, folder / "cut.mp4", 0.6), "without a usable index"),
        "cut jpeg": (cut(folder / "good.jpg", folder / "cut.jpg", 0.5), "damaged picture"),
        "sound": (write_sound(folder / "sound.m4a"), "holds sound only (aac)"),
        "sound with cover": (write_sound(folder / "cover.mp4", cover=picture(0)), "holds sound only (aac)"),
    }


def test_every_bad_file_gets_one_clear_line(tmp_path: Path, mp4: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for what, (path, says) in bad_files(tmp_path, mp4).items():
        for kind in KINDS:
            with pytest.raises(MediaError) as caught:
                open_media(path, kind=kind)
            line = str(caught.value)
            assert says in line, (what, kind, line)
            assert line.startswith(f"{path}: "), (what, line)
            assert "\n" not in line
            assert "; " in line, "what came; what to do"
    assert capfd.readouterr() == ("", ""), "libav must not write by itself"


def test_a_video_given_as_image_is_refused(mp4: Path) -> None:
    with pytest.raises(MediaError, match=r"is a video \(h264, 4\.8 s\), not an image"):
        open_media(mp4, kind="image")


def test_names_the_file_system_cannot_hold() -> None:
    for name in ("a\0b", "x" * 5000):
        with pytest.raises(AimError):
            open_media(name)


def test_files_are_closed_always(tmp_path: Path, mp4: Path) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("counts open files through /proc")
    text = tmp_path / "text.mp4"
    text.write_text("no video " * 100)
    sound = write_sound(tmp_path / "sound.m4a")
    gif = write_animation(tmp_path / "a.gif")

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before = len(os.listdir("/proc/self/fd"))
    for path in (text, sound):
        with pytest.raises(MediaError):
            read_video(path)
    for path in (mp4, gif):
        read_video(path, FrameSampling(2))
        with pytest.raises(KeyboardInterrupt):
            read_video(path, FrameSampling(2), progress=interrupt)
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_room_for_the_decoder_is_no_damage(mp4: Path) -> None:
    """PyAV's MemoryError is an FFmpegError too; where threads cannot be started it raises BlockingIOError."""
    for error in (av.error.MemoryError(errno.ENOMEM, "no memory"), av.error.BlockingIOError(errno.EAGAIN, "busy")):
        damage, stream = container.Damage(), Mock(decode=Mock(side_effect=error))
        stream.codec_context.height = stream.codec_context.width = 2**24  # more than any address space has
        with pytest.raises(MemoryError):
            container.decode(stream, None, damage)
        assert damage.n_packets == 0


def test_a_frame_that_claims_all_memory_is_damage() -> None:
    """FFmpeg's word for a frame beyond its bounds is the one for no memory; here there is enough."""
    damage, stream = container.Damage(), Mock(decode=Mock(side_effect=av.error.MemoryError(errno.ENOMEM, "no memory")))
    stream.codec_context.height = stream.codec_context.width = 64
    assert container.decode(stream, None, damage) == []
    assert damage.n_packets == 1


def test_heads_that_pillow_stumbles_over(tmp_path: Path) -> None:
    """Pillow raises TypeError at a TIFF whose next page has no size, and an error of its own at a GIF's huge frame."""
    page = tmp_path / "a.tiff"
    PIL.Image.fromarray(picture(1)).save(page)
    data = bytearray(page.read_bytes())
    head = int.from_bytes(data[4:8], "little")
    following = head + 2 + 12 * int.from_bytes(data[head : head + 2], "little")
    data[following : following + 4] = len(data).to_bytes(4, "little")
    page.write_bytes(data + bytes(6))
    assert np.array_equal(read_image(page).pixels, picture(1))
    huge = tmp_path / "a.gif"
    frames = [b"," + bytes(4) + size + b"\0\x02\x02\x44\x01\0" for size in (b"\1\0\1\0", b"\xff\xff\xff\xff")]
    huge.write_bytes(b"GIF89a\1\0\1\0\x80\0\0" + bytes(6) + b"".join(frames) + b";")
    video = open_media(huge)
    assert video.shape.n_frames == 1
    assert video.warnings[0].startswith("the animation is damaged: its last 1 of 2 frames")
