"""A model of toy size in a hub on loopback: one language file and its vision tower."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import hub_server
import pytest
from gguf_files import write_mmproj, write_model
from hub_server import Hub

hub = hub_server.hub
REPO = "tiny/toy-GGUF"
MODEL, MMPROJ = "toy-Q4_K_M.gguf", "mmproj-toy-F16.gguf"
Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def toy(hub: Hub, tmp_path: Path) -> Hub:
    return offer(hub, tmp_path)


def offer(hub: Hub, folder: Path, n_vocab: int = 16) -> Hub:
    """folder: for the files while they are made."""
    model = write_model(folder / "model.gguf", n_vocab=n_vocab).read_bytes()
    hub.repos[REPO] = {MODEL: model, MMPROJ: write_mmproj(folder / "mmproj.gguf").read_bytes()}
    return hub


def endless_head(handler: BaseHTTPRequestHandler) -> None:
    """An answer's first line, and letters of a header that never ends; each soon enough for who waits for a byte."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    _go_on(handler, b"x", 0.02)


def endless(piece: bytes, pause: float = 0.0) -> Answer:
    """A body that has no end, a piece at a time; the line breaks when the other side goes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        _go_on(handler, piece, pause)

    return answer


def _go_on(handler: BaseHTTPRequestHandler, piece: bytes, pause: float) -> None:
    handler.close_connection = True
    try:
        while True:
            handler.wfile.write(piece)
            time.sleep(pause)
    except OSError:
        return
