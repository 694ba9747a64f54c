"""The page that the service shows at `/`: its files, and the headers they go out with. Knows no web framework.

No build step: what lies in this folder is what the browser gets. The page asks nobody but this service, and the
Content-Security-Policy holds it to that: no inline script or style, no HTML made of text (trusted types).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent
_MIMES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

CSP = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # kept, but asked about each time: another version of the service has other files
}


@dataclass(frozen=True)
class Reply:
    """What goes out over HTTP. status: 200, or 304 where the browser has the file already (no body)."""

    status: int
    headers: dict[str, str]
    body: bytes


@cache
def files() -> dict[str, tuple[bytes, str]]:
    """Path ("/", "/page/app.js") to content and media type."""
    found = {path.name: path for path in sorted(_HERE.iterdir()) if path.suffix in _MIMES}
    named = {"/" if name == "index.html" else f"/page/{name}": path for name, path in found.items()}
    return {name: (path.read_bytes(), _MIMES[path.suffix]) for name, path in named.items()}


def reply(path: str, if_none_match: str = "") -> Reply | None:
    """What GET `path` gives, None where the page has no such file. if_none_match: that header of the request."""
    if path not in files():
        return None
    body, mime = files()[path]
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**HEADERS, "ETag": etag}
    # a proxy that compresses marks the tag as weak
    if etag in (tag.strip().removeprefix("W/") for tag in if_none_match.split(",")):
        return Reply(304, headers, b"")
    return Reply(200, {**headers, "Content-Type": mime}, body)
