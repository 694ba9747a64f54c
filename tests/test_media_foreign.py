"""What Pillow and PyAV raise, warn and print: one line of ours for all of it, and nothing on stderr."""

from __future__ import annotations

import errno
import logging
import re
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import av
import numpy as np
import PIL.Image
import pytest
from media_fixtures import picture, write_animation, write_clip
from server_files import tall_png

from aim_local.errors import MediaError, MediaMemoryError, UsageError
from aim_local.media import open_media, outline_media
from aim_local.media.foreign import decoding, reason

RAISED: list[Exception] = [
    ValueError("a\nb\x1b[31m"), SystemError("returned NULL"), AssertionError(), struct.error("unpack"), EOFError(),
    zlib.error("Error -3"), RecursionError("too deep"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    OverflowError("too large"), ZeroDivisionError(), KeyError("tile"), NotImplementedError("YCCK"), BufferError("gone"),
    av.error.InvalidDataError(errno.EINVAL, "Invalid data"), av.error.PatchWelcomeError(0, "no"), OSError(5, "I/O"),
    PIL.Image.DecompressionBombError("too large"), ImportError("no codec"), StopIteration(), MemoryError(),
]  # fmt: skip


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_whatever_a_decoder_raises_is_one_line(error: Exception) -> None:
    with pytest.raises(MediaError) as found, decoding("clip.png"):
        raise error
    line = str(found.value)
    assert line.isprintable()
    assert line.startswith("clip.png: ")
    assert found.value.__cause__ is error
    assert isinstance(found.value, MediaMemoryError) == isinstance(error, MemoryError)


def test_what_is_ours_and_ctrl_c_pass() -> None:
    for error in (UsageError("ours"), KeyboardInterrupt(), SystemExit(3)):
        with pytest.raises(type(error)) as found, decoding("clip.png"):
            raise error
        assert found.value is error


def test_a_reason_is_short() -> None:
    assert reason(ValueError("x" * 500)) == "x" * 160 + "..."


@pytest.mark.parametrize(
    "error",
    [
        ValueError(), AssertionError(), OSError("-2"), OSError(-9), OSError("decoder error -2"), KeyError(257),
        KeyError("tile"), IndexError("tuple index out of range"), struct.error("unpack requires a buffer of 4 bytes"),
        TypeError("'NoneType' object is not subscriptable"), EOFError(), StopIteration(), ZeroDivisionError(),
        RuntimeError("RuntimeError"), ValueError("IndexError"), RecursionError(), NotImplementedError("12"),
        av.error.InvalidDataError(0, ""), SystemError("\0"), Exception("+3"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_reason_is_in_words(error: Exception) -> None:
    """Nothing, a number, or what Python says of a program is no reason that helps a user."""
    said = reason(error)
    assert len(said.split()) >= 4, said
    assert not re.search(r"\d|Error|Iteration|None|unpack|tuple|tile", said), said


def test_words_of_a_decoder_stay() -> None:
    for said in ("image file is truncated", "broken data stream when reading image file", "YCCK"):
        assert reason(OSError(said)) == said
    assert reason(OSError(5, "Input/output error")) == "Input/output error"


def without_its_palette(path: Path) -> None:
    PIL.Image.fromarray(picture(1)).convert("P").save(path)
    data = path.read_bytes()
    at = data.index(b"PLTE") - 4
    path.write_bytes(data[:at] + data[at + 12 + int.from_bytes(data[at : at + 4], "big") :])


def with_a_short_strip(path: Path, compression: str) -> None:
    PIL.Image.fromarray(picture(1)).save(path, compression=compression)
    data = bytearray(path.read_bytes())
    at = int.from_bytes(data[4:8], "little")
    for entry in range(at + 2, at + 2 + 12 * int.from_bytes(data[at : at + 2], "little"), 12):
        if data[entry : entry + 2] == (279).to_bytes(2, "little"):  # StripByteCounts, one here
            data[entry + 8 : entry + 12] = (int.from_bytes(data[entry + 8 : entry + 12], "little") // 2).to_bytes(
                4, "little"
            )
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["a.png", "tiff_lzw.tif", "tiff_adobe_deflate.tif", "packbits.tif"])
def test_pictures_whose_decoder_has_no_words(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with_a_short_strip(path, path.stem) if path.suffix == ".tif" else without_its_palette(path)
    with pytest.raises(MediaError) as found:
        open_media(path)
    assert re.fullmatch(r".*: is a damaged picture \([a-z ,]{20,}\); copy or download it again", str(found.value))


@pytest.mark.parametrize("error", [SystemError("NULL"), AssertionError(), RecursionError(), NotImplementedError("no")])
def test_errors_inside_a_still_and_an_animation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    still, moving = tmp_path / "a.png", write_animation(tmp_path / "a.gif", 4)
    PIL.Image.fromarray(picture(1)).save(still)
    with monkeypatch.context() as patched:
        patched.setattr("PIL.ImageFile.ImageFile.load", Mock(side_effect=error))
        for path in (still, moving):
            with pytest.raises(MediaError, match=r"is a damaged picture \("):
                open_media(path)


@pytest.mark.parametrize("error", [SystemError("NULL"), AssertionError("x"), ValueError("format")])
def test_errors_inside_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    path = write_clip(tmp_path / "a.mp4", n_frames=4)
    with monkeypatch.context() as patched:
        failing = Mock(reformat=Mock(side_effect=error))
        patched.setattr("aim_local.media.decode.VideoReformatter", Mock(return_value=failing))
        with pytest.raises(MediaError, match="none of the 4 chosen frames could be decoded"):
            open_media(path)
    with monkeypatch.context() as patched:
        patched.setattr(av, "open", Mock(side_effect=error))
        with pytest.raises(MediaError, match="MP4/MOV file without a usable index"):
            open_media(path)


def test_no_memory_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mp4", n_frames=4)
    for target, error in (("av.open", av.error.MemoryError(errno.ENOMEM, "no")), ("av.open", MemoryError())):
        with monkeypatch.context() as patched:
            patched.setattr(target, Mock(side_effect=error))
            with pytest.raises(MediaMemoryError, match="no memory for its decoder"):
                open_media(path)


def loud_files(folder: Path) -> list[Path]:
    """Each makes Pillow or libtiff say something: a bomb, a tag beyond the file, a count that is none, an odd APNG."""
    large = folder / "large.png"
    large.write_bytes(tall_png(950_000, 100))
    tiff = folder / "a.tif"
    PIL.Image.fromarray(picture(1)).save(tiff, compression="tiff_lzw")
    data = tiff.read_bytes()
    made = [large]
    at = int.from_bytes(data[4:8], "little")
    for i in range(int.from_bytes(data[at : at + 2], "little")):
        entry = at + 2 + 12 * i
        for place, value in ((2, struct.pack("<H", 12)), (4, struct.pack("<I", 0x7FFFFFFF))):
            path = folder / f"{i}-{place}.tif"
            path.write_bytes(data[: entry + place] + value + data[entry + place + len(value) :])
            made.append(path)
    apng = write_animation(folder / "a.png", 3)
    apng.write_bytes(apng.read_bytes().replace(b"fdAT", b"fdAX", 1))
    return [*made, apng]


LOOK = """
import sys
from aim_local.errors import AimError
from aim_local.media import open_media, outline_media
for path in sys.argv[1:]:
    for look in (outline_media, open_media)[: 1 if "large" in path else 2]:
        try:
            look(path)
        except AimError:
            pass
"""


def test_nothing_is_printed(tmp_path: Path) -> None:
    """In a process of its own: libtiff writes to the descriptor, and Python's filters are as a user has them."""
    paths = loud_files(tmp_path)
    command = [sys.executable, "-P", "-c", LOOK, *map(str, paths)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_filters_of_the_program_stay(tmp_path: Path) -> None:
    """Many threads at a time; a filter that is set meanwhile stays, and warnings of others are shown."""
    path = loud_files(tmp_path)[0]
    before = list(warnings.filters)
    threads = [threading.Thread(target=outline_media, args=(path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    warnings.filterwarnings("ignore", message="of the program")
    for thread in threads:
        thread.join()
    assert warnings.filters[1:] == before
    with decoding("x"), warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        warnings.warn("of somebody else", UserWarning, stacklevel=1)
    assert len(heard) == 1


def test_pillows_log_goes_where_the_program_wants(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "PIL"):
        logging.getLogger("PIL.TiffImagePlugin").warning("heard")
    assert caplog.messages == ["heard"]
    handlers: list[Any] = logging.getLogger("PIL").handlers
    assert any(isinstance(handler, logging.NullHandler) for handler in handlers)


def test_values_of_damaged_pictures_are_those_of_whole_ones(tmp_path: Path) -> None:
    """Guards that a picture of several strips is the same as in one: every orientation, odd sizes."""
    for turn in range(1, 9):
        path = tmp_path / f"{turn}.png"
        tags = PIL.Image.Exif()
        tags[0x0112] = turn
        PIL.Image.fromarray(picture(turn, 97, 65)).save(path, exif=tags)
        whole = open_media(path)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("aim_local.media.pictures.STRIP", 300)
            strips = open_media(path)
        assert np.array_equal(whole.pixels, strips.pixels)  # type: ignore[union-attr]
        with PIL.Image.open(path) as image:
            assert np.array_equal(whole.pixels, np.asarray(PIL.ImageOps.exif_transpose(image)))  # type: ignore[union-attr]
