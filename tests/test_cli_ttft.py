"""`--ttft` on the command line: what is told before and after, in text and JSON, for a question and a conversation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import plan_case
import pytest
from cli_case import one_line, run

from aim_local import LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.cli import _repl, _ttft
from aim_local.errors import UsageError
from aim_local.lab.plan import ttft
from aim_local.lab.plan.pace import Pace
from aim_local.media.speed import measure_reading

clips = plan_case.clips
PACE = Pace({"vision": {"flops": 1e-9}, "prefill": {"row_flops": 1e-11}, "other": {"runs": 0.01}}, 0.5, 0.0, "now")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Models that were measured; the made-up pace takes 98 ms for a frame."""
    names: list[str] = []

    def measure(model: Any, watch: Any) -> Pace:
        names.append(model.name)
        return PACE

    def reading(*args: Any) -> tuple[Any, Any]:
        indexed, speed = measure_reading(*args)
        return indexed, replace(speed, open_s=0.004, digest_s=0.001, start_s=0.0, decoded_s=0.0, kept_s=0.0)

    monkeypatch.setattr(ttft, "measure_pace", measure)
    monkeypatch.setattr(ttft, "measure_reading", reading)  # a busy machine may take the whole wish for it
    monkeypatch.setattr(ttft, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    monkeypatch.setattr(ttft, "OFF", 1e9)  # a made-up pace is far off, and stays
    return names


def test_a_question(clips: list[Path], measured: list[str]) -> None:
    """Measured once; predicted and measured stand side by side; the answer goes to stdout alone."""
    command = ("chat", "--video", clips[0], "-p", "What?", "--max-tokens", "2", "--no-cache")
    first = run(*command, "--ttft", "400ms", "--stats")
    assert first.exit_code == 0, first.stderr
    lines = first.stderr.splitlines()
    assert lines[0] == _ttft.MEASURING
    assert lines[1].startswith("ttft 400 ms: ")
    assert ", --tokens auto; predicted " in lines[1]
    assert [line for line in lines if line.startswith("ttft: wanted 400 ms, predicted ")]
    second = run(*command, "--ttft", "0.4", "--quiet")
    assert (second.stderr, measured) == ("", ["demo"])
    assert len(first.stdout.splitlines()) == 1


def test_json(clips: list[Path], measured: list[str]) -> None:
    result = run("chat", "--video", clips[0], "-p", "What?", "--max-tokens", "1", "--ttft", "5s", "--json", "-q")
    found = json.loads(result.stdout)
    told = found["ttft"]
    assert (told["wanted_ms"], told["met"], told["n_frames"]) == (5000, True, found["stats"]["n_frames"])
    assert told["measured_ms"] == pytest.approx(told["choosing_ms"] + found["stats"]["ttft_ms"])
    assert told["predicted_ms"] >= told["predicted_stages_ms"]["vision"] > 0


def test_what_cannot_be_met_is_told_and_done(clips: list[Path], measured: list[str]) -> None:
    """Who is in a hurry gets the fastest answer there is, and one line that says so."""
    result = run("chat", "--video", clips[0], "-p", "What?", "--max-tokens", "1", "--ttft", "1ms")
    assert result.exit_code == 0
    assert result.stdout
    said = [line for line in result.stderr.splitlines() if line.startswith("warning") and "is a toy" not in line]
    assert len(said) == 1
    assert (
        "ttft 1 ms cannot be met; taken is the fastest there is: 1 frame, --tokens auto:keep=0.08:window=4" in said[0]
    )


def test_plan(clips: list[Path], measured: list[str]) -> None:
    command = ("plan", "--video", clips[0], "--ttft", "450ms")
    text = run(*command)
    assert text.exit_code == 0, text.stderr
    assert text.stderr == _ttft.MEASURING + "\n"
    assert "ttft 450 ms: " in text.stdout
    assert "first token " in text.stdout
    made = json.loads(run(*command, "--json").stdout)
    assert made["ttft"]["predicted_ms"] == pytest.approx(made["first_token_s"] * 1000)
    assert made["ttft"]["n_frames"] == made["sizes"]["n_frames"] < 8
    assert len(measured) == 1


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["chat", "-p", "x", "--ttft", "3"], "give a video or a picture"),
        (["chat", "-p", "x", "--ttft", "soon"], "--ttft"),
        (["chat", "-p", "x", "--ttft", "1e3"], "--ttft"),
        (["plan", "--ttft", "0", "--video", "VIDEO"], "above 0"),
        (["plan", "--calibrate", "--ttft", "3"], "--calibrate"),
    ],
)
def test_bad_input_is_one_line(args: list[str], told: str, clips: list[Path]) -> None:
    assert told in one_line(run(*(str(clips[0]) if arg == "VIDEO" else arg for arg in args)), 2)


# --- a conversation --------------------------------------------------------------------------------------------------


def test_a_conversation(clips: list[Path], measured: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The first files settle the visual tokens, the next ones get the time that is left, /reset opens all again."""
    with VisionLLM.load(config=LoadConfig(cache_media=False)) as llm, llm.chat() as made:
        calm, hasty = (_ttft.Target(llm, seconds, None, quiet=False) for seconds in (5.0, 0.3))
        repl = _repl.Repl(made, "demo", stats=True, quiet=False, target=calm)
        repl.attach(clips[0])
        repl.attach(clips[1])
        first, second = repl.choices
        assert (first.setting, second.tokens, second.setting) == ("off", first.tokens, "")
        assert second.wanted_s == pytest.approx(5.0 - first.predicted_s)
        repl.ask("What?")
        assert repl.last_stats
        assert repl.last_stats.n_frames == first.n_frames + second.n_frames
        assert (repl.choices, made.settled_tokens) == ([], first.tokens)
        assert "ttft: wanted 5.0 s, predicted " in capsys.readouterr().err
        with pytest.raises(UsageError, match="start a new conversation"):
            made.use_tokens(VisualTokenConfig.fast())

        hurried = _repl.Repl(made, "demo", stats=False, quiet=False, target=hasty)
        hurried.attach(clips[0])
        assert hurried.choices[0].tokens == first.tokens  # the conversation shows media
        hurried.handle("/reset")
        assert hurried.choices == []
        hurried.attach(clips[0])
        assert hurried.choices[0].setting == "auto"
        hurried.detach()


def test_a_saved_conversation(clips: list[Path], measured: list[str], tmp_path: Path) -> None:
    """Its visual tokens are settled; only frames are chosen."""
    with VisionLLM.load() as llm, llm.chat(VisualTokenConfig.fast()) as made:
        made.ask("What?", clips[:1])
        made.save(tmp_path / "talk.aimchat")
    command = ("chat", "--resume", tmp_path / "talk.aimchat", "--video", clips[1], "-p", "And here?", "--no-cache")
    result = run(*command, "--max-tokens", "1", "--ttft", "350ms", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["ttft"]["setting"] is None
    assert 1 <= found["ttft"]["n_frames"] == found["stats"]["n_frames"] < 8
