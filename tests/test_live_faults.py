"""A fault of the program ends a watch at once, whatever thread it happens in; only a source is waited for."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import PIL.Image
import pytest
from live_case import ManualClock, codes, until, watched
from media_fixtures import picture, write_clip
from test_media_frame_exif import write_frames

import aim_local.media.decode
from aim_local import LoadConfig, VisionLLM
from aim_local.errors import MediaMemoryError
from aim_local.live.packets import PacketQueue
from aim_local.live.reading import Reading


@pytest.fixture(scope="module")
def llm() -> Iterator[VisionLLM]:
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as loaded:
        yield loaded


def fault(*_: Any, **__: Any) -> NoReturn:
    raise ValueError("31 is not a valid Type")


@pytest.mark.parametrize(
    ("owner", "name"),
    [(aim_local.media.decode, "orientation_of"), (PacketQueue, "put"), (Reading, "_note_back")],
    ids=["decoder", "queue", "reader"],
)
def test_a_fault_ends_the_watch(
    llm: VisionLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    path = write_clip(tmp_path / "clip.ts", n_frames=60)
    monkeypatch.setattr(owner, name, fault)
    with watched(llm, str(path), ManualClock(), give_up=5.0) as live, pytest.raises(ValueError, match="31 is not"):
        until(lambda: live.look() is not None, live)


def test_no_memory_for_a_frame_ends_the_watch(llm: VisionLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def reformat(self, *_: Any, **__: Any) -> NoReturn:
            raise MemoryError

    path = write_clip(tmp_path / "clip.ts", n_frames=60)
    monkeypatch.setattr("aim_local.live.frames.VideoReformatter", Full)
    with watched(llm, str(path), ManualClock(), give_up=5.0) as live, pytest.raises(MediaMemoryError):
        until(lambda: live.look() is not None, live)


def test_frames_with_exif_are_watched(llm: VisionLLM, tmp_path: Path) -> None:
    """FFmpeg gives it as side data of a type that PyAV has no name for."""
    data = [exif_jpeg(i) for i in range(30)]
    path = write_frames(tmp_path / "camera.avi", "mjpeg", data, size=(96, 64))
    with watched(llm, str(path), ManualClock()) as live:
        until(lambda: live.look() is not None and codes(live) == [0, 10, 20], live)


def exif_jpeg(index: int) -> bytes:
    out, exif = io.BytesIO(), PIL.Image.Exif()
    exif[0x010F] = "Camera"
    PIL.Image.fromarray(picture(index)).save(out, "JPEG", exif=exif)
    return out.getvalue()
