"""A window of streams on loopback: its frames and times, cuts, jumps, other sizes, and answers like those of a file."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
import live_case
import numpy as np
import pytest
from live_case import ManualClock, Station, codes, pieces, seen, times, until, watched, whole
from media_fixtures import write_sound
from rtsp_case import RtspStation, rtp_packets

from aim_local import LoadConfig, VisionLLM
from aim_local.errors import MediaError
from aim_local.live import WindowSize

QUESTION = "What appears in the middle?"


@pytest.fixture(scope="module")
def llm() -> Iterator[VisionLLM]:
    with VisionLLM.load(config=LoadConfig(n_threads=1, reuse_frames="equal")) as loaded:
        yield loaded


@pytest.mark.parametrize("http", [False, True], ids=["tcp", "http"])
def test_frames_and_times(llm: VisionLLM, http: bool) -> None:
    """One frame a second, the one shown then; logits are those of the same frames as an array."""
    clock, sent = ManualClock(), pieces(93)
    with Station(clock, http=http) as station, watched(llm, station.url, clock) as live:
        station.send(live, sent)
        until(lambda: live_case.end_of(live) == 18, live)
        assert times(live) == pytest.approx(range(11, 19))
        assert codes(live) == [5 * second for second in range(11, 19)]
        look = live.look()
        assert look
        assert look.age == pytest.approx(0, abs=0.3)
        with av.open(io.BytesIO(whole(sent))) as container:
            shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        same = np.stack([shown[5 * second] for second in range(11, 19)])
        got, want = llm.prefill(QUESTION, [look.item]), llm.prefill(QUESTION, [same])
        assert got.logits.tobytes() == want.logits.tobytes()
        assert got.stats.n_tiles_ahead == 8


def test_a_window_is_full(llm: VisionLLM) -> None:
    """Also of a source with fewer frames than are wanted: by its time."""
    clock = ManualClock()
    with Station(clock) as station, watched(llm, station.url, clock, size=WindowSize.of(seconds=8, fps=4)) as live:
        station.send(live, pieces(7, rate=1), lead=5)
        until(lambda: live_case.end_of(live) == 4, live)
        assert not live._is_full(seen(live))
        station.send(live, pieces(7, rate=1, first=7, stamp=7), lead=5)
        until(lambda: live_case.end_of(live) >= 11, live)
        assert live.wait(full=True).n_frames in (7, 8)  # the newest may still be on its way


def test_udp(llm: VisionLLM) -> None:
    """Datagrams that nobody waits for; the window has their frames."""
    clock = ManualClock()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with watched(llm, f"udp://127.0.0.1:{port}", clock) as live:
            ended = threading.Event()

            def send() -> None:
                for piece in pieces(500):  # until the first are seen
                    if ended.wait(0.01):
                        return
                    clock.forward(0.2)
                    for i in range(0, len(piece.data), 1316):
                        out.sendto(piece.data[i : i + 1316], ("127.0.0.1", port))

            sender = threading.Thread(target=send)
            sender.start()
            try:
                until(lambda: len(times(live)) >= 6 if live.look() else False, live)
                look = seen(live)
                found, shown = codes(look), times(look)
            finally:
                ended.set()
                sender.join()
    steps = np.diff(found[: len(shown)])
    assert (steps == 5).all(), found


def test_cut_and_back(llm: VisionLLM) -> None:
    """The window goes on, with the time that passed between; its stamps begin again. It is said once each."""
    clock, said = ManualClock(), list[str]()
    with Station(clock) as station, watched(llm, station.url, clock, said) as live:
        station.send(live, pieces(28))
        until(lambda: live_case.end_of(live) == 5, live)
        station.hang_up()
        until(lambda: said)
        cut = clock.now()
        clock.forward(2.0)
        station.accept()
        away = clock.now() - cut
        station.send(live, pieces(23, first=500))
        until(lambda: codes(live)[-1] >= 516, live)
        look = seen(live)
        found, shown = codes(look), times(look)
        assert said[0] == f"tcp://127.0.0.1:{station.port} is away (it ended); waiting for it"
        assert len(said) == 2
        assert "is back after" in said[1]
        first_new = found.index(next(code for code in found if code >= 500))
        assert away - 1 <= shown[first_new] - 5 <= away + 4, (shown, away)
        assert (np.diff(shown) > 0).all()
        assert np.diff(shown[first_new:]) == pytest.approx(1, abs=0.51)


@pytest.mark.parametrize("jump", [-3.0, 3600.0, 95443.0], ids=["back", "an hour", "around the counter's end"])
def test_stamps_that_jump(llm: VisionLLM, jump: float) -> None:
    """Frames go on as they come, whatever their stamps say."""
    clock = ManualClock()
    with Station(clock) as station, watched(llm, station.url, clock) as live:
        station.send(live, pieces(31, stamp=5.0))
        station.send(live, pieces(31, first=31, stamp=11 + jump))
        until(lambda: codes(live)[-1] >= 55, live)
        look = seen(live)
        shown, found = times(look), codes(look)
        assert np.diff(shown) == pytest.approx(1, abs=0.41)
        assert np.array(shown) == pytest.approx(np.array(found) / 5, abs=2 * live_case.LEAD)


def test_another_size(llm: VisionLLM) -> None:
    """A camera that changes its resolution; a tower that sees squares goes on."""
    clock, said = ManualClock(), list[str]()
    with Station(clock) as station, watched(llm, station.url, clock, said) as live:
        station.send(live, pieces(26))
        station.send(live, pieces(64, first=26, stamp=5.2, size=(192, 128)))
        until(lambda: codes(live)[-1] == 85, live)
        assert codes(live) == list(range(50, 86, 5))
        assert times(live) == pytest.approx(range(10, 18))
        look = live.look()
        assert look
        assert look.item.video.source_size == (128, 192)
    assert not said


def test_given_up(llm: VisionLLM) -> None:
    """One clear line, without what is secret."""
    clock, said = ManualClock(), list[str]()
    with Station(clock) as station:
        url = f"http://user:pass@127.0.0.1:{station.port}/live?key=secret"
    with watched(llm, url, clock, said, give_up=9.0) as live:
        until(lambda: said)
        with pytest.raises(MediaError) as told:
            until(lambda: clock.forward(0.1), live)
    name = f"http://127.0.0.1:{station.port}"
    assert said == [f"{name} is away (Connection refused); waiting for it for 9 s at most"]
    assert str(told.value).startswith(f"{name}: away for ")
    assert "pass" not in str(told.value) + str(said)
    assert "secret" not in str(told.value) + str(said)


def test_no_pictures(llm: VisionLLM, tmp_path: Path) -> None:
    """Sound alone is no source, however long it is waited for."""
    clock = ManualClock()
    with Station(clock, http=True) as station, watched(llm, station.url, clock) as live:
        station.accept()
        path = write_sound(tmp_path / "sound.ts")
        assert station._client
        station._client.sendall(path.read_bytes())
        station.hang_up()
        with pytest.raises(MediaError, match="holds sound only"):
            until(lambda: False, live)


def test_a_slow_machine_reads_fewer(llm: VisionLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames are left out by rule, evenly, and it is said once; nothing piles up."""
    clock, said = ManualClock(), list[str]()
    with (
        Station(clock) as station,
        watched(llm, station.url, clock, said, size=WindowSize.of(seconds=24), is_fast=False) as live,
    ):
        note = live._pace.note
        monkeypatch.setattr(live._pace, "note", lambda seconds: note(2.5))  # whatever this machine took
        station.send(live, pieces(301), lead=5)
        until(lambda: live_case.end_of(live) >= 57, live)
        shown = times(live)
        assert said == ["reads 1 of 3 frames: this machine encodes 0.4 frames a second"]
        assert np.diff(shown) == pytest.approx(3, abs=0.01)
        assert len(live._waiting._frames) <= 2


