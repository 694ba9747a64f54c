"""TIFF files of every kind: the right pixels, or one line that says which kind it is."""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from tiff_files import (
    CMYK,
    DEFLATE,
    FLOAT,
    GREY,
    GREY0,
    LAB,
    LZW,
    PACKBITS,
    PALETTE,
    PLAIN,
    RGB,
    SIGNED,
    YCBCR,
    Kind,
    colour_map,
    encoded,
    samples_of,
    shown,
)

from aim_local.errors import MediaError
from aim_local.media import open_media, outline_media, read_image, read_video
from aim_local.native import tiff

SIZE = 19, 37  # pixels: more than one strip and tile each way
NOT_READ = re.compile(
    r": is a TIFF with \S+ .*pixels of [^;]*, which is not read here; save the picture as JPEG or PNG$"
)
# read however they are stored
READ = {
    "white-as-zero-1": Kind(GREY0, 1), "white-as-zero-4": Kind(GREY0, 4), "white-as-zero-8": Kind(GREY0),
    "white-as-zero-float": Kind(GREY0, 32, FLOAT), "grey-1": Kind(GREY, 1), "grey-2": Kind(GREY, 2),
    "grey-8": Kind(), "grey-16": Kind(GREY, 16), "grey-signed-8": Kind(GREY, 8, SIGNED),
    "grey-signed-16": Kind(GREY, 16, SIGNED), "grey-float": Kind(GREY, 32, FLOAT), "grey-x": Kind(extra=(0,)),
    "rgb-8": Kind(RGB), "rgb-16": Kind(RGB, 16), "rgba-8": Kind(RGB, extra=(2,)), "rgba-16": Kind(RGB, 16, extra=(2,)),
    "rgb-multiplied": Kind(RGB, extra=(1,)), "rgbx-8": Kind(RGB, extra=(0,)), "rgbx-16": Kind(RGB, 16, extra=(0,)),
    "palette-1": Kind(PALETTE, 1), "palette-4": Kind(PALETTE, 4), "palette-8": Kind(PALETTE), "ycbcr": Kind(YCBCR),
    "cmyk-8": Kind(CMYK), "cmyk-16": Kind(CMYK, 16), "cmykx-8": Kind(CMYK, extra=(0,)),
}  # fmt: skip
# read where a pixel's samples stand together; in planes, refused
CHUNKY = {
    "grey-alpha": Kind(extra=(2,)), "grey-multiplied": Kind(extra=(1,)), "palette-alpha": Kind(PALETTE, extra=(2,)),
    "rgb-multiplied-16": Kind(RGB, 16, extra=(1,)), "ycbcr-halved": Kind(YCBCR, subsampling=2),
}  # fmt: skip
# read or refused, as they are stored: never wrong
SOME = {
    "grey-12": Kind(GREY, 12), "white-as-zero-16": Kind(GREY0, 16), "cmykx-16": Kind(CMYK, 16, extra=(0,)),
    "white-as-zero-x": Kind(GREY0, extra=(0,)), "grey-16-x": Kind(GREY, 16, extra=(0,)),
}  # fmt: skip
REFUSED = {
    "grey pixels of 64 bits (floating point)": Kind(GREY, 64, FLOAT),
    "grey pixels of 16 bits (floating point), big-endian": Kind(GREY, 16, FLOAT, "MM"),
    "grey pixels of 64 bits": Kind(GREY, 64),
    "grey pixels of 2 x 16 bits with alpha, compressed by LZW": Kind(GREY, 16, extra=(2,), compression=LZW),
    "RGB pixels of 3 x 32 bits (floating point), compressed by deflate": Kind(RGB, 32, FLOAT, compression=DEFLATE),
    "RGB pixels of 3 x 32 bits": Kind(RGB, 32),
    "RGB pixels of 3 x 8 bits (signed), in planes": Kind(RGB, 8, SIGNED, is_planar=True),
    "RGB pixels of 3 x 4 bits": Kind(RGB, 4),
    "LAB pixels of 3 x 8 bits, in planes": Kind(LAB, is_planar=True),
    "grey pixels of 16 bits, white as zero, big-endian": Kind(GREY0, 16, order="MM"),
    "RGB pixels of 3 x 16 bits, bits reversed": Kind(RGB, 16, fill_order=2),
    "CMYK pixels of 4 x 32 bits, compressed by PackBits": Kind(CMYK, 32, compression=PACKBITS),
}


def stored(kind: Kind) -> Iterator[Kind]:
    """The kind in every order of bytes, compression and layout."""
    # Cb and Cr for several pixels stand between their Y: no predictor
    has_predictor = kind.bits >= 8 and kind.bits != 12 and kind.subsampling == 1
    for order, is_planar, is_tiled in itertools.product(("II", "MM"), (False, True), (False, True)):
        if is_planar and kind.subsampling > 1:
            continue
        for compression in (PLAIN, LZW, DEFLATE, PACKBITS):
            laid = replace(kind, order=order, is_planar=is_planar, is_tiled=is_tiled, compression=compression)
            yield laid
            if has_predictor and compression in (LZW, DEFLATE):
                yield replace(laid, predictor=3 if kind.format == FLOAT else 2)


