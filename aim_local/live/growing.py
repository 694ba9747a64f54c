"""A file that somebody is still writing, read like a pipe: where it ends, `read` waits for more.

Knows files. That it may be an MP4 without an index is told here, because libav would wait for it to the end.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path

from aim_local.errors import MediaError
from aim_local.live.clock import Clock

_LOOK = 0.1  # seconds between two looks at the end
_BOXES = 16  # of an MP4, that may stand before its index


class GrowingFile:
    """What libav reads from. on_end: called whenever all there is was read, before waiting for more.

    It ends (`read` gives nothing) when `closed` is set, when another file has its name or it has become shorter, and
    when it has not grown for give_up seconds; `ended_by` tells which, "" while it goes on.
    """

    def __init__(
        self, path: str, closed: threading.Event, clock: Clock, on_end: Callable[[], None], give_up: float | None
    ) -> None:
        self._path, self._closed, self._clock, self._on_end = path, closed, clock, on_end
        self._give_up, self.ended_by = give_up, ""
        self._file: BufferedReader = open(path, "rb")  # noqa: SIM115 - closed by close()

    def read(self, n: int) -> bytes:
        waiting = None
        while not self._closed.is_set():
            data = self._file.read(n)
            if data:
                return data
            if waiting is None:
                waiting = self._clock.now()
                self._on_end()
            if self._is_other():
                self.ended_by = "another"
                return b""
            if self._give_up is not None and self._clock.now() - waiting > self._give_up:
                self.ended_by = "given up"
                return b""
            self._closed.wait(_LOOK)
        self.ended_by = "closed"
        return b""

    def _is_other(self) -> bool:
        """Whether the name means another file by now, or the file has become shorter."""
        mine = os.fstat(self._file.fileno())
        try:
            now = os.stat(self._path)
        except OSError:
            return True
        return (mine.st_dev, mine.st_ino) != (now.st_dev, now.st_ino) or now.st_size < self._file.tell()

    def close(self) -> None:
        self._file.close()


def check_index(path: str) -> None:
    """Raises MediaError for an MP4 whose pictures come before its index, which is written when the recording ends."""
    with open(path, "rb") as file:
        for _ in range(_BOXES):
            head = file.read(16)
            kind, size = head[4:8], int.from_bytes(head[:4], "big")
            if len(head) < 8 or kind == b"moov" or not kind.isalnum():
                return
            if kind == b"mdat":
                raise MediaError(
                    f"{Path(path).name}: is an MP4 whose index comes at its end, so it cannot be read while it grows; "
                    "record MPEG-TS, MKV or fragmented MP4 (ffmpeg -movflags frag_keyframe+empty_moov); "
                    "`aim-local chat` takes a finished one"
                )
            if size == 1 and len(head) == 16:
                size = int.from_bytes(head[8:], "big")
            if size < 8:
                return
            file.seek(size - len(head), os.SEEK_CUR)
