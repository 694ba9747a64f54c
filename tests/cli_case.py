"""The command line with a fake model behind it, and what a failed run looks like."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_llm import FakeLLM, Scripted
from PIL import Image
from typer.testing import CliRunner

from aim_local.cli import _runtime, app

MAIN = "from aim_local.cli import main; main()"
Play = Callable[..., FakeLLM]


def run(*args: str | Path, input: str | None = None) -> Any:
    return CliRunner().invoke(app, [str(arg) for arg in args], input=input)


def run_process(*args: str | Path, code: str = MAIN, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", code, *map(str, args)]
    return subprocess.run(command, **{"capture_output": True, "text": True, "timeout": 60, **options})


def one_line(result: Any, code: int) -> str:
    """The one line on stderr of a run that failed with `code` and printed nothing."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert "Traceback" not in lines[0]
    return str(lines[0])


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """play(answers...) puts a fake model behind every command."""

    def put(*answers: Scripted | str) -> FakeLLM:
        llm = FakeLLM(*answers)
        monkeypatch.setattr(_runtime, "load", llm.load)
        return llm

    return put


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A file that exists; the fake model does not look into it."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42 not really")
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.new("RGB", (4, 4)).save(path)
    return path
