"""How much one request, and all of them together, may ask of the service. What goes beyond is refused, never cut."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..config import MAX_PIXELS
from ..errors import UsageError

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """body_bytes: of a JSON request. file_bytes: of an uploaded, decoded or fetched file; files_bytes: of all kept.

    fetch_s: for a file from an address, redirects included. n_media: items of a request. n_frames: of a clip, asked or
    given as pictures. n_pixels: of a frame or picture, before it is fitted, as in LoadConfig.max_pixels. n_answer:
    tokens of an answer.
    n_waiting: requests in the queue, without the one that is computed. answer_s: from a request's arrival to its end.
    """

    body_bytes: int = 64 * MIB
    file_bytes: int = 1024 * MIB
    files_bytes: int = 4096 * MIB
    fetch_s: float = 60.0
    n_media: int = 16
    n_frames: int = 256
    n_pixels: int = MAX_PIXELS
    n_answer: int = 4096
    n_waiting: int = 32
    answer_s: float = 600.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise UsageError(f"{field.name} is {getattr(self, field.name)!r}; give a number above 0")
