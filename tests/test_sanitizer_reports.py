"""What a sanitizer says is found wherever it was said, and named by its place; `make sanitize` relies on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz import sanitizer
from fuzz.process import BrokenTarget, Child
from fuzz.sanitized import KINDS, given, reported
from fuzz.target import names

ADDRESS = """==4711==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x602000000011 at pc 0x55 bp 0x7 sp 0x7
READ of size 1 at 0x602000000011 thread T0
    #0 0x55d0c in read_it(int, char const*) /a/b/ggml/src/gguf.cpp:12
    #1 0x7f2a1 in aim_rehearse(char const*) /a/b/tools/mtmd/aim-rehearse.cpp:34:5

0x602000000011 is located 0 bytes to the right of 1-byte region
SUMMARY: AddressSanitizer: heap-buffer-overflow /a/b/ggml/src/gguf.cpp:12 in read_it
"""
UNDEFINED = """/a/b/src/aim-weights.cpp:7:12: runtime error: signed integer overflow: 2147483647 + 1 is none
    #0 0x7f11 in weigh /a/b/src/aim-weights.cpp:7
"""
THREAD = """WARNING: ThreadSanitizer: data race (pid=3638)
  Write of size 8 at 0x7fcafe5ffc60 by thread T1:
    #0 memset ../../../../src/libsanitizer/sanitizer_common/interceptors.inc:799 (libtsan.so+0x5cbc4)
    #1 mtmd_log_set /a/b/tools/mtmd/mtmd.cpp:9 (libmtmd.so+0x785e8)

  Previous write of size 8 at 0x7fcafe5ffc60 by main thread:
    #0 aim_mtmd_project /a/b/tools/mtmd/aim-project.cpp:47 (libmtmd.so+0x785e8)
"""


def test_the_place_of_a_report() -> None:
    assert sanitizer.place(ADDRESS) == "heap-buffer-overflow, gguf.cpp:read_it, aim-rehearse.cpp:aim_rehearse"
    assert sanitizer.place(UNDEFINED).startswith("signed integer overflow: ")
    assert sanitizer.place(UNDEFINED).endswith("aim-weights.cpp:weigh")
    assert sanitizer.place(THREAD) == "data race, mtmd.cpp:mtmd_log_set, aim-project.cpp:aim_mtmd_project"


def test_a_report_is_a_finding_though_the_answer_is_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rehearsed model file's process ends with a report: for the user that is one clear line."""
    monkeypatch.setattr(sanitizer, "RUNNING", True)
    path = tmp_path / "a.planted.txt"
    with Child("_planted", tmp_path / "child", 1, 64) as child:
        for text, kind in (("fine", "answer"), ("report", "report"), ("refused", "refused")):
            path.write_text(text)
            assert child.file(path).kind == kind
        path.write_text("report")
        assert child.file(path).place == "heap-buffer-overflow"


def test_a_seed_with_a_report_is_no_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitizer, "RUNNING", True)
    (reports := tmp_path / "child" / "reports").mkdir(parents=True)
    (reports / "report.1").write_text(ADDRESS)
    with Child("_planted", tmp_path / "child", 1, 64) as child, pytest.raises(BrokenTarget, match=r"gguf.cpp:read_it"):
        child.mutant(1)


def test_reports_are_counted_by_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.1").write_text(ADDRESS)
    bar = "==================\n"
    (tmp_path / "report.2").write_text(f"{bar}{THREAD}{bar}{bar}{THREAD}{bar}ThreadSanitizer: reported 2 warnings\n")
    assert reported(tmp_path, tmp_path) == 3
    told = capsys.readouterr().out
    assert "2 x data race" in told
    assert "1 x heap-buffer-overflow" in told


@pytest.mark.parametrize("name", KINDS)
def test_what_is_tried_is_there(name: str, tmp_path: Path) -> None:
    """Guards against a list that names tests of yesterday, and nothing says so."""
    here = Path(__file__).parent
    for pattern in KINDS[name].tests:
        assert list(here.glob(f"test_{pattern}.py")), pattern
    assert set(KINDS[name].targets) <= set(names())


def test_a_sanitizer_is_preloaded(tmp_path: Path) -> None:
    (tmp_path / "CMakeCache.txt").write_text("CMAKE_CXX_COMPILER:FILEPATH=/bin/echo\n")
    found = given(KINDS["address"], tmp_path, tmp_path / "tried")
    assert found["LD_PRELOAD"].split() == ["-print-file-name=libasan.so", "-print-file-name=libstdc++.so"]
    assert found["ASAN_OPTIONS"].endswith(f":log_path={tmp_path}/tried/reports/report")
