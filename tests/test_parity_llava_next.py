"""LLaVA-NeXT and LLaVA-NeXT-Video against transformers: pixels, tokens, counts, logits, greedy answers, in f32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from checkpoints import Shape  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from limits import LIMITS  # noqa: E402
from llava_next_case import CELLS, MEAN, STD, Pair, clip, make_pair, picture  # noqa: E402
from prompt_steps import read_and_plan  # noqa: E402
from thorough import examples, few  # noqa: E402

from aim_local import GenerateConfig, VisualTokenConfig  # noqa: E402
from aim_local.media import MediaShape  # noqa: E402
from aim_local.models.pieces import TextPiece  # noqa: E402
from aim_local.models.pixels import PreprocessConfig, anyres_tiles, plan_image  # noqa: E402
from aim_local.models.prompt import Message, mark  # noqa: E402

OFF = VisualTokenConfig.off()
SHAPES = {
    "llama": Shape(grid=6, n_text=3, heads_kv=4, seed=41),
    "mistral": Shape(grid=4, patch=6, n_text=3, heads=4, heads_kv=2, seed=42),
    "video": Shape(grid=6, n_text=3, heads_kv=4, n_vision=3, seed=43),
}
PROMPT = "USER: <__media__>\nWhat is it? ASSISTANT:"
SIDE = 48


# upstream's form of the mmproj is the same beside another language tower
PAIRS = [("llama", ""), ("llama", "new"), ("llama", "old"), ("mistral", ""), ("video", "")]


@pytest.fixture(scope="module", params=PAIRS, ids=" ".join)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    kind, form = request.param
    made = make_pair(tmp_path_factory.mktemp("next"), SHAPES[kind], kind, form)
    yield made
    made.llm.close()


def check(pair: Pair, prompt: str, media: list[np.ndarray], capsys: pytest.CaptureFixture[str]) -> None:
    want = pair.reference.logits(prompt, media)
    found = pair.llm.prefill(prompt, media, OFF, raw=True)
    difference = np.abs(found.logits[: len(want)] - want).max() / np.abs(want).max()
    with capsys.disabled():
        print(f"\n  {found.stats.n_visual} visual tokens: max difference {difference:.1e} of the largest logit")
    assert flat(pair, prompt, media) == expected(pair, prompt, media)
    assert difference < LIMITS.whole
    answer = pair.llm.generate(prompt, media, OFF, GenerateConfig(max_tokens=32), raw=True)
    check_greedy(pair, prompt, media, answer.tokens)


def flat(pair: Pair, prompt: str, media: list[np.ndarray]) -> list[int]:
    """Token ids of the planned prompt, -1 for visual ones."""
    _, plan = read_and_plan(pair.llm, prompt, media, OFF, raw=True)
    return [token for p in plan.pieces for token in (p.tokens if isinstance(p, TextPiece) else [-1] * p.n)]


def expected(pair: Pair, prompt: str, media: list[np.ndarray]) -> list[int]:
    vocab = pair.reference.tokenizer.get_vocab()
    visual = {vocab["<image>"], vocab["<video>"]}
    return [-1 if i in visual else i for i in pair.reference.inputs(prompt, media)["input_ids"][0].tolist()]


def check_greedy(pair: Pair, prompt: str, media: list[np.ndarray], found: list[int]) -> None:
    """Equal tokens; they may part only where transformers itself is undecided."""
    want = pair.reference.greedy(prompt, media, 32)
    if found == want:
        return
    at = next(i for i, (a, b) in enumerate(zip([*found, -1], [*want, -1], strict=False)) if a != b)
    logits = pair.reference.logits_after(prompt, media, want[:at])
    top = np.sort(logits)[::-1]
    assert (top[0] - top[1]) / np.abs(logits).max() < LIMITS.whole, f"token {at}: {found[at:]} for {want[at:]}"


def test_text_only(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    check(pair, "USER: What is it? ASSISTANT:", [], capsys)


@pytest.mark.parametrize("size", few([(100, 31), (40, 40), (23, 90)], 1), ids=str)
def test_one_picture(pair: Pair, size: tuple[int, int], capsys: pytest.CaptureFixture[str]) -> None:
    check(pair, PROMPT, [picture(*size)], capsys)


def test_two_pictures_in_several_turns(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = f"{PROMPT} It moves.</s>USER: And <__media__>? ASSISTANT:"
    check(pair, prompt, [picture(50, 70, 1), picture(90, 40, 2)], capsys)


def test_a_conversation(pair: Pair) -> None:
    """Two turns of a chat: the second answer is transformers' to the whole rendered conversation."""
    media = [picture(50, 70, 1), picture(30, 60, 2)]
    with pair.llm.chat(OFF, generate=GenerateConfig(max_tokens=8)) as chat:
        first = chat.ask("What is it?", media[:1])
        found = chat.ask("And this?", media[1:])
    turns = [
        Message("user", "What is it?", [(0, "image")]),
        Message("assistant", first.text),
        Message("user", "And this?", [(1, "image")]),
    ]
    rendered = pair.llm.render(turns).replace(mark(0), "<__media__>").replace(mark(1), "<__media__>")
    want = pair.reference.greedy(rendered, media, 8)
    assert pair.reference.tokenizer.decode(want) == pair.reference.tokenizer.decode(found.tokens)


