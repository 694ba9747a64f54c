"""A hub on loopback: repositories held in memory, the few endpoints that huggingface_hub uses, and its bad days.

Large files (LFS) are redirected to another host name, as the real hub does with its CDN.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

LFS = (".gguf", ".safetensors", ".bin")


@dataclass
class Hub:
    """What the server holds, how it misbehaves, and what it was asked.

    repos: name -> file -> content. refuse: text in a path -> (status, the hub's error code). cut: file -> bytes after
    which the line breaks, each time; only: file -> answers that bring anything. wrong: files whose content is not what
    the listing says. hang: seconds before every answer. token: what an Authorization header must carry, "" for anybody.
    bend: makes another listing of the right one; instead: text in a path -> what answers a GET of it by its own hands,
    or a HEAD where "HEAD " is before the path.
    """

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    only: dict[str, int] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)
    hang: float = 0.0
    token: str = ""
    bend: Callable[[Any], Any] | None = None
    instead: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, Range
    url: str = ""

    def revision(self, repo: str) -> str:
        return hashlib.sha1(repr(sorted(self.repos[repo])).encode()).hexdigest()

    def downloads(self, name: str) -> list[str]:
        """The Range headers of all downloads of a file, "" for none."""
        return [asked for method, path, asked in self.asked if method == "GET" and path.endswith(name)]


def sums(name: str, content: bytes) -> tuple[str, str]:
    """(sha256, git's sum of the file)"""
    git = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    return hashlib.sha256(content).hexdigest(), git


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *args: Any) -> None:
        self.hub = hub
        super().__init__(*args)

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path, self.headers.get("Range", "")))
        time.sleep(self.hub.hang)
        refusal = next((how for text, how in self.hub.refuse.items() if text in path), None)
        if refusal is None and self.hub.token and not path.startswith("/cdn/"):
            allowed = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
            refusal = None if allowed else (401, "GatedRepo")
        told = path if body else f"HEAD {path}"
        by_hand = next(
            (how for text, how in self.hub.instead.items() if text in told and (body or text[:5] == "HEAD ")), None
        )
        if by_hand:
            by_hand(self)
        elif refusal:
            self.send(refusal[0], b"", {"X-Error-Code": refusal[1]}, body)
        elif path.startswith("/api/models/"):
            repo = path.removeprefix("/api/models/")
            self.listing(repo.split("/revision/")[0].split("/tree/")[0], "/tree/" in path, body)
        elif path.startswith("/cdn/"):
            assert "Authorization" not in self.headers, "a token went to another host"
            self.content(*path.removeprefix("/cdn/").split("/", 1), body)
        else:
            self.resolve(path, body)

    def listing(self, repo: str, tree: bool, body: bool) -> None:
        files = self.hub.repos.get(repo)
        if files is None:
            self.send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)
            return
        siblings, entries = [], []
        for name, content in files.items():
            sha256, git = sums(name, content)
            lfs = {"sha256": sha256, "size": len(content), "pointerSize": 134} if name.endswith(LFS) else None
            siblings.append({"rfilename": name, "size": len(content), "blobId": git, "lfs": lfs})
            oid = {"oid": sha256, "size": len(content), "pointerSize": 134} if name.endswith(LFS) else None
            entry = {"type": "file", "path": name, "size": len(content), "oid": git}
            entries.append(entry | ({"lfs": oid} if oid else {}))
        found: Any = entries if tree else {"id": repo, "sha": self.hub.revision(repo), "siblings": siblings}
        if self.hub.bend:
            found = self.hub.bend(found)
        text = found if isinstance(found, bytes) else json.dumps(found).encode()
        self.send(200, text, {"Content-Type": "application/json"}, body)

    def resolve(self, path: str, body: bool) -> None:
        repo, _, rest = path.strip("/").partition("/resolve/")
        name = rest.partition("/")[2]
        content = self.hub.repos.get(repo, {}).get(name)
        if content is None:
            self.send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
            return
        sha256, git = sums(name, content)
        about = {"X-Repo-Commit": self.hub.revision(repo)}
        if name.endswith(LFS):
            place = self.hub.url.replace("127.0.0.1", "localhost") + f"/cdn/{repo.replace('/', '--')}/{name}"
            linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content)), "Location": place}
            self.send(302, b"", about | linked, body)
        else:
            self.send(200, content, about | {"ETag": f'"{git}"'}, body)

    def content(self, repo: str, name: str, body: bool) -> None:
        content = self.hub.repos[repo.replace("--", "/", 1)][name]
        if name in self.hub.wrong:
            content = content[:-1] + bytes([content[-1] ^ 1])
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        about = {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"} if begin else {}
        cut = self.hub.cut.get(name)
        if name in self.hub.only:
            self.hub.only[name] -= 1
            cut = cut if self.hub.only[name] >= 0 else 0
        self.send(206 if begin else 200, content[begin:], about, body, cut)

    def send(self, status: int, content: bytes, about: dict[str, str], body: bool, cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in about.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content[:cut])
        if cut is not None and cut < len(content):
            self.close_connection = True


@contextmanager
def serving(hub: Hub) -> Iterator[ThreadingHTTPServer]:
    """The server at hub.url while the block runs, or until `stop_serving`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, hub))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=partial(server.serve_forever, poll_interval=0.02), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, user_home: Path) -> Iterator[Hub]:
    """A hub that this process and its children ask, with an empty cache of its own and no token."""
    import huggingface_hub
    from huggingface_hub import constants

    found, cache = Hub(), user_home / "hf" / "hub"
    with serving(found):
        template = found.url + "/{repo_id}/resolve/{revision}/{filename}"
        settings = {
            "ENDPOINT": found.url, "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": False, "HF_TOKEN_PATH": str(user_home / "hf" / "token"),
            "HF_HUB_ETAG_TIMEOUT": 5, "HF_HUB_DOWNLOAD_TIMEOUT": 5,
        }  # fmt: skip
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        monkeypatch.setenv("HF_HOME", str(cache.parent))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        monkeypatch.setattr("aim_local.hub.download.PAUSE", 0.01)
        huggingface_hub.close_session()  # what an earlier test left may know another proxy
        yield found
        huggingface_hub.close_session()
