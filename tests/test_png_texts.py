"""A PNG with long texts, as editors and programs with workflows write them, is an ordinary picture."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest

from aim_local.errors import MediaError
from aim_local.media import read_image
from aim_local.media.joined import Spliced

PIXELS = np.random.default_rng(5).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def saved(path: Path, info: PIL.PngImagePlugin.PngInfo) -> Path:
    PIL.Image.fromarray(PIXELS).save(path, pnginfo=info)
    return path


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def info(*, compressed: bool, n_bytes: int, international: bool, n: int = 1) -> PIL.PngImagePlugin.PngInfo:
    made = PIL.PngImagePlugin.PngInfo()
    for i in range(n):
        if international:
            made.add_itxt(f"workflow {i}", "w" * n_bytes, "en", "Ablauf", zip=compressed)
        else:
            made.add_text(f"workflow {i}", "w" * n_bytes, zip=compressed)
    return made


@pytest.mark.parametrize(
    "given",
    [
        {"compressed": True, "n_bytes": 3 << 20, "international": False},
        {"compressed": True, "n_bytes": 3 << 20, "international": True},
        {"compressed": True, "n_bytes": 1_000_000, "international": True, "n": 70},  # more than Pillow keeps of all
        {"compressed": False, "n_bytes": 2 << 20, "international": False},
    ],
    ids=["zTXt", "iTXt", "many", "tEXt"],
)
def test_long_texts(given: dict[str, int], tmp_path: Path) -> None:
    image = read_image(saved(tmp_path / "a.png", info(**given)))  # type: ignore[arg-type]
    assert np.array_equal(image.pixels, PIXELS)
    assert image.warnings == ()


def test_long_texts_behind_the_pixels(tmp_path: Path) -> None:
    data = saved(tmp_path / "a.png", PIL.PngImagePlugin.PngInfo()).read_bytes()
    at = data.index(b"IEND") - 4
    long = chunk(b"zTXt", b"history\0\0" + zlib.compress(bytes(5 << 20)))
    (tmp_path / "a.png").write_bytes(data[:at] + long + data[at:])
    assert np.array_equal(read_image(tmp_path / "a.png").pixels, PIXELS)


def test_an_orientation_in_a_short_text_still_turns_it(tmp_path: Path) -> None:
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    made = info(compressed=True, n_bytes=3 << 20, international=True)
    made.add_itxt("XML:com.adobe.xmp", xmp)
    image = read_image(saved(tmp_path / "a.png", made))
    assert np.array_equal(image.pixels, np.rot90(PIXELS, -1))


def test_very_many_long_texts_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aim_local.media.png_texts._MOST", 3)
    data = saved(tmp_path / "a.png", PIL.PngImagePlugin.PngInfo()).read_bytes()
    long = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1100000)))
    (tmp_path / "a.png").write_bytes(data[:33] + 4 * long + data[33:])
    with pytest.raises(MediaError, match=r"a.png: holds 4 texts of more than 1 MiB; save it again without them"):
        read_image(tmp_path / "a.png")


def test_a_file_without_some_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(100)))
    file = io.BufferedReader(Spliced(path, ((10, 5), (15, 1), (50, 50))))
    left = bytes([*range(10), *range(16, 50)])
    assert file.read() == left
    assert file.read(3) == b""
    assert file.seek(-1, os.SEEK_END) == len(left) - 1
    assert file.read(9) == left[-1:]
    for at in range(0, 44, 7):
        assert file.seek(at) == at
        assert file.read(12) == left[at : at + 12]
        assert file.tell() == min(at + 12, len(left))
    file.close()
