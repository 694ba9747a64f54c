"""Libraries built for another CPU are refused in one line, before they are loaded."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aim_local.errors import NativeError
from aim_local.native import cpu
from aim_local.native.cpu import Cpu
from aim_local.native.library import BACKENDS, LIB_FOLDER

ROOT = Path(__file__).resolve().parents[1]
CPUINFO = "model name\t: Old\nflags\t\t: fpu pni ssse3 avx\n\nmodel name\t: Old\nflags\t\t: fpu pni ssse3 avx fma\n"
LIBRARIES = ("libggml-cpu.so", "libggml-cpu.dylib", "ggml-cpu.dll", "libllama.so", "libllama.dylib", "llama.dll")


def write_libraries(folder: Path, record: str) -> Path:
    """Files that no system can load; the CPU's carries the record."""
    for name in LIBRARIES:
        (folder / name).write_bytes(b"no library\0" + record.encode() + b"\0more\0")
    return folder


def on_another_machine(code: str, folder: Path, cpuinfo: str) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a process that finds the libraries of `folder` and this cpuinfo."""
    (folder / "cpuinfo").write_text(cpuinfo)
    set_up = (
        "import os, pathlib, sys; sys.platform = 'linux'; from aim_local.native import cpu; "
        f"cpu.CPUINFO = pathlib.Path({str(folder / 'cpuinfo')!r}); os.environ['AIM_LOCAL_LIB'] = {str(folder)!r}\n"
    )
    return subprocess.run([sys.executable, "-c", set_up + code], capture_output=True, text=True)


def test_what_all_processors_have() -> None:
    found = cpu.from_cpuinfo(CPUINFO, "6.1.0-13-amd64")
    assert found is not None
    assert found.has == {"fpu", "pni", "ssse3", "avx"}
    assert found.lacks(["avx2", "pni", "fma"]) == ["avx2", "fma"]


def test_cpuinfo_of_arm_and_of_others() -> None:
    found = cpu.from_cpuinfo("Features\t: fp asimd asimddp\n", "6.1")
    assert found is not None
    assert found.lacks(["asimddp", "sve"]) == ["sve"]
    assert cpu.from_cpuinfo("isa : rv64imafdc\n", "6.1") is None


def test_an_old_kernel_does_not_list_all() -> None:
    old, new = (cpu.from_cpuinfo(CPUINFO, kernel) for kernel in ("5.4.0-150-generic", "5.12.0"))
    assert old is not None
    assert new is not None
    assert old.lacks(["avx_vnni", "amx_int8"]) == ["amx_int8"]
    assert new.lacks(["avx_vnni", "amx_int8"]) == ["avx_vnni", "amx_int8"]


def test_only_what_the_system_tells_is_missing() -> None:
    assert Cpu(frozenset({"avx"}), told=frozenset({"avx", "avx2"})).lacks(["avx", "avx2", "fma"]) == ["avx2"]


@pytest.mark.parametrize("record", ["", "aim-local built for: unknown"])
def test_no_record_no_refusal(tmp_path: Path, record: str) -> None:
    write_libraries(tmp_path, record)
    assert cpu.built_for(tmp_path) is None
    cpu.check(tmp_path)
    assert cpu.built_for(tmp_path / "nothing") is None


def test_another_cpu_is_refused_before_loading(tmp_path: Path) -> None:
    write_libraries(tmp_path, "aim-local built for: x86_64 pni avx avx2 avx512f amx_int8")
    code = "try:\n import aim_local.native.library\nexcept Exception as e:\n print(type(e).__name__, e)"
    said = on_another_machine(code, tmp_path, CPUINFO).stdout
    assert said.startswith("NativeError the libraries in ")
    assert "built for a CPU with pni avx avx2 avx512f amx_int8; this machine has no avx2 avx512f amx_int8; " in said
    assert "pip install --force-reinstall ." in said
    assert "make wheel" in said
    assert said.count("\n") == 1


def test_the_same_cpu_is_not_refused(tmp_path: Path) -> None:
    write_libraries(tmp_path, "aim-local built for: x86_64 pni avx")
    code = "try:\n import aim_local.native.library\nexcept Exception as e:\n print(e)"
    assert "do not load" in on_another_machine(code, tmp_path, CPUINFO).stdout  # it went on and tried them


def test_doctor_shows_both_when_refused(tmp_path: Path) -> None:
    write_libraries(tmp_path, "aim-local built for: x86_64 pni avx avx512f")
    done = on_another_machine("from aim_local.cli import main; sys.argv[1:] = ['doctor']; main()", tmp_path, CPUINFO)
    assert done.returncode == 1
    assert re.search(r"built for +pni avx avx512f\n", done.stdout)
    assert re.search(r"this machine has +avx pni ssse3\n", done.stdout)
    assert "refused" in done.stdout
    assert "this machine has no avx512f; build on this machine" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_the_libraries_in_use_suit_this_machine() -> None:
    cpu.check(LIB_FOLDER)
    features, here = cpu.built_for(LIB_FOLDER), cpu.this_cpu()
    if features is None or here is None:
        pytest.skip(f"variants ({', '.join(BACKENDS)})" if BACKENDS else "this build or this machine does not say")
    assert here.lacks(features) == []
    with pytest.raises(NativeError, match="were built for a CPU with"):
        refuse_without(LIB_FOLDER, features[-1])


def refuse_without(folder: Path, name: str) -> None:
    """The check on a machine that is like this one, without one feature."""
    here = cpu.this_cpu()
    assert here is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "this_cpu", lambda: Cpu(here.has - {name}))
        cpu.check(folder)


@pytest.mark.parametrize("march", ["haswell", "native"])
def test_the_compiler_tells(tmp_path: Path, march: str) -> None:
    """built-for.c gives the names of /proc/cpuinfo for the flags it is compiled with."""
    compiler = shutil.which("cc")
    if not compiler or sys.platform != "linux":
        pytest.skip("no C compiler, or not Linux")
    target = tmp_path / "libggml-cpu.so"
    command = [compiler, f"-march={march}", "-shared", "-o", str(target), str(ROOT / "patches" / "built-for.c")]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip(f"this compiler has no -march={march}")
    features, here = cpu.built_for(tmp_path), cpu.this_cpu()
    assert features is not None
    if march == "native":
        assert here is not None
        assert here.lacks(features) == []
    else:
        assert {"avx2", "fma", "f16c", "bmi2"} <= set(features)
        assert "avx512f" not in features
