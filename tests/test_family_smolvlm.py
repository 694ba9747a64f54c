"""SmolVLM2 against transformers, from the GGUF pair that `convert` has llama.cpp's converter write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from family_case import F32, Case, check, open_case, ours
from family_checkpoints import Clip, message, picture
from family_prompts import PROMPTS, drawn
from family_reduced import check_pruned
from family_stock import check_off_is_stock
from family_use import check_cached, check_chat, check_explain, check_pixels, check_plan, check_without_vision
from thorough import few

from aim_local import LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.engine.model import open_model
from aim_local.errors import UsageError
from aim_local.media import MediaShape
from aim_local.models.number_words import in_words
from aim_local.models.smolvlm import longest_to, times_of, whole_squares
from aim_local.models.text import TextModel

PRUNED = VisualTokenConfig(0.5, prune_layers=(1, 3))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    found = open_case("smolvlm", tmp_path_factory)
    yield found
    found.llm.close()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_like_transformers(case: Case, prompt: str) -> None:
    check(case, *PROMPTS[prompt])


@pytest.mark.parametrize("seed", few(range(12), 2))
def test_merged_and_pruned(case: Case, seed: int) -> None:
    check_pruned(case, *drawn(seed, case.llm.model.text.n_layer, prunes=True))


def test_off_is_stock(case: Case) -> None:
    """A picture of four by four squares."""
    check_off_is_stock(case, picture(512, 512), whole=False)


def test_pixels(case: Case) -> None:
    check_pixels(case, do_image_splitting=False, size={"longest_edge": 128})


def test_plan(case: Case, tmp_path: Path) -> None:
    check_plan(case, PRUNED, tmp_path)


def test_frame_tokens_are_refused_by_name(case: Case) -> None:
    paths, config = case.llm.model.paths, LoadConfig(frame_tokens=40)
    with pytest.raises(
        UsageError, match=r"40, but SmolVLM.* makes equally many .* it is for Qwen2-VL, .*Leave frame_tokens out"
    ):
        open_model(paths.model, paths.mmproj, config, weights=False)


def test_without_vision(case: Case) -> None:
    check_without_vision(case)


def test_explain(case: Case, tmp_path: Path) -> None:
    check_explain(case, PRUNED, tmp_path)


def test_saved_chat(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_chat(case, PRUNED, tmp_path, monkeypatch)


def test_cached(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_cached(case, tmp_path, monkeypatch)


def test_numbers_in_words() -> None:
    from num2words import num2words

    for n in [*range(1300), *range(1300, 1_000_000, 7919), 999_999]:
        assert in_words(n) == num2words(n)


@pytest.mark.parametrize("seed", range(8))
def test_the_text_of_a_video(case: Case, seed: int) -> None:
    """Times to a day, as the processor writes them."""
    rng = np.random.default_rng(seed)
    n, fps = int(rng.integers(1, 40)), float(rng.choice([0.3, 1.0, 23.976, 25.0]))
    indices = np.sort(rng.choice(int(rng.choice([100, 5000, 2_000_000])), n, replace=False)).tolist()
    meta = Clip(np.zeros((n, 8, 8, 3), np.uint8), fps, tuple(indices), indices[-1] + 1).metadata()
    want = case.loaded.processor.replace_video_token({"pixel_values": np.zeros((1, n)), "video_metadata": [meta]}, 0)
    times = tuple(i / fps for i in indices)
    shape = MediaShape("video", n, 8, 8, "", "", times, tuple(indices), (indices[-1] + 1) / fps)
    tower = case.llm.model.tower
    assert tower is not None
    parts = tower.layout(shape, 1.0)
    assert "".join(p if isinstance(p, str) else "<image>" * p.n for p in parts if not isinstance(p, tuple)) == want


def test_frames_of_unknown_times_are_a_second_apart(case: Case) -> None:
    shape = MediaShape("video", 3, 8, 8, "", "", (np.nan,) * 3, (0, 1, 2), np.nan)
    assert times_of(shape) == ([0, 1, 2], 3)


def test_the_published_template_gets_videos(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes pictures alone; the processor takes another for videos."""
    messages = [message("user", ("video",), "What is it?"), message("assistant", "A circle."), message("user", "Red?")]
    want = case.loaded.prompt(messages)
    without = str(case.llm.model.text.chat_template).replace("{% elif c['type'] == 'video' %}{{ '<video>' }}", "")
    monkeypatch.setattr(TextModel, "chat_template", without)
    with VisionLLM.load(case.llm.model.paths.model, case.llm.model.paths.mmproj, config=LoadConfig(**F32)) as llm:
        assert "video" not in without
        assert llm.model.render(ours(messages)).replace("\x000\x00", "<video>") == want


def test_sizes() -> None:
    """Of drawn pictures, before they are cut."""
    from transformers.models.smolvlm import image_processing_pil_smolvlm as pil

    processor = pil.SmolVLMImageProcessorPil()
    seen = list[tuple[int, int]]()
    processor.resize = lambda image, size, **_: seen.append((size.height, size.width))
    for height, width in np.exp(np.random.default_rng(0).uniform(1, 9, (500, 2))).astype(int).tolist():
        for longest, side in ((2048, 512), (1536, 384)):
            image = np.broadcast_to(np.uint8(0), (3, height, width))
            want = pil.get_resize_output_image_size(image, longest)
            assert longest_to(height, width, longest) == want
            processor.resize_for_vision_encoder(np.broadcast_to(np.uint8(0), (3, *want)), side)
            assert whole_squares(*want, side) == seen.pop()
