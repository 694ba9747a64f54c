"""From a repository's name to an answer, and what is kept of it: the whole way, against a hub on loopback."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import hub_server
import pytest
from cli_case import MAIN, one_line, run
from hub_server import Hub

from aim_local import store
from aim_local.store.names import bundled_folder

hub = hub_server.hub
DATA = Path(store.__file__).parent.parent / "data"
CLIP = DATA / "clips" / "order.mp4"
REPO = "tiny/Toy-GGUF"
QUESTION = ("--video", CLIP, "-p", "What happens?", "--max-tokens", "4")


@pytest.fixture
def demo(hub: Hub) -> Hub:
    """The bundled model's pair as a repository, with a second quantisation of the same bytes."""
    folder = bundled_folder()
    assert folder is not None, "this checkout has the bundled model"
    model, mmproj = ((folder / name).read_bytes() for name in ("model.gguf", "mmproj.gguf"))
    hub.repos[REPO] = {
        "README.md": b"# a model", "Toy-Q8_0.gguf": model, "Toy-F16.gguf": model + b"\0" * 32,
        "mmproj-Toy-Q8_0.gguf": b"GGUF not taken", "mmproj-Toy-f16.gguf": mmproj,
    }  # fmt: skip
    return hub


def cache_files(user_home: Path) -> list[str]:
    """Blobs and entries of snapshots that the cache holds."""
    places = ("blobs", "snapshots")
    found = [p for p in (user_home / "hf" / "hub").rglob("*") if not p.is_dir() and set(places) & set(p.parts)]
    return sorted(p.name for p in found)


def test_from_a_name_to_an_answer(demo: Hub) -> None:
    """The second time nobody is asked: the hub's log stays as it was."""
    first = run("chat", REPO, "--yes", *QUESTION)
    assert first.exit_code == 0, first.stderr
    assert first.stdout.strip()
    assert "tiny/Toy-GGUF: Toy-Q8_0.gguf, 6.5 MB" in first.stderr
    assert "mmproj-Toy-f16.gguf, 1.5 MB" in first.stderr
    assert "Q8_0 by default; there is also F16 (tiny/Toy-GGUF:QUANT)" in first.stderr
    n = len(demo.asked)
    demo.refuse["/"] = (500, "")
    for name in (REPO, f"{REPO}:q8_0", "Toy", f"https://hub.example/{REPO}"):
        again = run("chat", name, *QUESTION)
        assert (again.exit_code, again.stdout) == (0, first.stdout), again.stderr
        assert "download" not in again.stderr
    assert len(demo.asked) == n


def test_nobody_to_ask(demo: Hub) -> None:
    line = one_line_of_last(run("chat", REPO, *QUESTION), 2)
    assert line.startswith("error: tiny/Toy-GGUF is not here yet and 8.0 MB would be downloaded; nobody can be asked")
    assert demo.downloads(".gguf") == []


def one_line_of_last(result: Any, code: int) -> str:
    """The last line on stderr of a run that failed after showing what it would do."""
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    return str(result.stderr.splitlines()[-1])


