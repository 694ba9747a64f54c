"""A window of frames in families whose prompts tell times, see frames in pairs, or are run by mtmd: as their files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from checkpoints import write_onevision
from family_case import Case, open_case, write_lossless
from family_checkpoints import Clip, clip
from qwen_case import open_qwen
from test_foreign import SHAPE, as_janus

from aim_local import FrameSampling, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.convert import ConvertConfig, convert
from aim_local.engine.rolling import Recent, Rolling

OFF, QUESTION = VisualTokenConfig.off(), "When does it turn?"
MOST = 6
FAMILIES = ("qwen3_vl",)  # pairs of frames, each with its time in the text


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    open_family = open_qwen if "qwen" in request.param else open_case
    found = open_family(request.param, tmp_path_factory)
    with found.llm:
        yield found


def windows(llm: VisionLLM, frames: np.ndarray, most: int) -> Iterator[tuple[Recent, np.ndarray]]:
    """After each frame, the window and its frames. Frames come 1.5 s apart, since long."""
    rolling = Rolling(llm.model, llm.turns, "cam", 1.5)
    for i, frame in enumerate(frames):
        rolling.add(rolling.fit(frame, most), frame.shape[:2], 3600 + i * 1.5)
        rolling.drop(max(0, len(rolling.times) - most))
        found = rolling.recent()
        assert found
        yield found, frames[i + 1 - found.video.shape.n_frames : i + 1]


def test_the_window_is_the_file_of_its_frames(case: Case, tmp_path: Path) -> None:
    """Times are those in the window. Also with an odd number of frames, while it fills and when it is full."""
    frames = clip(9, 4 * 32, 3 * 32).frames
    sampling = FrameSampling(n_frames=MOST)
    sizes = set()
    for i, (found, same) in enumerate(windows(case.llm, frames, MOST)):
        path = write_lossless(tmp_path / f"{i}.mkv", Clip(same, 1 / 1.5))
        got = case.llm.prefill(QUESTION, [found], OFF)
        want = case.llm.prefill(QUESTION, [path], OFF, sampling=sampling)
        assert got.stats.n_visual == want.stats.n_visual
        assert got.logits.tobytes() == want.logits.tobytes(), f"window {i}"
        sizes.add(len(same))
        assert got.stats.n_tiles_ahead >= got.stats.n_tiles_encoded + got.stats.n_tiles_equal - 1
    sizes_of_one = [len(same) for _, same in windows(case.llm, frames[:4], 1)]
    assert sizes_of_one == ([1, 2, 1, 2] if "qwen" in case.family else [1] * 4)  # the newest frame is always there
    assert sizes == ({1, 2, 3, 4, 5, 6} if "qwen" in case.family else set(range(1, MOST + 1)))


def test_a_tower_of_mtmds_own(tmp_path: Path) -> None:
    """Its frames are pictures that are not fitted; what was encoded for each alone is what all together take."""
    convert(write_onevision(tmp_path / "hf", SHAPE), tmp_path / "gguf", ConvertConfig("f32", "f32"))
    as_janus(tmp_path / "gguf" / "mmproj.gguf", tmp_path / "janus.gguf")
    frames = np.random.default_rng(0).integers(0, 256, (5, SHAPE.side, SHAPE.side, 3), np.uint8)
    with VisionLLM.load(tmp_path / "gguf" / "model.gguf", tmp_path / "janus.gguf", LoadConfig(n_threads=1)) as llm:
        for found, same in windows(llm, frames, 3):
            got, want = llm.prefill(QUESTION, [found], OFF), llm.prefill(QUESTION, [same], OFF)
            assert got.logits.tobytes() == want.logits.tobytes()
            assert got.stats.n_tiles_ahead == len(same)
