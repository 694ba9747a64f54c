"""Clips that are cut off, however short: it is told where a container tells it, and nothing where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from media_fixtures import FAST_VP9, RATE, codes_of, join, write_clip

from aim_local.errors import MediaError
from aim_local.media import FrameSampling, outline_media, probe_video, read_video
from aim_local.media.ends import n_missing_bytes

FASTSTART = {"movflags": "faststart"}
VP8 = {"deadline": "realtime", "cpu-used": "8"}
# the file's name -> how it is written; each container tells its end in its own way
FILMS: dict[str, dict[str, Any]] = {
    "a.mkv": {"codec": "mpeg4"},
    "a.webm": {"codec": "libvpx-vp9", "options": FAST_VP9},
    "a.mp4": {"codec": "mpeg4", "container_options": FASTSTART},
    "a.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "container_options": FASTSTART},
    "parts.mp4": {"codec": "mpeg4", "gop": 4, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "a.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "a.flv": {"codec": "flv"},
    "a.wmv": {"codec": "wmv2"},
    "a.mxf": {"codec": "mpeg2video"},
    "a.ivf": {"codec": "libvpx", "options": VP8},
    "a.mpg": {"codec": "mpeg2video"},
    "a.ts": {"codec": "mpeg2video"},
    "a.ogv": {"codec": "libvpx", "options": VP8, "container_format": "ogg"},
}
CUT = "the file is cut off"


def cut_off(path: Path, n_bytes: int) -> Path:
    """Never between two packets of a transport stream, where nothing shows."""
    n_bytes -= path.suffix == ".ts" and n_bytes % 188 == 0
    path.write_bytes(path.read_bytes()[:n_bytes])
    return path


def warnings_or_error(path: Path) -> tuple[str, ...]:
    try:
        return outline_media(path, FrameSampling(4)).warnings
    except MediaError as e:  # nothing of it can be read
        return (str(e),)


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize("n_frames", [12, 60])
@pytest.mark.parametrize("share", [0.6, 0.83, 0.97])
def test_a_cut_is_told(tmp_path: Path, name: str, n_frames: int, share: float) -> None:
    path = write_clip(tmp_path / name, n_frames, **FILMS[name])
    assert probe_video(path).warnings == ()
    cut_off(path, int(path.stat().st_size * share))
    told = warnings_or_error(path)
    assert sum("cut off" in line or "damaged" in line for line in told) == 1, told


@pytest.mark.parametrize("count", [0, 2**31 - 1, 2**32 - 1])
def test_an_ivf_that_nobody_counted(tmp_path: Path, count: int) -> None:
    """As one that is written into a pipe, whose head cannot be mended at the end."""
    path = write_clip(tmp_path / "a.ivf", 12, **FILMS["a.ivf"])
    data = path.read_bytes()
    path.write_bytes(data[:24] + count.to_bytes(4, "little") + data[28:])
    assert probe_video(path).warnings == ()


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.flv", "a.mxf"])
def test_how_long_it_should_be(tmp_path: Path, name: str) -> None:
    """Of half a second, too."""
    path = write_clip(tmp_path / name, 12, **FILMS[name])
    video = read_video(cut_off(path, int(path.stat().st_size * 0.7)), FrameSampling(4))
    seconds = video.n_source_frames / RATE
    assert f"the file announces 0.5 s, but its pictures end at {seconds:.1f} s" in video.warnings


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.ivf"])
def test_how_many_frames_there_should_be(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name, 12, **FILMS[name])
    video = read_video(cut_off(path, int(path.stat().st_size * 0.9)), FrameSampling(4))
    assert any(line.startswith(f"{CUT}: ") and line.endswith(" of 12 frames are there") for line in video.warnings)


@pytest.mark.parametrize("name", FILMS)
def test_nothing_is_told_of_a_whole_file(tmp_path: Path, name: str) -> None:
    """Nor of bytes that somebody put behind it, nor of two films joined."""
    path = write_clip(tmp_path / name, 12, **FILMS[name])
    data = path.read_bytes()
    for behind in (b"", bytes(3), bytes(5000), b"\n-- the end --\n", data):
        path.write_bytes(data + behind)
        assert not any("cut off" in line or "announces" in line for line in probe_video(path).warnings), behind


@pytest.mark.parametrize("packets", [3, 20, 40])
def test_a_transport_stream_cut_between_packets_tells_nothing(tmp_path: Path, packets: int) -> None:
    path = write_clip(tmp_path / "a.ts", 60)
    data = path.read_bytes()
    path.write_bytes(data[: -188 * packets])
    assert probe_video(path).warnings == ()
    path.write_bytes(data[: -188 * packets + 100])
    assert f"{CUT}: at least 88 bytes are missing at its end" in probe_video(path).warnings


@pytest.mark.parametrize("suffix", ["mp4", "mov", "3gp"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_short_film_without_its_index(tmp_path: Path, suffix: str, share: float) -> None:
    """FFmpeg opens it as a film without tracks."""
    path = write_clip(tmp_path / f"a.{suffix}", 12, codec="mpeg4")
    cut_off(path, int(path.stat().st_size * share))
    told = r"(without a usable index \(cut off or damaged|without a whole picture: it is cut off).*; copy or download"
    with pytest.raises(MediaError, match=told):
        probe_video(path)


@pytest.mark.parametrize("n_bytes", [600, 700, 800])
def test_a_film_cut_inside_its_first_picture(tmp_path: Path, n_bytes: int) -> None:
    path = cut_off(write_clip(tmp_path / "a.mkv", 12), n_bytes)
    with pytest.raises(MediaError, match="without a whole picture: it is cut off; copy or download the file again"):
        probe_video(path)


@pytest.mark.parametrize("head", [188, 192, 204])
def test_packets_of_other_sizes(tmp_path: Path, head: int) -> None:
    """With a time before each of them (M2TS), or a checksum behind."""
    data = write_clip(tmp_path / "a.ts", 20).read_bytes()
    before, behind = bytes(4 if head == 192 else 0), bytes(16 if head == 204 else 0)
    packets = b"".join(before + data[at : at + 188] + behind for at in range(0, len(data), 188))
    path = tmp_path / "a.m2ts"
    for n_cut in (0, 1, 77, head):
        path.write_bytes(packets[: len(packets) - n_cut])
        assert n_missing_bytes(path, {"mpegts"}) == n_cut % head


@pytest.mark.parametrize("unknown", [b"\0\0\0\0", b"\xff\xff\xff\xff"])
def test_sizes_that_say_nothing(tmp_path: Path, unknown: bytes) -> None:
    """As of a film that was written to a pipe, or whose recording was stopped."""
    path = write_clip(tmp_path / "a.avi", 12, codec="mjpeg", pix_fmt="yuvj420p")
    data = path.read_bytes()
    path.write_bytes(data[:4] + unknown + data[8:-500])
    assert n_missing_bytes(path, {"avi"}) == 0
    flags = write_clip(tmp_path / "a.wmv", 12, codec="wmv2").read_bytes()
    at = flags.index(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")) + 88
    (tmp_path / "a.wmv").write_bytes(flags[:at] + b"\1" + flags[at + 1 : -900])
    assert n_missing_bytes(tmp_path / "a.wmv", {"asf"}) == 0


def test_joined_files_that_end_early(tmp_path: Path) -> None:
    one = write_clip(tmp_path / "a.flv", 12, codec="flv")
    both = join(tmp_path / "both.flv", one, one)
    both.write_bytes(both.read_bytes()[:-50])
    assert any(CUT in line for line in probe_video(both).warnings)


# --- what is no cut ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264"])
@pytest.mark.parametrize("n_frames", [1, 2, 3, 5])
def test_a_transport_stream_of_few_frames(tmp_path: Path, codec: str, n_frames: int) -> None:
    video = read_video(write_clip(tmp_path / "a.ts", n_frames, codec=codec), FrameSampling(n_frames))
    assert codes_of(video.frames) == list(range(n_frames))
    assert video.warnings == ()


ID3V1 = b"TAG" + b"title".ljust(124, b"\0") + b"\x0c"
ID3V2 = b"ID3\3\0\0\0\0\1\x10TIT2\0\0\0\6\0\0\0title".ljust(210, b"\0")


@pytest.mark.parametrize("behind", [ID3V1, ID3V2, ID3V2 + ID3V1, bytes(50)], ids=["TAG", "ID3", "both", "zeros"])
def test_bytes_behind_an_flv(tmp_path: Path, behind: bytes) -> None:
    path = write_clip(tmp_path / "a.flv", 12, codec="flv")
    path.write_bytes(path.read_bytes() + behind)
    video = read_video(path, FrameSampling(12))
    assert codes_of(video.frames) == list(range(12))
    assert video.warnings == ()
    assert n_missing_bytes(path, ("flv",)) == 0


def test_an_mp4_of_very_many_tracks(tmp_path: Path) -> None:
    """FFmpeg takes a thousand, and calls more of them a lack of memory."""
    data = write_clip(tmp_path / "a.mp4", 12, codec="mpeg4").read_bytes()
    at = data.index(b"moov") - 4
    n = int.from_bytes(data[at : at + 4], "big")
    assert at + n == len(data), "behind the pictures"
    for n_tracks, is_read in ((1000, True), (1001, False)):
        more = (n_tracks - 1) * b"\0\0\0\x08trak"
        (tmp_path / "b.mp4").write_bytes(data[:at] + (n + len(more)).to_bytes(4, "big") + data[at + 4 :] + more)
        if is_read:
            assert probe_video(tmp_path / "b.mp4").n_frames == 12
        else:
            with pytest.raises(MediaError, match="has more than 1,000 tracks; it is damaged"):
                probe_video(tmp_path / "b.mp4")
