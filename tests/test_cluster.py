"""`run` and `compare` on a Dask cluster of two workers on this machine: the same as alone, whoever is killed."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_case import run
from compare_case import lines
from run_case import CLIPS, COMMAND, demo_rows, environment, rows_of, write_questions

pytest.importorskip("distributed")

import psutil
from dask_case import LocalDask

from aim_local.batch import remote
from aim_local.batch.answers import stats_path
from aim_local.batch.cluster import Cluster, ClusterError
from aim_local.batch.job import Job, Settings
from aim_local.lab.compare.demo_suite import draw_demo_suite

N = 10


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalDask]:
    with LocalDask(tmp_path_factory.mktemp("dask"), 2) as started:
        yield started


def start(folder: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.Popen(command, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def done(folder: Path, *arguments: str | Path) -> tuple[int, list[str]]:
    child = start(folder, *arguments)
    _, said = child.communicate(timeout=120)
    return child.returncode, said.splitlines()


def n_done(out: Path) -> int:
    return max(0, stats_path(out).read_bytes().count(b"\n") - 1) if stats_path(out).exists() else 0


def wait_for(child: subprocess.Popen[str], out: Path, n: int) -> None:
    deadline = time.monotonic() + 120
    while n_done(out) < n:
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_questions(tmp_path_factory.mktemp("run") / "questions.jsonl", demo_rows(N))


@pytest.fixture(scope="module")
def alone(questions: Path) -> bytes:
    out = questions.with_name("alone.jsonl")
    assert done(questions.parent, "run", questions, "--out", out, "--quiet") == (0, [])
    return out.read_bytes()


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_demo_suite(tmp_path_factory.mktemp("suite"), n=2)


# in this order: the last tests take the cluster apart


def test_compare_is_as_alone(dask: LocalDask, suite: Path, tmp_path: Path) -> None:
    """All lines but times; each row names its machine, and so does what is said under the table."""
    options = ["compare", "--suite", suite, "--tokens", "off,paper", "--max-tokens", "6", "--out"]
    code, said = done(tmp_path, *options, tmp_path / "there", "--cluster", dask.address)
    assert code == 0, said
    assert done(tmp_path, *options, tmp_path / "here", "--quiet")[0] == 0
    there, here = lines(tmp_path / "there"), lines(tmp_path / "here")
    machines = {row.pop("machine") for rows in there.values() for row in rows}
    assert machines == {remote_machine()}
    assert {row.pop("machine") for rows in here.values() for row in rows} == {""}
    assert there == here
    text = (tmp_path / "there" / "report.md").read_text()
    assert "All times were measured on" in text
    assert "All times were measured on" not in (tmp_path / "here" / "report.md").read_text()


def remote_machine() -> str:
    from aim_local.lab.compare.remote import machine_here

    return machine_here()


def test_clips_and_versions_are_checked(dask: LocalDask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"video": "no.mp4", "question": "What?"}, {"video": str(CLIPS / "time.mp4"), "question": "What?"}]
    path = write_questions(tmp_path / "q.jsonl", rows)
    result = run("run", path, "--out", tmp_path / "a.jsonl", "--cluster", dask.address)
    first, second = result.stderr.splitlines()
    assert result.exit_code == 1
    assert first.startswith("line 1: on worker tcp://127.0.0.1:")
    assert first.endswith(
        ": video no.mp4: no such file; check the name and the folder; a clip needs the same path everywhere"
    )
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
    order = {
        "user": "test",
        "versions": remote.versions(),
        "index": 0,
        "question": {},
        "job": job,
        "digests": ["00"],
        "shares": {},
    }
    with Cluster(dask.address) as cluster:
        found = cluster.client.submit(remote.answer_there, order).result(timeout=60)
    assert "demo: " in found["fatal"]
    assert "model.gguf has other bytes; every worker needs the model's files" in found["fatal"]


def test_run_with_a_worker_killed(dask: LocalDask, questions: Path, alone: bytes, tmp_path: Path) -> None:
    """SIGKILL of one of two workers in the middle: its questions are done by the other, its process is gone."""
    out = tmp_path / "answers.jsonl"
    child = start(tmp_path, "run", questions, "--out", out, "--cluster", dask.address)
    wait_for(child, out, 2)
    ours = [*dask.processes_of(0), *dask.processes_of(1)]
    assert 1 <= len(ours) <= 2, "one model a worker"
    theirs = dask.processes_of(0)
    dask.workers[0].kill()
    _, said = child.communicate(timeout=120)
    assert child.returncode == 0, said
    assert out.read_bytes() == alone
    assert not psutil.wait_procs(theirs, timeout=20)[1], "a process outlived its worker"
    assert not psutil.wait_procs(ours, timeout=20)[1], "a process outlived its run"
    rows = rows_of(stats_path(out))[1:]
    assert {row["facts"]["worker"][:16] for row in rows} == {"tcp://127.0.0.1:"}


def test_interrupted_left_alone_and_taken_up(dask: LocalDask, questions: Path, alone: bytes, tmp_path: Path) -> None:
    """Ctrl-C; taken up, and the scheduler goes away; finished on this machine: the same bytes."""
    out, on_cluster = tmp_path / "answers.jsonl", ("--cluster", dask.address)
    child = start(tmp_path, "run", questions, "--out", out, *on_cluster, "--quiet")
    wait_for(child, out, 2)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert (child.returncode, said.splitlines()[-1]) == (130, "interrupted")
    assert alone.startswith(out.read_bytes())
    assert not psutil.wait_procs(dask.processes_of(1), timeout=20)[1], "it went on"

    n = n_done(out)
    child = start(tmp_path, "run", questions, "--out", out, *on_cluster, "--quiet")
    wait_for(child, out, n + 1)
    dask.scheduler.kill()
    _, said = child.communicate(timeout=60)
    gone = f"error: {dask.address}: the scheduler is gone, or cannot be reached any more; start it again"
    assert (child.returncode, said.splitlines()) == (1, [gone])
    assert n < n_done(out) < N
    assert alone.startswith(out.read_bytes())

    assert done(tmp_path, "run", questions, "--out", out, "--quiet") == (0, [])
    assert out.read_bytes() == alone
