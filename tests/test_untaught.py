"""The toy that was not taught reduction: what it is kept for is that it answers with all of its visual tokens."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from thorough import few

from aim_local import FrameSampling, GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.demo import FAMILIES, WORLDS, held_out, is_right, write_clip
from aim_local.settings import parse_setting

FOLDER = Path(__file__).parent.parent / "benchmarks" / "untaught"
VARIED = WORLDS["varied"]
SHORT = GenerateConfig(max_tokens=6)

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="this checkout has no untaught model")


@pytest.fixture(scope="module")
def llm() -> Iterator[VisionLLM]:
    with VisionLLM.load(FOLDER, config=LoadConfig(n_threads=1, cache_media=False, vision_precision="exact")) as loaded:
        yield loaded


def n_right(llm: VisionLLM, folder: Path, tokens: VisualTokenConfig, n_frames: int, n: int) -> int:
    """Of the first n held-out clips, all families in turn."""
    right = 0
    for clip in islice(held_out(n, 5, VARIED), n):
        path = write_clip(clip, folder / "clip.mp4", side=VARIED.side)
        sampling = FrameSampling(n_frames=n_frames)
        right += is_right(llm.generate(clip.question, [path], tokens, SHORT, sampling=sampling).text, clip.answer)
    return right


def test_it_is_small_enough_to_be_kept() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 8_000_000


@pytest.mark.parametrize("n_frames", few([4, 8, 16], 1))
def test_it_answers_with_all_tokens_of_any_number_of_frames(llm: VisionLLM, tmp_path: Path, n_frames: int) -> None:
    n = 2 * len(FAMILIES)
    right = n_right(llm, tmp_path, VisualTokenConfig.off(), n_frames, n)
    assert right >= 0.8 * n, f"{right} of {n}"


def test_one_row_in_36_at_random_is_too_little(llm: VisionLLM, tmp_path: Path) -> None:
    """It can lose: a judge that is right whatever is taken from it would judge nothing."""
    n = len(FAMILIES)
    assert n_right(llm, tmp_path, parse_setting("merge-only:keep=0.03:merge=random"), 8, n) <= 0.7 * n
