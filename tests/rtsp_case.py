"""An RTSP server on loopback, as small as one can be: one client, H.264 over the same TCP connection, Basic auth."""

from __future__ import annotations

import base64
import re
import socket
import threading
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
from media_fixtures import picture

SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=cam\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
    "a=fmtp:96 packetization-mode=1\r\na=control:track1\r\n"
)


class _Packets:
    """What a muxer writes to: each write is one RTP packet."""

    def __init__(self) -> None:
        self.found = list[bytes]()

    def write(self, data: bytes) -> int:
        self.found.append(bytes(data))
        return len(data)


def rtp_packets(n: int, rate: int = 5) -> list[list[bytes]]:
    """RTP packets of each of n frames `picture(i)`; RTCP is left out."""
    out, found = _Packets(), list[list[bytes]]()
    muxer = av.open(out, "w", format="rtp", options={"packetsize": "1400", "rtpflags": "skip_rtcp"})
    stream: Any = muxer.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "tune": "zerolatency"})
    stream.width, stream.height, stream.pix_fmt, stream.gop_size = 96, 64, "yuv420p", rate
    for i in range(n):
        frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = i, Fraction(1, rate)
        muxer.mux(stream.encode(frame))
        found.append(out.found)
        out.found = []
    muxer.close()
    return found


class RtspStation:
    """Answers one client's requests in a thread; `send` when it plays."""

    def __init__(self, user: str, password: str) -> None:
        self._auth = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.plays, self.refused = threading.Event(), 0
        self._client: socket.socket | None = None
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def _answer(self) -> None:
        while True:
            try:
                self._client, _ = self._server.accept()
            except OSError:
                return
            self._serve(self._client)

    def _serve(self, client: socket.socket) -> None:
        text = b""
        while not self.plays.is_set():
            data = client.recv(4096)
            if not data:
                return
            text += data
            while b"\r\n\r\n" in text:
                request, text = text.split(b"\r\n\r\n", 1)
                client.sendall(self._reply(request.decode()))

    def _reply(self, request: str) -> bytes:
        method = request.split()[0]
        number = re.search(r"CSeq: (\d+)", request)
        head = f"CSeq: {number[1] if number else 0}\r\n"
        if method != "OPTIONS" and f"Basic {self._auth}" not in request:
            self.refused += 1
            return f'RTSP/1.0 401 Unauthorized\r\n{head}WWW-Authenticate: Basic realm="cam"\r\n\r\n'.encode()
        more, body = "", ""
        if method == "OPTIONS":
            more = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif method == "DESCRIBE":
            more, body = f"Content-Type: application/sdp\r\nContent-Length: {len(SDP)}\r\n", SDP
        elif method == "SETUP":
            more = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
        elif method == "PLAY":
            more = "Session: 1\r\n"
            self.plays.set()
        return f"RTSP/1.0 200 OK\r\n{head}{more}\r\n{body}".encode()

    def send(self, packets: Sequence[bytes]) -> None:
        assert self._client
        for packet in packets:
            self._client.sendall(b"$\0" + len(packet).to_bytes(2, "big") + packet)

    def close(self) -> None:
        self._server.close()
        if self._client:
            self._client.close()
