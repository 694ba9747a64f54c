"""`plan` on memory: weights, buffers, limits, and suggestions that fit."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import plan_case
import pytest
from gguf import GGUFReader
from media_fixtures import picture, write_clip
from PIL import Image as Picture

from aim_local import FrameSampling, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.engine.model import Model, open_model
from aim_local.engine.read import read_media
from aim_local.engine.watch import Watch
from aim_local.errors import ContextError
from aim_local.lab.plan import Request, make_plan
from aim_local.lab.plan import memory as plan_memory
from aim_local.lab.plan.memory import tensor_bytes
from aim_local.lab.plan.request import outline_all, work_out
from aim_local.lab.plan.suggest import largest
from aim_local.media import Video
from aim_local.native import log
from aim_local.native.staged import score_bytes, score_kernels
from aim_local.settings import parse_setting

clips = plan_case.clips
model = plan_case.model


# --- memory ----------------------------------------------------------------------------------------------------------


def test_weights_are_the_tensors_of_the_file(model: Model) -> None:
    reader = GGUFReader(str(model.paths.model))
    assert tensor_bytes(model.text.header) == sum(int(t.n_bytes) for t in reader.tensors)


def test_memory_of_scoring_is_linear() -> None:
    """Per row its key and each head's result; once 6 steps, scores of a block's 32 rows, and their queries."""
    n_head, n_head_kv, d, n = 14, 2, 64, 480  # whole panels of every kernel
    key = d * 3 // 2 if score_kernels()[0] == "amx" else d  # three halves, or a float
    per_row = n_head_kv * key + n_head + 6 + 32
    assert score_bytes(n, n_head, n_head_kv, d) == 4 * (n * per_row + 32 * key)
    assert score_bytes(100 * n, n_head, n_head_kv, d) == 4 * (100 * n * per_row + 32 * key)


def test_compute_buffers_are_those_of_a_loaded_model(
    model: Model, clips: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan asks a context without memory; llama.cpp logs what the one with memory takes."""
    wanted = Request("What?", clips[:1], VisualTokenConfig.paper(), n_answer=1)
    outcome = work_out(model, wanted, outline_all(model, wanted))
    log.echo_native_log()
    with VisionLLM.load() as llm:
        llm.prefill("What?", clips[:1], VisualTokenConfig.paper())
    log.echo_native_log(False)
    # a context may reserve again, in the place of what it had: the last line of each buffer counts
    lines = re.findall(r"sched_reserve: +(\S+) compute buffer size = +([\d.]+) MiB", capsys.readouterr().err)
    found = {name: float(size) for name, size in lines}
    assert found
    assert outcome.room.compute_bytes == pytest.approx(sum(found.values()) * 2**20, abs=0.01 * 2**20 * len(found))


def test_clustering_holds_all_distances_of_a_window(model: Model, clips: list[Path]) -> None:
    """Doubles between all rows of 3 of 8 frames, or of all 8 where a window is longer; one picture's tile, 8 x 8."""
    for window, n_rows, squares in ((1, 16, 8 * 16**2), (3, 48, 2 * 48**2 + 32**2), (30, 128, 128**2)):
        tokens = VisualTokenConfig(merge_by="ward", merge_window=window)
        wanted = Request("What?", clips[:1], tokens, FrameSampling(n_frames=8), n_answer=1)
        outcome = make_plan(model, wanted).outcome
        assert outcome.memory.parts["clustering"] == 8 * n_rows**2
        assert outcome.sizes.flops["merge"] == pytest.approx(squares * model.text.n_embd)
    assert make_plan(model, Request("What?", clips[:1], n_answer=1)).outcome.memory.parts["clustering"] == 0


