"""`chat` with one question: what is asked of the library, and what is printed where."""

from __future__ import annotations

import json
from pathlib import Path

import cli_case
import pytest
from cli_case import Play, run
from fake_llm import Scripted

from aim_local.results import Stats

play = cli_case.play
clip = cli_case.clip
picture = cli_case.picture


def test_answer_goes_to_stdout_alone(play: Play, clip: Path, picture: Path) -> None:
    llm = play(Scripted("a red ball", warnings=["clip has 5 frames, 8 were asked: using all 5"]))
    result = run("chat", "--video", clip, "--image", picture, "-p", "What is it?")
    assert (result.exit_code, result.stdout) == (0, "a red ball\n")
    assert result.stderr == "warning: clip has 5 frames, 8 were asked: using all 5\n"
    call = llm.calls[0]
    assert (call["question"], call["media"]) == ("What is it?", [clip, picture])
    assert call["generate"].temperature == 0
    assert call["sampling"] is None
    assert llm.closed


def test_question_from_stdin(play: Play) -> None:
    llm = play("yes")
    result = run("chat", input="Is it\nred?\n")
    assert (result.exit_code, result.stdout) == (0, "yes\n")
    assert llm.calls[0]["question"] == "Is it\nred?"


def test_json_is_one_object(play: Play, clip: Path) -> None:
    play(Scripted("blue", warnings=["w"], stats=Stats(n_frames=8, n_visual_full=128, n_visual=32)))
    result = run("chat", "--video", clip, "-p", "Colour?", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert set(found) == {"text", "question", "model", "media", "warnings", "toy", "stats"}
    assert (found["text"], found["media"], found["warnings"]) == ("blue", [str(clip)], ["w"])
    assert found["model"] == {"name": "fake", "architecture": "qwen2"}
    assert (found["stats"]["n_visual_full"], found["stats"]["n_visual"]) == (128, 32)


def test_stats_go_to_stderr(play: Play) -> None:
    play(Scripted("hi", stats=Stats(n_frames=8, n_visual_full=128, n_visual=32, vision_ms=210.4)))
    result = run("chat", "-p", "x", "--stats")
    assert result.stdout == "hi\n"
    assert result.stderr == "stats: 8 frames | visual tokens 128 -> 32 | ms: vision 210 | 0 tokens\n"


def test_quiet(play: Play) -> None:
    play(Scripted("hi", warnings=["w"], stats=Stats(stop_reason="length")))
    result = run("chat", "-p", "x", "--quiet")
    assert (result.stdout, result.stderr) == ("hi\n", "")


def test_options_reach_the_library(play: Play) -> None:
    llm = play("x")
    options = "--ctx 900 --threads 3 --gpu-layers -1 --type-k q8_0 --type-v Q8_0 --flash-attn on --temp 0.5 --seed 7"
    options += " --max-tokens 9 --system Short. --frames 6 --start 1:05.5 --end 75"
    assert run("chat", "mine", "--mmproj", "m.gguf", "-p", "x", *options.split()).exit_code == 0
    model, mmproj, config = llm.loads[0]
    assert (model, mmproj) == ("mine", Path("m.gguf"))
    assert (config.n_ctx, config.n_threads, config.n_gpu_layers) == (900, 3, -1)
    assert (config.type_k, config.type_v, config.flash_attn) == ("q8_0", "q8_0", True)
    call = llm.calls[0]
    assert (call["generate"].temperature, call["generate"].seed, call["generate"].max_tokens) == (0.5, 7, 9)
    assert (call["sampling"].n_frames, call["sampling"].start, call["sampling"].end) == (6, 65.5, 75.0)
    assert call["system"] == "Short."


@pytest.mark.parametrize(
    ("options", "expected"),
    [(["--fps", "2"], (8, 2.0)), (["--fps", "2", "--frames", "50"], (50, 2.0)), (["--start", "3"], (8, None))],
)
def test_frames_default_to_the_models(play: Play, options: list[str], expected: tuple[int, float | None]) -> None:
    llm = play("x")
    run("chat", "-p", "x", *options)
    sampling = llm.calls[0]["sampling"]
    assert (sampling.n_frames, sampling.fps) == expected
