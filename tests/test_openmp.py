"""Variables of OpenMP that are none: one line of ours, none of its library's, which would say it for each process."""

from __future__ import annotations

import ctypes.util
import json
import os
import subprocess
import sys

import pytest

from aim_local.errors import UsageError
from aim_local.native.openmp import check_environment

WRONG = [
    ("OMP_NUM_THREADS", "abc", "give a whole number, 1 or more"),
    ("OMP_NUM_THREADS", "0", "give a whole number, 1 or more"),
    ("OMP_NUM_THREADS", "1.5", "give a whole number, 1 or more"),
    ("OMP_NUM_THREADS", "2,x", "give a whole number, 1 or more"),
    ("OMP_THREAD_LIMIT", "-1", "give a whole number, 1 or more"),
    ("OMP_NUM_TEAMS", "0", "give a whole number, 1 or more"),
    ("OMP_MAX_ACTIVE_LEVELS", "-1", "give a whole number, 0 or more"),
    ("OMP_DEFAULT_DEVICE", "9999999999", "give a whole number, 0 or more"),
    ("OMP_WAIT_POLICY", "sleepy", "give active or passive"),
    ("OMP_PROC_BIND", "here", "give true, false, close, spread or primary"),
    ("OMP_DYNAMIC", "2", "give true or false"),
    ("OMP_NESTED", "x", "give true or false"),
    ("OMP_DISPLAY_ENV", "x", "give true, false or verbose"),
    ("OMP_TARGET_OFFLOAD", "x", "give default, mandatory or disabled"),
    ("OMP_PLACES", "core", "give threads, cores, sockets or sets of CPUs such as {0:4}"),
    ("OMP_ALLOCATOR", "x", "give one such as omp_default_mem_alloc"),
    *(
        ("OMP_SCHEDULE", value, "give static, dynamic, guided or auto, with a number behind a comma")
        for value in ("x", "runtime", "dynamic,x", "static,", "dynamic,99999999999")
    ),
    ("OMP_STACKSIZE", "big", "give a size such as 4M"),
    ("GOMP_STACKSIZE", "4MB", "give a size such as 4M"),
    ("GOMP_SPINCOUNT", "many", "give a whole number or infinite"),
    ("GOMP_DEBUG", "x", "give a whole number, 0 or more"),
    ("GOMP_CPU_AFFINITY", "frog", "give numbers of CPUs such as 0-3"),
    ("GOMP_CPU_AFFINITY", "0-1:0", "give numbers of CPUs such as 0-3"),
    ("GOMP_CPU_AFFINITY", "1-0", "give ranges of CPUs that rise, such as 0-3"),
]
RIGHT = [
    *(("OMP_NUM_THREADS", value) for value in ("1", " 3 ", "4,2", "+2", "0016")),
    *(("OMP_WAIT_POLICY", value) for value in ("passive", "Active")),
    *(("OMP_PROC_BIND", value) for value in ("true", "close,spread", "FALSE")),
    *(("OMP_STACKSIZE", value) for value in ("512", "4M", "512 k", "9999999B")),
    *(("OMP_SCHEDULE", value) for value in ("Static", "dynamic,4", " guided , 1 ", "auto", "monotonic: static,2")),
    *(("OMP_PLACES", value) for value in ("cores", "threads(1)", "{0}", "{0:1}", "sockets")),
    *(("GOMP_SPINCOUNT", value) for value in ("0", "1k", "infinite")),
    ("OMP_MAX_ACTIVE_LEVELS", "2147483647"),
    ("OMP_CANCELLATION", "true"),
    ("OMP_ALLOCATOR", "omp_default_mem_alloc"),
    ("OMP_TARGET_OFFLOAD", "DISABLED"),
    ("GOMP_DEBUG", "0"),
    *(("GOMP_CPU_AFFINITY", value) for value in ("0", "0-1", "0 1", "0-6:2,1")),
    *(("OMP_THREAD_LIMIT", value) for value in ("8", "4294967295")),
]
SMALL = f"{os.sysconf('SC_THREAD_STACK_MIN') // 1024 - 1}k" if sys.platform == "linux" else "1k"
# what the library says while it is loaded, once with each variable
_SAID = """
import ctypes, json, os, sys
said = []
for name, value in json.load(sys.stdin):
    reads, writes = os.pipe()
    if not os.fork():
        os.dup2(writes, 2)
        os.environ[name] = value
        ctypes.CDLL(sys.argv[1])
        os._exit(0)
    os.close(writes)
    with open(reads) as errors:
        said.append(errors.read())
    os.wait()
json.dump(said, sys.stdout)
"""


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


@pytest.mark.parametrize("value", ["", " ", "\t"])
@pytest.mark.parametrize("name", sorted({name for name, _, _ in WRONG}))
def test_an_empty_variable_is_unset(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shells and containers write so what is not set; libgomp complains, and does without."""
    monkeypatch.setenv(name, value)
    check_environment()
    assert name not in os.environ


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (SMALL, "k or more, or unset it"),
        ("0", "k or more, or unset it"),
        ("8000000G", "give a size that fits in memory, such as 4M, or unset it"),
        ("9" * 5000, "give a size that fits in memory, such as 4M, or unset it"),
    ],
)
def test_a_stack_that_no_thread_can_have(value: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """libgomp goes on with its own after the first ones, and ends the process with the others."""
    monkeypatch.setenv("OMP_STACKSIZE", value)
    with pytest.raises(UsageError, match=words):
        check_environment()


@pytest.mark.skipif(ctypes.util.find_library("gomp") is None, reason="no libgomp")
def test_libgomp_complains_of_the_same() -> None:
    wrong = [*((name, value) for name, value, _ in WRONG), ("OMP_STACKSIZE", SMALL), ("OMP_NUM_THREADS", "")]
    run = subprocess.run(
        [sys.executable, "-S", "-c", _SAID, ctypes.util.find_library("gomp") or ""],
        input=json.dumps([*wrong, *RIGHT]), capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    said = dict(zip([*wrong, *RIGHT], json.loads(run.stdout), strict=True))
    assert [pair for pair in wrong if not said[pair].strip().startswith("libgomp: ")] == []
    assert [pair for pair in RIGHT if said[pair]] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("OMP_NUM_THREADS", "abc"), ("OMP_THREAD_LIMIT", "x"), ("GOMP_CPU_AFFINITY", "frog"), ("OMP_SCHEDULE", "x")],
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
