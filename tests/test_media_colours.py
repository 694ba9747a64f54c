"""Pictures in 8-bit RGB: transparency over white, more than 8 bits, floats, LAB; and boxes of other brands."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.PngImagePlugin
import pytest

from aim_local.errors import MediaError
from aim_local.media import FrameSampling, Image, Video, open_media, outline_media, read_image

COLOURS = np.random.default_rng(0).integers(0, 256, (24, 36, 3), np.uint8)
ALPHA = np.repeat(np.array([0, 90, 255], np.uint8), 12)[None].repeat(24, axis=0)  # thirds, from left to right
RGBA = np.dstack([COLOURS, ALPHA])
GREY12 = (np.arange(24 * 36) * 4095 // (24 * 36 - 1)).astype(np.uint16).reshape(24, 36)


def over_white(rgba: Any) -> np.ndarray[Any, Any]:
    """Reference: float64."""
    colours, alpha = rgba[..., :3].astype(float), rgba[..., 3:].astype(float) / 255
    return np.asarray(colours * alpha + 255 * (1 - alpha))


def is_near(pixels: Any, wanted: Any, most: float = 1.01) -> bool:
    return bool(np.abs(pixels.astype(float) - wanted).max() <= most)


def write_tiff(
    path: Path, data: bytes, tags: dict[int, int | tuple[int, ...]], size: tuple[int, int] = (36, 24)
) -> Path:
    """An uncompressed TIFF of one strip; tags of 16-bit values, over those every picture has."""
    known: dict[int, int | tuple[int, ...]] = {256: 36, 257: 24, 259: 1, 278: 24, 279: len(data), 273: 0}
    entries, extra = dict(sorted({**known, **tags}.items())), b""
    behind = 8 + 2 + 12 * len(entries) + 4
    lists = {tag: struct.pack(f"<{len(v)}H", *v) for tag, v in entries.items() if isinstance(v, tuple) and len(v) > 2}
    start = behind + sum(map(len, lists.values()))
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    for tag, value in entries.items():
        values = value if isinstance(value, tuple) else (value,)
        if tag in lists:
            head += struct.pack("<HHII", tag, 3, len(values), behind + len(extra))
            extra += lists[tag]
        elif tag in (273, 279):
            head += struct.pack("<HHII", tag, 4, 1, start if tag == 273 else values[0])
        else:
            head += struct.pack("<HHI", tag, 3, len(values)) + struct.pack("<2H", *(*values, 0)[:2])
    path.write_bytes(head + bytes(4) + extra + data)
    return path


# --- transparency ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tiff", "a.jp2", "a.avif"])
def test_transparent_pixels_show_white(tmp_path: Path, name: str) -> None:
    how: dict[str, Any] = {"a.webp": {"lossless": True, "exact": True}, "a.avif": {"quality": 100}}.get(name, {})
    PIL.Image.fromarray(RGBA).save(tmp_path / name, **how)
    pixels = read_image(tmp_path / name).pixels
    assert (pixels[:, :12] == 255).all()
    if name != "a.avif":  # which keeps colours nearly
        assert is_near(pixels, over_white(RGBA))


def test_every_way_to_write_transparency(tmp_path: Path) -> None:
    grey = PIL.Image.fromarray(COLOURS[..., 0])
    grey.putalpha(PIL.Image.fromarray(ALPHA))
    grey.save(tmp_path / "la.png")
    wanted = over_white(np.dstack([COLOURS[..., :1].repeat(3, axis=2), ALPHA]))
    assert is_near(read_image(tmp_path / "la.png").pixels, wanted)
    flat = np.full((24, 36, 3), (10, 200, 30), np.uint8)
    flat[:, 12:] = (200, 10, 30)
    white = flat.copy()
    white[:, :12] = 255
    PIL.Image.fromarray(flat).save(tmp_path / "rgb.png", transparency=(10, 200, 30))
    PIL.Image.fromarray(flat[..., 0]).save(tmp_path / "l.png", transparency=10)
    palette = PIL.Image.fromarray(flat).quantize(2)
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
    palette.save(tmp_path / "p.gif", transparency=palette.getpixel((0, 0)))
    half = [128 if i == palette.getpixel((0, 0)) else 255 for i in range(2)]
    palette.save(tmp_path / "half.png", transparency=bytes(half))
    for name in ("rgb.png", "p.png", "p.gif"):
        assert is_near(read_image(tmp_path / name).pixels, white), name
    assert is_near(read_image(tmp_path / "l.png").pixels, white[..., :1])
    assert is_near(read_image(tmp_path / "half.png").pixels[0, 0], over_white(np.array([10, 200, 30, 128])))
    PIL.Image.fromarray(GREY12).save(tmp_path / "i16.png", transparency=int(GREY12[5, 5]))
    assert read_image(tmp_path / "i16.png").pixels[5, 5].tolist() == [255, 255, 255]


def test_colours_that_were_multiplied_by_alpha(tmp_path: Path) -> None:
    """Associated and unassociated alpha of TIFF."""
    multiplied = RGBA.copy()
    multiplied[..., :3] = np.round(COLOURS * (ALPHA[..., None] / 255))
    tags: dict[int, int | tuple[int, ...]] = {258: (8, 8, 8, 8), 262: 2, 277: 4}
    associated = write_tiff(tmp_path / "1.tiff", multiplied.tobytes(), {**tags, 338: 1})
    plain = write_tiff(tmp_path / "2.tiff", RGBA.tobytes(), {**tags, 338: 2})
    no_alpha = write_tiff(tmp_path / "0.tiff", RGBA.tobytes(), {**tags, 338: 0})
    assert is_near(read_image(associated).pixels, over_white(RGBA), most=2)
    assert is_near(read_image(plain).pixels, over_white(RGBA))
    assert np.array_equal(read_image(no_alpha).pixels, COLOURS)


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_animations(tmp_path: Path, name: str) -> None:
    frames = [PIL.Image.fromarray(np.roll(RGBA, i * 12, axis=1)) for i in range(3)]
    how: dict[str, Any] = {"lossless": True, "exact": True} if name == "a.webp" else {"disposal": 1, "blend": 0}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=100, **how)
    video = open_media(tmp_path / name, FrameSampling(3))
    assert isinstance(video, Video)
    for i in range(3):
        assert is_near(video.frames[i], over_white(np.roll(RGBA, i * 12, axis=1))), i


def test_arrays_and_pictures_of_pillows() -> None:
    wanted = over_white(RGBA)
    for item in (RGBA, PIL.Image.fromarray(RGBA)):
        image = open_media(item)
        assert isinstance(image, Image)
        assert is_near(image.pixels, wanted)
    for clip in (np.stack([RGBA, RGBA]), [RGBA, PIL.Image.fromarray(RGBA)], iter([RGBA, RGBA])):
        video = open_media(clip, FrameSampling(2))
        assert isinstance(video, Video)
        assert is_near(video.frames, np.stack([wanted, wanted]))
    assert outline_media(np.stack([RGBA, RGBA])).shape.n_frames == 2


# --- more than 8 bits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_grey_is_scaled_by_the_depth_that_the_file_says(tmp_path: Path, bits: int) -> None:
    most = 2**bits - 1
    values = (GREY12.astype(np.int64) * most // 4095).astype(np.uint16)
    said = PIL.PngImagePlugin.PngInfo()
    said.add(b"sBIT", bytes([bits]))
    PIL.Image.fromarray(values).save(tmp_path / "low.png", pnginfo=said)
    PIL.Image.fromarray(values << (16 - bits)).save(tmp_path / "high.png", pnginfo=said)
    PIL.Image.fromarray(values).save(tmp_path / "a.tiff", tiffinfo={281: most})
    for name in ("low.png", "high.png", "a.tiff"):
        image = read_image(tmp_path / name)
        assert is_near(image.pixels, values[..., None] / most * 255), name
        assert image.warnings == ()


def test_a_tiff_of_twelve_bits(tmp_path: Path) -> None:
    flat = GREY12.reshape(-1).astype(int)
    packed = bytearray()
    for a, b in zip(flat[::2], flat[1::2], strict=True):
        packed += bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255])
    path = write_tiff(tmp_path / "a.tiff", bytes(packed), {258: 12, 262: 1, 277: 1})
    assert is_near(read_image(path).pixels, GREY12[..., None] / 4095 * 255)


def test_sixteen_bits_that_may_be_twelve_are_told(tmp_path: Path) -> None:
    PIL.Image.fromarray(GREY12).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert np.array_equal(image.pixels[..., 0], GREY12 >> 8)
    assert image.warnings[0].startswith("its 16-bit values go up to 4095 only, and the file does not say")
    PIL.Image.fromarray(GREY12 * 16).save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png").warnings == ()


def test_white_is_zero(tmp_path: Path) -> None:
    values = GREY12 * 16
    path = write_tiff(tmp_path / "a.tiff", values.astype("<u2").tobytes(), {258: 16, 262: 0, 277: 1})
    image = read_image(path)
    assert is_near(image.pixels, 255 - values[..., None] / 65535 * 255)
    assert image.warnings == ()


def test_floats(tmp_path: Path) -> None:
    share = (GREY12 / 4095).astype(np.float32)
    PIL.Image.fromarray(share).save(tmp_path / "a.tiff")
    assert is_near(read_image(tmp_path / "a.tiff").pixels, share[..., None] * 255)
    for values, says in ((share * 300, "floating-point pixels from 0 to 300"), (share * np.nan, "no numbers")):
        PIL.Image.fromarray(values.astype(np.float32)).save(tmp_path / "b.tiff")
        with pytest.raises(MediaError, match=says):
            read_image(tmp_path / "b.tiff")


def test_lab_and_cmyk(tmp_path: Path) -> None:
    flat = PIL.Image.new("RGB", (36, 24), (10, 200, 30))
    profiles = PIL.ImageCms.createProfile("sRGB"), PIL.ImageCms.createProfile("LAB")
    lab = PIL.ImageCms.profileToProfile(flat, *profiles, outputMode="LAB")
    assert lab is not None
    lab.save(tmp_path / "lab.tiff")
    flat.convert("CMYK").save(tmp_path / "cmyk.tiff")
    flat.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    for name in ("lab.tiff", "cmyk.tiff", "cmyk.jpg"):
        assert is_near(read_image(tmp_path / name).pixels, np.array([10, 200, 30]), most=12), name


# --- brands ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("major", [b"avif", b"mif1", b"miaf", b"MiPr", b"MA1B", b"msf1"])
def test_a_picture_of_av1_whatever_its_major_brand(tmp_path: Path, major: bytes) -> None:
    path = tmp_path / "a.avif"
    PIL.Image.fromarray(COLOURS).save(path, quality=100)
    data = path.read_bytes()
    assert b"avif" in data[16 : int.from_bytes(data[:4], "big")]
    path.write_bytes(data[:8] + major + data[12:])
    image = open_media(path)
    assert isinstance(image, Image)
    assert image.pixels.shape == (24, 36, 3)
    assert outline_media(path).shape.width == 36


@pytest.mark.parametrize(
    "brands", [b"heic", b"mif1\0\0\0\0heic", b"miaf\0\0\0\0mif1hevc", b"msf1\0\0\0\0hevc", b"1pic"]
)
def test_pictures_that_pillow_cannot_read_say_what_to_do(tmp_path: Path, brands: bytes) -> None:
    path = tmp_path / "a.heic"
    path.write_bytes(struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + bytes(100))
    with pytest.raises(MediaError, match="is a HEIC/HEIF picture, which is not supported; export it as JPEG or PNG"):
        open_media(path)