def is_read(path: Path, kind: Kind) -> bool:
    """Whether the pixels are the right ones; False where it is refused by its kind."""
    samples = samples_of(kind, *SIZE)
    path.write_bytes(encoded(kind, samples))
    try:
        found = read_image(path).pixels
    except MediaError as e:
        if not NOT_READ.search(str(e)):
            raise
        return False
    # division by alpha of what was rounded as it was multiplied
    most = 3.5 if 1 in kind.extra else 2.5
    assert np.abs(found - shown(kind, samples)).max() <= most, kind
    return True


@pytest.mark.parametrize("kind", READ.values(), ids=READ)
def test_kinds_that_are_read(tmp_path: Path, kind: Kind) -> None:
    assert [layout for layout in stored(kind) if not is_read(tmp_path / "a.tiff", layout)] == []


@pytest.mark.parametrize("kind", CHUNKY.values(), ids=CHUNKY)
def test_kinds_that_are_read_where_samples_stand_together(tmp_path: Path, kind: Kind) -> None:
    for layout in stored(kind):
        assert is_read(tmp_path / "a.tiff", layout) is not layout.is_planar, layout


@pytest.mark.parametrize("kind", SOME.values(), ids=SOME)
def test_kinds_that_are_never_wrong(tmp_path: Path, kind: Kind) -> None:
    assert len({is_read(tmp_path / "a.tiff", layout) for layout in stored(kind)}) == 2


@pytest.mark.parametrize("kind", [READ["white-as-zero-8"], READ["grey-1"], READ["palette-4"], READ["rgb-8"]])
def test_reversed_bits(tmp_path: Path, kind: Kind) -> None:
    for compression, is_tiled in itertools.product((PLAIN, LZW), (False, True)):
        layout = replace(kind, fill_order=2, compression=compression, is_tiled=is_tiled)
        assert is_read(tmp_path / "a.tiff", layout), layout


@pytest.mark.parametrize(("said", "kind"), REFUSED.items(), ids=REFUSED)
def test_what_a_refusal_says(tmp_path: Path, said: str, kind: Kind) -> None:
    path = tmp_path / "a.tiff"
    path.write_bytes(encoded(kind, samples_of(kind)))
    wanted = f"{path}: is a TIFF with {said}, which is not read here; save the picture as JPEG or PNG"
    for read in (read_image, outline_media, open_media):
        with pytest.raises(MediaError) as told:
            read(path)
        assert str(told.value) == wanted


def test_pictures_that_are_given_open(tmp_path: Path) -> None:
    """Pillow has decoded nothing of them yet: they are read as the file is."""
    for kind in (Kind(RGB, 16, is_planar=True), Kind(GREY, 32, FLOAT, "MM", DEFLATE)):
        samples = samples_of(kind)
        (tmp_path / "a.tiff").write_bytes(encoded(kind, samples))
        with PIL.Image.open(tmp_path / "a.tiff") as image:
            found = open_media(image).pixels
        assert np.abs(found - shown(kind, samples)).max() <= 2.5
    (tmp_path / "b.tiff").write_bytes(encoded(Kind(LAB, is_planar=True), samples_of(Kind(LAB))))
    with PIL.Image.open(tmp_path / "b.tiff") as image, pytest.raises(MediaError, match="LAB pixels"):
        open_media(image)


def test_the_page_that_a_given_picture_stands_at(tmp_path: Path) -> None:
    kind = Kind(RGB, 16, is_planar=True)
    pages = [samples_of(kind), samples_of(kind)[::-1]]
    (tmp_path / "a.tiff").write_bytes(two_pages(*(encoded(kind, page) for page in pages)))
    with PIL.Image.open(tmp_path / "a.tiff") as image:
        image.seek(1)
        found = open_media(image).pixels
    assert np.abs(found - shown(kind, pages[1])).max() <= 2.5


def test_a_clip_of_the_first_page_says_so(tmp_path: Path) -> None:
    data = encoded(Kind(RGB), samples_of(Kind(RGB)))
    (tmp_path / "a.tiff").write_bytes(two_pages(data, data))
    clip, image = read_video(tmp_path / "a.tiff"), read_image(tmp_path / "a.tiff")
    assert len(clip.frames) == 1
    assert clip.warnings[:1] == image.warnings == ("the file holds 2 pictures; only the first is used",)


