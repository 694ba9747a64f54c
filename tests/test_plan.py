"""`plan`: what it counts is what prefill then reports; what it says of memory and time is checked by hand."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from media_fixtures import picture, write_clip
from PIL import Image as Picture
from scipy.optimize import nnls

from aim_local import FrameSampling, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.cli import _app
from aim_local.errors import ModelError, UsageError
from aim_local.lab.plan import ModelHead, Request, calibration, make_plan
from aim_local.lab.plan import memory as plan_memory
from aim_local.lab.plan import suggest as plan_suggest
from aim_local.lab.plan.calibration import Calibration, Trial
from aim_local.lab.plan.features import STAGES, conditions, features, model_shape, this_machine
from aim_local.lab.plan.memory import SCORES_MAX_BYTES, score_bytes, tensor_bytes
from aim_local.lab.plan.request import outline_all, work_out
from aim_local.lab.plan.suggest import largest
from aim_local.media import Video, open_media
from aim_local.media.outline import outline_media

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    wide = write_clip(folder / "wide.mp4", n_frames=50, size=(128, 72))
    tall = write_clip(folder / "tall.mkv", n_frames=33, size=(64, 96), b_frames=2)
    return [wide, tall]


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


@pytest.fixture(scope="module")
def head() -> Iterator[ModelHead]:
    with ModelHead.load() as found:
        yield found


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


@pytest.mark.parametrize("name", ["demo", "tiny", "llava"])
def test_counts_are_what_prefill_reports(
    name: str, clips: list[Path], pictures: list[Path], request: pytest.FixtureRequest
) -> None:
    model = None if name == "demo" else request.getfixturevalue(name)
    rng = np.random.default_rng([ord(c) for c in name])
    n_pruned = 0
    for _ in range(20):
        with ModelHead.load(model) as plain:
            wanted, config = draw(rng, plain.text.n_layer, clips, pictures)
        with ModelHead.load(model, config=config) as head:
            outcome = work_out(head, wanted, outline_all(head, wanted))
        with VisionLLM.load(model, config=config) as llm:
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
    assert n_pruned >= 4


def test_kv_bytes_of_an_answer(head: ModelHead, clips: list[Path]) -> None:
    wanted = Request("What?", clips[:1], VisualTokenConfig.paper(), n_answer=40)
    outcome = work_out(head, wanted, outline_all(head, wanted))
    from aim_local import GenerateConfig

    with VisionLLM.load() as llm:
        answer = llm.generate("What?", clips[:1], VisualTokenConfig.paper(), GenerateConfig(max_tokens=40))
    assert (outcome.room.n_ctx, outcome.room.kv_bytes) == (answer.stats.n_ctx, answer.stats.kv_bytes)


def test_text_only_prompt(head: ModelHead) -> None:
    outcome = work_out(head, Request("hello there", n_answer=1), ())
    with VisionLLM.load() as llm:
        stats = llm.prefill("hello there").stats
    assert (outcome.sizes.n_text, outcome.sizes.n_visual, outcome.room.kv_bytes) == (stats.n_text, 0, stats.kv_bytes)


def test_outline_is_the_media_without_pixels(clips: list[Path], pictures: list[Path]) -> None:
    for path in (*clips, *pictures):
        sampling = FrameSampling(n_frames=7, start=0.2)
        real, found = open_media(path, sampling), outline_media(path, sampling).item
        assert type(real) is type(found)
        if isinstance(real, Video) and isinstance(found, Video):
            assert real.frames.shape == found.frames.shape
            assert np.array_equal(real.timestamps, found.timestamps)
            assert real.warnings == found.warnings
            assert found.frames.strides[:3] == (0, 0, 0)
        elif not isinstance(real, Video) and not isinstance(found, Video):
            assert real.pixels.shape == found.pixels.shape


def test_packets_to_decode(tmp_path: Path) -> None:
    """Key frames every 100 packets; the frames asked for are 0 and 299."""
    path = write_clip(
        tmp_path / "a.mp4", n_frames=300, gop=100, b_frames=0, size=(32, 32), options={"sc_threshold": "0"}
    )
    outline = outline_media(path, FrameSampling(n_frames=2, start=0.0))
    assert outline.n_packets == 300
    assert outline.n_decoded == 1 + 100  # frame 0, then from the key frame 200 to 299


# --- speed -----------------------------------------------------------------------------------------------------------


def test_ten_minutes_take_under_two_seconds(head: ModelHead, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "long.mp4", n_frames=6000, size=(32, 32), ticks_per_second=10, ticks=range(6000))
    start = time.process_time()
    made = make_plan(head, Request(media=[clip]))
    assert time.process_time() - start < 2
    (media,) = made.to_dict()["media"]
    assert media["timestamps"][-1] == pytest.approx(599.9)
    assert media["source_frames"] == 6000


# --- memory ----------------------------------------------------------------------------------------------------------


def test_weights_are_the_tensors_of_the_file(head: ModelHead) -> None:
    reader = GGUFReader(str(head.paths.model))
    assert tensor_bytes(head.text.header) == sum(int(t.n_bytes) for t in reader.tensors)


def test_scores_memory_of_the_causal_blocks() -> None:
    assert score_bytes(100) == 100 * 100 * 4  # one block, its rows see all keys
    assert score_bytes(256) == (128 * 128 + 128 * 256) * 4
    assert score_bytes(1024) == sum(128 * 128 * i for i in range(1, 9)) * 4
    assert score_bytes(40_000) == SCORES_MAX_BYTES
    source = (ROOT / "patches/overlay/src/aim-importance.h").read_text()
    found = re.search(r"AIM_SCORES_MAX_BYTES \(size_t\((\d+)\)\*1024\*1024\)", source)
    assert found
    assert int(found[1]) << 20 == SCORES_MAX_BYTES


def test_compute_buffers_are_those_of_a_loaded_model(head: ModelHead, clips: list[Path]) -> None:
    from aim_local.native import log as _logs

    wanted = Request("What?", clips[:1], VisualTokenConfig.paper(), n_answer=1)
    outcome = work_out(head, wanted, outline_all(head, wanted))
    with VisionLLM.load() as llm, _logs.recorded() as lines:
        llm.prefill("What?", clips[:1], VisualTokenConfig.paper())
    found = re.findall(r"sched_reserve: .* compute buffer size = +([\d.]+) MiB", "".join(lines))
    assert outcome.room.compute_bytes == int(sum(map(float, found)) * 2**20) > 0


def test_cgroup_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("600000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 50000\n")
    assert plan_memory._room(tmp_path, "memory.max", "memory.current") == 450_000
    (tmp_path / "memory.max").write_text("max\n")
    assert plan_memory._room(tmp_path, "memory.max", "memory.current") is None
    monkeypatch.setattr(plan_memory, "_mem_available", lambda: 10**12)
    monkeypatch.setattr(plan_memory, "_cgroup_rooms", lambda: [450_000])
    assert plan_memory.available_bytes() == 450_000


# --- what fits -------------------------------------------------------------------------------------------------------


def test_suggestions_are_tried_and_the_largest(
    head: ModelHead, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Request("What?", clips[:1], VisualTokenConfig.off(), FrameSampling(n_frames=40), n_answer=1)

    def needed(n: int) -> int:
        request = replace(wanted, sampling=FrameSampling(n_frames=n))
        return work_out(head, request, outline_all(head, request)).memory.needed

    monkeypatch.setattr(plan_memory, "program_bytes", lambda: 10**8)
    limit = needed(17)
    monkeypatch.setattr(plan_memory, "available_bytes", lambda: limit)
    fits = [n for n in range(1, 41) if needed(n) <= limit]
    made = make_plan(head, wanted)
    assert not made.outcome.fits
    assert made.verdict.startswith("does not fit: needs about")
    assert f"--frames {max(fits)}" in [s.change for s in made.suggestions]
    assert all(s.needed <= limit for s in made.suggestions)
    assert "try --frames" in made.advice


def test_weights_too_large(head: ModelHead, clips: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_memory, "available_bytes", lambda: 1_000_000)
    made = make_plan(head, Request("What?", clips[:1]))
    assert made.suggestions == ()
    assert "weights and program alone" in made.advice


def test_context_too_small_has_a_suggestion(clips: list[Path]) -> None:
    with ModelHead.load(config=LoadConfig(n_ctx=256)) as head:
        made = make_plan(head, Request("What?", clips[:1], VisualTokenConfig.off(), FrameSampling(n_frames=40)))
    assert "does not fit" in made.verdict
    found = next(s.change for s in made.suggestions if s.change.startswith("--frames"))
    n = int(found.split()[1])
    with VisionLLM.load(config=LoadConfig(n_ctx=256)) as llm:
        assert llm.prefill("What?", clips[:1], VisualTokenConfig.off(), sampling=FrameSampling(n_frames=n))
        from aim_local.errors import ContextError

        with pytest.raises(ContextError):
            llm.prefill("What?", clips[:1], VisualTokenConfig.off(), sampling=FrameSampling(n_frames=n + 1))


def test_largest_bisects() -> None:
    for limit in range(12):
        found = largest(10, lambda n, limit=limit: n if n <= limit else None)  # type: ignore[arg-type, return-value]
        assert (found[0] if found else 0) == min(limit, 10)


# --- calibration -----------------------------------------------------------------------------------------------------


def test_fit_is_scipys() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        a, b = rng.uniform(-1, 1, (8, 4)), rng.uniform(-1, 2, 8)
        ours, (theirs, residual) = calibration.nonnegative_least_squares(a, b), nnls(a, b)
        assert ours == pytest.approx(theirs, abs=1e-8)
        assert np.linalg.norm(a @ ours - b) == pytest.approx(residual, abs=1e-8)


def test_fit_finds_the_rates_of_an_exact_machine() -> None:
    rng = np.random.default_rng(1)
    rates = {"vision": {"flops": 3e-12}, "prefill": {"passes": 1e-4, "row_flops": 2e-12}}
    amounts = [
        {"vision": {"flops": v * 1e9}, "prefill": {"passes": p, "row_flops": r * 1e9}}
        for v, p, r in rng.uniform(1, 50, (6, 3))
    ]
    measured = [calibration.predict(rates, a) for a in amounts]
    found = calibration.fit(amounts, measured)
    for stage, by_feature in rates.items():
        assert found[stage] == pytest.approx(by_feature, rel=1e-6)


def test_one_disturbed_setting_does_not_bend_the_rates() -> None:
    rng = np.random.default_rng(2)
    amounts = [{"prefill": {"passes": p, "row_flops": r}} for p, r in rng.uniform(1, 50, (8, 2))]
    measured = [{"prefill": 2 * a["prefill"]["passes"] + 3 * a["prefill"]["row_flops"]} for a in amounts]
    measured[3]["prefill"] *= 4
    assert calibration.fit(amounts, measured)["prefill"] == pytest.approx({"passes": 2, "row_flops": 3}, rel=0.02)


def made_calibration(head: ModelHead, **changes: Any) -> Calibration:
    stages = dict.fromkeys(STAGES, 0.1)
    off = {**stages, "vision": 0.2}
    trials = (
        *(
            Trial(*t)
            for t in (
                ("a", True, 3, 0.1, stages, stages),
                ("b", False, 3, 0.2, stages, off),
                ("c", False, 3, 0.3, off, off),
            )
        ),
    )
    rates: dict[str, dict[str, float]] = {
        "vision": {"flops": 1e-9},
        "other": {"runs": 0.25},
        "decode": {"kv_bytes": 1e-9},
    }
    found = Calibration(
        head.name, datetime.now(UTC).isoformat(), model_shape(head), conditions(head), this_machine(), rates, trials
    )
    return replace(found, **changes)


def test_estimate_comes_from_the_stored_rates(head: ModelHead, clips: list[Path]) -> None:
    assert make_plan(head, Request(media=clips[:1])).first_token_s is None
    stored = made_calibration(head)
    path = calibration.save(stored)
    assert path.parent == calibration.folder()
    assert calibration.load_all() == ([stored], [])
    made = make_plan(head, Request(media=clips[:1]))
    assert made.seconds["vision"] == pytest.approx(made.outcome.sizes.flops["vision"] * 1e-9)
    assert made.first_token_s == pytest.approx(made.seconds["vision"] + 0.25)  # decode is no part of it
    assert made.choice.calibration
    assert made.choice.calibration.median_error == pytest.approx((0.1 / 0.7 + 0) / 2)
    assert (made.choice.calibration.median_spread, made.choice.calibration.was_busy) == (0.2, False)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"machine": {"processor": "another"}}, "processor 'another'"),
        ({"machine": {"aim_local": "0.0.1"}}, "aim_local '0.0.1'"),
        ({"conditions": {"threads": 77}}, "threads 77"),
    ],
)
def test_stale_calibration_says_why(head: ModelHead, changes: dict[str, Any], told: str) -> None:
    plain = made_calibration(head)
    wrong = {key: {**getattr(plain, key), **value} for key, value in changes.items()}
    calibration.save(replace(plain, **wrong))
    made = make_plan(head, Request())
    assert made.seconds == {}
    assert told in made.choice.reason
    assert "--calibrate" in made.choice.reason


def test_another_models_rates_are_called_rough(head: ModelHead) -> None:
    shape = {**model_shape(head), "text": {}, "n_params": 10}
    calibration.save(made_calibration(head, model="other", shape=shape))
    made = make_plan(head, Request())
    assert made.choice.scaled
    assert made.seconds["other"] == 0.25


def test_damaged_calibration_is_told_and_passed_over(head: ModelHead) -> None:
    calibration.folder().mkdir(parents=True)
    (calibration.folder() / "x.json").write_text('{"format": 1}')
    made = make_plan(head, Request())
    assert made.seconds == {}
    assert any("x.json is no calibration" in line for line in made.warnings)


def test_age(head: ModelHead) -> None:
    old = made_calibration(head, date=(datetime.now(UTC) - timedelta(days=3)).isoformat())
    assert old.age_days == pytest.approx(3, abs=0.01)


def test_calibrating_measures_and_proves() -> None:
    from aim_local.lab.plan.trials import calibrate

    with VisionLLM.load() as llm:
        made = calibrate(llm, seconds=0.0)  # one round of few frames
    assert len(made.proof) >= 6
    assert not {t.name for t in made.proof} & {t.name for t in made.trials if t.fitted}
    assert all(set(t.measured) == set(STAGES) == set(t.predicted) for t in made.trials)
    assert all(calibration.total(t.measured) > 0 for t in made.trials)
    calibration.save(made)
    with ModelHead.load() as head:
        assert make_plan(head, Request()).choice == calibration.Choice(made)


def test_calibrating_without_eyes_and_without_pruning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text-only model is measured on text; one that cannot prune on merging."""
    import aim_local.engine.plan
    from aim_local.lab.plan.trials import calibrate

    with VisionLLM.load() as llm:
        shutil.copy(llm.paths.model, tmp_path / "text.gguf")
        monkeypatch.setattr(aim_local.engine.plan, "unsupported_reason", lambda _: "not among qwen2, llama")
        merged = calibrate(llm, seconds=0.0)
    with VisionLLM.load(tmp_path / "text.gguf") as llm:
        text = calibrate(llm, seconds=0.0)
    assert all(trial.measured["importance"] == 0 for trial in merged.trials)
    assert all(trial.measured["vision"] == 0 < trial.measured["prefill"] for trial in text.trials)


