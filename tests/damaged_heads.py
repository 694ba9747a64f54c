"""Mmproj files with one bent key each, and what becomes of them; run as a program, as a bad one may end the process.

python damaged_heads.py STEP FOLDER... prints a line of JSON for every STEPth bent file of FOLDER/mmproj.gguf.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import gguf
import numpy as np

from aim_local.config import LoadConfig, VisualTokenConfig
from aim_local.errors import AimError
from aim_local.media import Image
from aim_local.models import base
from aim_local.models.base import TowerFile
from aim_local.models.pieces import Rows, VisualPart
from aim_local.models.registry import open_tower
from aim_local.models.text import TextModel

BENDS = {  # what stands behind a key: the kind of the value and the value; nothing: the key is missing
    "missing": b"",
    "text": struct.pack("<IQ3s", 8, 3, b"abc"),
    "int32 -1": struct.pack("<Ii", 5, -1),
    "uint32 0": struct.pack("<II", 4, 0),
    "uint32 7": struct.pack("<II", 4, 7),
    "uint32 most": struct.pack("<II", 4, 2**31 - 1),
    "float32 nan": struct.pack("<If", 6, float("nan")),
    "float32 -1": struct.pack("<If", 6, -1.0),
    "bool": struct.pack("<IB", 7, 1),
    "three floats": struct.pack("<IIQ3f", 9, 6, 3, 0, 0, 0),
    "an int": struct.pack("<IIQi", 9, 5, 1, -1),
    "many ints": struct.pack("<IIQ2000i", 9, 5, 2000, *range(2000)),
}
FATAL = 70  # of a child that raised what is no AimError


def bent(source: Path) -> Iterator[tuple[str, str, bytes]]:
    """Key, what it was made, and the file, for every key that belongs to vision."""
    data, reader = source.read_bytes(), gguf.GGUFReader(source)
    last = reader.tensors[-1].field
    end = last.offset + sum(part.nbytes for part in last.parts)
    keys = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    for key, field in keys.items():
        if not key.startswith(("clip.", "aim.", "general.name")):
            continue
        at = field.offset + 8 + len(key.encode())
        behind = field.offset + sum(part.nbytes for part in field.parts)
        for name, value in BENDS.items():
            begin = data[:at] + value
            if not value:
                begin = data[:16] + struct.pack("<Q", len(keys) - 1) + data[24 : field.offset]
            head = begin + data[behind:end]
            yield key, name, head + bytes(-len(head) % reader.alignment) + data[reader.data_offset :]


def see(path: Path, text: TextModel) -> None:
    """Loads the tower and encodes a picture."""
    tower = open_tower(path, text)
    image = Image(np.full((90, 120, 3), 99, np.uint8), "grey.png", (), "0")
    n_parts = sum(isinstance(part, VisualPart) for part in tower.layout(image.shape, 1.0))

    def rows(number: int, pixels: object, encode: Callable[[], Rows], *, shared: bool = True) -> Rows:
        return encode()

    tower.encode(image, VisualTokenConfig(merge_retain=1.0), range(n_parts), rows)
    assert tower.facts is None or tower.default_frames >= 1


def outcome(path: Path, text: TextModel) -> str:
    """ "" for what works, the message of a refusal, or what ended the process."""
    try:
        TowerFile.read(path, text, weights=True)
    except AimError as e:
        return str(e)
    said = path.with_suffix(".said")
    said.write_text("")
    child = os.fork()
    if not child:
        code = 0
        try:
            see(path, TextModel(text.path, text.config, weights=False))  # the parent's is not used behind a fork
        except AimError as e:
            said.write_text(str(e))
        except BaseException as e:
            said.write_text(f"{type(e).__name__}: {e}")
            code = FATAL
        os._exit(code)
    status = os.waitpid(child, 0)[1]
    return said.read_text() if not status else f"DIED {status}: {said.read_text()}"


def main(step: str, *folders: str) -> None:
    # each file has a child of its own here already, and this is about the rules alone
    vars(base)["rehearse"] = lambda *_, **__: None
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "mmproj.gguf"
        for folder in map(Path, folders):
            text = TextModel(folder / "model.gguf", LoadConfig(n_threads=1))
            for key, name, data in islice(bent(folder / "mmproj.gguf"), None, None, int(step)):
                path.write_bytes(data)
                print(json.dumps([folder.name, key, name, outcome(path, text)]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
