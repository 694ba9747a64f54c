"""MP4s with edit lists: the frames and times of FFmpeg's sequential decoding, and no word of damage."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from media_fixtures import RATE, code_of, codes_of, cut, write_clip
from thorough import examples

from aim_local.errors import MediaError
from aim_local.media import FrameSampling, outline_media, read_video

Edit = tuple[int, int, int]  # frames it lasts; first frame, -1 for none; rate, 0 for a frame that stands still

N = 40  # frames
CLIPS = {
    "plain": {"b_frames": 0, "gop": 8},
    "b-frames": {"b_frames": 3, "gop": 12},
    "open-gop": {"options": {"x264-params": "bframes=3:b-pyramid=none:keyint=12:open-gop=1:scenecut=0:b-adapt=0"}},
}
MIDDLE_CUT = [(5, 5, 1), (10, 22, 1)]
DWELL = [(5, 0, 1), (20, 7, 0), (10, 9, 1)]


def write_edited(source: Path, target: Path, edits: Sequence[Edit]) -> Path:
    """ISO/IEC 14496-12, 8.6.6: `elst` put in the place of the one that FFmpeg wrote."""
    data = bytearray(source.read_bytes())
    moov = data.find(b"moov") - 4
    trak, edts, mdhd, mvhd = (data.find(name, moov) - 4 for name in (b"trak", b"edts", b"mdhd", b"mvhd"))
    of_film, of_track = (int.from_bytes(data[at + 20 : at + 24], "big") for at in (mvhd, mdhd))
    begin = int.from_bytes(data[edts + 28 : edts + 32], "big")  # of the list that was there: ticks before frame 0
    entries = b"".join(
        struct.pack(">IiHH", n * of_film // RATE, -1 if at < 0 else begin + at * of_track // RATE, rate, 0)
        for n, at, rate in edits
    )
    made = struct.pack(">I4sI4sII", 24 + len(entries), b"edts", 16 + len(entries), b"elst", 0, len(edits)) + entries
    n_old = int.from_bytes(data[edts : edts + 4], "big")
    data[edts : edts + n_old] = made
    for at in (moov, trak):  # `moov` is behind the pictures, so that nothing else moves
        data[at : at + 4] = struct.pack(">I", int.from_bytes(data[at : at + 4], "big") + len(made) - n_old)
    target.write_bytes(data)
    return target


def sequential(path: Path) -> tuple[list[int], list[float]]:
    """The number drawn in each frame, and its time since the first one, in seconds."""
    with av.open(str(path)) as container:
        found = [(code_of(f.to_ndarray(format="rgb24")), float(f.time or 0)) for f in container.decode(video=0)]
    return [code for code, _ in found], [seconds - found[0][1] for _, seconds in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("edits")


@cache
def clip_of(folder: Path, name: str) -> Path:
    return write_clip(folder / f"{name}.mp4", n_frames=N, **CLIPS[name])  # type: ignore[arg-type]


def check(path: Path) -> None:
    codes, seconds = sequential(path)
    if not codes:
        with pytest.raises(MediaError, match="edit list shows none of its"):
            read_video(path)
        return
    for n in (len(codes), 3, 1):
        video = read_video(path, FrameSampling(n, pick="index"))
        assert codes_of(video.frames) == [codes[i] for i in video.indices]
        assert not [w for w in video.warnings if "cut off" in w or "damaged" in w or "could not be decoded" in w]
        assert outline_media(path, FrameSampling(n, pick="index")).shape.indices == tuple(video.indices)
        if (np.diff(seconds) > 0).all():
            assert video.timestamps == pytest.approx([seconds[i] for i in video.indices], abs=1e-6)


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize(
    "edits",
    [
        [(20, 13, 1)],
        MIDDLE_CUT,
        DWELL,
        [(5, 25, 1), (10, 2, 1)],
        [(7, 5, 1)] * 3,
        [(5, 0, 1), (20, -1, 1), (10, 9, 1)],
        [(30, -1, 1), (40, 0, 1)],
        [(1, i * 7 % 40, 1) for i in range(100)],
        [(10, 1000, 1)],
    ],
    ids=["trimmed", "middle cut out", "dwell", "swapped", "repeated", "gap", "late", "many", "nothing"],
)
def test_edits(folder: Path, name: str, edits: list[Edit]) -> None:
    check(write_edited(clip_of(folder, name), folder / "edited.mp4", edits))


@settings(deadline=None, max_examples=examples(60), suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    st.sampled_from(sorted(CLIPS)),
    st.lists(
        st.tuples(st.integers(1, 30), st.integers(-1, N + 5), st.sampled_from([1, 1, 1, 0])), min_size=1, max_size=6
    ),
)
@example("open-gop", [(5, 33, 1), (3, 36, 1)])
@example("open-gop", [(7, 33, 1), (4, 36, 1)])
@example("open-gop", [(4, 3, 1), (1, 36, 1)])
@example("b-frames", [(1, -1, 1)])
def test_any_edits(folder: Path, name: str, edits: list[Edit]) -> None:
    check(write_edited(clip_of(folder, name), folder / "edited.mp4", edits))


def test_a_trimmed_file_that_is_cut_off_still_says_so(folder: Path, tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", n_frames=N, b_frames=0, container_options={"movflags": "faststart"})
    data = bytearray(whole.read_bytes())
    entry = data.find(b"elst") + 12
    data[entry + 4 : entry + 8] = struct.pack(">i", 5 * 12800 // RATE)  # FFmpeg's clock of a clip of 25 frames a second
    whole.write_bytes(data)
    notes = read_video(cut(whole, tmp_path / "cut.mp4", 0.8), FrameSampling(3)).warnings
    assert notes[0].startswith("the file is cut off: ")
