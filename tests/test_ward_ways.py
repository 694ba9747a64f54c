"""Ward's clustering by every way a setting goes: the public API, conversations, media encoded ahead, benchmarks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import aim_local
from aim_local import GenerateConfig, LoadConfig, VisionLLM
from aim_local.cli import app
from aim_local.errors import UsageError
from aim_local.media import Video
from aim_local.models.rows import RowsTower
from aim_local.settings import parse_setting

CLIP = Path(aim_local.__file__).parent / "data" / "clips" / "needle.mp4"
QUESTION = "What appears in the middle?"
SETTINGS = (
    "ward",
    "ward:keep=0.2",
    "ward:window=4",
    "budget=0.4:merge=ward:window=2",
    "paper:merge=random",
    "paper:merge=grid",
)
SHORT = GenerateConfig(max_tokens=6)


@pytest.fixture(scope="module")
def llm() -> Iterator[VisionLLM]:
    with VisionLLM.load(config=LoadConfig(n_threads=1, cache_media=False)) as loaded:
        yield loaded


def clip(n_frames: int) -> Video:
    """Small black frames."""
    times = np.arange(n_frames, dtype=np.float64)
    return Video(
        np.zeros((n_frames, 2, 2, 3), np.uint8), times, np.arange(n_frames), "made", 1.0, n_frames, 1.0, (), ""
    )


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_way_gives_the_same_answer(llm: VisionLLM, setting: str) -> None:
    """A question by path, of frames, encoded ahead, in a conversation: one answer, one kept set."""
    tokens = parse_setting(setting)
    want = llm.generate(QUESTION, [CLIP], tokens, SHORT)
    assert want.trace.kept[0].size == want.stats.n_visual < want.stats.n_visual_full
    with llm.encode_ahead(CLIP) as ahead, llm.chat(tokens, generate=SHORT) as chat:
        assert ahead.wait(60)
        first = chat.ask(QUESTION, [ahead])
        assert (first.text, first.tokens) == (want.text, want.tokens)
        later = chat.ask("And its colour?")
    with llm.chat(tokens, generate=SHORT) as chat:
        assert chat.ask(QUESTION, [CLIP]).text == want.text
        assert chat.ask("And its colour?").text == later.text
    for got, kept in zip(first.trace.kept, want.trace.kept, strict=True):
        assert np.array_equal(got, kept)


def test_a_budget_keeps_how_it_merges(llm: VisionLLM) -> None:
    found = {
        how: llm.prefill(QUESTION, [CLIP], parse_setting(f"budget=0.3:merge={how}")) for how in ("similarity", "ward")
    }
    assert found["ward"].stats.n_visual == found["similarity"].stats.n_visual
    assert found["ward"].trace.groups != found["similarity"].trace.groups


def test_a_window_too_long_is_told_before_anything_is_encoded(llm: VisionLLM) -> None:
    """16,384 rows have distances of 2 GiB; a clip shorter than the window is asked for what it has."""
    tower = RowsTower(llm.model.text, 729)
    long, short = clip(192).shape, clip(8).shape
    tower.check_merging(long, parse_setting("ward:window=22"))
    tower.check_merging(short, parse_setting("ward:window=192"))
    with pytest.raises(UsageError, match=r"window of 23 frames has 16767 .* take a smaller window"):
        tower.check_merging(long, parse_setting("ward:window=23"))
    with pytest.raises(UsageError, match=r"window of 1200 frames has 19200 visual tokens"):
        llm.prefill("What?", [clip(1200).frames], parse_setting("ward:window=1200"))


def run(*args: str | Path) -> str:
    result = CliRunner().invoke(app, [*map(str, args)])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("setting", ["ward", "ward:window=4"])
def test_commands(setting: str, tmp_path: Path) -> None:
    """chat, plan and explain agree on the counts."""
    frames = ("--frames", "8", "--tokens", setting, "--json")
    chat = json.loads(run("chat", "--video", CLIP, "-p", QUESTION, "--max-tokens", "4", *frames))
    plan = json.loads(run("plan", "--video", CLIP, "-p", QUESTION, *frames))
    explained = json.loads(run("explain", "--video", CLIP, "-p", QUESTION, *frames))
    assert chat["stats"]["n_visual"] == plan["sizes"]["n_visual"] == explained["n_visual"] == 9
    assert plan["sizes"]["tokens"]["merge_by"] == "ward"


def test_rows_out_of_nothing_are_clustered_too(llm: VisionLLM) -> None:
    """What `bench --skip-vision` runs: counts are those of the plan, windows included."""
    tower = RowsTower(llm.model.text, 16)
    for window in (1, 3):
        tokens = parse_setting(f"ward:keep=0.25:window={window}")
        (block,) = tower.encode(clip(7), tokens, [0], lambda *_: np.empty(0, np.float32))
        assert len(block.rows) == len(block.groups) == 7 * 4 + 1
        assert {group.frame for group in block.groups} <= {*range(7), -1}
