"""Files that are no films, though FFmpeg may make one of them, and what is said of them.

Some of its formats are streams without a head: it takes any file for one in which it finds a few bytes that such a
stream has, as the JPEG inside a document. Knows the first bytes of other files, and what a raw stream looks like.
Leaves to others: reading these bytes, pictures, and films with a head.
"""

from __future__ import annotations

import codecs
import re

from aim_local.media.files import KNOWN_KINDS

HEAD = 2**16  # bytes of a file that are looked at: the "head" of all functions here
_TEXT = 4096  # of them, that tell a text
_PICTURE = "is {}, which is not read here; save the picture as JPEG or PNG"
_FILM = "is {}, which is not read here; convert it to MP4"
_PAGES = "is {}, not a video or image; save its pages or pictures as JPEG or PNG"
_ARCHIVE = "is {}, not a video or image; unpack it, and give a video or image from inside"
_OTHER = "is {}, not a video or image; give a video or image"
# (first byte, bytes there, what a file with them is, what is said of it)
_KINDS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"%!PS", "a PostScript document", _PAGES),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript document", _PAGES),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document", _PAGES),
    (0, b"AT&TFORM", "a DjVu document", _PAGES),
    (0, b"{\\rtf", "a text document (RTF)", _PAGES),
    (0, b"PK\3\4", "a ZIP archive or an Office document", _ARCHIVE),
    (0, b"PK\5\6", "an empty ZIP archive", _ARCHIVE),
    (0, b"Rar!\x1a\7", "a RAR archive", _ARCHIVE),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _ARCHIVE),
    (0, b"\x1f\x8b\x08", "compressed by gzip", _ARCHIVE),
    (0, b"BZh", "compressed by bzip2", _ARCHIVE),
    (0, b"\xfd7zXZ\0", "compressed by xz", _ARCHIVE),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd", _ARCHIVE),
    (257, b"ustar", "a tar archive", _ARCHIVE),
    (0, b"8BPS", "a Photoshop document", _PICTURE),
    (0, b"gimp xcf", "a GIMP document", _PICTURE),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture", _PICTURE),
    (0, b"II\xbc\x01", "a JPEG XR picture", _PICTURE),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR picture", _PICTURE),
    (0, b"#?RADIANCE", "a Radiance picture", _PICTURE),
    (0, b"DDS \x7c\0\0\0", "a DDS texture", _PICTURE),
    (0, b"icns", "an icon of macOS (ICNS)", _PICTURE),
    (0, b"BLP1", "a BLP texture", _PICTURE),
    (0, b"BLP2", "a BLP texture", _PICTURE),
    (0, b"\x59\xa6\x6a\x95", "a Sun raster picture", _PICTURE),
    (0, b"SIMPLE  =", "a FITS picture", _PICTURE),
    (128, b"DICM", "a medical picture (DICOM)", _PICTURE),
    (40, b" EMF", "a drawing (EMF)", _PICTURE),
    (0, b"\xd7\xcd\xc6\x9a", "a drawing (WMF)", _PICTURE),
    (0, b"FWS", "a Flash animation (SWF)", _FILM),
    (0, b"CWS", "a Flash animation (SWF)", _FILM),
    (0, b"ZWS", "a Flash animation (SWF)", _FILM),
    (0, b"GGUF", "a model (GGUF)", _OTHER),
    (0, b"\x93NUMPY", "an array of NumPy's", _OTHER),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", _OTHER),
    (0, b"SQLite format 3\0", "a database (SQLite)", _OTHER),
    (0, b"\x7fELF", "a program", _OTHER),
    (0, b"\xca\xfe\xba\xbe", "a program", _OTHER),
    (0, b"\xcf\xfa\xed\xfe", "a program", _OTHER),
)
# heads of a few plain numbers, as other files may have: of a file that nobody reads, what it looks like
_BITMAP = rb"[\x28\x6c\x7c]\0\0\0.{8}\x01\0[\x01\x04\x08\x10\x18\x20]\0"
# the kind without a map of colours, or with one; the place; the size, two bytes each and not 0; bits of a pixel, order
_TARGA = rb".(?:\0[\x02\x03\x0a\x0b]|\x01[\x01\x09]).{5}.{4}(?:(?!\0\0)..){2}[\x08\x0f\x10\x18\x20][\0-\x3f]"
_LOOKS_LIKE = (
    (re.compile(rb"\x0a[\0\x02-\x05][\0\x01][\x01\x02\x04\x08]"), "a PCX picture", _PICTURE),
    (re.compile(rb"\x01\xda[\0\x01][\x01\x02]\0[\x01-\x03]"), "an SGI picture", _PICTURE),
    (re.compile(_BITMAP, re.DOTALL), "a Windows bitmap without its head (DIB)", _PICTURE),
    (re.compile(_TARGA, re.DOTALL), "a TGA picture", _PICTURE),
    (re.compile(rb"\0\0[\x80-\x83]"), "a raw stream of H.263", _FILM),
)
_SVG = re.compile(rb"<svg[\s>]")
_PDF = b"%PDF-"  # within the first kilobyte
_DOS_PROGRAM, _DOS_HEAD = b"MZ", 64
# of FFmpeg's names: streams without a head, and what cannot stand in them, wherever they were cut: zeros that no start
# code follows (in the newer ones a 3 is put behind two of them)
_ZEROS = re.compile(rb"\0\0\0+[^\0\x01]")
_ESCAPED = re.compile(rb"\0\0(?:\0+[^\0\x01]|\x02|\x03[^\x00-\x03])")
_CANNOT_BE = {"h264": _ESCAPED, "hevc": _ESCAPED, "vc1": _ESCAPED, "mpegvideo": _ZEROS, "m4v": _ZEROS}
_JPEG = b"\xff\xd8"


def other_kind(head: bytes) -> str:
    """What is said of a file that begins as one of another kind does; "" of any other file."""
    for at, magic, what, said in _KINDS:
        if head.startswith(magic, at):
            return said.format(what)
    if _PDF in head[:1024]:
        return _PAGES.format("a PDF document")
    if head.startswith(_DOS_PROGRAM) and head[_program_at(head) :].startswith(b"PE\0\0"):
        return _OTHER.format("a program")
    return ""


def is_guessed(head: bytes, format: str) -> bool:
    """Whether a file that FFmpeg calls a raw stream of this format is none by its first bytes."""
    if format == "mjpeg":
        return not head.startswith(_JPEG)
    return format in _CANNOT_BE and bool(_CANNOT_BE[format].search(head))


def why_not(head: bytes) -> str:
    """What is said of a file that FFmpeg cannot open as a film, or should not."""
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return "is an MP4/MOV file without a usable index (cut off or damaged); copy or download it again"
    for looks, what, said in _LOOKS_LIKE:
        if looks.match(head):
            return said.format(what)
    if _is_text(head[:_TEXT]):
        if _SVG.search(head[:_TEXT]):
            return _PICTURE.format("a drawing (SVG)")
        return f"holds text, not a video or image; give one of: {KNOWN_KINDS}"
    return f"is not a video or image this program reads, or is damaged; give one of: {KNOWN_KINDS}"


def _program_at(head: bytes) -> int:
    return int.from_bytes(head[_DOS_HEAD - 4 : _DOS_HEAD], "little")


def _is_text(head: bytes) -> bool:
    try:
        # incremental: the last character may be cut
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(c.isprintable() or c in "\n\r\t\f" for c in text)
