"""Worker processes of `run`: a question whose worker dies is done again, and no process outlives its owner."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_case import FAKE_WORKER, environment, fake_job, questions

from aim_local.batch import process
from aim_local.batch.job import Job, Outcome, Settings, question_dict, question_from
from aim_local.batch.local import LocalWorkers
from aim_local.batch.process import StoppedError, Worker
from aim_local.batch.questions import Clip, Question
from aim_local.config import GenerateConfig, LoadConfig, VisualTokenConfig
from aim_local.errors import NativeError, UsageError
from aim_local.store.encoded import clips_folder


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", ("-c", FAKE_WORKER))


# a worker that stores a clip, and is not done with it
STORING = """
import sys, time
from aim_local.store.encoded import clips_folder
from aim_local.store.files import Part
sys.stdin.readline()
print('{"ready": true, "notes": []}', flush=True)
sys.stdin.readline()
clips_folder().mkdir(parents=True, exist_ok=True)
with Part(clips_folder() / "clip.rows") as part:
    part.at.write_bytes(b"half")
    time.sleep(60)
"""


def answered(job: Job, n: int, *texts: str) -> list[Outcome]:
    with LocalWorkers(job, n) as workers:
        found = [outcome for outcome in workers.answers(questions(*texts)) if outcome]
        assert workers.notes == ["loaded"]
    return sorted(found, key=lambda outcome: outcome.index)


def test_what_a_worker_was_storing_goes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", ("-c", STORING))
    folder = clips_folder()
    with LocalWorkers(fake_job(), 2) as workers:
        for _ in workers.answers(questions("a", "b")):
            if folder.is_dir() and sum(path.stat().st_size == 4 for path in folder.iterdir()) == 2:
                break
    assert list(folder.iterdir()) == []


def test_every_question_once() -> None:
    texts = [f"what {i}" for i in range(20)]
    found = answered(fake_job(), 3, *texts)
    assert [outcome.line for outcome in found] == [{"id": str(i + 1), "text": text} for i, text in enumerate(texts)]
    assert {outcome.facts["tries"] for outcome in found} == {1}


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    found = answered(fake_job(), 2, "one", f"die once {tmp_path / 'mark'}", "two", "die", "three")
    assert [outcome.line.get("text") for outcome in found] == [
        "one",
        f"die once {tmp_path / 'mark'}",
        "two",
        None,
        "three",
    ]
    assert found[1].facts["tries"] == 2
    assert found[3].line == {
        "id": "4",
        "error": "the process that answered ended 2 times: killed by SIGKILL, as the system does when memory runs out",
    }


def test_a_model_that_kills_its_worker_ends_the_run() -> None:
    with LocalWorkers(fake_job("unloadable"), 2) as workers, pytest.raises(NativeError) as error:
        list(workers.answers(questions("one", "two")))
    assert str(error.value) == (
        "unloadable: killed by SIGKILL, as the system does when memory runs out, while the model was loaded; "
        "fewer workers need less memory"
    )


def test_leaving_ends_the_processes() -> None:
    with LocalWorkers(fake_job(), 2) as workers:
        found = workers.answers(questions(*["what"] * 50))
        assert next(one for one in found if one)
        children = [worker._child._process for worker in workers._workers if worker._child]
    assert children
    assert all(child.poll() is not None for child in children)


def test_stopped_from_another_thread() -> None:
    worker = Worker(fake_job(), "worker")
    assert worker.answer(*questions("one")[0]).line["text"] == "one"
    worker.stop()
    with pytest.raises(StoppedError):
        worker.answer(*questions("two")[0])
    worker.close()


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    """SIGKILL of the parent while its workers wait; each ends by itself."""
    code = """
import os, sys
from aim_local.batch import process
from run_case import FAKE_WORKER, fake_job, questions
from aim_local.batch.local import LocalWorkers

process.COMMAND = ("-c", FAKE_WORKER)
workers = LocalWorkers(fake_job(), 2)
found = workers.answers(questions(*["what"] * 1000))
assert next(one for one in found if one)
print(*(worker._child._process.pid for worker in workers._workers if worker._child), flush=True)
os.kill(os.getpid(), 9)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(tmp_path))
    assert done.returncode == -signal.SIGKILL, done.stderr
    for pid in done.stdout.split():
        gone(int(pid))


def gone(pid: int) -> None:
    status = Path(f"/proc/{pid}/status")
    if not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    deadline = time.monotonic() + 20
    while status.exists() and "(zombie)" not in status.read_text():
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.02)


# --- what a worker is told --------------------------------------------------------------------------------------------


def test_settings_and_questions_as_json() -> None:
    settings = Settings(
        tokens=VisualTokenConfig(merge_retain=0.5, prune_layers=(3, 9), retention=None),
        weigh_if_possible=True,
        frames=4,
        fps=0.5,
        start=1.0,
        system="short",
        generate=GenerateConfig(max_tokens=9, temperature=0.5, seed=3, stop=("a", "b")),
        load=LoadConfig(n_threads=2, flash_attn=False, reuse_frames="equal"),
    )
    job = Job("name", "a.gguf", None, settings, share=2)
    assert Job.from_dict(job.to_dict()) == job
    question = Question(3, "x", (Clip("video", "a.mp4", "/b/a.mp4"),), "what", frames=2, tokens="off", max_tokens=5)
    assert question_from(question_dict(question)) == question
    own = settings.for_question(question)
    assert (own.frames, own.fps, own.tokens, own.generate.max_tokens) == (2, 0.5, VisualTokenConfig.off(), 5)
    assert not own.weigh_if_possible


def test_what_settings_say_of_results() -> None:
    plain = Settings().facts()
    assert plain == Settings(load=LoadConfig(n_threads=3, cache_media=False)).facts()
    assert plain != Settings(load=LoadConfig(type_k="q8_0")).facts()
    with pytest.raises(UsageError, match="without a seed"):
        Settings(generate=GenerateConfig(temperature=0.5))