def test_pull_of_a_quantisation(demo: Hub) -> None:
    result = run("pull", f"{REPO}:f16", "--yes", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["name"] == "Toy-f16"
    assert json.loads(result.stdout)["origin"] == f"{REPO}:F16@{demo.revision(REPO)}"
    assert [path for _, path, _ in demo.asked if path.startswith("/cdn")] == [
        "/cdn/tiny--Toy-GGUF/Toy-F16.gguf", "/cdn/tiny--Toy-GGUF/mmproj-Toy-f16.gguf",
    ]  # fmt: skip
    paths = store.resolve(f"{REPO}:F16")
    assert paths.model.read_bytes() == demo.repos[REPO]["Toy-F16.gguf"]
    assert paths == store.resolve("Toy-f16") == store.resolve(REPO)


def test_unknown_quantisation(demo: Hub) -> None:
    line = one_line(run("pull", f"{REPO}:Q3_K_M", "--yes"), 1)
    assert line == "error: tiny/Toy-GGUF has no Q3_K_M; it has Q8_0, F16"


def test_info_listing_and_removal(demo: Hub, user_home: Path) -> None:
    """The mmproj of both is one file: it goes with the last of them. Each freed byte was counted."""
    for quant in ("", ":F16"):
        assert run("pull", REPO + quant, "--yes").exit_code == 0
    listed = run("models").stdout
    assert [line.split()[0] for line in listed.splitlines()[2:]] == ["Toy", "Toy-f16"]
    about = run("models", "info", REPO)
    assert about.exit_code == 0, about.stderr
    for told in (f"{REPO}:Q8_0@{demo.revision(REPO)}", "qwen2+llava_onevision", "Toy-Q8_0.gguf", "memory"):
        assert told in about.stdout
    assert "--yes" in one_line_of_last(run("models", "rm", "Toy"), 2)
    first = run("models", "rm", "Toy", "--yes", "--json")
    note = json.dumps(json.loads(first.stdout)["kept"])
    assert note == '["mmproj-Toy-f16.gguf"]'
    assert store.store_names() == ["Toy-f16"]
    assert store.resolve("Toy-f16").mmproj is not None
    second = json.loads(run("models", "rm", f"{REPO}:F16", "--yes", "--json").stdout)
    assert second["freed"] > len(demo.repos[REPO]["Toy-F16.gguf"])
    assert json.loads(first.stdout)["freed"] > len(demo.repos[REPO]["Toy-Q8_0.gguf"])
    assert cache_files(user_home) == []
    assert store.store_names() == []


def test_removal_leaves_files_of_the_user(demo: Hub, tmp_path: Path) -> None:
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(b"GGUF")
    assert "is a file or folder of yours" in one_line(run("models", "rm", mine, "--yes"), 2)
    assert mine.exists()
    assert "bundled" in one_line(run("models", "rm", "demo", "--yes"), 2)
    assert "no model called 'demoo'" in one_line(run("models", "rm", "demoo", "--yes"), 1)


def test_nothing_is_written_into_the_cache(demo: Hub, tmp_path: Path) -> None:
    assert run("pull", f"{REPO}:F16", "--yes").exit_code == 0
    line = one_line(run("quantize", f"{REPO}:F16", "--type", "q8_0"), 2)
    assert line == "error: Toy-F16.gguf lies in the hub's cache, where nothing is written beside it; name OUT"
    assert run("quantize", "Toy-f16", tmp_path / "small.gguf", "--type", "q8_0").exit_code == 0
    assert store.resolve(tmp_path / "small.gguf").model.stat().st_size < 6_000_000


def test_files_gone_from_the_cache(demo: Hub) -> None:
    """Told, and fetched again where one may ask."""
    assert run("pull", REPO, "--yes").exit_code == 0
    model = store.resolve(REPO).model
    model.resolve().unlink()
    assert "is no longer in the hub's cache" in one_line_of_last(run("models", "info", "Toy"), 1)
    assert "nobody can be asked" in one_line_of_last(run("chat", REPO, *QUESTION), 2)
    assert run("pull", REPO, "--yes").exit_code == 0
    assert len(demo.downloads("/cdn/tiny--Toy-GGUF/Toy-Q8_0.gguf")) == 2
    assert len(demo.downloads("/cdn/tiny--Toy-GGUF/mmproj-Toy-f16.gguf")) == 1


def test_asked_on_a_terminal_with_a_bar(demo: Hub) -> None:
    """A process of its own on a terminal: the environment's HF_ENDPOINT and HF_HOME, the question, the bar."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-P", "-c", MAIN, "pull", REPO]
    child = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    seen, end = b"", time.monotonic() + 60
    while child.poll() is None or select.select([ours], [], [], 0)[0]:
        assert time.monotonic() < end, seen
        if select.select([ours], [], [], 0.05)[0]:
            try:
                seen += os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
        if b"download? [Y/n]" in seen and b"y\r" not in seen:
            os.write(ours, b"y\n")
            seen += b"y\r"
    assert child.wait(30) == 0, seen
    assert b"downloading" in seen
    assert b"Toy-Q8_0.gguf" in child.stdout.read()  # type: ignore[union-attr]
    os.close(ours)
    assert store.stored_name(REPO) == "Toy"
