"""Files named as media on the command line: how a path is written, and checks before any work is done with it.

Whether a file is a video or a picture is found out by its content, whatever it was given as. Decoding is
aim_local.media's.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from aim_local.config import MAX_PIXELS
from aim_local.errors import UsageError

_PICTURES = ".jpg .jpeg .jpe .png .webp .avif .tif .tiff .bmp .ppm .jp2 .qoi .heic .heif"
_VIDEOS = ".mp4 .m4v .mov .mkv .webm .avi .ts .m2ts .mts .mpg .mpeg .wmv .flv .ogv .3gp .vob .h264 .h265 .gif .apng"
PICTURES, VIDEOS = frozenset(_PICTURES.split(" ")), frozenset(_VIDEOS.split(" "))
_URL = re.compile(r"[a-z][a-z0-9+.-]+://|data:[a-z]+/", re.IGNORECASE)
_SECRET = re.compile(r"(://)[^/@\s]*@")  # a user and a password
_FILE = re.compile(r"file://(?:localhost)?(?=/)", re.IGNORECASE)


def has_media_suffix(text: str) -> bool:
    """Whether a name ends as the files of videos and pictures do."""
    return Path(text).suffix.lower() in PICTURES | VIDEOS


def is_url(text: str) -> bool:
    """Whether it is a URL that names no file of this machine."""
    return bool(_URL.match(text)) and not _FILE.match(text)


def url_refusal(text: str) -> str:
    """The one line for a URL where a file is needed."""
    shown = _SECRET.sub(r"\1***@", text)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return f"{shown} is a URL; aim-local takes files: download it first, or `aim-local watch URL` for a stream"


def path_of(text: str) -> Path:
    """A path as it is typed, with ~, or as a file:// URL. Raises UsageError for other URLs."""
    if is_url(text):
        raise UsageError(url_refusal(text))
    found = _FILE.match(text)
    if found:
        from urllib.request import url2pathname

        text = url2pathname(text[found.end() :])
    return Path(os.path.expanduser(text))  # Path's own raises for ~NAME of nobody


def unquoted(text: str) -> str:
    """A path as people type or drop it, without its quotes or the backslashes before its blanks."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return text if sys.platform == "win32" else re.sub(r"\\(.)", r"\1", text)


def check_media(path: Path, said: str = "", max_pixels: int = MAX_PIXELS) -> Path:
    """A file that can be read. said: what it was given as, "image" or "video". Raises MediaError.

    max_pixels: as in LoadConfig. What has neither the content of a picture nor the ending of a video is looked into.
    """
    from aim_local.media.files import check_file
    from aim_local.media.pictures import picture_kind

    checked = check_file(path)
    if picture_kind(checked, max_pixels) is None and (said == "image" or checked.suffix.lower() not in VIDEOS):
        from aim_local.media import probe_video

        probe_video(checked, max_pixels)  # a clip, then; else its error is the right one
    return checked
