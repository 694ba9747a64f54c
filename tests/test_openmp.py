"""Variables of OpenMP that are none: one line of ours, none of its library's, which would say it for each process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from aim_local.errors import UsageError
from aim_local.native.openmp import check_environment

WRONG = [
    ("OMP_NUM_THREADS", "abc", "give a whole number, 1 or more"),
    ("OMP_NUM_THREADS", "", "give a whole number, 1 or more"),
    ("OMP_NUM_THREADS", "0", "give a whole number, 1 or more"),
    ("OMP_NUM_THREADS", "1.5", "give a whole number, 1 or more"),
    ("OMP_NUM_THREADS", "2,x", "give a whole number, 1 or more"),
    ("OMP_THREAD_LIMIT", "-1", "give a whole number, 1 or more"),
    ("OMP_WAIT_POLICY", "sleepy", "give active or passive"),
    ("OMP_PROC_BIND", "here", "give true, false, close, spread or primary"),
    ("OMP_DYNAMIC", "2", "give true or false"),
    ("OMP_STACKSIZE", "big", "give a size such as 4M"),
    ("GOMP_CPU_AFFINITY", "frog", "give numbers of CPUs such as 0-3"),
]
RIGHT = [
    *(("OMP_NUM_THREADS", value) for value in ("1", " 3 ", "4,2", "+2", "0016")),
    *(("OMP_WAIT_POLICY", value) for value in ("passive", "Active")),
    *(("OMP_PROC_BIND", value) for value in ("true", "close,spread", "FALSE")),
    *(("OMP_STACKSIZE", value) for value in ("512", "4M", "16 k")),
    *(("GOMP_CPU_AFFINITY", value) for value in ("0", "0-1", "0 1", "0-6:2,1")),
    ("OMP_THREAD_LIMIT", "8"),
]


@pytest.mark.parametrize(("name", "value", "words"), WRONG)
def test_a_value_that_is_none(name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as caught:
        check_environment()
    assert str(caught.value) == f"{name} is {value!r}; {words}, or unset it"


@pytest.mark.parametrize(("name", "value"), RIGHT)
def test_a_value_that_the_library_takes(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    check_environment()


@pytest.mark.parametrize(
    ("name", "value"), [("OMP_NUM_THREADS", "abc"), ("OMP_THREAD_LIMIT", "x"), ("GOMP_CPU_AFFINITY", "frog")]
)
def test_a_command_says_it_once(name: str, value: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "aim_local.cli", "plan", "demo"],
        env=os.environ | {name: value}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 2
    assert run.stderr.startswith(f"error: {name} is '{value}'; give ")
    assert run.stderr.count("\n") == 1
    assert run.stdout == ""


def test_a_program_is_told_before_the_libraries_load() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "import aim_local.native.library"],
        env=os.environ | {"OMP_NUM_THREADS": "abc"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.stderr.splitlines()[-1].endswith("OMP_NUM_THREADS is 'abc'; give a whole number, 1 or more, or unset it")
    assert "libgomp" not in run.stderr