def test_features_grow_with_the_work(head: ModelHead, clips: list[Path]) -> None:
    def amounts(n: int) -> dict[str, dict[str, float]]:
        request = Request("What?", clips[:1], VisualTokenConfig.off(), FrameSampling(n_frames=n))
        outcome = work_out(head, request, outline_all(head, request))
        return features(head, outcome.sizes, outcome.room.kv_bytes, outcome.outlines)

    few, many = amounts(4), amounts(8)
    assert set(few) == set(STAGES)
    assert many["vision"]["flops"] == 2 * few["vision"]["flops"]
    assert many["prefill"]["row_flops"] > few["prefill"]["row_flops"]
    assert many["decode"]["weight_bytes"] == few["decode"]["weight_bytes"]


# --- bad input -------------------------------------------------------------------------------------------------------


def run_cli(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str, str]:
    code = _app.app(["plan", *map(str, args)], standalone_mode=False)
    out, err = capsys.readouterr()
    return int(code or 0), out, err


def test_text_only_model(tmp_path: Path, clips: list[Path], head: ModelHead) -> None:
    shutil.copy(head.paths.model, tmp_path / "text.gguf")
    with ModelHead.load(tmp_path / "text.gguf") as text:
        assert make_plan(text, Request("hello")).outcome.sizes.n_visual == 0
        with pytest.raises(ModelError, match="text-only"):
            make_plan(text, Request("hello", clips))


