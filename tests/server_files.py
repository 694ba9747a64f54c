"""What tests of the service's media share: small real files, files that are attacks, and `find` in one line.

Knows how to make them. Leaves to others: what is expected of them.
"""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, settings
from media_fixtures import picture
from numpy.typing import NDArray

from aim_local.errors import MediaError
from aim_local.media import open_media
from aim_local.server.failures import RequestError
from aim_local.server.limits import Limits
from aim_local.server.media.sources import Found, Sources
from aim_local.server.media.uploads import Uploads

EXAMPLES = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
WHERE = "messages[0].content[1]"
Pixels = NDArray[np.uint8]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def png(index: int = 0, size: tuple[int, int] = (96, 64)) -> bytes:
    """`picture(index)` as PNG. size: (width, height)."""
    return encoded(picture(index, *size), "PNG")


def encoded(pixels: Pixels, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    PIL.Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def video_url(url: str, **fields: object) -> dict[str, object]:
    return {"type": "video_url", "video_url": {"url": url}, **fields}


@dataclass(frozen=True)
class Kept:
    """What `find` gave, read while its scope was open. pixels: uint8 [T, H, W, 3], or [H, W, 3] of a picture."""

    found: Found
    pixels: Pixels
    times: list[float]


@contextmanager
def sources(limits: Limits | None = None, **options: Any) -> Iterator[Sources]:
    with Uploads(limits or Limits()) as uploads:
        yield Sources(uploads.limits, uploads, **options)
        left = [path.name for path in uploads.scratch.iterdir() if path.name.startswith("request-")]
        assert left == [], "nothing of a request is left"


def find(given: Sources, part: dict[str, object], **options: Any) -> Kept:
    """The media of a part, decoded as the engine does."""
    with given.request() as scope:
        found = scope.find(part, WHERE, **options)
        try:
            media = open_media(found.media) if not found.sampling else _sampled(found)
        except MediaError as e:
            raise AssertionError(found.without_path(str(e))) from e
        if media.shape.kind == "image":
            return Kept(found, media.pixels, [])
        return Kept(found, media.frames, media.timestamps.tolist())


def _sampled(found: Found) -> Any:
    assert found.sampling is not None
    return open_media(found.media, found.sampling)


def refusal(act: Callable[[], object]) -> RequestError:
    """The refusal that `act` ends with; its text is one printable line."""
    with pytest.raises(RequestError) as caught:
        act()
    error = caught.value
    assert str(error).isprintable(), str(error)
    assert len(str(error)) < 700
    assert error.body()["error"]["message"] == str(error)
    return error


def refused(given: Sources, part: dict[str, object], **options: Any) -> RequestError:
    """The refusal of a part; its `param` is a place in the part, and no path of the server's own is told."""
    error = refusal(lambda: find(given, part, **options))
    assert error.param.startswith(WHERE)
    assert str(given.uploads.scratch) not in str(error)
    return error


# --- attacks ---------------------------------------------------------------------------------------------------------


def tall_png(width: int, height: int) -> bytes:
    """A whole PNG of one colour: its size is in its head, its pixels take a thousandth of their number in bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8) * min(height, 2**16)
    body, left = [], height
    while left > 0:
        body.append(packer.compress(row[: (1 + (width + 7) // 8) * min(left, 2**16)]))
        left -= 2**16
    data = b"".join(body) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)  # one bit a pixel
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def long_gif(n_frames: int, width: int, height: int, last: tuple[int, int] = (1, 1)) -> bytes:
    """Frames of one pixel each on a large screen. last: (width, height) that the last frame claims."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    control = b"!\xf9\x04\x04\x0a\x00\x00\x00"
    one, end = (b"," + struct.pack("<HHHHB", 0, 0, *size, 0) + b"\x02\x02\x44\x01\x00" for size in ((1, 1), last))
    return head + (control + one) * (n_frames - 1) + control + end + b";"


def with_claims(mp4: bytes, n_samples: int) -> bytes:
    """An MP4 file whose tables announce `n_samples` samples of one byte in one chunk."""
    data = bytearray(mp4)
    sizes, times, chunks = (data.find(name) for name in (b"stsz", b"stts", b"stsc"))
    data[sizes + 8 : sizes + 16] = struct.pack(">II", 1, n_samples)
    data[times + 12 : times + 16] = struct.pack(">I", n_samples)
    data[chunks + 16 : chunks + 20] = struct.pack(">I", n_samples)
    for name in (b"ctts", b"stss"):
        if (at := data.find(name)) > 0:
            data[at : at + 4] = b"free"
    return bytes(data)


def peak_memory(act: Callable[[], object]) -> int:
    """Bytes that the process grew by at most while `act` ran (Linux; elsewhere 0)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    before = _status("VmRSS")
    act()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))
