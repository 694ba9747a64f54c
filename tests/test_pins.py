"""One pin, in patches/VERSION; what repeats it must agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from aim_local.native.bindings import bindings_version
from aim_local.native.library import PATCH_VERSION, libllama, libmtmd

ROOT = Path(__file__).resolve().parents[1]
PIN = dict(line.split(maxsplit=1) for line in (ROOT / "patches" / "VERSION").read_text().splitlines())


def test_bindings_have_the_pinned_version() -> None:
    assert bindings_version() == PIN["version"]


def test_the_pin_is_repeated_nowhere() -> None:
    """The bindings are part of the build; a dependency would compile llama.cpp a second time."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert not [line for line in dependencies if PIN["package"] in line]


def test_patch_version_is_one() -> None:
    assert str(PATCH_VERSION) == PIN["patch"]
    assert libllama.aim_llama_patch_version() == libmtmd.aim_mtmd_patch_version() == PATCH_VERSION


def test_every_native_function_is_bound() -> None:
    bound = "".join(path.read_text() for path in (ROOT / "aim_local" / "native").glob("*.py"))
    for header in (ROOT / "patches" / "overlay").rglob("aim-*.h"):
        if header.name in ("aim-live.h", "aim-calls.h"):  # what libmtmd asks of libllama, in C++
            continue
        for name, given in re.findall(r"(?:LLAMA|MTMD)_API [^;(]*?(\w+)\(([^;]*)", header.read_text()):
            if "std::" in given:  # between our own libraries
                continue
            assert f'"{name}"' in bound, f"{header.name}: {name}"
