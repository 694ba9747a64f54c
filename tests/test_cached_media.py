"""Clips that were encoded before: answers from the cache are bit for bit those without, and nothing is decoded."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runtime_case
from runtime_case import F32, one_line, video

from aim_local import GenerateConfig, LoadConfig, VisionLLM
from aim_local.engine import intake
from aim_local.errors import UsageError
from aim_local.media import FrameSampling
from aim_local.store.encoded import EncodedStore

checkpoint, model = runtime_case.checkpoint, runtime_case.model
FOUR = FrameSampling(n_frames=4)
OFF = replace(F32, cache_media=False)


@pytest.fixture
def clip(mp4: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(mp4, tmp_path / "clip.mp4"))


def prefill(model: Path, clip: Any, config: LoadConfig = F32, sampling: FrameSampling | None = FOUR) -> Any:
    """In a new model, as in another process."""
    with VisionLLM.load(model, config=config) as llm:
        return llm.prefill("what?", [clip], sampling=sampling)


def same(a: Any, b: Any) -> bool:
    assert [g.timestamp for g in a.trace.grids] == pytest.approx([g.timestamp for g in b.trace.grids], nan_ok=True)
    pixels = zip(a.trace.grids, b.trace.grids, strict=True)
    return np.array_equal(a.logits, b.logits) and all(np.array_equal(x.pixels, y.pixels) for x, y in pixels)


def test_a_second_time_nothing_is_decoded(model: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, first = prefill(model, clip, OFF), prefill(model, clip)
    assert (first.stats.n_tiles_encoded, first.stats.n_tiles_cached) == (4, 0)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("opened again")

    monkeypatch.setattr(intake, "open_item", never)
    second = prefill(model, clip)
    assert (second.stats.n_tiles_encoded, second.stats.n_tiles_cached, second.stats.n_frames) == (0, 4, 4)
    print(f"\n  largest difference {np.abs(second.logits - plain.logits).max()}")
    assert same(plain, first)
    assert same(plain, second)


def test_what_is_another_entry(model: Path, clip: Path, clip_of: Any) -> None:
    """Guards the key: another clip under the same name, other frames, other options."""
    prefill(model, clip)
    for changed in (FrameSampling(n_frames=3), FrameSampling(n_frames=4, start=1.0)):
        assert prefill(model, clip, sampling=changed).stats.n_tiles_cached == 0
    for config in (replace(F32, reuse_frames="equal"), replace(F32, flash_attn=True), OFF):
        assert prefill(model, clip, config).stats.n_tiles_cached == 0
    moved = clip.with_name("moved.mp4")
    clip.rename(moved)
    assert prefill(model, moved).stats.n_tiles_cached == 4, "the name does not count"
    shutil.copy(clip_of("stream.ts"), clip)
    assert same(prefill(model, clip), prefill(model, clip, OFF))


def test_changed_under_the_same_name(model: Path, clip: Path) -> None:
    before = prefill(model, clip)
    data = bytearray(clip.read_bytes())
    clip.write_bytes(data + b"\0" * 8)  # the same pictures, another file
    after = prefill(model, clip)
    assert after.stats.n_tiles_cached == 0
    assert same(before, after)


def test_changed_while_it_is_read(model: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against keeping the rows of one file under the digest of another."""
    real = intake.digest_item

    def touched(item: Any) -> str:
        found = real(item)
        clip.write_bytes(clip.read_bytes() + b"\0")
        return found

    monkeypatch.setattr(intake, "digest_item", touched)
    prefill(model, clip)
    assert EncodedStore().entries() == []


def test_damaged_entries_are_encoded_anew(model: Path, clip: Path) -> None:
    plain = prefill(model, clip)
    (path,) = (entry.path for entry in EncodedStore().entries())
    sound = path.read_bytes()
    for broken in (sound[:-1], sound[:100], b"", bytes([sound[0] ^ 1]) + sound[1:], sound[:-9] + b"xxxxxxxxx"):
        path.write_bytes(broken)
        found = prefill(model, clip)
        assert found.stats.n_tiles_encoded == 4
        assert same(plain, found)
        assert path.read_bytes() == sound, "written anew, the same bytes"