def test_pruning_on_another_architecture(head: ModelHead, clips: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import aim_local.engine.plan

    assert aim_local.engine.plan.unsupported_reason(head.text.handle) == ""  # known without weights
    monkeypatch.setattr(aim_local.engine.plan, "unsupported_reason", lambda _: "gemma3 is not among qwen2, llama")
    with pytest.raises(ModelError, match="qwen2, llama"):
        make_plan(head, Request("What?", clips[:1], VisualTokenConfig.paper()))
    assert make_plan(head, Request("What?", clips[:1])).outcome.sizes.tokens == VisualTokenConfig.off()


def test_foreign_tower_is_refused(tmp_path: Path, head: ModelHead, clips: list[Path]) -> None:
    for path in (head.paths.model, head.paths.mmproj):
        assert path
        shutil.copy(path, tmp_path / path.name)
    name = tmp_path / "mmproj.gguf"
    name.write_bytes(name.read_bytes().replace(b"llava_onevision", b"llava_anotheone", 1))
    with ModelHead.load(tmp_path) as foreign, pytest.raises(ModelError, match="llava_anotheone"):
        make_plan(foreign, Request("What?", clips[:1]))


def test_with_types_checks(head: ModelHead) -> None:
    with ModelHead.load(config=LoadConfig(flash_attn=False)) as plain, pytest.raises(UsageError):
        plain.with_types("q8_0", "q8_0")
    assert head.with_types("q8_0", "q4_0").text.kv_bytes_per_cell() < head.text.kv_bytes_per_cell()
    assert list(plan_suggest._KV_TYPES) == ["q8_0", "q4_0"]


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["no-such-model"], 1, "no model called"),
        (["--video", "missing.mp4"], 1, "no such file"),
        (["--tokens", "tiny"], 2, "unknown"),
        (["--frames", "0", "--video", "VIDEO"], 2, "1 or more"),
        (["--type-k", "q3"], 2, "type_k"),
        (["--prune", "5,2", "--video", "VIDEO"], 2, "l1"),
        (["--max-tokens", "0"], 2, "max_tokens"),
        (["-p", " "], 2, "empty"),
        (["--calibrate", "-p", "x"], 2, "--calibrate"),
        (["BROKEN"], 1, "head"),
    ],
)
def test_bad_input_is_one_line(
    args: list[str],
    code: int,
    told: str,
    clips: list[Path],
    head: ModelHead,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(head.paths.model.read_bytes()[:3000])
    names = {"VIDEO": str(clips[0]), "BROKEN": str(broken)}
    found, out, err = run_cli(capsys, *(names.get(arg, arg) for arg in args))
    assert (found, out) == (code, "")
    assert told in err
    assert len(err.strip().splitlines()) == 1


def test_cli_prints_and_json(clips: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_cli(capsys, "--video", clips[0], "--tokens", "paper", "-p", "What?")
    assert code == 0
    assert "fits: needs about" in out
    assert "per layer" in out
    assert "no estimate of time" in out
    code, out, _ = run_cli(capsys, "--video", clips[0], "--tokens", "paper", "-p", "What?", "--json")
    data = json.loads(out)
    assert code == 0
    assert data["fits"] is True
    assert data["calibration"]["used"] is False
    assert sum(data["memory"]["parts"].values()) == data["memory"]["needed"]
