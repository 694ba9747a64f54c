"""A limited address space: what fits works, what does not is one line, and no process ends by a signal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from run_case import CLIPS, environment
from thorough import few

from aim_local.errors import NativeError, is_out_of_memory
from aim_local.native import room

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc and RLIMIT_AS")

CHAT = """
import resource, sys
resource.setrlimit(getattr(resource, sys.argv[1]), (int(sys.argv[2]),) * 2)
sys.argv[1:] = sys.argv[3:]
from aim_local.cli import main; main()
"""


def chat(home: Path, limit: str, n_mib: int) -> tuple[int, str, str]:
    clip = str(CLIPS / "order.mp4")
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHAT, limit, str(n_mib << 20), "chat", clip, "-p", "What?", "--max-tokens", "2"],
        env={**environment(home), "OMP_THREAD_LIMIT": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


LIMITS = [("RLIMIT_AS", 350), ("RLIMIT_DATA", 60), ("RLIMIT_AS", 24), ("RLIMIT_AS", 150), ("RLIMIT_DATA", 150)]


@pytest.mark.parametrize("limit", few(LIMITS, 2))
def test_too_little_is_one_line(tmp_path: Path, limit: tuple[str, int]) -> None:
    code, out, said = chat(tmp_path, *limit)
    assert (code, out) == (1, ""), said
    assert len(said.splitlines()) == 1, said
    assert "not enough memory" in said


def test_enough_works(tmp_path: Path) -> None:
    code, out, said = chat(tmp_path, "RLIMIT_AS", 1024)
    assert (code, said) == (0, "")
    assert out.strip()


def test_what_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    room.check_room(1 << 60)  # no limit, no question
    assert room.address_room() is None
    monkeypatch.setattr(room, "_limits", lambda: [(1000 << 20, 400 << 20, "-v"), (500 << 20, 100 << 20, "-d")])
    assert room.address_room() == 400 << 20
    room.check_room(500 << 20, data_bytes=0)
    with pytest.raises(NativeError, match=r"may have 500 MiB \(ulimit -d\), has 100, and needs 532 MiB more"):
        room.check_room(500 << 20)
    with pytest.raises(NativeError, match=r"may have 1000 MiB \(ulimit -v\), has 400, and needs 732 MiB more"):
        room.check_room(700 << 20, data_bytes=0)


@pytest.mark.parametrize(
    ("e", "is_so"),
    [
        (SystemError("error return without exception set"), True), (SystemError("bad argument"), False),
        (MemoryError(), True), (OSError(12, "Cannot allocate memory"), True),
        (ImportError("libx265.so.216: failed to map segment from shared object"), True),
        (RuntimeError("can't start new thread"), True), (ImportError("No module named x"), False),
        (OSError(28, "No space left on device"), False), (ValueError("memory"), False),
    ],
)  # fmt: skip
def test_what_says_that_there_was_no_memory(e: BaseException, is_so: bool) -> None:
    assert is_out_of_memory(e) is is_so
