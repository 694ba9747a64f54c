"""One tiny checkpoint per family, and what its conversion holds: what the converter's tests share."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import pytest
from checkpoints import Shape, llava_model, onevision_model, write_llava, write_onevision

from aim_local.convert import ConvertConfig, convert

FAMILIES = ("llava_onevision", "llava")
WRITE: dict[str, Callable[..., Path]] = {"llava_onevision": write_onevision, "llava": write_llava}
MODEL: dict[str, Callable[[Shape], Any]] = {"llava_onevision": onevision_model, "llava": llava_model}
F32 = ConvertConfig("f32", "f32", name="tiny")


@cache
def model_of(family: str) -> Any:
    """A transformers model of the family. Tests must not change it."""
    return MODEL[family](Shape())


def write_all(root: Path) -> dict[str, Path]:
    """One checkpoint per family below `root`, as today's transformers names it."""
    return {f: WRITE[f](root / f, model=model_of(f)) for f in FAMILIES}


def convert_all(folders: dict[str, Path], root: Path) -> dict[str, Path]:
    """A model folder below `root` per checkpoint, in F32."""
    return {f: convert(folder, root / f, F32).folder for f, folder in folders.items()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_all(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def converted(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return convert_all(folders, tmp_path_factory.mktemp("converted"))


# of the config.json in a GGUF, behind the value's type and length, and the sums of such files in aim.json
MARK = re.compile(rb'(aim\.origin.{12})[0-9a-f]{32}|("sha256": ")[0-9a-f]{64}', re.DOTALL)


def content(folder: Path) -> dict[str, bytes]:
    """Of each file, apart from the mark of the config.json that it was made from."""
    return {p.name: MARK.sub(rb"\1\2", p.read_bytes()) for p in folder.iterdir()}


def keys(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def tensors(path: Path) -> dict[str, Any]:
    return {t.name: t for t in gguf.GGUFReader(path).tensors}


class After:
    """A progress callback that raises once `share` of the work is done."""

    def __init__(self, error: BaseException, share: float = 0.5) -> None:
        self.error, self.share = error, share

    def __call__(self, done: int, total: int, name: str) -> None:
        if done >= self.share * total:
            raise self.error
