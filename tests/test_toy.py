"""The bundled model says that it is a toy, about every clip that is none of its own: lines, flags, once in a talk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_case import run
from suite_files import write

from aim_local import GenerateConfig, VisionLLM, store
from aim_local.lab.compare.demo_suite import beyond_demo, draw_demo_suite
from aim_local.lab.compare.suite import load_suite

SHORT = GenerateConfig(max_tokens=2)


@pytest.fixture(scope="module")
def demo() -> Path:
    folder = store.bundled_folder()
    if folder is None:
        pytest.skip("this installation has no bundled model")
    return folder


@pytest.fixture(scope="module")
def llm(demo: Path) -> Iterator[VisionLLM]:
    with VisionLLM.load() as loaded:
        yield loaded


def own(demo: Path) -> Path:
    return demo.parent / "clips" / "needle.mp4"


def toys(warnings: list[str]) -> list[str]:
    return [line for line in warnings if "is a toy" in line]


def test_a_users_clip(llm: VisionLLM, demo: Path, mp4: Path) -> None:
    found = llm.generate("What happens?", [mp4], generate=SHORT)
    assert found.toy
    (line,) = toys(found.warnings)
    assert mp4.name in line
    assert "aim-local pull" in line
    assert "\n" not in line


def test_its_own_clips_wherever_they_lie(llm: VisionLLM, demo: Path, tmp_path: Path) -> None:
    copied = shutil.copy(own(demo), tmp_path / "mine.mp4")
    for media in ([own(demo)], [copied], []):
        found = llm.generate("What happens?", media, generate=SHORT)
        assert (found.toy, toys(found.warnings)) == (False, [])


def test_once_for_each_new_clip_of_a_conversation(llm: VisionLLM, demo: Path, mp4: Path) -> None:
    with llm.chat(generate=SHORT) as chat:
        first = chat.ask("What happens?", [own(demo)])
        assert (first.toy, toys(first.warnings)) == (False, [])
        second = chat.ask("And here?", [mp4])
        assert (second.toy, len(toys(second.warnings))) == (True, 1)
        third = chat.ask("And then?")
        assert (third.toy, toys(third.warnings)) == (True, [])
        again = chat.ask("And again?", [mp4])
        assert (again.toy, toys(again.warnings)) == (True, [])


@pytest.mark.parametrize("command", [["chat", "--max-tokens", "2"], ["explain", "--max-tokens", "2"]])
def test_commands(demo: Path, mp4: Path, command: list[str]) -> None:
    asked = [*command, "--video", mp4, "-p", "What happens?"]
    if command[0] == "chat":
        told = run(*asked)
        assert len([line for line in told.stderr.splitlines() if "is a toy" in line]) == 1
        assert "is a toy" not in run(*asked, "-q").stderr
    found = json.loads(run(*asked, "--json", "-q").stdout)
    assert found["toy"] is True
    assert toys(found["warnings"])
    assert json.loads(run(*command, "--video", own(demo), "-p", "What?", "--json", "-q").stdout)["toy"] is False


def test_a_comparison(demo: Path, mp4: Path, tmp_path: Path) -> None:
    row = {"media": str(mp4), "question": "What happens?", "answer": "A shape moves"}
    suite = write(tmp_path, row)
    found = run("compare", "--suite", suite, "--tokens", "off", "--no-kld", "--json", "--out", tmp_path / "out")
    (cell,) = json.loads(found.stdout)["cells"]
    assert cell["toy"] is True
    assert len([line for line in found.stderr.splitlines() if "is a toy" in line]) == 1
    assert any("is a toy" in note for note in cell["notes"])


def test_drawn_suites_are_its_own_world(demo: Path, mp4: Path, tmp_path: Path) -> None:
    drawn = load_suite(draw_demo_suite(tmp_path / "drawn", 2))
    assert beyond_demo(drawn) == ()
    mixed = load_suite(write(tmp_path, *({"media": str(p), "question": "?"} for p in (own(demo), mp4))))
    assert beyond_demo(mixed) == (str(mp4),)
