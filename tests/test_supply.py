"""What is fetched and built from is what was pinned: checked before any of its code runs."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PIN = dict(line.split(maxsplit=1) for line in (ROOT / "patches" / "VERSION").read_text().splitlines())
NAME = f"{PIN['package'].replace('-', '_')}-{PIN['version']}"
PYPROJECT = "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
BACKEND = """
from pathlib import Path
Path({mark!r}).write_text("its code ran")

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = Path(folder) / "{name}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: {package}\\nVersion: {version}\\n")
    return info.name

def build_wheel(folder, config_settings=None, metadata_folder=None):
    raise SystemExit("not to be built")
"""


def sdist(folder: Path, mark: Path) -> Path:
    """An sdist of the pinned name whose build backend leaves a mark."""
    folder.mkdir()
    backend = BACKEND.format(mark=str(mark), name=NAME, **PIN)
    about = f"Metadata-Version: 2.1\nName: {PIN['package']}\nVersion: {PIN['version']}\n"
    path = folder / f"{NAME}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in (("pyproject.toml", PYPROJECT), ("backend.py", backend), ("PKG-INFO", about)):
            info = tarfile.TarInfo(f"{NAME}/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def fetch(tmp_path: Path, index: Path, sha256: str = PIN["sha256"]) -> subprocess.CompletedProcess[str]:
    """fetch_sdist with a pin of this sha256, from a folder as pip's only index."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import upstream\n"
        "upstream.read_pin = lambda read=upstream.read_pin: {**read(), 'sha256': sys.argv[3]}\n"
        "try: print(upstream.fetch_sdist(Path(sys.argv[2])))\n"
        "except upstream.UpstreamError as e: sys.exit(f'error: {e}')\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("AIM_LLAMA_SDIST", "PIP_CONSTRAINT")}
    environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_CONFIG_FILE": os.devnull}
    arguments = [str(ROOT / "patches"), str(tmp_path / "out"), sha256]
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)


needs_pip = pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="no pip here")


@needs_pip
def test_an_sdist_of_another_hash_runs_no_code(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    sdist(tmp_path / "index", mark)
    done = fetch(tmp_path, tmp_path / "index")
    assert done.returncode == 1
    assert "has another sha256 than patches/VERSION" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not mark.exists()
    assert not list(tmp_path.glob("out/**/*.tar.gz"))


@needs_pip
def test_the_pinned_sdist_is_taken(tmp_path: Path) -> None:
    """The same way with the right hash: what the test above shows is the hash's doing."""
    path = sdist(tmp_path / "index", tmp_path / "mark")
    done = fetch(tmp_path, tmp_path / "index", hashlib.sha256(path.read_bytes()).hexdigest())
    assert done.stdout.strip() == str(tmp_path / "out" / "sdist" / path.name), done.stderr
    assert (tmp_path / "out" / "sdist" / path.name).read_bytes() == path.read_bytes()


def test_an_sdist_that_was_changed_on_the_disk_is_refused(tmp_path: Path) -> None:
    path = sdist(tmp_path / "index", tmp_path / "mark")
    kept = tmp_path / "out" / "sdist" / path.name
    kept.parent.mkdir(parents=True)
    kept.write_bytes(path.read_bytes() + b"\0")
    done = fetch(tmp_path, tmp_path / "index", hashlib.sha256(path.read_bytes()).hexdigest())
    assert done.returncode == 1
    assert "patches/VERSION wants" in done.stderr
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", ["llama_cpp.py", "mtmd_cpp.py", "_ctypes_extensions.py"])
def test_bindings_that_were_changed_are_refused(tmp_path: Path, name: str) -> None:
    source = tmp_path / "sdist"
    (source / "llama_cpp").mkdir(parents=True)
    (source / "vendor" / "llama.cpp").mkdir(parents=True)
    for file in ("llama_cpp.py", "mtmd_cpp.py", "_ctypes_extensions.py"):
        (source / "llama_cpp" / file).write_text("import ctypes\n" + "import os\n" * (file == name))
    (source / "LICENSE.md").write_text("MIT\n")
    command = [sys.executable, str(ROOT / "patches" / "upstream.py"), "bindings", "--out", str(tmp_path / "out")]
    environment = {**os.environ, "AIM_LLAMA_SDIST": str(source)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert re.search(r"^error: the bindings in .* have the sha256 \w{64}, patches/VERSION wants \w{64}; ", done.stderr)
    assert not list((tmp_path / "out").rglob("*.py"))