def two_pages(first: bytes, second: bytes) -> bytes:
    """Little-endian files of one page, joined: offsets of the second are moved."""
    at = struct.unpack_from("<I", first, 4)[0]
    n = struct.unpack_from("<H", first, at)[0]
    moved = bytearray(second)
    start = struct.unpack_from("<I", second, 4)[0]
    for entry in range(start + 2, start + 2 + 12 * n, 12):
        tag, kind, count, value = struct.unpack_from("<HHII", second, entry)
        if count * (2 if kind == 3 else 4) > 4:
            struct.pack_into("<I", moved, entry + 8, value + len(first))
            if tag in (273, 324):
                old = struct.unpack_from(f"<{count}I", second, value)
                struct.pack_into(f"<{count}I", moved, value, *(offset + len(first) for offset in old))
    linked = bytearray(first)
    struct.pack_into("<I", linked, at + 2 + 12 * n, len(first) + start)
    return bytes(linked + moved)


def test_grey_below_zero(tmp_path: Path) -> None:
    for bits in (8, 16):
        kind = Kind(GREY, bits, SIGNED)
        (tmp_path / "a.tiff").write_bytes(encoded(kind, samples_of(kind) - kind.dtype.type(100)))
        with pytest.raises(MediaError, match=r"has grey values (below zero \(8|from -\d+ to) .*; scale them to 0\.\."):
            read_image(tmp_path / "a.tiff")


def test_a_palette_of_eight_bits(tmp_path: Path) -> None:
    """Old programs wrote the 8 bits of a colour as the low ones of the 16."""
    kind = Kind(PALETTE, 4)
    samples, colours = samples_of(kind), colour_map(kind)
    data = encoded(kind, samples).replace(colours.astype("<u2").tobytes(), (colours >> 8).astype("<u2").tobytes())
    (tmp_path / "a.tiff").write_bytes(data)
    assert np.abs(read_image(tmp_path / "a.tiff").pixels - shown(kind, samples)).max() <= 1


def test_a_compression_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = Kind(RGB, compression=DEFLATE)
    data = encoded(kind, samples_of(kind))
    path = tmp_path / "a.tiff"
    for value, said in ((50002, "JPEG XL"), (34887, "LERC"), (12345, r"a method of its own \(12345\)")):
        path.write_bytes(data.replace(struct.pack("<HHIH", 259, 3, 1, 8), struct.pack("<HHIH", 259, 3, 1, value)))
        with pytest.raises(MediaError, match=f"RGB pixels of 3 x 8 bits, compressed by {said}, which is not read"):
            read_image(path)
    path.write_bytes(data)
    monkeypatch.setattr("aim_local.media.tiff_kinds.lacks_codec", lambda compression: compression == DEFLATE)
    with pytest.raises(MediaError, match="compressed by deflate, which is not read here"):
        read_image(path)


def test_libtiff_says_which_compressions_it_has() -> None:
    assert not any(tiff.lacks_codec(value) for value in (PLAIN, LZW, DEFLATE, PACKBITS))


def test_a_small_copy_of_another_picture(tmp_path: Path) -> None:
    """As a camera's raw file begins."""
    data = encoded(Kind(RGB), samples_of(Kind(RGB)))
    for purpose, notes in ((1, 1), (0, 0)):
        purposes = struct.pack("<HHIH", 254, 3, 1, purpose)
        (tmp_path / "a.tiff").write_bytes(data.replace(struct.pack("<HHIH", 284, 3, 1, 1), purposes))
        assert len(read_image(tmp_path / "a.tiff").warnings) == notes
        assert len(outline_media(tmp_path / "a.tiff").warnings) == notes


def with_tag(data: bytes, tag: int, value: int) -> bytes:
    """A little-endian file whose tag of one number has another."""
    at = data.index(struct.pack("<HHI", tag, 3, 1))
    return data[: at + 8] + struct.pack("<H", value) + data[at + 10 :]


def test_numbers_that_make_no_sense_are_damage(tmp_path: Path) -> None:
    """A depth that nothing has; as many depths as there are bytes."""
    data = encoded(Kind(), samples_of(Kind()))
    many = data.replace(struct.pack("<HHIHxx", 258, 3, 1, 8), struct.pack("<HHII", 258, 3, 300, 0))
    for broken in (with_tag(data, 258, 60_000), many):
        (tmp_path / "a.tiff").write_bytes(broken)
        with pytest.raises(MediaError, match=r"or is damaged") as told:
            read_image(tmp_path / "a.tiff")
        assert len(str(told.value)) < 400


def test_damage_is_no_kind(tmp_path: Path) -> None:
    """Tags of a usual kind, without the pixels' place; and tags behind the file's end."""
    data = encoded(Kind(RGB), samples_of(Kind(RGB)))
    for broken in (data.replace(struct.pack("<HHI", 273, 4, 3), struct.pack("<HHI", 9999, 4, 3)), data[:-200]):
        (tmp_path / "a.tiff").write_bytes(broken)
        with pytest.raises(MediaError, match=r"damaged"):
            read_image(tmp_path / "a.tiff")
