"""A hub on loopback whose every reply is written in a script: lines, headers and bodies as no honest server sends them.

A script is plain JSON, `{"replies": [REPLY, ...]}`. The first reply whose "for" ("GET /api/") fits a request and that
has "times" left is sent, and then the connection ends; where none fits, it is 404.

- "line": the status line; "headers": pairs. In their texts @URL is the server's address, @CDN the same by another
  name, @LEN the body's length, @BEGIN and @REST where a Range begins and what is left from there.
- "body": {"json": VALUE}, {"base64": TEXT}, {"file": NAME, "flip": N} of `files`, {"zeros": N} or {"endless": TEXT};
  with "ranged" from where the request's Range begins, with "more" so many bytes behind it, "cut" off after so many,
  "coding": "gzip" or "bomb" (zeros, packed), "chunked".

Whatever a script lacks or has of another type counts as not there.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import socketserver
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

BOMB_BYTES = 1 << 30  # of zeros, a thousandth of that packed
MOST_SENT = 2 << 30  # of an endless body: a reader that takes it all is a finding long before
PIECE = 1 << 16


class ScriptedHub:
    """files: contents that bodies name. `play` begins a session; who asks is answered by its script."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files, self.replies = files, list[dict[str, Any]]()
        self.asked: list[str] = []  # "METHOD path"
        self._lock = threading.Lock()
        hub = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):  # the reader has had enough
                    hub._answer(self)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.5}, daemon=True).start()

    def play(self, script: object) -> None:
        with self._lock:
            self.replies = [dict(reply) for reply in part(script, "replies", list) if isinstance(reply, dict)]
            self.asked = []

    def _answer(self, handler: socketserver.StreamRequestHandler) -> None:
        first = handler.rfile.readline(PIECE).decode("latin-1").split()
        headers = {}
        while (line := handler.rfile.readline(PIECE).decode("latin-1").strip()) and len(headers) < 100:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if len(first) < 2:
            return
        reply = self._next(f"{first[0]} {first[1]}")
        begun = re.fullmatch(r"bytes=(\d+)-.*", headers.get("range", ""))
        for piece in self.sent(reply, int(begun[1]) if begun else 0, with_body=first[0] != "HEAD"):
            handler.wfile.write(piece)

    def _next(self, asked: str) -> dict[str, Any]:
        with self._lock:
            self.asked.append(asked)
            for reply in self.replies:
                method, _, text = str(reply.get("for", "")).partition(" ")
                left = reply.get("times")
                is_left = not isinstance(left, int) or left > 0
                if is_left and asked.startswith(f"{method} ") and text in asked:
                    if isinstance(left, int):
                        reply["times"] = left - 1
                    return reply
        return {"line": "HTTP/1.1 404 Not Found", "headers": [["Content-Length", "0"]]}

    def sent(self, reply: Mapping[str, Any], begin: int, *, with_body: bool) -> Iterator[bytes]:
        """The bytes of a reply."""
        told = part(reply, "body", dict)
        body = self._body(told, begin if told.get("ranged") else 0)
        ranged = bool(begin and told.get("ranged"))
        line = "HTTP/1.1 206 Partial Content" if ranged else str(reply.get("line", "HTTP/1.1 200 OK"))
        words = {
            "@URL": self.url,
            "@CDN": f"http://localhost:{self.port}",
            "@LEN": str(len(body)),
            "@BEGIN": str(begin),
            "@REST": f"bytes {begin}-{begin + len(body) - 1}/{begin + len(body)}",
        }
        head = [line, "Connection: close", *(f"{name}: {value}" for name, value in pairs(reply.get("headers")))]
        if ranged:
            head.append("Content-Range: @REST")
        text = "\r\n".join(head) + "\r\n\r\n"
        for word, value in words.items():
            text = text.replace(word, value)
        yield text.encode("latin-1", "replace")
        if with_body:
            yield from chunked(self._pieces(told, body)) if told.get("chunked") else self._pieces(told, body)

    def _body(self, told: Mapping[str, Any], begin: int) -> bytes:
        if "json" in told:
            data = json.dumps(told["json"]).encode("utf-8", "surrogatepass")
        elif "file" in told:
            data = self.files.get(str(told["file"]), b"")
            if isinstance(told.get("flip"), int) and data:
                at = told["flip"] % len(data)
                data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        elif "zeros" in told:
            data = bytes(min(max(0, part(told, "zeros", int)), 1 << 20))
        else:
            data = decoded(told.get("base64"))
        data = data[begin:] + bytes(min(max(0, part(told, "more", int)), 1 << 16))
        return gzip.compress(data) if told.get("coding") == "gzip" else data

    def _pieces(self, told: Mapping[str, Any], body: bytes) -> Iterator[bytes]:
        if told.get("coding") == "bomb":
            yield from bomb()
            return
        yield body[: told["cut"]] if isinstance(told.get("cut"), int) and told["cut"] >= 0 else body
        if "endless" in told:
            text = (str(told["endless"]) or "x").encode("utf-8", "replace")
            piece = text * (PIECE // len(text) + 1)
            for _ in range(MOST_SENT // len(piece)):
                yield piece


def bomb() -> Iterator[bytes]:
    packer, zeros = zlib.compressobj(9, wbits=31), bytes(1 << 20)
    for _ in range(BOMB_BYTES >> 20):
        yield packer.compress(zeros)
    yield packer.flush()


def chunked(pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if piece:
            yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def decoded(text: object) -> bytes:
    try:
        return base64.b64decode(text) if isinstance(text, str) else b""
    except ValueError:
        return b""


def part(holder: object, key: str, kind: type) -> Any:
    """A value of a script; of another type, nothing."""
    found = holder.get(key) if isinstance(holder, dict) else None
    return found if isinstance(found, kind) else kind()


def pairs(value: object) -> list[tuple[str, str]]:
    found = value if isinstance(value, list) else []
    return [(str(pair[0]), str(pair[1])) for pair in found if isinstance(pair, list) and len(pair) == 2]
