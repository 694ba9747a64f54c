"""`aim-local watch`: lines, JSON, a conversation, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_case import MAIN, one_line, run
from live_case import pieces, whole

LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[0:0[6-9]-0:1[0-2], newest \d+\.\d s old\] \w+.*"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """12 seconds of five frames."""
    path = tmp_path / "door.ts"
    path.write_bytes(whole(pieces(63)))
    return path


def started(*args: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-c", MAIN, "watch", *map(str, args)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    )


@pytest.fixture
def every_second(recording: Path) -> Iterator[subprocess.Popen[str]]:
    """A watch that has printed its first line, whose source is silent since."""
    process = started(recording, "-p", "What appears?", "--every", "200ms", "--window", "4s", "--json")
    assert process.stdout
    process.first = process.stdout.readline()  # type: ignore[attr-defined]
    yield process
    process.kill()
    process.communicate()


def test_one_answer_when_the_window_is_full(recording: Path) -> None:
    result = run("watch", recording, "-p", "What appears?", "--window", "4s")
    assert result.exit_code == 0, result.output
    assert re.fullmatch(LINE, result.stdout.strip()), result.stdout
    assert result.stderr.startswith("warning: the bundled model is a toy")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)], ids=["ctrl-c", "sigterm"])
def test_it_ends_when_told(every_second: subprocess.Popen[str], number: int, code: int) -> None:
    """Within a second, without a traceback; until then one JSON object a line."""
    check_json(every_second.first)  # type: ignore[attr-defined]
    start = time.perf_counter()
    every_second.send_signal(number)
    _, stderr = every_second.communicate(timeout=60)
    print(f"\n  ended after {time.perf_counter() - start:.2f} s")
    assert every_second.returncode == code, stderr
    assert "Traceback" not in stderr
    assert stderr.count("interrupted") == (code == 130)


def check_json(line: str) -> None:
    found = json.loads(line)
    assert set(found) == {
        "time", "source", "stream", "newest_age", "frames", "one_of", "question", "text", "warnings", "toy", "stats",
    }  # fmt: skip
    assert (found["source"], found["question"], found["one_of"]) == ("door.ts", "What appears?", 1)
    assert found["stream"]["end"] - found["stream"]["start"] <= 3
    assert found["stats"]["n_tiles_ahead"] == found["frames"]


def test_questions_line_by_line(recording: Path) -> None:
    """Each is about the window as it is; what is no question is told."""
    lines = ["What appears?", "/stats", "/video x.mp4", "", "And in the middle?", "quit", "never asked"]
    result = run("watch", recording, "--frames", "3", input="\n".join(lines))
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 2
    assert "stats: " in result.stderr
    assert "/video is no command here" in result.stderr
    assert result.stderr.count("newest") == 2


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["camera", "--every", "10s"], "--every and --json need a question"),
        (["camera", "--json"], "--every and --json need a question"),
        (["camera", "-p", "x", "--every", "0"], "--every is 0 s"),
        (["camera", "-p", "x", "--window", "9s", "--frames", "9", "--fps", "1"], "any two say the third"),
        (["ftp://host/x", "-p", "x"], "ftp: addresses are not watched"),
        (["camera", "-p", " "], "the question from -p is empty"),
    ],
)
def test_what_cannot_be_is_told_before_the_model_is_loaded(args: list[str], told: str) -> None:
    assert told in one_line(run("watch", *args), 2)


def test_a_camera_that_is_not_there() -> None:
    if sys.platform != "linux":
        pytest.skip("cameras are named otherwise")
    result = run("watch", "camera:97", "-p", "x")
    assert "/dev/video97: cannot be opened (No such file or directory)" in one_line(result, 1)


def test_a_source_that_is_given_up() -> None:
    """One line each, and nothing of the address but its host."""
    result = run("watch", "http://user:hunter2@127.0.0.1:9/live?key=hunter2", "-p", "x", "--give-up", "1s", "--debug")
    assert result.exit_code == 1
    assert "http://127.0.0.1:9 is away (Connection refused); waiting for it for 1 s at most\n" in result.stderr
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: http://127.0.0.1:9: away for 1 s (Connection refused)")
    assert "hunter2" not in result.output


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "none.ts: cannot be watched (No such file" in one_line(run("watch", tmp_path / "none.ts", "-p", "x"), 1)
