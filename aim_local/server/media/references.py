"""The forms of a URL, as text: data:, raw base64, file:, http(s):, an uploaded file's id, a plain path.

Knows how they look. Nothing is decoded, opened or fetched here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from ..failures import RequestError
from .words import shown

_PATH_CHARS = 4096  # longer than any path
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_DRIVE = re.compile(r"(?:file:/{0,3})?(?:[A-Za-z](?::|%3[aA]|\|)(?:[\\/]|$)|\\\\)")
_UPLOAD = re.compile(r"file-[A-Za-z0-9_-]{1,128}")
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")
_HEADER_CHARS = 1000  # of a data: URL, before its comma
_FRAMES_MIME = "video/jpeg"  # vLLM's mark of pictures that make a clip

TAKEN = "a data: URL, base64, http(s)://, file:// or the id of an uploaded file"


@dataclass(frozen=True, repr=False)
class Inline:
    """Bytes in the request itself: text[start:end], as base64, or else percent-encoded."""

    text: str
    start: int
    end: int
    is_base64: bool


@dataclass(frozen=True)
class FileName:
    """A path on the server, as it was given: percent-encoding is undone."""

    path: str


@dataclass(frozen=True)
class Address:
    """http:// or https://"""

    url: str


@dataclass(frozen=True)
class UploadId:
    id: str


@dataclass(frozen=True, repr=False)
class InlineFrames:
    """Pictures that make one clip, as base64 with commas between them: text[start:]. Not taken apart yet."""

    text: str
    start: int

    @property
    def n(self) -> int:
        return self.text.count(",", self.start) + 1

    def split(self) -> tuple[Inline, ...]:
        ends = [*(found.start() for found in re.compile(",").finditer(self.text, self.start)), len(self.text)]
        starts = [self.start, *(end + 1 for end in ends[:-1])]
        return tuple(Inline(self.text, a, b, True) for a, b in zip(starts, ends, strict=True))


Reference = Inline | InlineFrames | FileName | Address | UploadId


def read_reference(text: str) -> Reference:
    """What a URL means. Raises RequestError.

    A text without a scheme is base64, unless it is short and holds a character that base64 has not: that is a path.
    (A path of letters and slashes alone has to be written as file://.)
    """
    text = text.strip()
    if not text:
        raise _refused("is empty")
    if _UPLOAD.fullmatch(text):
        return UploadId(text)
    if _DRIVE.match(text):
        return FileName(_file_path(text) if text[:5].lower() == "file:" else text)
    scheme = _SCHEME.match(text)
    if not scheme:
        return FileName(text) if len(text) <= _PATH_CHARS and _NOT_BASE64.search(text) else raw_base64(text)
    match scheme[1].lower():
        case "data":
            return _data(text)
        case "http" | "https":
            return Address(text)
        case "file":
            return FileName(_file_path(text))
        case other:
            raise _refused(f"begins with {shown(other + ':')}")


def read_inline(text: str) -> Inline | InlineFrames:
    """As `read_reference`, for a field that holds the bytes themselves."""
    text = text.strip()
    if text[:5].lower() == "data:":
        return _data(text)
    if scheme := _SCHEME.match(text[:_HEADER_CHARS]):
        raise RequestError(400, f"begins with {shown(scheme[0])}; it takes base64 or a data: URL", code="bad_url")
    return raw_base64(text)


def raw_base64(text: str) -> Inline:
    return Inline(text, 0, len(text), True)


def _data(text: str) -> Inline | InlineFrames:
    comma = text.find(",", 5, _HEADER_CHARS)
    if comma < 0:
        raise RequestError(400, "a data: URL without a comma; write data:video/mp4;base64,...", code="bad_url")
    mime, *options = (word.strip().lower() for word in text[5:comma].split(";"))
    is_base64 = bool(options) and options[-1] == "base64"
    start = comma + 1
    if is_base64 and text.find("%", start) >= 0:  # percent-encoded base64: '%2B' for '+'
        text, start = _plain(text[start:]), 0
    if is_base64 and mime == _FRAMES_MIME:
        return InlineFrames(text, start)
    return Inline(text, start, len(text), is_base64)


def _plain(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode("ascii")
    except UnicodeError as e:
        raise RequestError(400, "a data: URL with characters that base64 has not", code="bad_base64") from e


def _file_path(url: str) -> str:
    """file:///a/b, file://localhost/a/b, file:/a/b: /a/b. file://a/b (llama-server has it so) and file:a/b: a/b."""
    rest = url[5:]
    if any(c in rest for c in "?#"):
        raise RequestError(400, f"{shown(url)} holds '?' or '#'; write %3F or %23 in a file's name", code="bad_url")
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        rest = slash + path if host.lower() in ("", "localhost") else host + slash + path
    try:
        return unquote_to_bytes(rest).decode("utf-8", "surrogateescape")
    except UnicodeError as e:
        raise RequestError(400, f"{shown(url)} is no URL: it holds characters that are none", code="bad_url") from e


def _refused(what: str) -> RequestError:
    return RequestError(400, f"the URL {what}; give {TAKEN}", code="bad_url")
