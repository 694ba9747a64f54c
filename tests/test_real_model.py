"""benchmarks/real_model.py from a name on a hub on loopback to a section for the docs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import hub_server
import pytest
from hub_server import Hub
from thorough import few

from aim_local import store

hub = hub_server.hub
ROOT = Path(__file__).parents[1]
DATA = Path(store.__file__).parent.parent / "data"
REPO = "tiny/Toy-GGUF"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Two questions about the bundled clips."""
    questions = json.loads((DATA / "clips" / "questions.json").read_text())[:2]
    lines = [
        {"media": str(DATA / "clips" / q["clip"]), "question": q["question"], "answer": q["answer"]} for q in questions
    ]
    path = tmp_path / "suite.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.thorough
@pytest.mark.parametrize("is_asked_again", few([False, True], 1))
def test_a_name_becomes_a_section(hub: Hub, suite: Path, tmp_path: Path, is_asked_again: bool) -> None:
    for name, content in (("Toy-Q8_0.gguf", "model"), ("mmproj-Toy-f16.gguf", "mmproj")):
        hub.repos.setdefault(REPO, {})[name] = (DATA / "model" / f"{content}.gguf").read_bytes()
    command = [sys.executable, str(ROOT / "benchmarks" / "real_model.py"), REPO, "--suite", str(suite)]
    command += ["--tokens", "off,paper", "--out", str(tmp_path / "out")]
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr[-2000:]
    section = (tmp_path / "out" / "section.md").read_text()
    assert first.stdout.strip() == section.strip()
    print(section)
    lines = section.splitlines()
    assert lines[0] == "### Toy"
    assert "from tiny/Toy-GGUF:Q8_0@" in lines[2]
    off, paper = (next(line for line in lines if line.startswith(f"| {name} |")) for name in ("off", "paper"))
    whole, reduced = (int(line.split("->")[1].split("|")[0].replace(",", "")) for line in (off, paper))
    assert 0 < reduced < whole
    assert "| Toy | off | 100.0%" in section, "the demo answers its own questions where nothing is reduced"

    if not is_asked_again:
        return
    n = len(hub.asked)
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-2000:]
    assert len(hub.asked) == n, "the model is here"
