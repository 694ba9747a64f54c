"""Files and streams that others name, read up to a bound: what never ends, such as /dev/zero, ends in one clear line.

Knows bytes and lines. What is in them, what the name of it is and what to do instead is the caller's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import AnyStr, BinaryIO, TextIO

MIB = 1 << 20
MOST_TEXT = 8 * MIB  # characters of a question: more than a context of a million tokens holds
MOST_LINE = 16 * MIB  # bytes of a line in a file of questions: such a text, and what is written around it
MOST_QUESTIONS = 256 * MIB  # bytes of a file of questions: half a million with long texts


def bounded_bytes(path: Path, most: int, *, pipes: bool = False) -> bytes:
    """All bytes of a file. Raises OSError, and ValueError for a file of more than `most` bytes, which is not read.

    pipes: it may be one, or a device, as a shell's <(command) is; else it is a regular file.
    """
    if not pipes and not path.is_file() and path.exists():
        raise ValueError("it is no regular file")  # a pipe would wait for a writer
    with path.open("rb") as file:
        data = file.read(most + 1)
    return _checked(data, most, "it")


def bounded_lines(path: Path, most_line: int, most: int) -> Iterator[bytes]:
    """The lines of a file or pipe, without their ends. Raises OSError, and ValueError where there is too much."""
    left = most
    with path.open("rb") as file:
        for n, line in enumerate(_lines(file, most_line), 1):
            _checked(line, most_line, f"line {n}")
            left -= len(line)
            if left < 0:
                raise ValueError(f"it has more than {most // MIB} MiB")
            yield line.removesuffix(b"\n")


def bounded_text(stream: TextIO, most: int = MOST_TEXT) -> str:
    """All that comes. Raises ValueError for more than `most` characters."""
    return _checked(stream.read(most + 1), most, "it")


def bounded_line(stream: TextIO, most: int = MOST_TEXT) -> str:
    """The next line with its end, "" where there is none. Raises ValueError for more than `most` characters."""
    return _checked(stream.readline(most + 1), most, "a line")


def _lines(file: BinaryIO, most: int) -> Iterator[bytes]:
    while line := file.readline(most + 1):
        yield line


def _checked(data: AnyStr, most: int, what: str) -> AnyStr:
    if len(data) > most:
        size = f"{most // MIB} MiB" if isinstance(data, bytes) else f"{most:,} characters"
        raise ValueError(f"{what} has more than {size}")
    return data
