"""Clips that break while they are encoded ahead, questions that end early, and rows that nobody needs any more."""

from __future__ import annotations

import gc
import shutil
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import runtime_case
from runtime_case import F32

from aim_local import VisionLLM
from aim_local.engine import intake as intakes
from aim_local.engine import prefill as prefills
from aim_local.engine.tile_rows import ItemRows
from aim_local.errors import CancelledError, MediaError
from aim_local.media import FrameSampling

checkpoint, model = runtime_case.checkpoint, runtime_case.model
FOUR, THIRTY = FrameSampling(n_frames=4), FrameSampling(n_frames=30)
NOT_KEPT = replace(F32, cache_media=False)


@pytest.fixture
def clip(mp4: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(mp4, tmp_path / "clip.mp4"))


def after_opening(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """What happens to the clip between its opening and the first frame."""
    opened = intakes.open_item

    def open_item(*args: Any, **options: Any) -> Any:
        found = opened(*args, **options)
        change()
        return found

    monkeypatch.setattr(intakes, "open_item", open_item)


@pytest.mark.parametrize("how", ["deleted", "overwritten"])
def test_a_clip_that_breaks_after_opening(model: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Each question is told, also the second one, and none waits for a decoder that has ended."""
    after_opening(monkeypatch, clip.unlink if how == "deleted" else lambda: clip.write_bytes(bytes(5000)))
    with VisionLLM.load(model, config=NOT_KEPT) as llm, llm.encode_ahead(clip, FOUR) as ahead:
        assert ahead.wait(60)
        stop = threading.Event()
        timer = threading.Timer(30, stop.set)
        timer.start()
        for _ in range(2):
            with pytest.raises(MediaError, match=r"clip\.mp4"):
                llm.prefill("What?", [ahead], should_stop=stop.is_set)
        timer.cancel()


def test_a_clip_that_is_gone_after_opening(model: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after_opening(monkeypatch, lambda: clip.unlink(missing_ok=True))
    with VisionLLM.load(model, config=NOT_KEPT) as llm, pytest.raises(MediaError, match=r"clip\.mp4"):
        llm.prefill("What?", [clip], sampling=FOUR)


def test_a_question_that_ended_is_told_nothing_more(model: Path, clip: Path) -> None:
    """The rest is encoded in the background, without the progress of a question that was cancelled."""
    asked, late, ended = 0, list[Any](), False

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 25

    def progress(*what: Any) -> None:
        if ended:
            late.append(what)

    with VisionLLM.load(model, config=NOT_KEPT) as llm, llm.encode_ahead(clip, THIRTY) as ahead:
        with pytest.raises(CancelledError):
            llm.prefill("What?", [ahead], should_stop=stop, progress=progress)
        ended = True
        assert ahead.wait(60)
        assert ahead.progress[0] == ahead.progress[1]
    assert not late


@pytest.mark.parametrize("config", [NOT_KEPT, F32], ids=["not kept", "kept"])
def test_rows_are_gone_before_the_prefill(
    model: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, config: Any
) -> None:
    """Also where they are written to the cache, whose entry ends after the prefill."""
    rows, alive = list[weakref.ref[Any]](), list[int]()
    new, encode = ItemRows._new, prefills.encode_media

    def noted(self: ItemRows, *args: Any) -> Any:
        found = new(self, *args)
        rows.append(weakref.ref(found[0]))
        return found

    def encoded(*args: Any, **options: Any) -> Any:
        found = encode(*args, **options)
        gc.collect()
        alive.append(sum(ref() is not None for ref in rows))
        return found

    monkeypatch.setattr(ItemRows, "_new", noted)
    monkeypatch.setattr(prefills, "encode_media", encoded)
    with VisionLLM.load(model, config=config) as llm:
        first = llm.prefill("What?", [clip], sampling=FOUR)
        again = llm.prefill("What?", [clip], sampling=FOUR)
    assert len(rows) == 8
    assert alive == [0, 0]
    assert first.logits.tobytes() == again.logits.tobytes()
    assert again.stats.n_tiles_cached == (4 if config.cache_media else 0)
