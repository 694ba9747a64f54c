"""LLaVA-Video's whole path against its authors' formulas: next-token logits for a question about a real clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from checkpoints import Shape, onevision_model, write_llava_video, write_tower  # noqa: E402
from limits import LIMITS  # noqa: E402
from media_fixtures import RATE, write_clip  # noqa: E402
from reference_video import VideoReference, sentence  # noqa: E402

from aim_local import FrameSampling, LoadConfig, VisionLLM  # noqa: E402
from aim_local.convert import ConvertConfig, convert  # noqa: E402

EXACT = {"vision_precision": "exact", "prefill_precision": "exact"}
F32 = LoadConfig(type_k="f32", type_v="f32", flash_attn=False, n_threads=1, **EXACT)
N_SOURCE = 13
PICKED = [0, 3, 6, 9, 12]  # numpy.linspace(0, 12, 5)
TIMES = [i / RATE for i in PICKED]
QUESTION = "How many shapes are there?"
SHAPES = {6: Shape(grid=6, n_text=3, seed=31), 7: Shape(grid=7, n_text=2, n_vision=3, tied=True, seed=32)}
LAYOUTS = [
    ("grid", "bilinear", True),
    ("grid", "average", True),
    ("one_token", "average", True),
    ("grid", "bilinear", False),
]


def pictures(side: int) -> np.ndarray:
    """uint8 [N_SOURCE, side, side, 3]: smooth, and no two alike."""
    rng = np.random.default_rng(side)
    y, x = np.mgrid[0:side, 0:side]
    waves = [
        [np.sin(x / rng.uniform(2, 9) + rng.uniform(0, 6)) * np.cos(y / rng.uniform(2, 9)) for _ in range(3)]
        for _ in range(N_SOURCE)
    ]
    return np.moveaxis((np.array(waves) + 1) * 127.5, 1, -1).astype(np.uint8)


def lossless(path: Path, frames: np.ndarray) -> Path:
    """An MP4 whose decoded frames are `frames`, byte for byte."""
    side = frames.shape[1]
    options = {"qp": "0", "preset": "ultrafast"}
    return write_clip(path, len(frames), "libx264rgb", (side, side), "rgb24", options=options, pictures=list(frames))


def test_the_sentence_is_the_authors() -> None:
    assert sentence([0.0, 0.32, 0.64], 0.96) == (
        "The video lasts for 0.96 seconds, and 3 frames are uniformly sampled from it. These frames are located at "
        "0.00s,0.32s,0.64s.Please answer the following questions related to this video."
    )


@pytest.mark.parametrize(("newline", "pool", "n_rows"), [("grid", "bilinear", 20), ("grid", "average", 12)])
def test_the_reference_counts_as_the_authors(newline: str, pool: str, n_rows: int, tmp_path: Path) -> None:
    """A grid of 7: four rows of four tokens and a newline, or three of three and a newline."""
    model = onevision_model(SHAPES[7])
    folder = write_llava_video(tmp_path, SHAPES[7], newline, pool, model=model)
    rows = VideoReference(folder, model, newline, pool).rows(pictures(SHAPES[7].side)[:2])
    assert len(rows) == 2 * n_rows
    per_row = {20: 5, 12: 4}[n_rows]
    assert torch.equal(rows[per_row - 1 :: per_row], model.model.image_newline.expand(len(rows) // per_row, -1))


def check(
    folder: Path, shape: Shape, layout: tuple[str, str, bool], asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint of `layout` below `folder` in both worlds. `asked`: what the runtime is given as the question."""
    newline, pool, times = layout
    model = onevision_model(shape)
    source = write_llava_video(folder / "hf", shape, newline, pool, model=model, add_time_instruction=times)
    tower = write_tower(folder / "tower", shape, model, kind="siglip")
    converted = convert(source, folder / "gguf", ConvertConfig("f32", "f32", vision_tower=tower)).folder
    frames = pictures(shape.side)
    clip = lossless(folder / "clip.mp4", frames)
    reference = VideoReference(source, model, newline, pool, times or asked != QUESTION)
    shown = QUESTION, frames[PICKED], TIMES, N_SOURCE / RATE
    want = reference.logits(*shown)
    with VisionLLM.load(converted, config=F32) as llm:
        found = llm.prefill(asked, [clip], sampling=FrameSampling(n_frames=len(PICKED)))
    got = found.logits[: len(want)]
    difference = np.abs(got - want).max() / np.abs(want).max()
    with capsys.disabled():
        print(f"\n  {newline}, {pool}: max difference {difference:.1e} of the largest logit")
    assert found.stats.n_visual == len(reference.rows(frames[PICKED]))
    assert found.stats.n_prompt == reference.n_prompt(*shown)
    assert difference < LIMITS.whole


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("grid", SHAPES)
def test_the_layout_it_shares_with_llava_onevision(
    grid: int, told: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such a checkpoint is LLaVA-OneVision. With the sentence as a part of the question it is what LLaVA-Video sees."""
    asked = f"{sentence(TIMES, N_SOURCE / RATE)}\n{QUESTION}" if told else QUESTION
    check(tmp_path, SHAPES[grid], ("one_token", "bilinear", False), asked, capsys)


@pytest.mark.parametrize("grid", SHAPES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_logits_of_a_clip(
    grid: int, layout: tuple[str, str, bool], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(tmp_path, SHAPES[grid], layout, QUESTION, capsys)