def test_another_codec(llm: VisionLLM) -> None:
    """It needs another decoder: the source is opened anew, and the window goes on."""
    clock, said = ManualClock(), list[str]()
    with Station(clock) as station, watched(llm, station.url, clock, said) as live:
        station.send(live, pieces(28))
        until(lambda: live_case.end_of(live) == 5, live)
        reader, n = live._reading, live._reading._n_packets
        assert station._client
        for i, piece in enumerate(pieces(120, first=28, stamp=5.6, codec="mpeg2video", rate=25)):
            clock.forward(0.2)
            until(lambda at=n + i - 5: said or reader._n_packets >= at, live)
            with suppress(OSError):
                station._client.sendall(piece.data)
        until(lambda: said)
        station.hang_up()
        station.accept()
        station.send(live, pieces(120, first=500, codec="mpeg2video", rate=25))
        until(lambda: codes(live)[-1] >= 590, live)
    assert said[0].endswith("is away (its pictures cannot be decoded any more); waiting for it")
    assert len(said) == 2


def test_rtsp(llm: VisionLLM) -> None:
    """A camera that asks for a password; over TCP, which loses nothing."""
    clock, said = ManualClock(), list[str]()
    station = RtspStation("admin", "hunter2")
    url = f"rtsp://admin:hunter2@127.0.0.1:{station.port}/stream?key=hunter2"
    with watched(llm, url, clock, said) as live:
        assert station.plays.wait(live_case.LONG)
        for i, packets in enumerate(rtp_packets(70)):
            clock.forward(0.2)
            until(lambda at=i / 5: at < 4 or live_case.end_of(live) >= at - 4, live)
            station.send(packets)
        until(lambda: live_case.end_of(live) >= 12, live)
        look = seen(live)
        assert np.diff(times(look)) == pytest.approx(1, abs=0.01)
        assert np.diff(codes(look)) == pytest.approx(5)
    station.close()
    assert "hunter2" not in "".join(said)


def test_rtsp_with_a_wrong_password(llm: VisionLLM) -> None:
    said, station = list[str](), RtspStation("admin", "hunter2")
    with watched(llm, f"rtsp://admin:wrong@127.0.0.1:{station.port}/stream", ManualClock(), said):
        until(lambda: said)
    station.close()
    name = f"rtsp://127.0.0.1:{station.port}"
    assert said[0].startswith(f"{name} is away (Server returned 401 Unauthorized")
