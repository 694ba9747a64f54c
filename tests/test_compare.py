"""`aim-local compare` on the bundled model: what a run reports, and what fails is a row."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import compare_case
import pytest
from compare_case import FOLDER, SHORT, cells, cells_here, lines

from aim_local.child import Child
from aim_local.lab.compare import runner
from aim_local.lab.compare.records import Report, Suite
from aim_local.lab.compare.workspace import safe_name

suite_file = compare_case.suite_file
suite = compare_case.suite
here = compare_case.here


@pytest.fixture(scope="module")
def run_once(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """The demo model, a copy of it, and two quantised ones, against itself."""
    root = tmp_path_factory.mktemp("compare")
    shutil.copytree(FOLDER, root / "copy")
    out = root / "out"
    with cells_here():
        types = ["f16", "q8_0", "q4_0"]
        return out, runner.compare(suite, out, ["demo", root / "copy"], ["off"], types=types, options=SHORT)


# --- a run -----------------------------------------------------------------------------------------------------------


def test_a_model_against_itself_does_not_diverge(run_once: tuple[Path, Report]) -> None:
    copy = cells(run_once[1])["copy f16 / off"]
    assert copy.divergence.mean <= 1e-6
    assert copy.divergence.p99 <= 1e-6
    assert copy.divergence.top1.share == copy.agreement.share == 1
    assert (copy.paired.only_reference, copy.paired.only_here, copy.paired.p) == (0, 0, 1)


def test_divergence_grows_with_quantisation(run_once: tuple[Path, Report]) -> None:
    found = cells(run_once[1])
    assert 0 < found["demo q8_0 / off"].divergence.mean < found["demo q4_0 / off"].divergence.mean
    assert found["demo q8_0 / off"].divergence == found["copy q8_0 / off"].divergence


def test_the_report_has_what_was_measured(run_once: tuple[Path, Report], suite: Suite) -> None:
    out, report = run_once
    assert (report.reference, report.suite_sha256, report.n_items) == ("demo f16 / off", suite.sha256, 3)
    assert [c.is_reference for c in report.cells] == [True] + [False] * 5
    for c in report.cells:
        assert (c.status, c.n_done, c.n_items) == ("done", 3, 3)
        assert c.peak_rss_bytes > 30e6
        assert c.ttft_ms.n == 2  # the first is the warm-up
        assert set(c.stages) >= {"decode_video", "preprocess", "vision", "prefill"}
        assert c.n_visual == c.n_visual_full > 0
        assert c.flops_share == 1
    assert cells(report)["demo q4_0 / off"].model_bytes < FOLDER.joinpath("model.gguf").stat().st_size / 2
    assert json.loads((out / "report.json").read_text()) == json.loads(json.dumps(report.to_dict()))
    assert "demo q4\\_0" in (out / "report.md").read_text()
    assert "<html" in (out / "report.html").read_text()


def test_kld_rows_cover_the_answer_and_its_end(run_once: tuple[Path, Report]) -> None:
    out, _ = run_once
    reference = lines(out)[safe_name("demo f16 / off")]
    for row in lines(out)[safe_name("demo q4_0 / off")]:
        asked = next(r for r in reference if r["id"] == row["id"])
        assert asked["kld"] is None
        assert asked["stats"]["stop_reason"] == "eos"
        assert len(row["kld"]) == len(row["top1"]) == min(SHORT.kld_tokens, len(asked["tokens"]) + 1)
        assert min(row["kld"]) >= 0


def test_a_finished_comparison_runs_nothing(
    run_once: tuple[Path, Report], suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, before = run_once
    monkeypatch.setattr(runner, "run_process", lambda *_: pytest.fail("a finished cell was started"))
    models = ["demo", out.parent / "copy"]
    after = runner.compare(suite, out, models, ["off"], types=["f16", "q8_0", "q4_0"], options=SHORT)
    assert after.cells == before.cells


# --- what fails ------------------------------------------------------------------------------------------------------


def test_a_broken_model_is_a_row(suite: Suite, tmp_path: Path) -> None:
    """One file is cut short, one has no head; the pair that works is there."""
    for name, n_bytes in (("cut", 4_000_000), ("headless", 10)):
        shutil.copytree(FOLDER, tmp_path / name)
        os.truncate(tmp_path / name / "model.gguf", n_bytes)
    models = ["demo", tmp_path / "cut", tmp_path / "headless"]
    found = cells(runner.compare(suite, tmp_path / "out", models, ["off"], options=SHORT))
    assert found["demo / off"].status == "done"
    assert found["cut / off"].status == found["headless / off"].status == "failed"
    assert "is truncated" in found["cut / off"].reason
    assert "is no GGUF file" in found["headless / off"].reason
    assert "\n" not in found["cut / off"].reason
    assert found["cut / off"].accuracy is None


def test_a_cell_beyond_its_memory_is_a_row(suite: Suite, tmp_path: Path) -> None:
    """Too little for the libraries, and too little for the model."""
    out = tmp_path / "out"
    for n in (100, 350):
        options = replace(SHORT, memory_limit=n * 2**20)
        found = runner.compare(suite, out, settings=["off"], options=options).cells[0]
        assert (found.status, found.n_done) == ("failed", 0)
        assert found.reason.startswith(f"out of memory, the limit is {n} MiB (")
        assert "\n" not in found.reason
    # tried again with enough, in the same folder: the limit is no input of the results
    again = runner.compare(suite, out, settings=["off"], options=replace(SHORT, memory_limit=8 * 2**30)).cells[0]
    assert (again.status, again.n_done) == ("done", 3)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("import sys; sys.stderr.write('GGML_ASSERT(n > 0) failed\\n'); import os; os.abort()", "SIGABRT: GGML_ASSERT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL, as the system does when memory runs out"),
        ("raise SystemExit(3)", "its process ended with exit code 3"),
    ],
)
def test_how_a_process_died(code: str, reason: str, tmp_path: Path) -> None:
    with Child("a cell", ["-S", "-c", code], log=tmp_path / "log") as child:
        assert reason in child.death()


@pytest.mark.usefixtures("here")
def test_a_failed_reference_leaves_the_others(suite: Suite, tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "broken")
    os.truncate(tmp_path / "broken" / "model.gguf", 4_000_000)
    models = [tmp_path / "broken", "demo"]
    found = cells(runner.compare(suite, tmp_path / "out", models, ["off"], options=SHORT))
    other = found["demo / off"]
    assert (found["broken / off"].status, other.status) == ("failed", "done")
    assert (other.paired, other.agreement, other.divergence) == (None, None, None)
    assert other.accuracy is not None
    assert other.notes == ("the reference failed: nothing is paired",)
    # repaired: the reference runs, and the other cell again, now paired
    shutil.copyfile(FOLDER / "model.gguf", tmp_path / "broken" / "model.gguf")
    found = cells(runner.compare(suite, tmp_path / "out", models, ["off"], options=SHORT))
    assert [c.status for c in found.values()] == ["done", "done"]
    assert found["demo / off"].divergence.mean <= 1e-6


@pytest.mark.usefixtures("here")
def test_a_setting_that_the_model_cannot_do_is_a_row(suite: Suite, tmp_path: Path) -> None:
    report = runner.compare(suite, tmp_path / "out", settings=["off", "paper:prune=3-99"], options=SHORT)
    assert [c.status for c in report.cells] == ["done", "failed"]
    assert "12 layers" in report.cells[1].reason


@pytest.mark.usefixtures("here")
def test_a_cell_is_loaded_as_it_says(suite: Suite, tmp_path: Path) -> None:
    """The KV cache's types, which an answer's stats tell; the same options again go on, others begin anew."""
    loads = ["type_k=f16", "type_k=q8_0:type_v=q8_0"]
    report = runner.compare(suite, tmp_path / "out", settings=["off"], loads=loads, options=SHORT)
    found = cells(report)
    assert list(found) == [f"demo {load} / off" for load in loads]
    assert report.reference == "demo type_k=f16 / off"
    rows = lines(tmp_path / "out")
    wide, narrow = ([row["stats"]["kv_bytes"] for row in rows[name]] for name in sorted(rows))
    assert all(a == pytest.approx(b * 34 / 64) for a, b in zip(narrow, wide, strict=True))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").glob("*/items.jsonl")}
    runner.compare(suite, tmp_path / "out", settings=["off"], loads=loads, options=SHORT)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").glob("*/items.jsonl")}
