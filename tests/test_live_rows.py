"""A window of frames that are encoded as they come gives what the same frames give as an array or a file."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aim_local import GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.engine.rolling import Recent, Rolling
from aim_local.engine.tile_rows import ItemRows
from aim_local.errors import CancelledError, ModelError, UsageError
from aim_local.models.reuse import Seen, Shared

QUESTION = "What appears in the middle?"
SETTINGS = {"off": VisualTokenConfig.off(), "paper": VisualTokenConfig.paper(), "ward": VisualTokenConfig.auto()}

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@pytest.fixture(scope="module")
def toy() -> Iterator[VisionLLM]:
    """The bundled model; what differs at all is encoded."""
    with VisionLLM.load(config=LoadConfig(n_threads=1, reuse_frames="equal")) as llm:
        yield llm


def drawn(n: int, seed: int = 0) -> Pixels:
    """Frames of noise, every third one as the one before it."""
    frames = np.random.default_rng(seed).integers(0, 256, (n, 48, 64, 3), np.uint8)
    frames[2::3] = frames[1::3][: len(frames[2::3])]
    return frames


def filled(llm: VisionLLM, frames: Pixels, most: int, times: Sequence[float] | None = None) -> Rolling:
    """A window through which the frames went, `most` of them in it at the end."""
    rolling = Rolling(llm.model, llm.turns, "cam")
    for i, frame in enumerate(frames):
        pixels = rolling.fit(frame, most)
        rolling.add(pixels, frame.shape[:2], float(i) if times is None else times[i])
        rolling.drop(max(0, len(rolling.times) - most))
    return rolling


def recent(rolling: Rolling) -> Recent:
    found = rolling.recent()
    assert found
    return found


def encoder_calls(llm: VisionLLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every run of the tower."""
    calls, encoder = list[int](), llm.model.tower.encoder  # type: ignore[union-attr]
    encode = encoder.encode

    def counted(pixels: Any) -> Any:
        calls.append(1)
        return encode(pixels)

    monkeypatch.setattr(encoder, "encode", counted)
    return calls


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("n", [1, 5, 8, 21])
def test_the_window_is_the_array_of_its_frames(toy: VisionLLM, setting: str, n: int) -> None:
    """Logits and kept sets to the bit, before the window is full and long after."""
    frames, tokens = drawn(n), SETTINGS[setting]
    got = toy.prefill(QUESTION, [recent(filled(toy, frames, 8))], tokens)
    want = toy.prefill(QUESTION, [frames[-8:]], tokens)
    assert got.logits.tobytes() == want.logits.tobytes()
    assert [kept.tolist() for kept in got.trace.kept] == [kept.tolist() for kept in want.trace.kept]