def test_frames_are_what_a_run_holds(tmp_path: Path) -> None:
    """Frames at the tower's size and their thumbnails, however large the clip; of a picture nearly so much."""
    clip = write_clip(tmp_path / "large.mp4", n_frames=12, size=(640, 360))
    still = tmp_path / "large.png"
    Picture.fromarray(picture(3, 640, 360)).save(still)
    with VisionLLM.load() as llm:
        for path in (clip, still):
            request = Request("What?", [path], VisualTokenConfig.off(), FrameSampling(n_frames=12))
            outcome = work_out(llm.model, request, outline_all(llm.model, request))
            (item,) = read_media(llm.model, [path], request.sampling, Watch()).items
            grids = llm.prefill("What?", [path], request.tokens, sampling=request.sampling).trace.grids
            pixels = item.frames if isinstance(item, Video) else item.pixels
            held = pixels.nbytes + sum(grid.pixels.nbytes for grid in grids)
            assert held <= outcome.memory.parts["frames"] <= 1.5 * held


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
    model: Model, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Request("What?", clips[:1], VisualTokenConfig.off(), FrameSampling(n_frames=40), n_answer=1)

    def needed(n: int) -> int:
        request = replace(wanted, sampling=FrameSampling(n_frames=n))
        return work_out(model, request, outline_all(model, request)).memory.needed

    monkeypatch.setattr(plan_memory, "program_bytes", lambda: 10**8)
    limit = needed(17)
    monkeypatch.setattr(plan_memory, "available_bytes", lambda: limit)
    fits = [n for n in range(1, 41) if needed(n) <= limit]
    made = make_plan(model, wanted)
    assert not made.outcome.fits
    assert made.verdict.startswith("does not fit: needs about")
    assert f"n_frames={max(fits)}" in [s.change for s in made.suggestions]
    assert all(s.needed <= limit for s in made.suggestions)
    assert "try n_frames=" in made.advice


def test_weights_too_large(model: Model, clips: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_memory, "available_bytes", lambda: 1_000_000)
    made = make_plan(model, Request("What?", clips[:1]))
    assert made.suggestions == ()
    assert "weights and program alone" in made.advice


def test_context_too_small_has_a_suggestion(clips: list[Path]) -> None:
    with closing(open_model(config=LoadConfig(n_ctx=256), weights=False)) as model:
        made = make_plan(model, Request("What?", clips[:1], VisualTokenConfig.off(), FrameSampling(n_frames=40)))
    assert "does not fit" in made.verdict
    found = next(s.change for s in made.suggestions if s.change.startswith("n_frames="))
    n = int(found.partition("=")[2])
    with VisionLLM.load(config=LoadConfig(n_ctx=256)) as llm:
        assert llm.prefill("What?", clips[:1], VisualTokenConfig.off(), sampling=FrameSampling(n_frames=n))
        with pytest.raises(ContextError):
            llm.prefill("What?", clips[:1], VisualTokenConfig.off(), sampling=FrameSampling(n_frames=n + 1))


def test_largest_bisects() -> None:
    for limit in range(12):
        found = largest(10, lambda n, limit=limit: n if n <= limit else None)  # type: ignore[arg-type, return-value]
        assert (found[0] if found else 0) == min(limit, 10)


@pytest.mark.parametrize(("flash_attn", "is_named"), [("auto", True), (False, False)])
def test_other_kv_types_are_tried(
    flash_attn: str | bool, is_named: bool, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quantised values need flash attention: without it none are named."""
    monkeypatch.setattr(plan_memory, "program_bytes", lambda: 10**8)
    request = Request("What?", clips[:1], VisualTokenConfig.off(), FrameSampling(n_frames=40))
    with closing(open_model(config=LoadConfig(flash_attn=flash_attn), weights=False)) as model:
        needed = work_out(model, request, outline_all(model, request)).memory.needed
        monkeypatch.setattr(plan_memory, "available_bytes", lambda: needed - 1)
        changes = [s.change for s in make_plan(model, request).suggestions]
    assert any(change.startswith("type_k=q") for change in changes) == is_named


def test_clustering_holds_the_distances_of_a_whole_grid_of_tiles(tmp_path: Path) -> None:
    """A picture's tile grid is merged as one, however many tiles it has."""
    pytest.importorskip("transformers")
    from checkpoints import Shape, write_onevision

    from aim_local.convert import ConvertConfig, convert

    shape, path = Shape(grid=6), tmp_path / "wide.png"
    folder = convert(write_onevision(tmp_path / "hf", shape), tmp_path / "gguf", ConvertConfig("f32", "f32")).folder
    Picture.fromarray(picture(1, 3 * shape.side, 2 * shape.side)).save(path)
    with closing(open_model(folder, weights=False)) as wide:
        tokens = parse_setting("ward:prune=off")
        outcome = make_plan(wide, Request("What?", [path], tokens, n_answer=1)).outcome
    n_base, n_grid = 36, 2 * 3 * 36
    assert outcome.sizes.together == (n_base, n_grid)
    assert outcome.memory.parts["clustering"] == 8 * n_grid**2
    assert outcome.sizes.flops["merge"] == pytest.approx((n_base**2 + n_grid**2) * shape.d_text)
