"""A file of this machine never makes FFmpeg open another file or an address: playlists, sessions, references."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from media_fixtures import write_clip

from aim_local.errors import MediaError
from aim_local.media import open_media, outline_media

SUFFIXES = ("", ".mp4", ".avi", ".jpg")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """An address that would hear of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def gab2_avi(folder: Path, playlist: bytes) -> bytes:
    """An AVI whose subtitle stream holds a playlist: FFmpeg opens what such a stream holds as a file of its own."""
    body = b"GAB2\0" + struct.pack("<HI", 2, 0) + struct.pack("<HI", 4, len(playlist)) + playlist
    chunk = b"01tx" + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    data = write_clip(folder / "plain.avi", n_frames=4, codec="mpeg4").read_bytes()
    at = data.index(b"movi") + 4
    head = b"strh" + struct.pack("<I4s", 56, b"txts") + bytes(52) + b"strf" + struct.pack("<I", 0)
    stream = b"LIST" + struct.pack("<I", 4 + len(head)) + b"strl" + head
    streams = data.index(b"LIST", 12 + 8)  # behind the main header
    return data[:streams] + stream + data[streams:at] + chunk + data[at:]


def referring_mov(folder: Path, url: str) -> bytes:
    """A MOV whose pictures lie at an address."""
    data = write_clip(folder / "plain.mov", n_frames=4).read_bytes()
    return data.replace(b"url \0\0\0\1", b"url \0\0\0\0") + struct.pack(">I", 8 + len(url)) + b"rmra" + url.encode()


def leading_files(folder: Path, url: str, secret: Path) -> dict[str, bytes]:
    hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n#EXTINF:9,\nfile://{secret}\n#EXT-X-ENDLIST\n"
    dash = f'<?xml version="1.0"?><MPD type="static"><BaseURL>{url}</BaseURL><Period><AdaptationSet/></Period></MPD>'
    return {
        "hls": hls.encode(),
        "concat": f"ffconcat version 1.0\nfile '{secret}'\nfile '{url}'\n".encode(),
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video {url[17:22]} RTP/AVP 96\n".encode(),
        "dash": dash.encode(),
        "quicktime text": f'<?quicktime type="application/x-quicktime-media-link"?><embed src="{url}"/>'.encode(),
        "asx": f'<asx version="3.0"><entry><ref href="{url}"/></entry></asx>'.encode(),
        "redirect": f"[Reference]\nRef1={url}\n".encode(),
        "avi with a playlist inside": gab2_avi(folder, hls.encode()),
        "mov with references": referring_mov(folder, url),
    }  # fmt: skip


def test_no_file_leads_elsewhere(tmp_path: Path, listener: socket.socket) -> None:
    secret = write_clip(tmp_path / "secret.mp4", n_frames=7)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.ts"
    for name, data in leading_files(tmp_path, url, secret).items():
        for suffix in SUFFIXES if name in ("hls", "concat") else (".mp4",):
            path = tmp_path / f"leading{suffix}"
            path.write_bytes(data)
            for look in (outline_media, open_media):
                with suppress(MediaError):
                    assert look(path).shape.n_frames == 4, f"{name}: another file's frames"
            with pytest.raises(BlockingIOError):
                listener.accept()


def test_names_are_no_patterns_and_no_protocols(tmp_path: Path) -> None:
    """image2 reads %d, subfile and concat read names: here they are names of files that are not there, or are."""
    clip = write_clip(tmp_path / "a1.mp4", n_frames=4)
    for name in (
        f"concat:{clip}",
        f"subfile,,start,0,end,0,,:{clip}",
        f"{tmp_path}/a%d.mp4",
        "data:video/mp4;base64,AA",
    ):
        with pytest.raises(MediaError, match=r"no such file|cannot be read"):
            open_media(name)
    for name in ("a%d.mp4", "concat:b|c.mp4", "http:x.mp4"):
        odd = tmp_path / name
        odd.write_bytes(clip.read_bytes())
        assert open_media(odd).shape.n_frames == 4
