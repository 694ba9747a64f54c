"""Frames that a decoder refuses or makes up, perhaps for want of memory alone: told, and not kept for the next time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from media_fixtures import damage_packets, write_clip

from aim_local import LoadConfig, VisionLLM
from aim_local.config import GenerateConfig
from aim_local.media import FrameSampling, container, read_video
from aim_local.store.encoded import EncodedStore

CLIP = Path(__file__).parents[1] / "aim_local" / "data" / "clips" / "time.mp4"
SHORT = GenerateConfig(max_tokens=2)
TRACES = "the file is damaged near the chosen frames; some may show traces of it"


@pytest.fixture
def llm() -> Iterator[VisionLLM]:
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as loaded:
        yield loaded


def ask(llm: VisionLLM, clip: Path) -> tuple[list[int], tuple[str, ...]]:
    answer = llm.generate("What is this?", [clip], generate=SHORT)
    return answer.tokens, tuple(answer.warnings)


def n_kept() -> int:
    folder = EncodedStore().folder
    return len(EncodedStore().entries()) if folder.exists() else 0


Decode = Callable[..., list[Any]]


def refuses_one(right: Decode) -> Decode:
    """As a decoder does that gets no memory once: the frame is lost, and told as a damaged packet."""
    calls = iter(range(100))

    def wrong(stream: Any, packet: Any, damage: Any) -> list[Any]:
        frames = right(stream, packet, damage)
        if next(calls) == 3:
            damage.n_packets += 1
            return frames[:-1]
        return frames

    return wrong


def makes_one_up(right: Decode) -> Decode:
    """As one does whose part of a frame got no memory: the frame is marked, those that are made from it are not."""
    to_mark = [True]

    def wrong(stream: Any, packet: Any, damage: Any) -> list[Any]:
        def again(given: Any) -> list[Any]:
            frames = right(stream, given, damage)
            if frames and to_mark:
                to_mark.clear()
                return [SimpleNamespace(is_corrupt=True), *frames[1:]]
            return [SimpleNamespace(is_corrupt=False, frame=frame) for frame in frames]

        found = container.decode(SimpleNamespace(decode=again), packet, damage)  # type: ignore[arg-type]
        return [one.frame for one in found]

    return wrong


@pytest.mark.parametrize("fault", [refuses_one, makes_one_up])
def test_a_fault_that_passes_is_not_remembered(
    fault: Callable[[Decode], Decode], llm: VisionLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("aim_local.media.decode.decode", fault(container.decode))
        assert TRACES in ask(llm, CLIP)[1]
    assert n_kept() == 0
    with VisionLLM.load(config=LoadConfig(n_threads=1, cache_media=False)) as other:
        assert ask(llm, CLIP) == ask(other, CLIP)
    assert n_kept() == 1


def test_a_damaged_clip_is_decoded_each_time(llm: VisionLLM, tmp_path: Path) -> None:
    good = write_clip(tmp_path / "good.mp4", size=(320, 240), b_frames=2, gop=20)
    damage_packets(good, bad := tmp_path / "bad.mp4", [23, 30, 45])
    assert read_video(good, FrameSampling(n_frames=60)).is_sound
    assert not read_video(bad, FrameSampling(n_frames=60)).is_sound
    for _ in range(2):
        assert any("damaged" in line or "skipped" in line for line in ask(llm, bad)[1])
    assert n_kept() == 0
