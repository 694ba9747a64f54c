"""`doctor` reports what is wrong and never falls ill itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aim_local import store
from aim_local.lab import doctor
from aim_local.native import kernels
from aim_local.store.gguf_header import read_header

SECTIONS = {"versions", "native libraries", "machine", "devices", "models"}


def run_doctor(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from aim_local.cli import main; main()"
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-P", "-c", code, "doctor", *args], capture_output=True, text=True, env=env)


def test_sections_and_json() -> None:
    report = doctor.examine()
    assert set(report.sections) == SECTIONS
    assert json.loads(json.dumps(report.to_dict()))["ok"] == (not report.problems)
    assert report.sections["versions"]["aim-local"] != doctor.NOT_INSTALLED


def test_kernels_are_named() -> None:
    machine = doctor.examine().sections["machine"]
    for name in ("vision kernels", "prefill kernels"):
        found = machine[name].split("(")[1]
        assert (found == "llama.cpp's kernels)") if not kernels.kernels() else (found == f"{kernels.kernels()})")


def test_torch_is_not_imported() -> None:
    code = "import sys; from aim_local.lab.doctor import examine; examine(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_folder_without_libraries(tmp_path: Path) -> None:
    done = run_doctor(AIM_LOCAL_LIB=str(tmp_path))
    assert done.returncode == 1
    assert "do not load" in done.stdout
    assert "the C++ part is not built" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_file_that_is_no_library(tmp_path: Path) -> None:
    for name in ("libllama.so", "libllama.dylib", "llama.dll"):
        (tmp_path / name).write_bytes(b"no library")
    done = run_doctor("--json", AIM_LOCAL_LIB=str(tmp_path))
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["ok"] is False
    assert any("libraries" in problem["what"] for problem in report["problems"])
    assert "Traceback" not in done.stderr


def test_the_cure_is_said_once_and_is_no_registry(tmp_path: Path) -> None:
    for name in ("libllama.so", "libllama.dylib", "llama.dll"):
        (tmp_path / name).write_bytes(b"no library")
    done = run_doctor(AIM_LOCAL_LIB=str(tmp_path))
    lines = [line for line in done.stdout.splitlines() if "in the source folder" in line]
    assert lines
    assert all(
        line.count("reinstall aim-local") <= 1 and "install aim-local" not in line.split("folder")[1] for line in lines
    )


def test_a_look_that_fails_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(doctor, "_machine", fail)
    report = doctor.examine()
    assert any("boom" in problem.what for problem in report.problems)


def test_wrong_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_pins", lambda: {"gguf": "==0.0.1"})
    assert any("this aim-local needs 0.0.1" in problem.what for problem in doctor.examine().problems)


def test_broken_model_in_the_store() -> None:
    folder = store.models_folder() / "broken"
    folder.mkdir(parents=True)
    report = doctor.examine()
    assert any("model broken" in problem.what for problem in report.problems)


def test_store_is_not_created() -> None:
    doctor.examine()
    assert not store.models_folder().exists()


def test_store_below_a_file(user_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (user_home / "file").write_text("")
    monkeypatch.setenv("AIM_LOCAL_HOME", str(user_home / "file"))
    found = doctor.examine()
    told = [problem for problem in found.problems if str(store.models_folder()) in problem.what]
    assert [problem.cure for problem in told] == ["check its permissions or set AIM_LOCAL_HOME"]


def test_cpu_features() -> None:
    assert doctor.cpu_features("CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 0 | FMA = 1 |") == "SSE3 AVX2 FMA"
    assert doctor.cpu_features("nothing") == "nothing"


@pytest.mark.skipif(store.bundled_folder() is None, reason="this checkout has no bundled model")
def test_bundled_model_is_whole() -> None:
    folder = store.bundled_folder()
    assert folder is not None
    for name in ("model.gguf", "mmproj.gguf"):
        assert read_header(folder / name).missing_bytes() == 0