@pytest.mark.parametrize("pair", [("video", "")], indirect=True, ids=" ".join)
def test_clips(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    for n_frames in (2, 5, 8):
        check(pair, PROMPT, [clip(n_frames, 30, 44, n_frames)], capsys)
    media = [clip(2, 31, 31, 1), picture(60, 20, 2), clip(2, 31, 31, 3)]
    check(pair, "USER: <__media__>\n<__media__>\n<__media__>\nWhat is it? ASSISTANT:", media, capsys)


# --- pixels and counts ----------------------------------------------------------------------------------------------

NEXT = PreprocessConfig("anyres", SIDE, tuple(MEAN), pinpoints=tuple((SIDE * h, SIDE * w) for h, w in CELLS))


@settings(deadline=None, max_examples=examples(40))
@given(height=st.integers(1, 300), width=st.integers(1, 300))
def test_pixels_are_the_processors(height: int, width: int) -> None:
    hf = pytest.importorskip("transformers.models.llava_next.image_processing_pil_llava_next")
    size = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    processor = hf.LlavaNextImageProcessorPil(**size, image_grid_pinpoints=[list(p) for p in NEXT.pinpoints])
    image = np.random.default_rng(height * 999 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    want = np.moveaxis(processor(image, input_data_format="channels_last", return_tensors="np").pixel_values[0], 1, -1)
    got = anyres_tiles(image, NEXT)
    assert got.shape == want.shape
    assert np.abs(got / 255 - (want * np.array(STD) + np.array(MEAN))).max() < 1e-5


@settings(deadline=None, max_examples=examples(200))
@given(height=st.integers(1, 3000), width=st.integers(1, 3000), patches=st.integers(1, 12))
def test_counts_are_the_processors(height: int, width: int, patches: int) -> None:
    from types import SimpleNamespace

    from transformers import LlavaNextProcessor

    pinpoints = tuple((patches * 4 * h, patches * 4 * w) for h, w in CELLS)
    config = PreprocessConfig("anyres", patches * 4, tuple(MEAN), pinpoints=pinpoints, max_tiles=1 << 20)
    processor = SimpleNamespace(
        image_processor=SimpleNamespace(image_grid_pinpoints=[list(p) for p in pinpoints]),
        patch_size=4,
        num_additional_image_tokens=0,
    )
    processor._get_unpadded_features = LlavaNextProcessor._get_unpadded_features.__get__(processor)
    want = LlavaNextProcessor._get_number_of_features(processor, height, width, patches * 4, patches * 4)
    assert plan_image(height, width, config, patches).n_tokens == want


def test_a_published_picture_has_its_2880_tokens_at_most(pair: Pair) -> None:
    """24 x 24 patches and the published pinpoints: base view, grid, newlines; 36 tokens were taken before."""
    config = PreprocessConfig("anyres", 336, tuple(MEAN), pinpoints=tuple((336 * h, 336 * w) for h, w in CELLS))
    assert plan_image(672, 672, config, 24).n_tokens == 576 + 48 * 49
    tower = pair.llm.model.tower
    assert tower is not None
    shape = MediaShape("image", 1, 40, 40, "x", "", (), (), float("nan"))
    assert tower.count(shape, 1.0) == len(pair.reference.rows(picture(40, 40)))
