"""What is watched: a camera, a stream by its address, or a file that grows; and what libav is told to open it.

An address is taken here alone, because the user names it. Nothing of it but scheme, host and port is ever printed: the
rest may hold a password or a key. Leaves to others: opening and reading.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from aim_local.errors import MediaError, UsageError
from aim_local.media.container import FILE_OPTIONS

SCHEMES = ("rtsp", "rtsps", "udp", "rtp", "tcp", "http", "https", "rtmp", "rtmps")
# what a stream may lead to: another address, never a file of this machine
_PROTOCOLS = "rtsp,rtsps,rtp,srtp,udp,tcp,tls,http,https,httpproxy,crypto,rtmp,rtmps,rtmpt"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?://|[^\\/])")  # a drive letter is one character
_CAMERA = re.compile(r"camera(?::(.+))?", re.IGNORECASE)
_DEVICE = re.compile(r"/dev/video\d+")
_FORMS = "give camera, /dev/video0, an address such as rtsp://host/stream, or a file"
_LOST = {"rtsp": {"rtsp_flags": "prefer_tcp"}, "udp": {"overrun_nonfatal": "1"}}

Kind = Literal["camera", "stream", "file"]


@dataclass(frozen=True)
class LiveSource:
    """kind: what it is. name: for people, without what is secret. url, format, options: for libav."""

    kind: Kind
    name: str
    url: str = field(repr=False)
    format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_paced(self) -> bool:
        """Whether frames come when they are shown; what a file holds already comes at once."""
        return self.kind != "file"


def parse_source(text: str, platform: str = sys.platform) -> LiveSource:
    """What `text` means. Raises UsageError, and MediaError for a file that is not there."""
    text = text.strip()
    if not text:
        raise UsageError(f"the source is empty; {_FORMS}")
    camera = _CAMERA.fullmatch(text)
    if camera or _DEVICE.fullmatch(text):
        return _camera(camera[1] if camera else text, platform)
    scheme = _SCHEME.match(text)
    if scheme:
        return _stream(text, scheme[1].lower())
    return _file(Path(os.path.expanduser(text)))


def _camera(which: str | None, platform: str) -> LiveSource:
    """which: a number, a device, or its name as the system lists it; None: the first."""
    if platform.startswith("linux"):
        device = f"/dev/video{which or 0}" if (which or "0").isdigit() else str(which)
        if not _DEVICE.fullmatch(device):
            raise UsageError(f"camera {which!r} is none of Linux; give its number or device: camera:0, /dev/video0")
        return LiveSource("camera", device, device, "v4l2")
    if platform == "darwin":
        # without a rate avfoundation asks for 29.97, which most cameras refuse
        return LiveSource("camera", f"camera {which or 0}", f"{which or 0}:none", "avfoundation", {"framerate": "30"})
    if platform == "win32":
        if which is None or which.isdigit():
            raise UsageError("Windows knows cameras by name; give it: camera:NAME (Device Manager lists the names)")
        return LiveSource("camera", f"camera {which}", f"video={which}", "dshow")
    raise UsageError(f"cameras are not known on {platform}; give an address or a file")


def _stream(url: str, scheme: str) -> LiveSource:
    if scheme not in SCHEMES:
        raise UsageError(f"{scheme}: addresses are not watched; allowed are {', '.join(SCHEMES)}; {_FORMS}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host and scheme not in ("udp", "rtp"):
        raise UsageError(
            f"the {scheme} address names no host and port that can be read; write {scheme}://HOST:PORT/PATH"
        )
    shown = f"[{host}]" if host and ":" in host else host or ""
    name = f"{scheme}://{shown}{f':{port}' if port else ''}"
    return LiveSource("stream", name, url, None, {"protocol_whitelist": _PROTOCOLS, **_LOST.get(scheme, {})})


def _file(path: Path) -> LiveSource:
    try:
        mode = os.stat(path).st_mode
    except OSError as e:
        raise MediaError(f"{path}: cannot be watched ({e.strerror or e}); {_FORMS}") from e
    if not stat.S_ISREG(mode):
        raise MediaError(f"{path}: is neither a file nor a camera; {_FORMS}")
    return LiveSource("file", path.name, str(path), None, FILE_OPTIONS)
