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
# HEIF brands: FFmpeg opens these as a film of tiles, Pillow not at all
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


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
            head = file.read(12)
    except (OSError, ValueError) as e:
        raise MediaError(f"{checked}: cannot be read ({_reason(e)}); check its name and permissions") from e
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
        raise MediaError(f"{checked}: is a HEIC/HEIF picture, which is not supported; export it as JPEG or PNG")
    return checked


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
