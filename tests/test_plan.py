"""`plan` counts what prefill then reports, on every kind of model, and quickly."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import numpy as np
import plan_case
import pytest
from media_fixtures import picture, write_clip
from PIL import Image as Picture
from thorough import few

from aim_local import FrameSampling, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.engine.model import Model, open_model
from aim_local.lab.plan import Request, make_plan
from aim_local.lab.plan.request import outline_all, work_out
from aim_local.media.outline import outline_media

clips = plan_case.clips
model = plan_case.model


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / "a.png", folder / "b.jpg"]
    for path, size in zip(paths, ((90, 50), (40, 130)), strict=True):
        Picture.fromarray(picture(3, *size)).save(path)
    turned = Picture.fromarray(picture(3, 80, 40))
    exif = turned.getexif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    turned.save(folder / "turned.jpg", exif=exif)
    return [*paths, folder / "turned.jpg"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLaVA-OneVision with 6 layers."""
    pytest.importorskip("torch")
    from checkpoints import Shape, write_onevision

    from aim_local.convert import ConvertConfig, convert

    folder = tmp_path_factory.mktemp("tiny")
    convert(write_onevision(folder / "hf", Shape(n_text=6, n_frames=5, seed=3)), folder / "gguf", ConvertConfig())
    return folder / "gguf"


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLaVA-1.5: one tile a picture, no pooling."""
    pytest.importorskip("torch")
    from checkpoints import Shape, write_llava

    from aim_local.convert import ConvertConfig, convert

    folder = tmp_path_factory.mktemp("llava")
    convert(write_llava(folder / "hf", Shape(n_text=4)), folder / "gguf", ConvertConfig())
    return folder / "gguf"


# --- counts are prefill's --------------------------------------------------------------------------------------------


def draw(rng: np.random.Generator, n_layer: int, clips: list[Path], pictures: list[Path]) -> tuple[Request, LoadConfig]:
    """A setting: media, frames, question, what is kept, KV types."""
    media: list[Path] = [clips[i] for i in rng.permutation(2)[: rng.integers(0, 3)]]
    media += [pictures[i] for i in rng.permutation(3)[: rng.integers(0 if media else 1, 3)]]
    l1 = int(rng.integers(0, n_layer))
    falling = [1.0, *sorted(rng.uniform(0, 1, n_layer - 1).tolist(), reverse=True)]
    kinds: list[VisualTokenConfig | None] = [
        None,
        VisualTokenConfig.off(),
        VisualTokenConfig.paper(),
        VisualTokenConfig.late_drop(),
        VisualTokenConfig.budget(float(rng.uniform(0.5, 1))),
        VisualTokenConfig(merge_retain=float(rng.uniform(0.05, 1)), prune_layers=None),
        VisualTokenConfig(float(rng.uniform(0.1, 1)), (l1, int(rng.integers(l1 + 1, n_layer + 1)))),
        VisualTokenConfig(retention=falling, importance="grid"),
    ]
    question = " ".join(rng.choice(["what", "Wo ist", "<b>", "ünïcode", "12:30"], int(rng.integers(1, 30))))
    frames = FrameSampling(n_frames=int(rng.integers(1, 12))) if rng.random() < 0.7 else FrameSampling(9, fps=3.0)
    tokens = kinds[int(rng.integers(len(kinds)))]
    types = str(rng.choice(["f16", "f32", "bf16"]))
    system = "Be brief." if rng.random() < 0.3 else None
    return Request(question, media, tokens, frames, system, 1), LoadConfig(type_k=types, type_v=types, n_threads=1)


@pytest.mark.parametrize("n", few([8, 20], 1))
@pytest.mark.parametrize("name", few(["llava", "demo", "tiny"], 1))
def test_counts_are_what_prefill_reports(
    name: str, n: int, clips: list[Path], pictures: list[Path], request: pytest.FixtureRequest
) -> None:
    path = None if name == "demo" else request.getfixturevalue(name)
    rng = np.random.default_rng([ord(c) for c in name])
    n_pruned = 0
    for _ in range(n):
        with closing(open_model(path, weights=False)) as plain:
            wanted, config = draw(rng, plain.text.n_layer, clips, pictures)
        with closing(open_model(path, config=config, weights=False)) as planned:
            outcome = work_out(planned, wanted, outline_all(planned, wanted))
        with VisionLLM.load(path, config=config) as llm:
            done = llm.prefill(
                wanted.prompt, wanted.media, wanted.tokens, sampling=wanted.sampling, system=wanted.system
            )
        sizes, stats = outcome.sizes, done.stats
        assert outcome.problem == ""
        for field in ("n_frames", "n_images", "n_text", "n_visual_full", "n_visual", "n_prompt"):
            assert getattr(sizes, field) == getattr(stats, field), field
        assert sizes.counts == [len(kept) for kept in done.trace.kept]
        assert set(sizes.scored) == set(done.trace.importance)
        assert (outcome.room.n_ctx, outcome.room.kv_bytes) == (stats.n_ctx, stats.kv_bytes)
        assert (sizes.flops["prefill"], sizes.flops["full"]) == (stats.flops, stats.flops_full)
        n_pruned += min(sizes.counts) < max(sizes.counts)
    assert n_pruned >= n // 5


def test_kv_bytes_of_an_answer(model: Model, clips: list[Path]) -> None:
    wanted = Request("What?", clips[:1], VisualTokenConfig.paper(), n_answer=40)
    outcome = work_out(model, wanted, outline_all(model, wanted))
    from aim_local import GenerateConfig

    with VisionLLM.load() as llm:
        answer = llm.generate("What?", clips[:1], VisualTokenConfig.paper(), GenerateConfig(max_tokens=40))
        with llm.chat(VisualTokenConfig.paper(), generate=GenerateConfig(max_tokens=1)) as chat:
            held = chat.ask("What?", clips[:1]).stats.held_bytes
    assert (outcome.room.n_ctx, outcome.room.kv_bytes) == (answer.stats.n_ctx, answer.stats.kv_bytes)
    assert outcome.room.held_bytes == held > answer.stats.held_bytes == 0


def test_text_only_prompt(model: Model) -> None:
    outcome = work_out(model, Request("hello there", n_answer=1), ())
    with VisionLLM.load() as llm:
        stats = llm.prefill("hello there").stats
    assert (outcome.sizes.n_text, outcome.sizes.n_visual, outcome.room.kv_bytes) == (stats.n_text, 0, stats.kv_bytes)


def test_packets_to_decode(tmp_path: Path) -> None:
    """Key frames every 100 packets; the frames asked for are 0 and 299."""
    path = write_clip(
        tmp_path / "a.mp4", n_frames=300, gop=100, b_frames=0, size=(32, 32), options={"sc_threshold": "0"}
    )
    outline = outline_media(path, FrameSampling(n_frames=2, start=0.0))
    assert outline.n_packets == 300
    assert outline.n_decoded == 1 + 100  # frame 0, then from the key frame 200 to 299


# --- speed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", few([2, 10], 1))
def test_ten_minutes_take_under_two_seconds(model: Model, tmp_path: Path, rate: int) -> None:
    n = 600 * rate
    clip = write_clip(
        tmp_path / "long.mp4",
        n_frames=n,
        size=(32, 32),
        ticks_per_second=rate,
        ticks=range(n),
        options={"preset": "ultrafast"},
        pictures=[np.zeros((32, 32, 3), np.uint8)] * n,
    )
    start = time.process_time()
    made = make_plan(model, Request(media=[clip]))
    assert time.process_time() - start < 2
    (media,) = made.to_dict()["media"]
    assert media["timestamps"][-1] == pytest.approx(600 - 1 / rate)
    assert media["source_frames"] == n
