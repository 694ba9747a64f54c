"""What a source is, what is told of it, and files that grow while they are read."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pytest
from live_case import ManualClock, codes, pieces, seen, times, until, watched, whole
from media_fixtures import picture, write_clip

from aim_local import LoadConfig, VisionLLM
from aim_local.errors import AimError, MediaBudgetError, MediaError, UsageError
from aim_local.live import WindowSize, parse_source
from aim_local.live.growing import GrowingFile


@pytest.fixture(scope="module")
def llm() -> Iterator[VisionLLM]:
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as loaded:
        yield loaded


# --- what is meant ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "platform", "found"),
    [
        ("camera", "linux", ("camera", "/dev/video0", "/dev/video0", "v4l2")),
        ("camera:2", "linux", ("camera", "/dev/video2", "/dev/video2", "v4l2")),
        ("/dev/video1", "linux", ("camera", "/dev/video1", "/dev/video1", "v4l2")),
        ("camera", "darwin", ("camera", "camera 0", "0:none", "avfoundation")),
        ("camera:FaceTime HD", "darwin", ("camera", "camera FaceTime HD", "FaceTime HD:none", "avfoundation")),
        ("camera:USB Camera", "win32", ("camera", "camera USB Camera", "video=USB Camera", "dshow")),
        ("udp://239.0.0.1:1234", "linux", ("stream", "udp://239.0.0.1:1234", "udp://239.0.0.1:1234", None)),
        ("udp://@:1234", "linux", ("stream", "udp://:1234", "udp://@:1234", None)),
        ("HTTP://[::1]:80/x", "linux", ("stream", "http://[::1]:80", "HTTP://[::1]:80/x", None)),
    ],
)
def test_what_a_source_is(text: str, platform: str, found: tuple[str, str, str, str | None]) -> None:
    source = parse_source(text, platform)
    assert (source.kind, source.name, source.url, source.format) == found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("ftp://host/clip", "ftp: addresses are not watched"),
        ("file:///etc/passwd", "file: addresses are not watched"),
        ("file:clip.ts", "file: addresses are not watched"),
        ("concat:a.ts|b.ts", "concat: addresses are not watched"),
        ("rtsp:///stream", "names no host"),
        ("http://host:port/x", "names no host"),
        ("camera:front", "none of Linux"),
    ],
)
def test_what_is_no_source(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as error:
        parse_source(text, "linux")
    assert "\n" not in str(error.value)


def test_windows_cameras_have_names() -> None:
    with pytest.raises(UsageError, match="by name"):
        parse_source("camera", "win32")


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://admin:hunter2@cam.lan:554/stream1?token=hunter2",
        "rtsp://cam.lan:554/user=admin_password=hunter2_channel=1.sdp",
        "https://hunter2@cam.lan:554/live/hunter2",
        "rtmp://cam.lan:554/live/hunter2#hunter2",
    ],
)
def test_nothing_secret_is_shown(url: str) -> None:
    """Guards messages, JSON and tracebacks: scheme, host and port are all that is ever told."""
    source = parse_source(url)
    assert source.url == url
    assert "hunter2" not in source.name + repr(source) + str(source)
    assert source.name.endswith("://cam.lan:554")


def test_a_bad_address_is_not_repeated() -> None:
    with pytest.raises(UsageError) as error:
        parse_source("http://user:hunter2@host:notaport/")
    assert "hunter2" not in str(error.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.ts", tmp_path):
        with pytest.raises(MediaError, match="give camera"):
            parse_source(str(path))


# --- files that grow --------------------------------------------------------------------------------------------------


def test_a_file_that_grows(tmp_path: Path) -> None:
    """All that is appended is read, in order; the end is told once each time it is reached."""
    path, closed, ends = tmp_path / "f", threading.Event(), list[int]()
    path.write_bytes(b"ab")
    file = GrowingFile(str(path), closed, ManualClock(), lambda: ends.append(1), None)
    assert file.read(10) == b"ab"
    timer = threading.Timer(0.05, lambda: path.open("ab").write(b"cd"))
    timer.start()
    assert file.read(10) == b"cd"
    assert len(ends) == 1
    threading.Timer(0.05, closed.set).start()
    assert file.read(10) == b""
    assert file.ended_by == "closed"
    file.close()


@pytest.mark.parametrize("how", ["replaced", "shorter", "removed"])
def test_another_file_in_its_place(tmp_path: Path, how: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abcd")
    file = GrowingFile(str(path), threading.Event(), ManualClock(), lambda: None, None)
    assert file.read(10) == b"abcd"
    if how == "replaced":
        (tmp_path / "g").write_bytes(b"other and longer")
        (tmp_path / "g").replace(path)
    elif how == "shorter":
        path.write_bytes(b"x")
    else:
        path.unlink()
    assert file.read(10) == b""
    assert file.ended_by == "another"
    file.close()


def test_a_file_that_does_not_grow_is_given_up(tmp_path: Path) -> None:
    path, clock = tmp_path / "f", ManualClock()
    path.write_bytes(b"")
    file = GrowingFile(str(path), threading.Event(), clock, lambda: clock.forward(6), 5.0)
    assert file.read(10) == b""
    assert file.ended_by == "given up"
    file.close()


@pytest.mark.parametrize(
    ("name", "container"),
    [("c.ts", "mpegts"), ("c.mkv", "matroska"), ("c.mp4", "mp4")],
    ids=["ts", "mkv", "fragmented"],
)
def test_a_recording_is_watched(llm: VisionLLM, tmp_path: Path, name: str, container: str) -> None:
    """From the end of what is there already, at its own times, and on as it grows."""
    path, clock, sent = tmp_path / name, ManualClock(), recorded(container, 241)
    half = 160 if container != "mp4" else len(sent) * 2 // 3
    path.write_bytes(b"".join(sent[:half]))
    with watched(llm, str(path), clock) as live:
        until(lambda: live.look() is not None, live)
        until(lambda: times(live)[-1] >= 25, live)
        begin = times(live)[0]
        assert begin >= 5  # not all of it was decoded
        with path.open("ab") as file:
            for data in sent[half:]:
                file.write(data)
                file.flush()
        until(lambda: times(live)[-1] >= 47 and len(times(live)) == 8, live)
        look = seen(live)
        assert codes(look) == [round(5 * seconds) for seconds in times(look)]
        assert len(times(look)) == 8


def recorded(container: str, n: int) -> list[bytes]:
    """Of five frames a second, one a second is a key frame."""
    if container == "mp4":
        return fragments(n)
    return [piece.data for piece in pieces(n, container=container)]


def fragments(n: int) -> list[bytes]:
    import io

    import av
    import numpy as np
    from media_fixtures import picture

    out = io.BytesIO()
    found = list[bytes]()
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    with av.open(out, "w", format="mp4", options=options) as muxer:
        stream = muxer.add_stream("libx264", rate=5, options={"preset": "ultrafast", "tune": "zerolatency"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 96, 64, "yuv420p", 5
        for i in range(n):
            muxer.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture(i)), format="rgb24")))
            if i % 5 == 4:
                found.append(out.getvalue()[sum(map(len, found)) :])
        muxer.mux(stream.encode(None))
    return [*found, out.getvalue()[sum(map(len, found)) :]]


def test_an_mp4_without_its_index(llm: VisionLLM, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", n_frames=20)
    with watched(llm, str(path), ManualClock()) as live, pytest.raises(AimError, match="index comes at its end"):
        until(lambda: False, live)


def test_what_is_no_video(llm: VisionLLM, tmp_path: Path) -> None:
    """It may become one, as the first bytes of a recording do: it is waited for, and said."""
    path, clock, said = tmp_path / "notes.txt", ManualClock(), list[str]()
    path.write_text("not a video\n" * 10000)
    with watched(llm, str(path), clock, said, give_up=30.0) as live:
        timer = threading.Thread(target=lambda: until(lambda: clock.forward(0.5) or live._failed))
        timer.start()
        with pytest.raises(MediaError, match=r"notes\.txt: has not grown for 30 s"):
            live.wait()
        timer.join()
    assert said == ["notes.txt: no picture in 10 s; waiting for one"]


def test_a_recorder_that_begins_anew(llm: VisionLLM, tmp_path: Path) -> None:
    """The file is replaced, as by a recorder that was started again: the window goes on."""
    path, clock = tmp_path / "c.ts", ManualClock()
    path.write_bytes(whole(pieces(43)))
    with watched(llm, str(path), clock, size=WindowSize.of(seconds=4)) as live:
        until(lambda: live.look() is not None and times(live)[-1] == 8, live)
        (tmp_path / "new.ts").write_bytes(whole(pieces(43, first=500)))
        (tmp_path / "new.ts").replace(path)
        until(lambda: codes(live)[-1] >= 535, live)
        assert times(live)[-1] == pytest.approx(8 + 8, abs=1.1)


def test_a_finished_file(llm: VisionLLM, tmp_path: Path) -> None:
    """Its container says that nothing follows: it is read once, and again only when it has changed."""
    path, clock, said = tmp_path / "clip.wmv", ManualClock(), list[str]()
    write_clip(path, n_frames=120, codec="wmv2")
    with watched(llm, str(path), clock, said) as live:
        until(lambda: said and live.look() is not None and times(live)[-1] >= 3, live)
        for _ in range(20):
            clock.forward(10)
            threading.Event().wait(0.01)
        reader = live._reading
        assert (reader._n_openings, reader.is_away) == (1, True)
        write_clip(path, n_frames=120, codec="wmv2")
        until(lambda: clock.forward(0.1) or reader._n_openings >= 2, live)
    assert said[0] == "clip.wmv is away (it ended); waiting for it"


def test_a_full_window_of_a_file_is_its_end(llm: VisionLLM, tmp_path: Path) -> None:
    """What was decoded on the way, from a key frame before the window, was taken for it."""
    path = tmp_path / "c.ts"
    for n in (19, 64):
        path.write_bytes(whole(pieces(n)))
        with watched(llm, str(path), ManualClock(), size=WindowSize.of(seconds=2)) as live:
            end = (n - 3) // 5  # the last two wait for what comes behind them
            assert times(live.wait(full=True)) == [end - 1, end]


@pytest.mark.parametrize(
    ("head", "told"),
    [(b"%PDF-1.7\n", "is a PDF document"), (b"PK\3\4", "is a ZIP archive"), (b"\xff" * 99, "is not a video or image")],
    ids=["PDF", "ZIP", "junk"],
)
def test_what_libav_only_guesses_at(llm: VisionLLM, tmp_path: Path, head: bytes, told: str) -> None:
    """It finds a film in whatever has JPEGs inside."""
    path, jpeg = tmp_path / "other", io.BytesIO()
    PIL.Image.fromarray(picture(3)).save(jpeg, "JPEG")
    path.write_bytes(head + jpeg.getvalue() * 4000)  # libav looks at 5 MB of a stream without a head
    with watched(llm, str(path), ManualClock()) as live, pytest.raises(MediaError, match=f"other: {told}"):
        until(lambda: False, live)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no fifos")
def test_a_file_that_becomes_a_fifo(llm: VisionLLM, tmp_path: Path) -> None:
    """Opening it waited for a writer: nothing was said, and --give-up never came."""
    path, clock, said = tmp_path / "c.ts", ManualClock(), list[str]()
    path.write_bytes(whole(pieces(43)))
    with watched(llm, str(path), clock, said, give_up=30.0) as live:
        live.wait()
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "fifo").replace(path)
        until(lambda: clock.forward(0.5) or live._failed)
        with pytest.raises(MediaError, match="what has its name is no file"):
            live.wait()
    assert said == ["c.ts is away (what has its name is no file); waiting for it for 30 s at most"]


def test_frames_that_are_too_large(llm: VisionLLM, tmp_path: Path) -> None:
    """As of a clip that is given to a question: one number for both."""
    path = write_clip(tmp_path / "a.ts")
    config = LoadConfig(n_threads=1, max_pixels=1000)
    with (
        VisionLLM.load(config=config) as small,
        watched(small, str(path), ManualClock()) as live,
        pytest.raises(MediaBudgetError, match="at most 1,000 are allowed"),
    ):
        until(lambda: False, live)
