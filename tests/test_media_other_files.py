"""Files that FFmpeg would make a film of: documents, archives, and films behind other bytes."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
from media_fixtures import codes_of, picture, write_clip

from aim_local.errors import MediaError
from aim_local.media import FrameSampling, open_media, outline_media, read_video

JPEG = io.BytesIO()
PIL.Image.fromarray(picture(5)).save(JPEG, "JPEG")


def pdf(inside: bytes) -> bytes:
    made = io.BytesIO()
    PIL.Image.open(io.BytesIO(inside)).save(made, "PDF")
    return made.getvalue()


def zipped(inside: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("word/media/image1", inside)
    return made.getvalue()


def tarred(inside: bytes) -> bytes:
    made, entry = io.BytesIO(), tarfile.TarInfo("a")
    entry.size = len(inside)
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(entry, io.BytesIO(inside))
    return made.getvalue()


def dos_program(inside: bytes) -> bytes:
    return b"MZ" + bytes(58) + (128).to_bytes(4, "little") + bytes(64) + b"PE\0\0" + bytes(20) + inside


def behind(*heads: bytes) -> Callable[[bytes], bytes]:
    return lambda inside: b"".join(heads) + inside


# what is made of a JPEG, and what is said
OTHERS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "document.pdf": (pdf, "is a PDF document, not a video or image; save its pages or pictures as JPEG or PNG"),
    "late.pdf": (behind(b"\n" * 99, b"%PDF-1.7\n"), "is a PDF document, not a video"),
    "letter.docx": (zipped, "is a ZIP archive or an Office document, not a video or image; unpack it"),
    "backup.tar": (tarred, "is a tar archive, not a video or image; unpack it"),
    "drawing.ai": (behind(b"%!PS-Adobe-3.0\n"), "is a PostScript document"),
    "layers.psd": (behind(b"8BPS\0\1", bytes(99)), "is a Photoshop document, which is not read here; save the picture"),
    "setup.exe": (dos_program, "is a program, not a video or image; give a video or image"),
    "tool": (behind(b"\x7fELF\2\1\1", bytes(99)), "is a program"),
    "shop.db": (behind(b"SQLite format 3\0"), "is a database (SQLite)"),
    "model.gguf": (behind(b"GGUF\3\0\0\0"), "is a model (GGUF)"),
    "mail.eml": (behind(b"From: a@b\nContent-Type: image/jpeg\n\n"), "is not a video or image this program reads"),
    "junk": (behind(b"\xff" * 100), "is not a video or image this program reads, or is damaged; give one of"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_jpeg_inside_is_no_film(tmp_path: Path, name: str) -> None:
    made, said = OTHERS[name]
    path = tmp_path / name
    path.write_bytes(made(JPEG.getvalue()))
    for look in (outline_media, open_media):
        with pytest.raises(MediaError) as found:
            look(path)
        assert str(found.value).startswith(f"{path}: {said}")


@pytest.mark.parametrize("head", [b"\xff" * 100, bytes(100), b"x" * 5000], ids=["ones", "zeros", "text"])
@pytest.mark.parametrize("suffix", ["avi", "mov", "mkv"])
def test_a_film_behind_other_bytes_is_no_raw_stream(tmp_path: Path, suffix: str, head: bytes) -> None:
    path = write_clip(tmp_path / f"a.{suffix}", codec="mpeg4")
    path.write_bytes(head + path.read_bytes())
    with pytest.raises(MediaError, match=r"is not a video or image this program reads|holds text, not a video"):
        open_media(path)


RAW = {
    "a.h264": {"container_format": "h264", "b_frames": 2},
    "a.hevc": {"container_format": "hevc", "codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "a.m2v": {"container_format": "mpeg2video", "codec": "mpeg2video"},
    "a.m1v": {"container_format": "mpeg1video", "codec": "mpeg1video"},
    "a.m4v": {"container_format": "m4v", "codec": "mpeg4"},
    "a.obu": {"container_format": "obu", "codec": "libsvtav1", "options": {"preset": "12"}},
    "a.ts": {"b_frames": 2},
    "a.mpg": {"codec": "mpeg2video"},
}
OTHER_FILMS = {
    "a.wmv": {"codec": "wmv2"}, "a.mxf": {"codec": "mpeg2video"}, "a.y4m": {"codec": "wrapped_avframe"},
    "a.3gp": {"codec": "mpeg4"}, "a.flv": {"codec": "flv"}, "a.rm": {"codec": "rv10"}, "a.nut": {"codec": "mpeg4"},
    "a.ivf": {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}},
}  # fmt: skip


@pytest.mark.parametrize("name", [*RAW, *OTHER_FILMS])
def test_films_are_read(tmp_path: Path, name: str) -> None:
    """Streams of all kinds, that begin as such."""
    path = write_clip(tmp_path / name, 20, **{**RAW, **OTHER_FILMS}[name])
    assert codes_of(read_video(path, FrameSampling(20)).frames) == list(range(20))


@pytest.mark.parametrize("name", [name for name in RAW if name != "a.obu"])
def test_streams_that_begin_anywhere_are_read(tmp_path: Path, name: str) -> None:
    """Nothing that may stand in a stream is taken for a sign of another file."""
    data = write_clip(tmp_path / name, **RAW[name]).read_bytes()
    (tmp_path / name).write_bytes(data[len(data) // 3 :])
    assert 20 <= read_video(tmp_path / name, FrameSampling(4)).n_source_frames < 60


def drawn(kind: str, mode: str = "RGB", **how: object) -> bytes:
    made = io.BytesIO()
    PIL.Image.fromarray(picture(5)).convert(mode).save(made, kind, **how)
    return made.getvalue()


H263 = b"\0\0\x80\2\x08\3\x26\2\2\2\2\2\2\2"  # as FFmpeg's encoder begins
AS_PICTURE, AS_FILM = (
    "which is not read here; save the picture as JPEG or PNG",
    "which is not read here; convert it to MP4",
)
NAMED: dict[str, tuple[bytes, str]] = {
    "a.tga": (drawn("TGA"), f"is a TGA picture, {AS_PICTURE}"),
    "packed.tga": (drawn("TGA", "L", compression="tga_rle"), f"is a TGA picture, {AS_PICTURE}"),
    "palette.tga": (drawn("TGA", "P"), f"is a TGA picture, {AS_PICTURE}"),
    "alpha.tga": (drawn("TGA", "RGBA", id_section=b"name"), f"is a TGA picture, {AS_PICTURE}"),
    "a.pcx": (drawn("PCX"), f"is a PCX picture, {AS_PICTURE}"),
    "one-bit.pcx": (drawn("PCX", "1"), f"is a PCX picture, {AS_PICTURE}"),
    "a.sgi": (drawn("SGI"), f"is an SGI picture, {AS_PICTURE}"),
    "grey.sgi": (drawn("SGI", "L"), f"is an SGI picture, {AS_PICTURE}"),
    "a.dib": (drawn("DIB"), f"is a Windows bitmap without its head (DIB), {AS_PICTURE}"),
    "one-bit.dib": (drawn("DIB", "1"), f"is a Windows bitmap without its head (DIB), {AS_PICTURE}"),
    "a.icns": (drawn("ICNS"), f"is an icon of macOS (ICNS), {AS_PICTURE}"),
    "a.blp": (drawn("BLP", "P"), f"is a BLP texture, {AS_PICTURE}"),
    "scan.dcm": (bytes(128) + b"DICM\2\0\0\0UL", f"is a medical picture (DICOM), {AS_PICTURE}"),
    "a.svg": (b"<?xml version='1.0'?>\n<svg width='9'></svg>", f"is a drawing (SVG), {AS_PICTURE}"),
    "a.swf": (b"FWS\6\x64\0\0\0" + bytes(90), f"is a Flash animation (SWF), {AS_FILM}"),
    "packed.swf": (b"CWS\6\x64\0\0\0" + bytes(90), f"is a Flash animation (SWF), {AS_FILM}"),
    "a.h263": (H263, f"is a raw stream of H.263, {AS_FILM}"),
}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_not_read_is_named(tmp_path: Path, name: str) -> None:
    data, said = NAMED[name]
    (tmp_path / name).write_bytes(data)
    for look in (outline_media, open_media):
        with pytest.raises(MediaError) as found:
            look(tmp_path / name)
        assert str(found.value) == f"{tmp_path / name}: {said}"


@pytest.mark.parametrize("data", [bytes(5000), b"\xff" * 5000, bytes(range(256)) * 20], ids=["zeros", "ones", "count"])
def test_what_looks_like_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(MediaError, match="is not a video or image this program reads, or is damaged"):
        open_media(tmp_path / "a")
