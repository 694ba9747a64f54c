"""Parts that are wrong, too large, or meant to do harm: each is refused with its status, its field and one line."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from media_fixtures import picture, write_clip, write_sound
from server_files import (
    WHERE,
    b64,
    encoded,
    long_gif,
    peak_memory,
    png,
    refused,
    sources,
    tall_png,
    video_url,
    with_claims,
)
from thorough import few

from aim_local.media.claims import gif_frames
from aim_local.server.failures import RequestError
from aim_local.server.limits import Limits
from aim_local.server.media import heads
from aim_local.server.media.heads import check_head
from aim_local.server.media.sources import Sources

MIB = 2**20


@pytest.fixture(scope="module")
def given() -> Iterator[Sources]:
    with sources() as made:
        yield made


PARTS: list[tuple[object, int, str, str]] = [
    # part, status, param, words of the message
    ({}, 400, ".type", "type is missing"),
    ({"type": "text", "text": "hi"}, 400, ".type", "'text'"),
    ({"type": ["video_url"]}, 400, ".type", "a list"),
    ({"type": "audio_url", "audio_url": "x"}, 400, ".type", "'audio_url'"),
    ({"type": "video_url"}, 400, ".video_url", "needs one field video_url"),
    ({"type": "video_url", "video_url": None}, 400, ".video_url", "needs one field"),
    ({"type": "video_url", "video_url": 7}, 400, ".video_url", "is 7"),
    ({"type": "video_url", "video_url": {}}, 400, ".video_url", "none of url"),
    ({"type": "video_url", "video_url": {"url": 1}}, 400, ".video_url.url", "give text"),
    ({"type": "video_url", "video_url": {"url": "a", "data": "b"}}, 400, ".video_url", "url and data"),
    ({"type": "video_url", "video_url": {"url": "QUJD", "nope": 1}}, 400, ".video_url", "unknown field 'nope'"),
    ({"type": "video_url", "video_url": "QUJD", "max_pixels": 1}, 400, "", "unknown field 'max_pixels'"),
    ({"type": "video_url", "video_url": {"url": "QUJD", "fps": 1}, "fps": 2}, 400, ".fps", "given twice"),
    ({"type": "input_video", "input_video": {"frames": 8}}, 400, ".input_video", "none of url"),
    ({"type": "input_video", "input_video": {"frames": [], "fps": 2}}, 400, ".input_video.frames", "an empty list"),
    ({"type": "video", "video": [1]}, 400, ".video[0]", "is 1"),
    ({"type": "video", "video": [{"url": "a", "fps": 1}]}, 400, ".video[0]", "an object"),
    ({"type": "video", "video": ["data:video/jpeg;base64,QUJD,QUJD"]}, 400, ".video[0]", "a clip in a list"),
    ({"type": "video", "video": [""]}, 400, ".video[0]", "is empty"),
    ({"type": "file", "file": {"file_id": "file-none"}}, 404, ".file.file_id", "no file 'file-none'"),
    ({"type": "file", "file": {"file_id": "../../etc/passwd"}}, 404, ".file.file_id", "no file"),
    ({"type": "file", "file": {"file_data": "http://x/"}}, 400, ".file.file_data", "begins with 'http:'"),
]


@pytest.mark.parametrize(("part", "status", "param", "words"), PARTS)
def test_parts_that_are_none(given: Sources, part: dict[str, object], status: int, param: str, words: str) -> None:
    error = refused(given, part)
    assert (error.status, error.param) == (status, WHERE + param)
    assert words in str(error)


URLS: list[tuple[str, int, str]] = [
    ("", 400, "is empty"),
    ("data:video/mp4;base64", 400, "without a comma"),
    ("data:video/mp4;base64,", 400, "empty (0 bytes)"),
    ("data:,", 400, "empty (0 bytes)"),
    ("data:,%zz", 400, "not percent-encoded"),
    ("data:,\u00e9", 400, "not percent-encoded"),
    ("data:;base64,QUJ", 400, "cut off"),
    ("data:;base64,QUJDRA=", 400, "cut off"),
    ("data:;base64,QU=JD", 400, "'=' at character 2"),
    ("data:;base64,====", 400, "base64"),
    ("data:;base64,QUJD\nQUJD", 400, "at character 4"),
    ("data:;base64,QUJ-", 400, "'-' at character 3"),
    ("data:;base64,QUJ\u0661", 400, "at character 3"),
    ("data:;base64,%FF%FE", 400, "characters that base64 has not"),
    ("ftp://example.com/a.mp4", 400, "begins with 'ftp:'"),
    ("javascript:alert(1)", 400, "begins with 'javascript:'"),
    ("concat:a|b", 400, "begins with 'concat:'"),
    ("rtsp://127.0.0.1/a", 400, "begins with 'rtsp:'"),
    ("subfile,,start,0,end,9,,:/etc/passwd", 403, "--media-path"),
    ("http://example.com/a.mp4", 403, "--allow-http"),
    ("HTTPS://example.com/a.mp4", 403, "--allow-http"),
    ("file:///etc/passwd", 403, "--media-path"),
    ("FILE:/etc/passwd", 403, "--media-path"),
    ("/etc/passwd.txt", 403, "--media-path"),
    ("clip.mp4", 403, "--media-path"),
    ("C:\\clips\\a.mp4", 403, "--media-path"),
    ("file-0123", 404, "upload it"),
    (b64(b"just words, no film at all"), 400, "holds text"),
    (b64(bytes(range(256))), 400, "is not a video or image"),
    (b64(b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"), 400, "holds text"),
    (b64(b"ffconcat version 1.0\nfile /etc/passwd\n"), 400, "holds text"),
    (
        b64(b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"),
        400,
        "is a drawing (SVG)",
    ),
    (b64(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n"), 400, "is a PostScript document"),
    (b64(b"\0\0\1\0\1\0" + bytes(40)), 400, "an icon"),
    (b64(b"\0\0\0\x18ftypheic" + bytes(40)), 400, "HEIC"),
    (b64(b"PK\3\4" + bytes(100)), 400, "is a ZIP archive"),
]


@pytest.mark.parametrize(("url", "status", "words"), URLS)
def test_urls_that_are_refused(given: Sources, url: str, status: int, words: str) -> None:
    error = refused(given, video_url(url))
    assert (error.status, error.param) == (status, f"{WHERE}.video_url.url")
    assert words in str(error)


def test_base64_that_is_too_large_is_refused_before_it_is_decoded() -> None:
    with sources(Limits(file_bytes=MIB)) as given:
        text = "A" * (4 * MIB)
        error = refused(given, video_url(text))
        assert error.status == 413
        assert "has 3.0 MiB; at most 1.0 MiB" in str(error)
        assert "--max-file" in str(error)
        assert peak_memory(lambda: refused(given, video_url(text))) < MIB
        percent = refused(given, video_url("data:," + "%41" * (MIB + 1)))
        assert percent.status == 413


def test_a_full_server_says_so_and_when_to_ask_again() -> None:
    with sources(Limits(files_bytes=1000)) as given:
        error = refused(given, video_url(b64(b"x" * 1001)))
        assert error.status == 503
        assert error.headers == {"Retry-After": "5"}
        assert given.uploads.room.free == 1000


def test_sound_alone_is_told_apart(given: Sources, tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "a.mp4", cover=picture(1)).read_bytes()
    part: dict[str, object] = {"type": "file", "file": {"file_data": b64(sound), "filename": "a.mp4"}}
    error = refused(given, part)
    assert error.status == 400
    assert "a.mp4: holds sound only (aac)" in str(error)


def _claiming_clip(folder: Path) -> bytes:
    return with_claims(write_clip(folder / "c.mp4", n_frames=2).read_bytes(), 20_000_000)


def _wide_clip(folder: Path) -> bytes:
    return write_clip(folder / "wide.mp4", n_frames=1, size=(640, 480)).read_bytes()


BOMBS: dict[str, tuple[Callable[[Path], bytes], int, str]] = {
    "a PNG two pixels wide": (lambda _: tall_png(2, 150_000_000), 413, "a side has at most 1,048,576"),
    "a PNG beyond Pillow's own limit": (lambda _: tall_png(100_000, 4_000), 413, "= 400,000,000 pixels"),
    "a GIF of 5,000 frames": (lambda _: long_gif(5_000, 8_000, 4_000), 413, "frames of 8000 x 4000"),
    "a GIF of 300,000 frames": (lambda _: long_gif(300_000, 20, 20), 413, "frames of 20 x 20"),
    "a GIF that grows": (lambda _: long_gif(5, 10, 10, (60_000, 5_000)), 413, "60000 x 5000"),
    "a video of large frames": (_wide_clip, 413, "640 x 480"),
    "an index of 20 million": (_claiming_clip, 400, "20,000,000"),
}  # fmt: skip


@pytest.mark.parametrize("name", few(BOMBS, [name for name in BOMBS if "300,000" not in name]))
def test_bombs_are_refused_by_their_heads(tmp_path: Path, name: str) -> None:
    make, status, words = BOMBS[name]
    limits = Limits(n_pixels=300_000) if "video" in name else Limits()
    path = tmp_path / "bomb"
    path.write_bytes(make(tmp_path))
    with sources(limits, media_path=tmp_path) as given:
        errors = []
        grown = peak_memory(lambda: errors.append(refused(given, video_url(f"file://{path}"))))
        assert errors[0].status == status
        assert words in str(errors[0])
        assert status != 413 or "--max-" in str(errors[0]) or "crop it" in str(errors[0])
        assert grown < 30 * MIB, grown


def test_long_animations_of_small_pictures_are_let_in(tmp_path: Path) -> None:
    """Guards the rule that their work counts, not their number alone: 300 frames of a small GIF are usual."""
    path = tmp_path / "a.gif"
    path.write_bytes(long_gif(300, 400, 400))
    assert check_head(path, "a.gif", Limits()).n_frames == 300


@pytest.mark.parametrize("side", [1, 20, 100])
def test_a_gif_of_millions_of_small_frames_is_not_walked_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    walked, path = [], tmp_path / "a.gif"
    path.write_bytes(long_gif(60_000, side, side))

    def counted(path: Path) -> Iterator[tuple[int, int]]:
        for size in gif_frames(path):
            walked.append(size)
            yield size

    monkeypatch.setattr(heads, "gif_frames", counted)
    with pytest.raises(RequestError, match="60,000 frames") as e:
        check_head(path, "a.gif", Limits())
    assert e.value.status == 413
    assert len(walked) < 20_000


def test_a_lossless_reading_of_base64_at_every_length(given: Sources) -> None:
    """Padding of 0, 1 and 2 '='; pieces that end inside a chunk of the decoder."""
    for n in (1, 2, 3, 4, 3 * 2**16 - 1, 3 * 2**16, 3 * 2**16 + 1):
        data = png() + bytes(n)  # a PNG ignores what follows
        with given.request() as scope:
            media = scope.find(video_url(base64.b64encode(data).decode()), WHERE).media
            assert isinstance(media, Path)
            assert media.read_bytes() == data


def test_an_encoder_of_pictures_too_large_for_a_list() -> None:
    with sources(Limits(file_bytes=100_000)) as given:
        error = refused(given, {"type": "video", "video": [b64(encoded(picture(0, 200, 200), "JPEG"))] * 3})
        assert error.status == 413
        assert "3 pictures of the first one's size make a clip of" in str(error)
