"""The whole path against transformers: next-token logits and greedy answers, f32 weights and f32 KV."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from checkpoints import Shape, llava_model, onevision_model, write_llava, write_onevision  # noqa: E402
from limits import LIMITS  # noqa: E402
from reference_hf import Reference  # noqa: E402
from thorough import few  # noqa: E402

from aim_local import GenerateConfig, LoadConfig, VisionLLM  # noqa: E402
from aim_local.convert import ConvertConfig, convert  # noqa: E402

EXACT = {"vision_precision": "exact", "prefill_precision": "exact"}
F32 = LoadConfig(type_k="f32", type_v="f32", flash_attn=False, n_threads=1, **EXACT)
BEFORE, AFTER = "<|im_start|>user ", "\nWhat happens in it?<|im_end|><|im_start|>assistant\n"


@dataclass
class Pair:
    """One checkpoint in both worlds."""

    reference: Reference
    llm: VisionLLM
    side: int


def make_pair(folder: Path, shape: Shape, kind: str, **options: Any) -> Pair:
    make, write = (onevision_model, write_onevision) if kind == "onevision" else (llava_model, write_llava)
    model = make(shape)
    source = write(folder / "hf", shape, model=model)
    convert(source, folder / "gguf", ConvertConfig(text_type="f32", vision_type="f32"))
    return Pair(Reference(source, model), VisionLLM.load(folder / "gguf", config=F32), shape.side)


ONEVISION = {
    "grid5-tied": Shape(grid=5, tied=True, n_text=2, seed=1),
    "grid6": Shape(grid=6, n_text=3, seed=2),
    "grid7-deep": Shape(grid=7, n_text=5, n_vision=3, heads=4, heads_kv=1, seed=3),
    "grid8-mha": Shape(grid=8, n_text=4, heads=2, heads_kv=2, seed=4),
    "grid9-tied": Shape(grid=9, tied=True, n_text=3, patch=6, seed=5),
}


@pytest.fixture(scope="module", params=ONEVISION)
def onevision(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    pair = make_pair(tmp_path_factory.mktemp(request.param), ONEVISION[request.param], "onevision")
    yield pair
    pair.llm.close()


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pair = make_pair(tmp_path_factory.mktemp("llava"), Shape(grid=6, n_text=3, heads_kv=4, seed=6), "llava")
    yield pair
    pair.llm.close()


def video(side: int, n_frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n_frames, side, side, 3), dtype=np.uint8)


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth, so that resampling is exercised and not dominated by noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / rng.uniform(3, 30) + rng.uniform(0, 6)) * np.cos(y / rng.uniform(3, 30)) for _ in range(3)]
    return ((np.stack(waves, -1) + 1) * 127.5).astype(np.uint8)


def check(pair: Pair, prompt: str, media: list[np.ndarray], capsys: pytest.CaptureFixture[str]) -> None:
    want = pair.reference.logits(prompt, media)
    found = pair.llm.prefill(prompt, media, raw=True)
    got = found.logits[: len(want)]
    difference = np.abs(got - want).max() / np.abs(want).max()
    n_ids = pair.reference.inputs(prompt, media)["input_ids"].shape[1]
    with capsys.disabled():
        counts = f"{found.stats.n_visual} visual tokens, {n_ids} in all"
        print(f"\n  {counts}: max difference {difference:.1e} of the largest logit")
    assert found.stats.n_prompt == n_ids
    assert difference < LIMITS.whole
    answer = pair.llm.generate(prompt, media, raw=True, generate=GenerateConfig(max_tokens=32))
    check_greedy(pair, prompt, media, answer.tokens, capsys)


def check_greedy(
    pair: Pair, prompt: str, media: list[np.ndarray], found: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Equal tokens; they may part only where transformers itself is undecided, at a margin below the tolerance."""
    want = pair.reference.greedy(prompt, media, 32)
    if found == want:
        return
    at = next(i for i, (a, b) in enumerate(zip([*found, -1], [*want, -1], strict=False)) if a != b)
    logits = pair.reference.logits_after(prompt, media, want[:at])
    top = np.sort(logits)[::-1]
    margin = (top[0] - top[1]) / np.abs(logits).max()
    with capsys.disabled():
        print(f"  near-tie at token {at}: transformers' margin is {margin:.1e} of the largest logit")
    assert margin < LIMITS.whole, f"token {at}: {found[at : at + 1]} for {want[at : at + 1]}"


def test_text_only(onevision: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    check(onevision, f"{BEFORE}{AFTER}", [], capsys)


@pytest.mark.parametrize("n_frames", few([4, 1, 9], 2))
def test_video(onevision: Pair, n_frames: int, capsys: pytest.CaptureFixture[str]) -> None:
    check(onevision, f"{BEFORE}<__media__>{AFTER}", [video(onevision.side, n_frames)], capsys)


@pytest.mark.parametrize("ratio", few([(100, 31), (171, 160), (40, 40), (23, 90)], 1), ids=str)
def test_image(onevision: Pair, ratio: tuple[int, int], capsys: pytest.CaptureFixture[str]) -> None:
    check(onevision, f"{BEFORE}<__media__>{AFTER}", [image(*ratio)], capsys)


def test_two_images(onevision: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    media = [image(50, 70, 1), image(90, 40, 2)]
    check(onevision, f"{BEFORE}<__media__> and <__media__>{AFTER}", media, capsys)


def test_image_and_video(onevision: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    media = [image(50, 70, 1), video(onevision.side, 3, 2)]
    check(onevision, f"{BEFORE}<__media__>, then <__media__>{AFTER}", media, capsys)


@pytest.mark.parametrize("ratio", few([(100, 31), (40, 40), (23, 90)], 2), ids=str)
def test_llava_image(llava: Pair, ratio: tuple[int, int], capsys: pytest.CaptureFixture[str]) -> None:
    check(llava, "USER: <__media__>\nWhat is it? ASSISTANT:", [image(*ratio)], capsys)


def test_llava_two_images(llava: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    check(llava, "USER: <__media__>\n<__media__>\nWhat is it? ASSISTANT:", [image(40, 30, 1), image(30, 60, 2)], capsys)


def test_llava_text_only(llava: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    check(llava, "USER: What is it? ASSISTANT:", [], capsys)
