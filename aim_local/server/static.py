"""The page's files: read once, told with their type, allowed to load nothing from elsewhere."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable

from fastapi import FastAPI
from starlette.responses import Response

from .failures import RequestError

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; connect-src 'self'; "
    "manifest-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}


def page_routes(app: FastAPI) -> None:
    """/ and /page/NAME."""
    files = _files(resources.files(__package__) / "page", "")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return _response(files, "index.html")

    @app.get("/page/{name:path}", include_in_schema=False)
    async def page_file(name: str) -> Response:
        return _response(files, name)


def _files(folder: Traversable, before: str) -> dict[str, tuple[str, bytes]]:
    """Name -> (type, bytes), folders included."""
    found: dict[str, tuple[str, bytes]] = {}
    for entry in folder.iterdir() if folder.is_dir() else ():
        kind = _TYPES.get("." + entry.name.rpartition(".")[2])
        if entry.is_dir():
            found |= _files(entry, f"{before}{entry.name}/")
        elif kind:
            found[before + entry.name] = (kind, entry.read_bytes())
    return found


def _response(files: dict[str, tuple[str, bytes]], name: str) -> Response:
    if name not in files:
        raise RequestError(404, "there is no such file of the page")
    kind, data = files[name]
    return Response(data, media_type=kind, headers=_HEADERS)
