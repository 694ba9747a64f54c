"""`aim-local cache`, and what `chat` shows of clips that are encoded before the question."""

from __future__ import annotations

import json
from pathlib import Path

import cli_case
import numpy as np
import pytest
from cli_case import Play, run
from fake_llm import FakeLLM, Scripted
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from aim_local.cli import _reader, _repl
from aim_local.cli._answer import stats_line
from aim_local.errors import ContextError
from aim_local.results import Stats
from aim_local.store.encoded import EncodedStore, Key

play, clip = cli_case.play, cli_case.clip


def keep(source: str) -> None:
    writer = EncodedStore().begin(Key({"media": source}))
    writer.add(0, np.zeros((2, 4), np.float32))
    writer.finish([0], None, {"source": source})


def test_list_size_and_clear() -> None:
    for source in ("a.mp4", "b.mp4"):
        keep(source)
    found = json.loads(run("cache", "--json").stdout)
    assert sorted(entry["source"] for entry in found["entries"]) == ["a.mp4", "b.mp4"]
    assert found["bytes"] == sum(entry["bytes"] for entry in found["entries"]) > 0
    listed = run("cache")
    assert "a.mp4" in listed.stdout
    assert "2 encoded clips" in listed.stderr
    assert run("cache", "--clear").stdout.startswith("removed 2 encoded clips")
    assert json.loads(run("cache", "--json").stdout)["entries"] == []


@pytest.mark.parametrize(("words", "used"), [((), True), (("--no-cache",), False)])
def test_no_cache(play: Play, words: tuple[str, ...], used: bool) -> None:
    llm = play("hi")
    assert run("chat", "-p", "what?", *words).exit_code == 0
    assert llm.loads[0][2].cache_media is used


def test_explain_does_not_use_it() -> None:
    assert "--no-cache" not in run("explain", "--help").stdout
    assert "--no-cache" not in run("bench", "--help").stdout


def test_stats_line() -> None:
    stats = Stats(n_frames=9, n_tiles_encoded=3, n_tiles_equal=4, n_tiles_near=2, n_tiles_ahead=5, ahead_ms=1234)
    assert "| 3 of 9 tiles encoded, 4 equal, 2 nearly equal, 5 before the question in 1234 ms |" in stats_line(stats)
    assert "tiles" not in stats_line(Stats(n_frames=9, n_tiles_encoded=9))


def test_attached_files_end_with_their_question(clip: Path) -> None:
    """Guards threads and memory: after an answer, an error, /reset and the end nothing goes on in the background."""
    llm = FakeLLM("one", Scripted(error=ContextError("too much")))
    repl = _repl.Repl(llm.chat(), "fake", stats=False, quiet=True)
    for line in ("what?", "and now?", "/reset"):
        repl.handle(f"/video {clip}")
        ((_, ahead),) = repl.pending
        assert repl.toolbar() == f"{clip.name}: 3 of 8 frames ready"
        repl.handle(line)
        assert ahead.closed
        assert (repl.pending, repl.toolbar()) == ([], "")


def test_toolbar_of_the_line_editor(tmp_path: Path) -> None:
    said = iter(["", "clip.mp4: 1 of 8 frames ready", "clip.mp4: 2 of 8 frames ready"])
    with create_pipe_input() as pipe:
        reader = _reader.TerminalReader(tmp_path / "history", lambda: next(said, ""), input=pipe, output=DummyOutput())
        for line in ("a", "b"):
            pipe.send_text(f"{line}\n")
            assert reader.read() == line
            assert (reader._session.bottom_toolbar is None) is (line == "a")
