"""`run` and `compare` on a Dask cluster of two workers on this machine: the same as alone, whoever is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_case import run as run_command
from compare_case import SHORT, lines
from run_case import CLIPS, At, asked, demo_rows, rows_of, user_folder, write_questions

pytest.importorskip("distributed")

import psutil
from dask_case import LocalDask

from aim_local import store
from aim_local.batch import remote
from aim_local.batch.answers import stats_path
from aim_local.batch.cluster import Cluster, ClusterError, ClusterWorkers
from aim_local.batch.job import Job, Settings, job_of
from aim_local.batch.run import Summary, Watch, model_digest, run
from aim_local.lab.compare import runner
from aim_local.lab.compare.demo_suite import draw_demo_suite
from aim_local.lab.compare.remote import machine_here
from aim_local.lab.compare.suite import load_suite

N = 12


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalDask]:
    with LocalDask(tmp_path_factory.mktemp("dask"), 2) as started:
        yield started


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_questions(tmp_path_factory.mktemp("run") / "questions.jsonl", demo_rows(N))


@pytest.fixture(scope="module")
def alone(questions: Path) -> bytes:
    out = questions.with_name("alone.jsonl")
    with user_folder(questions.parent):
        finished = run_command("run", questions, "--out", out, "--quiet")
    assert finished.exit_code == 0, finished.stderr
    return out.read_bytes()


def run_there(dask: LocalDask, questions: Path, out: Path, watch: Watch) -> Summary:
    paths = store.resolve()
    with Cluster(dask.address) as cluster:
        workers = ClusterWorkers(cluster, job_of(paths, Settings()), model_digest(paths))
        return run(cluster.check_clips(asked(questions)), out, paths, Settings(), workers, watch=watch)


def n_done(out: Path) -> int:
    return stats_path(out).read_bytes().count(b"\n") - 1


# in this order: the last tests take the cluster apart


@pytest.mark.thorough
def test_compare_is_as_alone(dask: LocalDask, tmp_path: Path) -> None:
    """All lines but times, with the worker of the first cell killed in its middle; rows and report name the machine."""
    suite = load_suite(draw_demo_suite(tmp_path / "suite", n=3))
    there, here, killed = tmp_path / "there", tmp_path / "here", list[int]()

    class Killing(runner.Watch):
        def item(self, key: str) -> None:
            if not killed:
                killed.extend(i for i in range(2) if dask.processes_of(i))
                dask.workers[killed[0]].kill()

    with Cluster(dask.address) as cluster:
        report = runner.compare(suite, there, options=SHORT, watch=Killing(), cluster=cluster)
    assert [cell.status for cell in report.cells] == ["done", "done"]
    assert len(killed) == 1, "one cell, on one worker"
    runner.compare(suite, here, options=SHORT)
    found, expected = lines(there), lines(here)
    assert {row.pop("machine") for rows in found.values() for row in rows} == {machine_here()}
    assert {row.pop("machine") for rows in expected.values() for row in rows} == {""}
    assert found == expected
    said = "All times were measured on"
    assert [said in (folder / "report.md").read_text() for folder in (there, here)] == [True, False]
    dask.replace_worker(killed[0])


def test_clips_and_versions_are_checked(dask: LocalDask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"video": "no.mp4", "question": "What?"}, {"video": str(CLIPS / "time.mp4"), "question": "What?"}]
    path = write_questions(tmp_path / "q.jsonl", rows)
    result = run_command("run", path, "--out", tmp_path / "a.jsonl", "--cluster", dask.address)
    first, second = result.stderr.splitlines()
    assert result.exit_code == 1
    assert first.startswith("line 1: on worker tcp://127.0.0.1:")
    assert "): video no.mp4: no such file; check the name and the folder; a clip needs the same path" in first
    assert "1 of 2 lines cannot be asked" in second
    real = remote.versions()
    monkeypatch.setattr(remote, "versions", lambda: {**real, "aim-local": "9.9"})
    with pytest.raises(ClusterError, match=r"has aim-local \S+, here it is 9\.9; install the same version"):
        Cluster(dask.address)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("tcp://127.0.0.1:1", "no Dask scheduler answers there (Connection refused); start one with `dask scheduler`"),
        ("10.0.0.5", "'10.0.0.5' is no address of a scheduler; give one such as tcp://10.0.0.5:8786"),
        ("tcp://host:port", "'tcp://host:port' is no address of a scheduler"),
    ],
)
def test_addresses(address: str, said: str) -> None:
    with pytest.raises(ClusterError) as error:
        Cluster(address)
    assert said in str(error.value)


def test_a_worker_without_the_model(dask: LocalDask) -> None:
    """Other bytes under the name of the model that is asked: its digest tells."""
    job = Job("demo", "/nowhere/model.gguf", None, Settings()).to_dict()
    order = {"user": "test", "versions": remote.versions(), "index": 0, "question": {}, "job": job, "digests": ["00"]}
    with Cluster(dask.address) as cluster:
        found = cluster.client.submit(remote.answer_there, {**order, "shares": {}}).result(timeout=60)
        older = {**order, "versions": {"aim-local": "0.0.1"}}
        refused = cluster.client.submit(remote.answer_there, older).result(timeout=60)
    assert "demo: " in found["fatal"]
    assert "model.gguf has other bytes; every worker needs the model's files" in found["fatal"]
    assert "here and 0.0.1 where the run was started" in refused["fatal"]


@pytest.mark.thorough
def test_a_worker_is_killed(dask: LocalDask, questions: Path, alone: bytes, tmp_path: Path) -> None:
    """SIGKILL of one of two in the middle: the other does its questions; no process outlives its worker or the run."""
    out, ours = tmp_path / "answers.jsonl", list[psutil.Process]()

    def kill() -> None:
        ours.extend([*dask.processes_of(0), *dask.processes_of(1)])
        dask.workers[0].kill()

    summary = run_there(dask, questions, out, At(4, kill))
    assert (summary.n_answered, summary.n_errors) == (N, 0)
    assert out.read_bytes() == alone
    assert len(ours) == 4, "a model a worker, each with its process for the chat template"
    assert not psutil.wait_procs(ours, timeout=20)[1]
    assert {row["facts"]["worker"][:16] for row in rows_of(stats_path(out))[1:]} == {"tcp://127.0.0.1:"}


@pytest.mark.thorough
def test_interrupted_left_alone_and_taken_up(dask: LocalDask, questions: Path, alone: bytes, tmp_path: Path) -> None:
    """Ctrl-C; taken up, and the scheduler goes away; finished on this machine: the same bytes."""
    out = tmp_path / "answers.jsonl"

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_there(dask, questions, out, At(2, interrupt))
    n = n_done(out)
    assert 2 <= n < N
    assert alone.startswith(out.read_bytes())
    assert not psutil.wait_procs(dask.processes_of(1), timeout=20)[1], "it went on"

    with pytest.raises(ClusterError) as error:
        run_there(dask, questions, out, At(2, dask.scheduler.kill))
    assert str(error.value).startswith(f"{dask.address}: the scheduler is gone, or cannot be reached any more; what is")
    assert n + 2 <= n_done(out) < N
    assert alone.startswith(out.read_bytes())

    finished = run_command("run", questions, "--out", out, "--quiet")
    assert finished.exit_code == 0, finished.stderr
    assert out.read_bytes() == alone
