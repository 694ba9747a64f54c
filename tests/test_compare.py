"""`aim-local compare`: scoring against plain generate and prefill, cells in processes, what an interrupted run keeps.

Everything runs on the bundled demo model over a few drawn clips.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from aim_local import GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.convert import ConvertError, quantize_vision
from aim_local.engine.generate import generate
from aim_local.errors import AimError, ModelError, UsageError
from aim_local.lab.compare import cell as cell_process
from aim_local.lab.compare import matrix, process, runner
from aim_local.lab.compare.demo_suite import draw_demo_suite
from aim_local.lab.compare.job import Job, Options, Task
from aim_local.lab.compare.records import CellSpec, Item, ItemResult, Report, Suite
from aim_local.lab.compare.suite import load_suite
from aim_local.lab.compare.summary import CellRun, summarise
from aim_local.lab.compare.variants import Variant, plan_variants, unique_labels
from aim_local.lab.compare.workspace import CellFolder, Workspace, parts, safe_name
from aim_local.store.gguf_header import array_sha256
from aim_local.store.names import ModelPaths, bundled_folder

FOLDER = bundled_folder() or Path()
SHORT = Options(max_tokens=6, kld_tokens=4)
OFF, PAPER = VisualTokenConfig.off(), VisualTokenConfig.paper()
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


@pytest.fixture(scope="module")
def suite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_demo_suite(tmp_path_factory.mktemp("suite"), n=6)


@pytest.fixture(scope="module")
def suite(suite_file: Path) -> Suite:
    return load_suite(suite_file, limit=3)


@pytest.fixture(scope="module")
def llm() -> Iterator[VisionLLM]:
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def item() -> Item:
    """A question whose answer, "red cross", is more than one token."""
    return Item("needle", (FOLDER.parent / "clips" / "needle.mp4",), "What appears in the middle?", "red cross")


@pytest.fixture(scope="module")
def run_once(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """The demo model, a copy of it, and two quantised ones, against itself."""
    root = tmp_path_factory.mktemp("compare")
    shutil.copytree(FOLDER, root / "copy")
    out = root / "out"
    report = runner.compare(suite, out, ["demo", root / "copy"], ["off"], types=["f16", "q8_0", "q4_0"], options=SHORT)
    return out, report


def cells(report: Report) -> dict[str, Any]:
    return {cell.key: cell for cell in report.cells}


def lines(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Every cell's lines, without what a clock or the memory says."""
    found = {}
    for path in sorted((out / "cells").glob("*/items.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row["stats"] = {k: v for k, v in row["stats"].items() if not k.endswith(("_ms", "_tps"))}
            row.pop("first"), row.pop("peak_rss_bytes")
        found[path.parent.name] = sorted(rows, key=lambda row: str(row["id"]))
    return found


# --- score ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [OFF, PAPER], ids=["off", "paper"])
def test_score_follows_its_own_answer(llm: VisionLLM, item: Item, tokens: VisualTokenConfig) -> None:
    plain = llm.generate(item.question, item.media, tokens, GenerateConfig(max_tokens=6))
    scored = llm.score(item.question, item.media, tokens=tokens, generate=GenerateConfig(max_tokens=6))
    assert scored.answer.tokens == scored.forced == plain.tokens
    assert len(plain.tokens) > 1
    assert scored.answer.stats.stop_reason == "eos"
    assert scored.logits.shape == (len(plain.tokens) + 1, llm.text.n_vocab)
    assert scored.logits[:-1].argmax(-1).tolist() == plain.tokens
    assert llm.text.is_eog(int(scored.logits[-1].argmax()))


@pytest.mark.parametrize("tokens", [OFF, PAPER], ids=["off", "paper"])
@pytest.mark.parametrize("given", [[], [5], [7, 9, 11, 400, 3]])
def test_score_gives_the_logits_of_prefill(
    llm: VisionLLM, item: Item, tokens: VisualTokenConfig, given: list[int]
) -> None:
    """Row by row: a plain prefill, then one decode at a time in a context that never went back."""
    scored = llm.score(item.question, item.media, given, tokens, GenerateConfig(max_tokens=6))
    expected = _decoded(llm, item, tokens, given)
    assert scored.logits.shape == (len(given) + 1, llm.text.n_vocab)
    np.testing.assert_allclose(scored.logits[0], llm.prefill(item.question, item.media, tokens).logits, atol=1e-5)
    np.testing.assert_allclose(scored.logits, expected, atol=1e-5)
    plain = llm.generate(item.question, item.media, tokens, GenerateConfig(max_tokens=6))
    assert (scored.answer.text, scored.answer.tokens) == (plain.text, plain.tokens)


def _decoded(llm: VisionLLM, item: Item, tokens: VisualTokenConfig, given: list[int]) -> Any:
    from aim_local.engine.plan import Run

    run = Run(llm, tokens, None, None)
    context = run.start(llm._render(run, item.question, item.media, False, None), n_answer=16)
    try:
        rows = [context.logits()]
        for token in given:
            context.decode_tokens([token], logits=True)
            rows.append(context.logits())
    finally:
        context.close()
    return np.stack(rows)


@pytest.mark.parametrize("tokens", [OFF, PAPER], ids=["off", "paper"])
def test_score_leaves_the_own_answer_where_they_part(llm: VisionLLM, item: Item, tokens: VisualTokenConfig) -> None:
    """The given answer begins as the own one: the logits up to the fork are those drawn from, the rest are forced."""
    own = llm.generate(item.question, item.media, tokens).tokens
    for given in ([*own[:1], 7, 8], [*own[:2], 7], [*own, 7], own):
        scored = llm.score(item.question, item.media, given, tokens, GenerateConfig(max_tokens=6))
        np.testing.assert_allclose(scored.logits, _decoded(llm, item, tokens, given), atol=1e-5)


def test_score_of_an_answer_that_is_cut(llm: VisionLLM, item: Item) -> None:
    scored = llm.score(item.question, item.media, generate=GenerateConfig(max_tokens=1))
    assert scored.answer.stats.stop_reason == "length"
    assert (len(scored.forced), len(scored.logits)) == (1, 2)
    few = llm.score(item.question, item.media, generate=GenerateConfig(max_tokens=6), n_own=0)
    assert (few.forced, len(few.logits), len(few.answer.tokens) > 0) == ([], 1, True)


def test_score_refuses(llm: VisionLLM) -> None:
    with pytest.raises(UsageError, match="answer token 9999 is not in the vocabulary; ids go from 0 to 473"):
        llm.score("What?", (), [5, 9999])
    with pytest.raises(UsageError, match="n_own is 2; it is a count from 0, for a score without answer_tokens"):
        llm.score("What?", (), [5], n_own=2)


def test_what_is_drawn_can_be_watched(llm: VisionLLM) -> None:
    """The end of the turn too, which the answer does not hold."""
    from aim_local.engine.plan import Run

    run, seen = Run(llm, None, None, None), list[int]()
    context = run.start(llm._render(run, "What is this?", (), False, None), n_answer=8)
    options = GenerateConfig(max_tokens=8)
    answer = generate(llm.text, context, options, run.stats, None, 0.0, seen.append)
    context.close()
    assert seen[: len(answer.tokens)] == answer.tokens
    assert len(seen) == len(answer.tokens) + (run.stats.stop_reason == "eos")


# --- choices --------------------------------------------------------------------------------------------------------


class _Letters:
    """A vocabulary of words for `letter_tokens`: the id of each form, more than one where it is split."""

    def __init__(self, forms: dict[str, list[int]]) -> None:
        self.text, self._forms = self, forms

    def tokenize(self, text: str, *, start: bool, special: bool) -> list[int]:
        assert not start
        assert not special
        return self._forms[text]


def test_the_likeliest_letter_counts_both_forms() -> None:
    """A: p .30; B: .20 + .25 with a space: B is likelier, though no token of it is."""
    words = _Letters({"A": [0], " A": [9, 0], "B": [1], " B": [2]})
    logits = np.log(np.array([0.30, 0.20, 0.25, 0.25], np.float32))
    task = Task(0, Item("q", (), "Which?", "B", ("one", "two")))
    assert cell_process.likeliest_letter(words, logits, task) == "B"  # type: ignore[arg-type]
    assert cell_process.letter_tokens(words, ("A", "B")) == {"A": {0}, "B": {1, 2}}  # type: ignore[arg-type]


def test_letters_that_begin_alike_are_refused() -> None:
    words = _Letters({"A": [5, 0], " A": [6, 5, 0], "B": [5, 1], " B": [6, 5, 1]})
    with pytest.raises(ModelError, match="no tokens of their own for the letters A, B"):
        cell_process.letter_tokens(words, ("A", "B"))  # type: ignore[arg-type]


def test_choices_in_a_cell(suite: Suite, tmp_path: Path) -> None:
    """What is scored is the letter with the most probability after the prompt, whatever the answer's text is."""
    items = tuple(replace(i, choices=("red", "blue", "no"), answer="B") for i in suite.items[:2])
    report = runner.compare(replace(suite, items=items), tmp_path / "out", settings=["off"], options=SHORT)
    rows = next(iter(lines(tmp_path / "out").values()))
    assert report.cells[0].status == "done"
    assert {row["scored"] for row in rows} <= {"A", "B", "C"}
    assert [row["right"] for row in rows] == [row["scored"] == "B" for row in rows]
    expected = report.cells[0].accuracy
    assert expected is not None
    assert expected.k == sum(row["right"] for row in rows)


# --- a run ----------------------------------------------------------------------------------------------------------


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


# --- what fails -----------------------------------------------------------------------------------------------------


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
    with open(tmp_path / "log", "wb") as log:
        status = subprocess.run([sys.executable, "-S", "-c", code], stderr=log, check=False).returncode
    assert reason in process.death(status, tmp_path / "log")


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


def test_a_setting_that_the_model_cannot_do_is_a_row(suite: Suite, tmp_path: Path) -> None:
    report = runner.compare(suite, tmp_path / "out", settings=["off", "paper:prune=3-99"], options=SHORT)
    assert [c.status for c in report.cells] == ["done", "failed"]
    assert "12 layers" in report.cells[1].reason


# --- interrupted ----------------------------------------------------------------------------------------------------


COMPARE = [sys.executable, "-P", "-c", "from aim_local.cli import main; main()", "compare"]


def test_killed_and_resumed_gives_the_same(suite_file: Path, tmp_path: Path) -> None:
    """kill -9 once in the reference cell and once in a later one, each with a line cut in two."""
    whole, out = tmp_path / "whole", tmp_path / "killed"
    command = [*COMPARE, "--suite", str(suite_file), "--tokens", "off,paper,random", "--max-tokens", "6", "--quiet"]
    subprocess.run([*command, "--out", str(whole)], check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    for key, n in (("demo / off", 2), ("demo / paper", 3)):
        items = out / "cells" / safe_name(key) / "items.jsonl"
        _kill_when([*command, "--out", str(out)], items, n)
        with open(items, "ab") as file:
            file.write(b'{"id": "cut in t')
    assert len(lines_of(items)) < 7
    result = subprocess.run([*command, "--json", "--out", str(out)], capture_output=True, env=ENVIRONMENT, check=True)
    assert lines(out) == lines(whole)
    assert [cell["status"] for cell in json.loads(result.stdout)["cells"]] == ["done"] * 3
    assert comparable(out) == comparable(whole)


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def comparable(out: Path) -> list[dict[str, Any]]:
    """A report's cells without times and memory."""
    timed = ("ttft_ms", "stages", "prefill_tps", "decode_tps", "peak_rss_bytes")
    found = json.loads((out / "report.json").read_text())["cells"]
    return [{k: v for k, v in cell.items() if k not in timed} for cell in found]


def _kill_when(command: list[str], items: Path, n: int) -> None:
    """Starts, and kills the process once `items` has n lines."""
    child = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (items.exists() and items.read_bytes().count(b"\n") >= n):
        assert child.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()


def test_a_changed_setting_runs_that_cell_only(suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, int]] = []
    real = runner.run_process

    def noted(job: Job, *rest: Any) -> str:
        started.append((job.setting, len(job.tasks)))
        return real(job, *rest)

    monkeypatch.setattr(runner, "run_process", noted)
    few = replace(suite, items=suite.items[:2])
    runner.compare(few, tmp_path / "out", settings=["off", "random"], options=SHORT)
    runner.compare(few, tmp_path / "out", settings=["off", "random", "random:seed=1"], options=SHORT)
    assert started == [("off", 2), ("random", 2), ("random:seed=1", 2)]
    # the name means something else now
    monkeypatch.setitem(sys.modules["aim_local.settings"].PRESETS, "random", VisualTokenConfig(merge_retain=0.5))
    notes = Notes()
    runner.compare(few, tmp_path / "out", settings=["off", "random"], options=SHORT, watch=notes)
    assert started[3:] == [("random", 2)]
    assert notes.lines[0].startswith("demo / random: setting changed since its last run; its results are set aside in")
    folder = tmp_path / "out" / "cells" / safe_name("demo / random")
    assert len(lines_of(folder / "items.previous.jsonl")) == len(lines_of(folder / "items.jsonl")) == 2


class Notes(runner.Watch):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def test_missing_reference_logits_are_made_again(suite: Suite, tmp_path: Path) -> None:
    few, out = replace(suite, items=suite.items[:2]), tmp_path / "out"
    runner.compare(few, out, settings=["off"], options=SHORT)
    (out / "reference" / "logits" / "1.npy").unlink()
    report = runner.compare(few, out, settings=["off", "paper"], options=SHORT)
    assert [c.status for c in report.cells] == ["done", "done"]
    assert report.cells[1].divergence is not None


def test_two_processes_do_not_share_a_folder(suite: Suite, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Workspace(out).locked(), pytest.raises(AimError) as caught:
        runner.compare(suite, out, settings=["off"], options=SHORT)
    assert str(caught.value) == (
        f"{out}: another comparison is running there (process {os.getpid()}); "
        "wait for it, or name another folder with --out"
    )


def test_ctrl_c(suite_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [*COMPARE, "--suite", str(suite_file), "--tokens", "off", "--max-tokens", "6", "--out", str(out)]
    child = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    items = out / "cells" / safe_name("demo / off") / "items.jsonl"
    while not (items.exists() and items.stat().st_size):
        assert child.poll() is None
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate()
    assert child.returncode == 130
    assert said.splitlines()[-2:] == [
        f"what is answered is kept in {out}; the same command goes on from there",
        "interrupted",
    ]
    (cell,) = json.loads((out / "report.json").read_text())["cells"]
    assert cell["status"] == "partial"
    assert 1 <= cell["n_done"] < 6


# --- files ----------------------------------------------------------------------------------------------------------


def _row(name: str, **fields: Any) -> ItemResult:
    stats = {"ttft_ms": 1.0, "n_visual": 4, "n_visual_full": 8, "flops_share": 0.5, "kv_bytes": 100}
    times = dict.fromkeys(("decode_video", "preprocess", "vision", "merge", "prefill", "importance", "decode"), 0.0)
    stats |= {f"{k}_ms": v for k, v in times.items()} | {"prefill_tps": 0.0, "decode_tps": 0.0}
    return replace(ItemResult(name, name, [1], name, None, None, None, stats), **fields)


def test_a_line_that_was_cut_is_dropped(tmp_path: Path) -> None:
    folder = CellFolder(tmp_path / "cell")
    assert folder.adopt({"a": 1}) == []
    folder.keep([_row("one"), _row("two")])
    with open(folder.items, "ab") as file:
        file.write(b'{"id": "thr')
    assert [row.id for row in folder.rows()] == ["one", "two"]
    assert folder.items.read_bytes().endswith(b"}\n")
    assert folder.adopt({"a": 1}) == []
    assert folder.adopt({"a": 2, "b": 1}) == ["a", "b"]
    assert folder.rows() == []


def test_hashes_are_remembered_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"one")
    digest = hashlib.sha256(b"one").hexdigest()
    assert Workspace(tmp_path / "out").sha256(path) == digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("hashed again"))
    assert Workspace(tmp_path / "out").sha256(path) == digest
    monkeypatch.undo()
    path.write_bytes(b"other")
    assert Workspace(tmp_path / "out").sha256(path) == hashlib.sha256(b"other").hexdigest()


def test_names_of_cells_and_parts() -> None:
    names = {safe_name(key) for key in ("a / budget=0.1", "a / budget=0,1", "a/b / off", "a b / off", "../x / off")}
    assert len(names) == 5
    assert not any("/" in name or name.startswith(".") for name in names)
    split = Path("m-00001-of-00003.gguf")
    assert [p.name for p in parts(split)] == [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert parts(Path("m.gguf")) == [Path("m.gguf")]


# --- the matrix -----------------------------------------------------------------------------------------------------


def test_labels_are_short_and_unique(tmp_path: Path) -> None:
    found = [ModelPaths(n, Path(p), None) for n, p in (("ov", "/a/ov/model.gguf"), ("ov", "/b/ov/model.gguf"))]
    found.append(ModelPaths("small", Path("/a/small.gguf"), None))
    assert unique_labels(found) == ["a/ov", "b/ov", "small"]
    with pytest.raises(UsageError, match="model ov is given twice"):
        unique_labels([found[0], found[0]])
    labels = [v.label for v in plan_variants(["demo"], ["f16", "q8_0"], ["f16", "q4_0"])]
    assert labels == [f"demo {t} vision-{v}" for t in ("f16", "q8_0") for v in ("f16", "q4_0")]
    assert [v.label for v in plan_variants([], [], [])] == ["demo"]


def test_the_reference_is_the_first_model_unreduced() -> None:
    variants = [Variant("a", Path("a"), None), Variant("b", Path("b"), None)]
    assert matrix.find_reference(variants, ["paper", "off"], None) == "a / off"
    assert matrix.find_reference(variants, ["paper", "fast"], None) == "a / paper"
    assert matrix.find_reference(variants, ["paper", "off"], "b / paper") == "b / paper"
    with pytest.raises(UsageError, match="the reference 'c / off' is no cell of this comparison; cells are a / paper"):
        matrix.find_reference(variants, ["paper", "off"], "c / off")


def test_the_same_cell_twice_is_refused() -> None:
    variants = [Variant("a", Path("a"), None)]
    with pytest.raises(UsageError, match="cells a / off and a / off are the same; drop one"):
        matrix.check_matrix(variants, ["off", "off"])
    with pytest.raises(UsageError, match="cells a / off and a / merge-only:keep=1 are the same"):
        matrix.check_matrix(variants, ["off", "merge-only:keep=1"])


def test_summary_by_hand() -> None:
    """Three questions: the reference has the first two right, the cell the first and the third."""
    items = [Item(str(i), (), "?", "x", tags=("odd",) if i % 2 else ()) for i in range(3)]
    reference = CellRun(CellSpec("a", "off", Path("a"), None), status="done")
    cell = CellRun(CellSpec("a", "paper", Path("a"), None), status="done")
    there = [_row(str(i), right=i < 2, text="yes") for i in range(3)]
    times, late = {**there[0].stats, "ttft_ms": 900.0}, {**there[2].stats, "ttft_ms": 3.0, "kv_bytes": 400}
    here = [
        replace(there[0], right=True, stats=times, first=True, kld=[0.0, 0.5], top1=[True, False]),
        replace(there[1], right=False, text="no", kld=[0.25], top1=[True]),
        replace(there[2], right=True, stats=late, kld=[1.0], top1=[True]),
    ]
    found = summarise(replace(cell, rows=here), items, replace(reference, rows=there), True)
    assert found.accuracy is not None
    assert (found.accuracy.k, found.accuracy.n) == (2, 3)
    assert {tag: (rate.k, rate.n) for tag, rate in found.by_tag.items()} == {"odd": (0, 1)}
    assert found.paired is not None
    assert (found.paired.only_reference, found.paired.only_here) == (1, 1)
    assert found.agreement is not None
    assert (found.agreement.k, found.agreement.n) == (2, 3)
    assert found.divergence is not None
    assert (found.divergence.mean, found.divergence.median, found.divergence.n) == (0.4375, 0.375, 4)
    assert found.divergence.top1.k == 3
    assert found.ttft_ms is not None
    assert (found.ttft_ms.median, found.ttft_ms.n) == (2.0, 2)  # 1 and 3; the warm-up's 900 is out
    assert (found.kv_bytes, found.n_visual, found.flops_share) == (200, 4, 0.5)
    # a reference that failed half-way is none
    broken = replace(reference, rows=there[:1], status="failed")
    alone = summarise(replace(cell, rows=[replace(row, kld=None, top1=None) for row in here]), items, broken, True)
    assert (alone.paired, alone.agreement, alone.divergence) == (None, None, None)
    assert alone.notes == ("the reference failed: nothing is paired",)


# --- a quantised vision tower ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "f32", "bf16"])
def test_quantised_vision_tower(kind: str, tmp_path: Path) -> None:
    """Matrices are the gguf package's own quantisation of the source's values; everything else is as it was."""
    source = FOLDER / "mmproj.gguf"
    result = quantize_vision(source, tmp_path / "v.gguf", kind)
    before, after = gguf.GGUFReader(source), gguf.GGUFReader(result.path)
    wanted = gguf.GGMLQuantizationType[kind.upper()]
    assert [t.name for t in after.tensors] == [t.name for t in before.tensors]
    for a, b in zip(before.tensors, after.tensors, strict=True):
        values = gguf.quants.dequantize(a.data, a.tensor_type)
        matrix = a.name.startswith(("v.blk", "mm.")) and len(a.shape) == 2
        assert b.tensor_type == (wanted if matrix else b.tensor_type)
        expected = gguf.quants.dequantize(gguf.quants.quantize(values, b.tensor_type), b.tensor_type)
        np.testing.assert_array_equal(gguf.quants.dequantize(b.data, b.tensor_type), expected)
    kept = {n: f.contents() for n, f in before.fields.items() if not n.startswith("GGUF.") and n != "general.file_type"}
    assert {n: f.contents() for n, f in after.fields.items() if n in kept} == kept
    assert result.n_bytes == result.path.stat().st_size
    assert [p.name for p in tmp_path.iterdir()] == ["v.gguf"]


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0", "q4_0"])
def test_quantised_vision_tower_is_what_convert_writes(kind: str, tmp_path: Path) -> None:
    """Byte for byte, from the f32 file of the same checkpoint."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from checkpoints import write_onevision

    from aim_local.convert import ConvertConfig, convert

    source = write_onevision(tmp_path / "checkpoint")
    whole = convert(source, tmp_path / "f32", ConvertConfig("f32", "f32", name="tiny")).folder / "mmproj.gguf"
    direct = convert(source, tmp_path / "direct", ConvertConfig("f32", kind, name="tiny")).folder / "mmproj.gguf"
    assert quantize_vision(whole, tmp_path / "v.gguf", kind).path.read_bytes() == direct.read_bytes()


def test_quantised_vision_tower_answers(suite: Suite, tmp_path: Path) -> None:
    report = runner.compare(suite, tmp_path / "out", settings=["off"], vision_types=["f16", "q8_0"], options=SHORT)
    first, second = report.cells
    assert (first.status, second.status) == ("done", "done")
    assert 0 < second.mmproj_bytes < first.mmproj_bytes
    assert second.divergence is not None
    assert 0 < second.divergence.mean < 0.01


def test_vision_quantiser_refuses_in_one_line(tmp_path: Path) -> None:
    source = FOLDER / "mmproj.gguf"
    small = quantize_vision(source, tmp_path / "small.gguf", "q8_0").path
    for given, kind, line in (
        (FOLDER / "model.gguf", "q8_0", "is no mmproj"),
        (source, "q4_k_m", "'q4_k_m' is not a type"),
        (small, "q4_0", r"is quantised already \(Q8_0\)"),
        (tmp_path / "none.gguf", "q8_0", "does not exist"),
    ):
        with pytest.raises(ConvertError, match=line) as caught:
            quantize_vision(given, tmp_path / "o.gguf", kind)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConvertError, match="is the source itself"):
        quantize_vision(small, small, "q8_0")
    assert [p.name for p in tmp_path.iterdir()] == ["small.gguf"]


def test_quantize_takes_a_vision_type(tmp_path: Path) -> None:
    """A folder with both types, and an mmproj alone: the same bytes."""
    from typer.testing import CliRunner

    from aim_local.cli._app import app

    shutil.copytree(FOLDER, tmp_path / "model")
    both = ["quantize", str(tmp_path / "model"), str(tmp_path / "both"), "--type", "q4_0", "--vision-type", "q8_0"]
    alone = ["quantize", str(FOLDER / "mmproj.gguf"), str(tmp_path / "alone.gguf"), "--vision-type", "q8_0"]
    for arguments in (both, alone):
        result = CliRunner().invoke(app, [*arguments, "--json"])
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["n_bytes"] > 0
    made, facts = tmp_path / "both" / "mmproj.gguf", json.loads((tmp_path / "both" / "aim.json").read_text())["files"]
    assert made.read_bytes() == (tmp_path / "alone.gguf").read_bytes()
    assert (facts["model"]["type"], facts["mmproj"]["type"]) == ("q4_0", "q8_0")
    assert facts["mmproj"]["sha256"] == hashlib.sha256(made.read_bytes()).hexdigest()
    wrong = ["quantize", str(FOLDER / "model.gguf"), str(tmp_path / "x"), "--type", "q8_0", "--vision-type", "q8_0"]
    result = CliRunner().invoke(app, wrong)
    assert result.exit_code == 1
    assert "the vision type is for a model folder or an mmproj" in result.stderr


# --- the command ----------------------------------------------------------------------------------------------------


def test_bad_input_is_one_line(suite_file: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from aim_local.cli._app import app

    (tmp_path / "file").write_text("")
    other = other_words(tmp_path)
    given = ["--suite", str(suite_file)]
    cases: list[tuple[list[str], int, str]] = [
        ([], 2, "give either --suite FILE or --demo"),
        ([*given, "--demo"], 2, "give either --suite FILE or --demo"),
        (["--suite", str(tmp_path / "none.jsonl")], 1, "none.jsonl: no such file"),
        (["--suite", str(tmp_path / "file")], 1, "file"),
        ([*given, "--tokens", "off,papre"], 2, "setting 'papre' is unknown"),
        ([*given, "--tokens", "off,,paper"], 2, "--tokens 'off,,paper' has an empty entry"),
        ([*given, "--tokens", "off,off"], 2, "cells demo / off and demo / off are the same"),
        ([*given, "--types", "q9"], 2, "--types 'q9' is unknown; allowed are q2_k"),
        ([*given, "--vision-types", "q4_k_m"], 2, "--vision-types 'q4_k_m' is unknown; allowed are f32"),
        ([*given, "--reference", "demo/off"], 2, "the reference 'demo/off' is no cell"),
        ([*given, "nosuchmodel"], 1, "no model called 'nosuchmodel'"),
        ([*given, "demo", "demo"], 2, "model demo is given twice"),
        ([*given, "--out", str(tmp_path / "file" / "out")], 1, "cannot be written (Not a directory)"),
        ([*given, "--kld-tokens", "0"], 2, "--kld-tokens is 0; give 1 or more, or --no-kld"),
        ([*given, "--memory-limit", "much"], 2, "'much' is no size"),
        ([*given, "demo", str(other)], 2, "cells demo / off and other / off have different vocabularies"),
    ]
    for arguments, code, line in cases:
        out = [] if "--out" in arguments else ["--out", str(tmp_path / "out")]
        result = CliRunner().invoke(app, ["compare", *arguments, *out])
        assert result.exit_code == code, (arguments, result.stderr)
        assert line in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def other_words(root: Path) -> Path:
    """The demo model with one token of another name."""
    shutil.copytree(FOLDER, root / "other")
    path = root / "other" / "model.gguf"
    data = path.read_bytes()
    start = data.index(b"tokenizer.ggml.tokens")
    at = data.index(b"\x05\x00\x00\x00\x00\x00\x00\x00green", start) + 8
    path.write_bytes(data[:at] + b"gruen" + data[at + 5 :])
    return root / "other"


def test_different_vocabularies_without_kld(suite_file: Path, tmp_path: Path) -> None:
    """The third model has no vision tower: its row says so, the others are there, and the exit code is 1."""
    from typer.testing import CliRunner

    from aim_local.cli._app import app

    other, blind = other_words(tmp_path), tmp_path / "blind" / "small.gguf"
    blind.parent.mkdir()
    shutil.copyfile(FOLDER / "model.gguf", blind)
    arguments = [
        "demo",
        str(other),
        str(blind),
        "--suite",
        str(suite_file),
        "--limit",
        "2",
        "--tokens",
        "off",
        "--no-kld",
    ]
    result = CliRunner().invoke(app, ["compare", *arguments, "--json", "--quiet", "--out", str(tmp_path / "out")])
    found = {cell["model"]: cell for cell in json.loads(result.stdout)["cells"]}
    assert result.exit_code == 1
    assert [found[name]["status"] for name in ("demo", "other", "small")] == ["done", "done", "failed"]
    assert (found["other"]["divergence"], found["other"]["agreement"]["n"]) == (None, 2)
    assert "text-only model" in found["small"]["reason"]
    assert "1 of 3 cells failed (small / off: item" in result.stderr
    assert not list((tmp_path / "out" / "reference" / "logits").iterdir())


def test_vocabulary_digest(tmp_path: Path) -> None:
    demo, other = FOLDER / "model.gguf", other_words(tmp_path) / "model.gguf"
    assert array_sha256(demo, matrix.TOKENS) != array_sha256(other, matrix.TOKENS)
    tokens = gguf.GGUFReader(demo).fields[matrix.TOKENS]
    value = b"".join(part.tobytes() for part in tokens.parts[3:])  # before it: the name's length, the name, the type
    assert array_sha256(demo, matrix.TOKENS) == hashlib.sha256(value).hexdigest()
    assert array_sha256(FOLDER / "model.gguf", "no.such.key") == ""


@pytest.mark.parametrize(("text", "n"), [("800M", 800 * 2**20), ("2G", 2**31), ("1.5GiB", 3 * 2**29), ("4096", 4096)])
def test_sizes(text: str, n: int) -> None:
    from aim_local.cli.compare import parse_size

    assert parse_size(text) == n
