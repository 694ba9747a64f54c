"""What the build brings besides libraries, what it says when a tool is missing, and other llama.cpp in one process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aim_local.native.bindings import bindings_version
from aim_local.native.installed import bindings_folder, converter_folder
from aim_local.native.library import LIB_FOLDER

ROOT = Path(__file__).resolve().parents[1]
IMPORT = "try:\n import aim_local.native.library as ours\nexcept Exception as e:\n print(type(e).__name__, e)\n"
ANSWER = (
    "import aim_local\n"
    "with aim_local.VisionLLM.load() as llm:\n"
    "    print(bool(llm.generate('hello', generate=aim_local.GenerateConfig(max_tokens=2)).stats.n_prompt))\n"
)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="sonames are changed in ELF files")


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )


# --- a missing tool ---------------------------------------------------------------------------------------------------


def sdist(folder: Path) -> Path:
    """An unpacked sdist with the files that the hooks touch, all empty."""
    for patch in (ROOT / "patches").glob("*.patch"):
        for line in patch.read_text().splitlines():
            if line.startswith("+++ b/"):
                file = folder / "vendor" / "llama.cpp" / line.removeprefix("+++ b/")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
    (folder / "llama_cpp").mkdir()
    return folder


def upstream(command: str, out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "patches" / "upstream.py"), command, "--out", str(out)],
        capture_output=True, text=True, env={**os.environ, **environment},
    )  # fmt: skip


def test_without_git(tmp_path: Path) -> None:
    source = sdist(tmp_path / "sdist")
    done = upstream("apply", tmp_path / "out", AIM_LLAMA_SDIST=str(source), PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("error: git is needed")
    assert "install it" in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_a_compiler(tmp_path: Path) -> None:
    beside = Path(sys.executable).with_name("cmake")
    cmake = str(beside) if beside.is_file() else shutil.which("cmake")
    if cmake is None:
        pytest.skip("no cmake")
    empty = tmp_path / "empty"
    empty.mkdir()
    ninja = Path(cmake).with_name("ninja")
    command = [cmake, "-S", str(ROOT / "patches"), "-B", str(tmp_path / "out"), "-G", "Ninja"]
    environment = {name: value for name, value in os.environ.items() if name not in ("CC", "CXX")}
    command.append(f"-DCMAKE_MAKE_PROGRAM={ninja}")
    done = subprocess.run(command, capture_output=True, text=True, env={**environment, "PATH": str(empty)})
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if "compiler" in line]
    assert len(lines) == 1
    assert "needs a C and C++ compiler" in lines[0]
    assert "apt install g++" in lines[0]


# --- the bindings -----------------------------------------------------------------------------------------------------


def test_bindings_of_another_layout_are_an_error(tmp_path: Path) -> None:
    source = sdist(tmp_path / "sdist")
    (source / "llama_cpp" / "_ctypes_extensions.py").write_text("from llama_cpp import everything\n")
    done = upstream("bindings", tmp_path / "out", AIM_LLAMA_SDIST=str(source))
    assert done.returncode == 1
    assert "not laid out as expected" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_bindings_import_only_each_other() -> None:
    folder = bindings_folder() / "llama_cpp"
    for file in folder.glob("*.py"):
        assert "from llama_cpp" not in file.read_text(encoding="utf-8"), file
    assert (folder / "LICENSE.md").is_file()
    assert bindings_version() in (ROOT / "patches" / "VERSION").read_text()


def test_the_converter_of_llama_cpp_comes_with_its_gguf_package() -> None:
    folder = converter_folder()
    assert (folder / "conversion" / "qwenvl.py").is_file()
    assert (folder / "gguf-py" / "gguf" / "gguf_writer.py").is_file()
    assert (folder / "LICENSE").is_file()


def test_a_converter_of_another_layout_is_an_error(tmp_path: Path) -> None:
    source = sdist(tmp_path / "sdist")
    done = upstream("converter", tmp_path / "out", AIM_LLAMA_SDIST=str(source))
    assert done.returncode == 1
    assert "has no conversion/base.py any more" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_installed_llama_cpp_is_not_touched(tmp_path: Path) -> None:
    """Neither imported nor replaced, and no environment variable of its is set or followed."""
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp" / "__init__.py").write_text("raise RuntimeError('somebody imported it')\n")
    report = (
        "import os, sys; print('llama_cpp' in sys.modules, "
        "os.environ['LLAMA_CPP_LIB_PATH'], 'MTMD_CPP_LIB' in os.environ)"
    )
    done = run(IMPORT + report, PYTHONPATH=str(tmp_path), LLAMA_CPP_LIB_PATH="/elsewhere")
    assert done.stdout == "False /elsewhere False\n"


# --- a stock llama.cpp in the same process ----------------------------------------------------------------------------


def stand_in(folder: Path, soname: bytes) -> Path:
    """A copy of our libraries; sonames and files begin with `soname` in the place of "lib"."""
    for file in LIB_FOLDER.glob("*.so"):
        data = file.read_bytes()
        for name in (b"libggml", b"libllama.so", b"libmtmd.so"):
            data = data.replace(name, soname + name[3:])
        (folder / file.name.replace("lib", soname.decode(), 1)).write_bytes(data)
    return folder


def load(folder: Path, soname: str) -> str:
    """Code that uses the stand-in as llama-cpp-python uses its own."""
    return (
        f"import ctypes\nlib = ctypes.CDLL({str(folder / f'{soname}llama.so')!r})\n"
        "lib.llama_backend_init()\nprint(lib.llama_max_devices() > 0)\n"
    )


@LINUX
@pytest.mark.parametrize("ours_first", [False, True])
def test_beside_a_stock_library(tmp_path: Path, ours_first: bool) -> None:
    other = load(stand_in(tmp_path, b"sto"), "sto")
    done = run(IMPORT + other + ANSWER if ours_first else other + IMPORT + ANSWER)
    assert done.stdout == "True\nTrue\n", done.stderr[-500:]


@LINUX
def test_a_stock_library_with_our_sonames_is_refused(tmp_path: Path) -> None:
    """The system would join our libllama to the other libggml."""
    done = run(load(stand_in(tmp_path, b"lib"), "lib") + IMPORT)
    assert "NativeError" in done.stdout
    assert "import aim_local first" in done.stdout
    assert done.stdout.count("\n") == 2