def test_a_question_encodes_nothing(toy: VisionLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards what watching is for; the stats say that it was done before, and how much of it was equal."""
    rolling = filled(toy, drawn(14), 6)  # the last six: 8 = 7, 9, 10, 11 = 10, 12, 13
    calls = encoder_calls(toy, monkeypatch)
    stats = toy.prefill(QUESTION, [recent(rolling)]).stats
    assert not calls
    assert (stats.n_tiles_encoded, stats.n_tiles_equal, stats.n_tiles_ahead, stats.n_frames) == (4, 2, 6, 6)
    assert (stats.vision_ms, stats.decode_video_ms) == (0, 0)
    assert stats.ahead_ms > 0


def test_a_frame_waits_for_no_question(toy: VisionLLM) -> None:
    """Guards a window that goes on while it is asked: what was taken for a question stays as it was."""
    frames = drawn(12)
    rolling = filled(toy, frames[:6], 6)
    taken = recent(rolling)
    for i in range(6, 12):
        rolling.add(rolling.fit(frames[i], 6), frames[i].shape[:2], float(i))
        rolling.drop(1)
    got, want = toy.prefill(QUESTION, [taken]), toy.prefill(QUESTION, [frames[:6]])
    assert got.logits.tobytes() == want.logits.tobytes()
    assert (taken.start, taken.end, recent(rolling).start, recent(rolling).end) == (0, 5, 6, 11)


def test_a_conversation_takes_it_too(toy: VisionLLM) -> None:
    frames, short = drawn(4), GenerateConfig(max_tokens=4)
    with toy.chat(generate=short) as chat, toy.chat(generate=short) as other:
        got = [chat.ask(QUESTION, [recent(filled(toy, frames, 4))]).tokens, chat.ask("And then?").tokens]
        assert got == [other.ask(QUESTION, [frames]).tokens, other.ask("And then?").tokens]


def test_nearly_equal_frames_take_rows_of_one_that_left() -> None:
    """The rows are the last ones of all frames as one clip, whatever has left the window since."""
    rng = np.random.default_rng(0)
    still = rng.integers(30, 220, (3, 48, 64, 3)).repeat(10, axis=0)
    frames = (still + rng.integers(-1, 2, still.shape)).astype(np.uint8)  # noise of a camera
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as llm:
        rolling = filled(llm, frames, 6)
        tower = llm.model.tower
        assert tower
        assert tower.frame_rows
        whole = ItemRows(Seen("video", Shared(), tower.patch_px))
        for i, frame in enumerate(frames):
            pixels = rolling.fit(frame, 6)
            whole(i, pixels, lambda pixels=pixels: tower.frame_rows(pixels))  # type: ignore[misc]
        found = recent(rolling)
    assert whole.counts.encoded == 3
    assert [rows.tobytes() for rows in found.rows] == [rows.tobytes() for rows in whole.all[-6:]]
    assert (found.counts.near, found.counts.encoded) == (6, 0)


def test_nothing_grows(toy: VisionLLM, user_home: Path) -> None:
    """Guards a window that is open for days: rows of frames that left are gone, and nothing is written."""
    rolling, rows = Rolling(toy.model, toy.turns, "cam"), list[weakref.ref[Any]]()
    rng = np.random.default_rng(0)
    for i in range(60):
        frame = rng.integers(0, 256, (32, 32, 3), np.uint8)
        rolling.add(rolling.fit(frame, 4), (32, 32), float(i))
        rolling.drop(max(0, len(rolling.times) - 4))
        rows.append(weakref.ref(recent(rolling).rows[-1]))
        if i % 20 == 19:
            toy.prefill(QUESTION, [recent(rolling)])
    gc.collect()
    assert sum(ref() is not None for ref in rows) <= 5  # one more for frames that are equal to it
    assert not list(user_home.rglob("*.npy"))
    assert not [path for path in user_home.rglob("*") if path.is_file() and path.stat().st_size > 10_000]


def test_cancelled_while_a_frame_is_encoded(toy: VisionLLM) -> None:
    """Guards the end of a watch: the frame at hand is given up, the window stays as it was."""
    rolling = filled(toy, drawn(3), 4)
    with pytest.raises(CancelledError):
        rolling.add(rolling.fit(drawn(1, 1)[0], 4), (48, 64), 3.0, lambda: True)
    assert rolling.times == (0, 1, 2)


def test_another_model_is_refused(toy: VisionLLM) -> None:
    taken = recent(filled(toy, drawn(2), 4))
    with VisionLLM.load() as other, pytest.raises(UsageError, match="another model"):
        other.prefill(QUESTION, [taken])
    with pytest.raises(UsageError, match="not a list"):
        toy.prefill(QUESTION, taken)  # type: ignore[arg-type]


def test_a_model_that_sees_nothing(toy: VisionLLM, tmp_path: Path) -> None:
    text = shutil.copy(toy.model.paths.model, tmp_path / "text.gguf")
    with VisionLLM.load(text) as llm, pytest.raises(ModelError, match="cannot watch"):
        Rolling(llm.model, llm.turns, "cam")


def test_a_window_begins_anew(toy: VisionLLM) -> None:
    """After another size of frames came, nothing is left of those before."""
    rolling, frames = filled(toy, drawn(5), 4), drawn(3, seed=5)[:, :, ::2]
    rolling.clear()
    assert (rolling.recent(), rolling.size) == (None, None)
    for i, frame in enumerate(frames):
        rolling.add(rolling.fit(frame, 4), frame.shape[:2], 5.0 + i)
    got, want = toy.prefill(QUESTION, [recent(rolling)]), toy.prefill(QUESTION, [frames])
    assert got.logits.tobytes() == want.logits.tobytes()
