"""A path from the user: is it a file that can be read at all, and which bytes does it hold.

Knows: the file system. Leaves to others: what is inside the file.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aim_local.errors import MediaError
from aim_local.paths import Name, path_of

KNOWN_KINDS = "videos (MP4, MOV, MKV, WebM, AVI, TS, GIF ...) and images (JPEG, PNG, WebP, AVIF, TIFF, BMP)"
# FFmpeg opens pictures in boxes as a film of tiles; Pillow reads those that hold AV1, and no others
_AV1_BRANDS = frozenset({b"avif", b"avis"})
_BOXED_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1", b"miaf",
     b"j2ki", b"j2is", b"jpeg", b"jpgs", b"avci", b"avcs", b"vvic", b"evbi", b"1pic", b"MiHE", b"MiHB", b"MiHA"}
)  # fmt: skip
_FILM_BRANDS = frozenset({b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"qt  ", b"M4V ", b"dash"})
_MOST_BRANDS = 4096  # bytes


def check_file(path: Name) -> Path:
    """The path of a readable file that is not empty; MediaError for anything else."""
    checked = path_of(path, "media")
    try:
        if not checked.exists():
            raise MediaError(f"{checked}: no such file; check the name and the folder (here: {Path.cwd()})")
        if checked.is_dir():
            raise MediaError(f"{checked}: is a folder; name one video or image file inside it")
        if not checked.is_file():
            raise MediaError(f"{checked}: is not a regular file; copy the video or image to a file first")
        if checked.stat().st_size == 0:
            raise MediaError(f"{checked}: is empty (0 bytes); copy or download it again")
        with checked.open("rb") as file:
            head = file.read(_MOST_BRANDS)
    except (OSError, ValueError) as e:
        raise MediaError(f"{checked}: cannot be read ({_reason(e)}); check its name and permissions") from e
    major, others = brands(head)
    if major in _BOXED_BRANDS and not _AV1_BRANDS & {major, *others}:
        raise MediaError(f"{checked}: is a HEIC/HEIF picture, which is not supported; export it as JPEG or PNG")
    return checked


def brands(head: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """(major brand, compatible brands) of a file of boxes, by its first bytes; (b"", ()) of any other."""
    if head[4:8] != b"ftyp":
        return b"", ()
    n = min(int.from_bytes(head[:4], "big"), len(head))
    return head[8:12], tuple(head[at : at + 4] for at in range(16, n - 3, 4))


def is_av1_picture(path: Path) -> bool:
    """Whether a file of boxes says that it holds a picture in AV1, whatever its major brand. Raises OSError."""
    with path.open("rb") as file:
        major, others = brands(file.read(_MOST_BRANDS))
    return major not in _FILM_BRANDS and bool(_AV1_BRANDS & {major, *others})


def digest_file(path: Path) -> str:
    """sha256 of the file's bytes, 64 hex digits."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as e:
        raise MediaError(f"{path}: cannot be read ({_reason(e)}); check the disk and permissions") from e


def digest_array(array: NDArray[np.uint8]) -> str:
    """sha256 of shape and bytes, 64 hex digits: equal bytes in another shape are another picture."""
    digest = hashlib.sha256(repr(array.shape).encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
