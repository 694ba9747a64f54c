"""Visual tokens of whole prompts merged by Ward's clustering, alone and in windows, against scipy and transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from checkpoints import Shape, onevision_model, write_llava_video, write_tower  # noqa: E402
from limits import LIMITS  # noqa: E402
from media_fixtures import RATE  # noqa: E402
from prompt_steps import encoded  # noqa: E402
from pruning_case import Case, Loaded, load  # noqa: E402
from reference_video import VideoReference  # noqa: E402
from reference_ward import ward_frames, ward_merge  # noqa: E402
from test_parity_video import F32, N_SOURCE, PICKED, QUESTION, TIMES, lossless, pictures  # noqa: E402

import aim_local  # noqa: E402
from aim_local import FrameSampling, VisionLLM, VisualTokenConfig  # noqa: E402
from aim_local.convert import ConvertConfig, convert  # noqa: E402
from aim_local.models.pieces import KeptTokens  # noqa: E402

CLIP = Path(aim_local.__file__).parent / "data" / "clips" / "needle.mp4"
RAW = "<__media__> What appears?"
WINDOWS = (1, 2, 3, 8)


def ward(retain: float, window: int = 1, **more: Any) -> VisualTokenConfig:
    return VisualTokenConfig(retain, merge_by="ward", merge_window=window, **{"prune_layers": None, **more})


@pytest.fixture(scope="module")
def bundled() -> Iterator[VisionLLM]:
    with VisionLLM.load() as llm:
        yield llm


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """LLaVA-OneVision with 25 slots a frame: seven frames, no two alike."""
    shape = Shape(grid=9, n_text=4, heads=2, heads_kv=2, seed=5)
    case = Case("onevision", shape, [pictures(shape.side)[:7]], ward(0.5), 512)
    found = load(tmp_path_factory.mktemp("ward"), case)
    with found.llm:
        yield found


def check_rows(llm: VisionLLM, media: list[Any], retain: float, window: int, n_frames: int) -> tuple[float, KeptTokens]:
    """Rows, places and owners against scipy's on the runtime's own unmerged rows; returns the largest difference."""
    full = encoded(llm, RAW, media, VisualTokenConfig.off()).blocks[0].rows
    frames = np.split(full[:-1], n_frames)
    rows, places, owners = ward_frames(frames, retain, window)
    found = encoded(llm, RAW, media, ward(retain, window))
    trace = llm.prefill(RAW, media, ward(retain, window), raw=True).trace
    for groups, grids in ((found.groups, found.grids), (trace.groups, trace.grids)):
        assert [(group.frame, group.slot) for group in groups] == [*places, (-1, -1)]
        assert [grid.frame for grid in grids] == list(range(n_frames))
        for grid, want in zip(grids, owners, strict=True):
            assert grid.owners.ravel().tolist() == want.tolist()
    got = found.blocks[0].rows
    assert np.array_equal(got[-1], full[-1])  # the newline
    assert trace.kept[0].tolist() == list(range(len(rows) + 1))
    return float(np.abs(got[:-1] - rows).max() / np.abs(rows).max()), trace


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("retain", [0.1, 0.25, 0.5, 1.0])
def test_rows_of_the_bundled_model(bundled: VisionLLM, retain: float, window: int) -> None:
    difference, _ = check_rows(bundled, [CLIP], retain, window, 8)
    print(f"keep {retain}, window {window}: largest difference {difference:.1e}")
    assert difference < 1e-6


@pytest.mark.parametrize("window", WINDOWS)
def test_rows_of_a_random_checkpoint(tiny: Loaded, window: int) -> None:
    difference, trace = check_rows(tiny.llm, tiny.case.media, 0.3, window, 7)
    print(f"window {window}: largest difference {difference:.1e}")
    assert difference < 1e-6
    frames = [group.frame for group in trace.groups[:-1]]
    assert frames == sorted(frames)
    shared = sum(len({*a.owners.ravel().tolist()} & {*b.owners.ravel().tolist()}) for a, b in pairwise(trace.grids))
    assert (shared > 0) == (window > 1)  # otherwise windows are not tested here


def test_a_frame_may_keep_no_row(tiny: Loaded) -> None:
    """One frame of four shows the same as another: its rows stand for both, and the count stays."""
    clip = tiny.case.media[0][[0, 1, 1, 2]]
    difference, trace = check_rows(tiny.llm, [clip], 0.04, 4, 4)
    assert difference < 1e-6
    assert len(trace.groups) == 4 * 1 + 1
    assert len({group.frame for group in trace.groups[:-1]}) < 4


def test_a_picture_has_no_window(bundled: VisionLLM, tiny: Loaded) -> None:
    """Base view and grid of a picture of any resolution are clustered apart, and a window says nothing."""
    picture = np.random.default_rng(2).integers(0, 256, (90, 210, 3), dtype=np.uint8)
    for llm in (bundled, tiny.llm):
        full = encoded(llm, RAW, [picture], VisualTokenConfig.off())
        rows = full.blocks[0].rows
        base = [i for i, group in enumerate(full.groups) if group.frame == 0]
        grid = [i for i, group in enumerate(full.groups) if group.frame == 1 and group.slot >= 0]
        one, four = (encoded(llm, RAW, [picture], ward(0.2, window)) for window in (1, 4))
        assert one.blocks[0].rows.tobytes() == four.blocks[0].rows.tobytes()
        assert one.groups == four.groups
        for frame, part in ((0, base), (1, grid)):
            want, slots, owners = ward_merge(rows[part], max(1, int(len(part) * 0.2 + 1e-9)), by_medoid=False)
            at = [i for i, group in enumerate(one.groups) if group.frame == frame and group.slot >= 0]
            assert [one.groups[i].slot for i in at] == slots
            assert [at.index(owner) for owner in one.grids[frame].owners.ravel()] == owners
            assert np.abs(one.blocks[0].rows[at] - want).max() < 1e-6 * np.abs(rows).max()


def test_a_picture_of_one_tile(tmp_path: Path) -> None:
    """LLaVA-1.5: one grid of patches; a clip is so many of them, without newlines."""
    shape = Shape(grid=6, n_text=3, heads_kv=4, seed=3)
    media = [pictures(shape.side)[0], pictures(shape.side)[:3]]
    loaded = load(tmp_path, Case("llava", shape, media, ward(0.25), 512))
    with loaded.llm as llm:
        prompt = f"<__media__>{RAW}"
        full = encoded(llm, prompt, media, VisualTokenConfig.off())
        found = encoded(llm, prompt, media, ward(0.25, 3))
    picture, clip = full.blocks.values()
    got_picture, got_clip = found.blocks.values()
    want, slots, _ = ward_merge(picture.rows, 9, by_medoid=False)
    assert [group.slot for group in got_picture.groups] == slots
    assert np.abs(got_picture.rows - want).max() < 1e-6 * np.abs(want).max()
    rows, places, _ = ward_frames(np.split(clip.rows, 3), 0.25, 3)
    assert [(group.frame, group.slot) for group in got_clip.groups] == places
    assert np.abs(got_clip.rows - rows).max() < 1e-6 * np.abs(rows).max()


# --- LLaVA-Video, from pixels to logits ------------------------------------------------------------------------------


class WardReference(VideoReference):
    """The authors' model with its clip's tokens clustered by scipy; newlines are where they were."""

    retain, window = 1.0, 1
    places: Sequence[tuple[int, int]] = ()

    def rows(self, frames: np.ndarray) -> torch.Tensor:
        pooled = self.pooled(self.patches(frames)).detach()  # [T, h, w, d]
        newline, side = self.model.model.image_newline.detach().numpy(), pooled.shape[2]
        line = (side, newline) if self.newline == "grid" else None
        rows, self.places, _ = ward_frames(list(pooled.flatten(1, 2).numpy()), self.retain, self.window, line)
        found = torch.tensor(rows, dtype=torch.float32)
        return found if line else torch.cat([found, self.model.model.image_newline[None]])


@pytest.mark.parametrize("newline", ["grid", "one_token"])
def test_logits_of_llava_video(newline: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = Shape(grid=7, n_text=2, n_vision=3, tied=True, seed=32)
    model = onevision_model(shape)
    source = write_llava_video(tmp_path / "hf", shape, newline, "bilinear", model=model, add_time_instruction=True)
    tower = write_tower(tmp_path / "tower", shape, model, kind="siglip")
    converted = convert(source, tmp_path / "gguf", ConvertConfig("f32", "f32", vision_tower=tower)).folder
    frames = pictures(shape.side)
    clip = lossless(tmp_path / "clip.mp4", frames)
    reference = WardReference(source, model, newline, "bilinear")
    sampling, differences = FrameSampling(n_frames=len(PICKED)), []
    with VisionLLM.load(converted, config=F32) as llm:
        for retain, window in ((0.25, 1), (0.25, 2), (0.07, 5), (0.5, 3), (1.0, 4)):
            reference.retain, reference.window = retain, window
            want = reference.logits(QUESTION, frames[PICKED], TIMES, N_SOURCE / RATE)
            found = llm.prefill(QUESTION, [clip], ward(retain, window), sampling=sampling)
            assert found.stats.n_visual == len(reference.rows(frames[PICKED]))
            ends = [] if newline == "grid" else [(-1, -1)]
            assert [(group.frame, group.slot) for group in found.trace.groups] == [*reference.places, *ends]
            difference = np.abs(found.logits[: len(want)] - want).max() / np.abs(want).max()
            assert difference < LIMITS.whole, (retain, window)
            differences.append(difference)
    with capsys.disabled():
        print(f"\n  newline {newline}: largest difference {max(differences):.1e} of the largest logit")