def test_a_folder_that_cannot_be_written(model: Path, clip: Path) -> None:
    """The answer comes, and a line that says why nothing is kept."""
    folder = EncodedStore().folder
    folder.parent.mkdir(parents=True)
    folder.write_bytes(b"a file stands in the way")
    found = prefill(model, clip)
    assert found.stats.n_tiles_encoded == 4
    assert [line for line in found.warnings if "is not kept for the next time" in line and "cache_media=False" in line]
    assert not prefill(model, clip, OFF).warnings


def test_pictures_and_arrays(model: Path, tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(path)
    for item in (path, video(2, seed=3), video(1, seed=4)[0]):
        plain, first, second = prefill(model, item, OFF, None), prefill(model, item), prefill(model, item)
        assert first.stats.n_tiles_cached == 0
        assert second.stats.n_tiles_encoded == 0
        assert second.stats.n_tiles_cached == first.stats.n_tiles_encoded + first.stats.n_tiles_equal
        assert same(plain, first)
        assert same(plain, second)


# --- before the question ----------------------------------------------------------------------------------------------


def test_encoded_before_the_question(model: Path, clip: Path) -> None:
    """Bit for bit what asking with the path gives; all of it was there before."""
    short = GenerateConfig(max_tokens=4)
    with VisionLLM.load(model, config=OFF) as llm, llm.chat(sampling=FOUR, generate=short) as chat:
        want = llm.generate("what?", [clip], sampling=FOUR, generate=short)
        with chat.encode_ahead(clip) as ahead:
            assert ahead.wait(60)
            assert ahead.progress == (4, 4)
            answer = chat.ask("what?", [ahead])
        assert (answer.text, answer.tokens) == (want.text, want.tokens)
        stats = answer.stats
        assert (stats.n_tiles_encoded, stats.n_tiles_ahead) == (4, 4)
        assert stats.vision_ms < stats.ahead_ms


def test_asked_at_once_and_closed_early(model: Path, clip: Path) -> None:
    """Guards what is left to do, and threads that end: a question right away, no question at all, a closed model."""
    with VisionLLM.load(model, config=OFF) as llm:
        want = llm.prefill("what?", [clip, video(2)], sampling=FOUR)
        for _ in range(5):
            with llm.encode_ahead(clip, FOUR) as ahead:
                found = llm.prefill("what?", [ahead, video(2)], sampling=FOUR)
            assert same(want, found)
        ahead.close()
        with pytest.raises(UsageError) as error:
            llm.prefill("what?", [ahead])
        assert "was closed" in one_line(error) or "closed since" in one_line(error)
        llm.encode_ahead(clip, FOUR).close()
        left = llm.encode_ahead(clip, FOUR)
    assert left.wait(60)
    left.close()


def test_a_question_that_is_cancelled_keeps_what_is_encoded(model: Path, clip: Path) -> None:
    from aim_local.errors import CancelledError

    with VisionLLM.load(model, config=OFF) as llm, llm.encode_ahead(clip, FOUR) as ahead:
        with pytest.raises(CancelledError):
            llm.prefill("what?", [ahead], should_stop=lambda: True)
        assert ahead.wait(60)
        assert llm.prefill("what?", [ahead]).stats.n_tiles_ahead == 4


def test_a_bad_file_is_told_by_the_question(model: Path, tmp_path: Path) -> None:
    from aim_local.errors import MediaError

    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video at all")
    with VisionLLM.load(model, config=OFF) as llm, llm.encode_ahead(bad) as ahead:
        assert ahead.wait(60)
        with pytest.raises(MediaError):
            llm.prefill("what?", [ahead])
