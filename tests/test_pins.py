"""One pin, in patches/VERSION; what repeats it must agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from aim_local.native.library import PATCH_VERSION, libllama, libmtmd

ROOT = Path(__file__).resolve().parents[1]
PIN = dict(line.split(maxsplit=1) for line in (ROOT / "patches" / "VERSION").read_text().splitlines())


def test_bindings_have_the_pinned_version() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"{PIN['package']}=={PIN['version']}" in dependencies


def test_patch_version_is_one() -> None:
    assert str(PATCH_VERSION) == PIN["patch"]
    assert libllama.aim_llama_patch_version() == libmtmd.aim_mtmd_patch_version() == PATCH_VERSION


def test_every_native_function_is_bound() -> None:
    files = [ROOT / "aim_local" / "native" / name for name in ("library.py", "staged.py", "visual.py")]
    bound = "".join(path.read_text() for path in files)
    for header in (ROOT / "patches" / "overlay").rglob("aim-*.h"):
        for name in re.findall(r"(?:LLAMA|MTMD)_API [^;(]*?(\w+)\(", header.read_text()):
            assert f'"{name}"' in bound, f"{header.name}: {name}"
