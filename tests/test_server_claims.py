"""What files announce: bombs are told from films, however those are built."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media_fixtures import CLIPS, write_clip
from server_files import long_gif, refusal, with_claims

from aim_local.media import claims
from aim_local.server.limits import Limits
from aim_local.server.media.heads import check_head


def refused(data: bytes, folder: Path) -> str:
    path = folder / "bomb"
    path.write_bytes(data)
    error = refusal(lambda: check_head(path, "bomb.mp4", Limits()))
    assert error.status == 400
    return str(error)


@pytest.fixture(scope="module")
def with_sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A MOV with two seconds of uncompressed sound, as cameras write it: a sample of four bytes each 1/48000 s."""
    path = tmp_path_factory.mktemp("sound") / "a.mov"
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        audio: Any = container.add_stream("pcm_s16le", rate=48_000, layout="stereo")
        for i in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), i, np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 96_000 * 2), np.int16), format="s16", layout="stereo")
        sound.sample_rate, sound.time_base = 48_000, Fraction(1, 48_000)
        container.mux(audio.encode(sound))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path.read_bytes()


def test_films_of_every_kind_are_let_in(tmp_path: Path, with_sound: bytes) -> None:
    kinds = {name: CLIPS[name] for name in ("open-gop.mp4", "closed-gop.mkv", "stream.ts", "pictures.mov", "vp8.webm")}
    kinds["fragments.mp4"] = {"container_options": {"movflags": "frag_keyframe+empty_moov"}, "gop": 1}
    for name, options in kinds.items():
        path = write_clip(tmp_path / name, **{**options, "n_frames": 6})
        assert check_head(path, name, Limits()).kind == "video"
    (tmp_path / "sound.mov").write_bytes(with_sound)
    assert check_head(tmp_path / "sound.mov", "sound.mov", Limits()).kind == "video"


def test_uncompressed_sound_is_not_counted_as_frames(
    tmp_path: Path, with_sound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards cameras' films: three minutes of such sound have more samples than a film of a day has frames."""
    monkeypatch.setattr(claims, "MOST_SAMPLES", 1000)
    path = tmp_path / "a.mov"
    path.write_bytes(with_sound)
    check_head(path, "a.mov", Limits())
    assert "claims" in refused(write_clip(tmp_path / "b.mp4", n_frames=1001, size=(16, 16)).read_bytes(), tmp_path)


def test_claims_of_an_index(tmp_path: Path, with_sound: bytes) -> None:
    clip = write_clip(tmp_path / "a.mp4", n_frames=2).read_bytes()
    bomb = with_claims(clip, 20_000_000)
    junk = struct.pack(">I4s8x", 16, b"abcd")
    assert "claims 20,000,000 frames or pieces of sound" in refused(bomb, tmp_path)
    assert "claims 20,000,000" in refused(junk + bomb, tmp_path), "FFmpeg reads on behind a box it does not know"
    assert "claims 3,000 " in refused(with_claims(clip, 3000), tmp_path), "more than the file has bytes"
    (tmp_path / "fine.mp4").write_bytes(junk + clip)
    check_head(tmp_path / "fine.mp4", "fine.mp4", Limits())


def test_claims_of_times_and_fragments_and_chunks(tmp_path: Path, with_sound: bytes) -> None:
    clip = bytearray(write_clip(tmp_path / "a.mp4", n_frames=2).read_bytes())
    at = clip.find(b"stts")
    clip[at + 12 : at + 16] = struct.pack(">I", 2**31)
    assert "claims 2,147,483,6" in refused(bytes(clip), tmp_path)
    options = {"movflags": "frag_keyframe+empty_moov"}
    fragments = bytearray(write_clip(tmp_path / "f.mp4", n_frames=2, container_options=options).read_bytes())
    at = fragments.find(b"trun")
    fragments[at + 8 : at + 12] = struct.pack(">I", 2**30)
    assert "claims 1,073,741,8" in refused(bytes(fragments), tmp_path)
    sound = bytearray(with_sound)
    at = sound.rfind(b"stsc")
    sound[at + 16 : at + 20] = struct.pack(">I", 2**31)
    assert "claims 2,147,48" in refused(bytes(sound), tmp_path)


def test_a_compressed_index_is_not_taken(tmp_path: Path) -> None:
    box = struct.pack(">I4sI4sI", 28, b"moov", 20, b"cmov", 0) + bytes(8)
    assert "cmov" in refused(struct.pack(">I4s8s", 16, b"ftyp", b"qt  \0\0\0\0") + box, tmp_path)


def test_boxes_that_make_no_sense_end_the_walk(tmp_path: Path) -> None:
    """They are for the media layer to judge; the walk itself comes to an end."""
    for size in (0, 1, 2, 7, 8, 2**31, 2**32 - 1):
        for kind in (b"moov", b"free", b"trak"):
            assert refused(struct.pack(">I4s", size, kind) * 50, tmp_path)


def test_frames_of_a_gif_are_counted_to_the_limit_only(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    for n, let_in in ((256, True), (257, False)):
        path.write_bytes(long_gif(n, 1100, 1100))
        if let_in:
            assert check_head(path, "a.gif", Limits()).n_frames == n
            continue
        error = refusal(lambda: check_head(path, "a.gif", Limits()))
        assert error.status == 413
        assert "more than 256 frames of 1100 x 1100" in str(error)
        assert "--max-frames" in str(error)
    path.write_bytes(long_gif(3, 20, 20)[:-30])
    assert check_head(path, "a.gif", Limits()).kind in ("picture", "animation"), "cut off: what is there is given"
