"""The pictures as files, each whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ...store.files import replaced
from .asking import Explanation
from .report import page_html, sheet_image


def write_files(found: Explanation, places: Mapping[str, Path], layers: Sequence[int] | None = None) -> dict[str, Path]:
    """Writes "png" and "html" where `places` names a file. layers: those of the PNG, None where something changes.

    A folder that is not there is made.
    """
    for path in places.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    if "png" in places:
        content = png_bytes(sheet_image(found, list(layers) if layers else None))
        with replaced(places["png"]) as partial:
            partial.write_bytes(content)
    if "html" in places:
        page = page_html(found).encode()
        with replaced(places["html"]) as partial:
            partial.write_bytes(page)
    return dict(places)


def png_bytes(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
