"""The pictures as files, each whole or not at all."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .asking import Explanation
from .report import page_html, sheet_image


def write_files(found: Explanation, places: Mapping[str, Path], layers: Sequence[int] | None = None) -> dict[str, Path]:
    """Writes "png" and "html" where `places` names a file. layers: those of the PNG, None where something changes."""
    if "png" in places:
        replace_file(places["png"], png_bytes(sheet_image(found, list(layers) if layers else None)))
    if "html" in places:
        replace_file(places["html"], page_html(found).encode())
    return dict(places)


def png_bytes(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def replace_file(path: Path, content: bytes) -> None:
    """Writes beside `path`, then moves it there: an interrupted run leaves the old file."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
