"""A reader with every fault that the driver has to find, for tests/test_fuzz_driver.py; `make fuzz` leaves it out."""

from __future__ import annotations

import ctypes
import os
import random
from pathlib import Path

SUFFIXES = (".planted.txt", ".txt")
MEMORY_MIB = 64
SHORT = 4


def seeds(folder: Path) -> list[Path]:
    path = folder / "a.planted.txt"
    path.write_text("fine")
    return [path]


def mutate(data: bytes, rng: random.Random) -> bytes:
    return rng.choice((b"fine", b"refused", b"key"))


def read(path: Path) -> None:
    from aim_local.errors import AimError

    text = path.read_text()
    match text:
        case "refused":
            raise AimError(f"{path.name}: is refused; send another")
        case "control":
            raise unclean("a\x1b[31m")
        case "lines":
            raise unclean("one\ntwo")
        case "long":
            raise unclean("x" * 1900)
        case "key":
            {}[text]
        case "wrong":
            assert text == "right", "the answer is another"
        case "exit":
            raise SystemExit(3)
        case "signal":
            ctypes.string_at(1)
        case "hang":
            while True:
                pass
        case "memory":
            bytearray(256 << 20)
        case "report":  # what a sanitizer leaves, in a process that this one has started; the answer is as ever
            log = os.environ["ASAN_OPTIONS"].rpartition("log_path=")[2]
            Path(f"{log}.1").write_text("==1==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x1\n")
        case "address space":
            bytearray(16 << 30)


def unclean(text: str) -> Exception:
    """An error of ours whose text is as it was given."""
    from aim_local.errors import AimError

    return type("Unclean", (AimError,), {"__str__": Exception.__str__})(text)
