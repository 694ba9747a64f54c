"""One prompt through the runtime on tiny converted checkpoints: what fits, what is merged, types of both towers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runtime_case
from runtime_case import F32, one_line, video

from aim_local import FrameSampling, GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.convert import ConvertConfig, convert
from aim_local.errors import ContextError, MediaError, UsageError

checkpoint, model, llm = runtime_case.checkpoint, runtime_case.model, runtime_case.llm

# --- prompts that do not fit -----------------------------------------------------------------------------------------


def test_context_too_small(model: Path) -> None:
    with VisionLLM.load(model, config=LoadConfig(n_ctx=256, n_threads=1)) as llm:
        with pytest.raises(ContextError) as e:
            llm.generate("what?", [video(60)])
        text = one_line(e)
        assert "needs" in text
        found = re.search(r"load with n_ctx=(\d+) or more, or use n_frames=(\d+) or fewer; at most \d+% of", text)
        assert found, text
        n = int(found[2])  # exactly so many fit
        llm.generate("what?", [video(n)], generate=GenerateConfig(max_tokens=1))
        with pytest.raises(ContextError):
            llm.generate("what?", [video(n + 1)])
        with pytest.raises(ContextError, match=r"trained for 1024: use n_frames=\d+ or fewer; at most \d+% of"):
            llm.generate("what?", [video(200)])
        with pytest.raises(ContextError, match=r"0 of them visual; .* 1024: shorten the text$"):
            llm.generate("what? " * 1024)
        with pytest.raises(ContextError, match=r"[1-9]\d* of them visual; .* 1024: shorten the text$"):
            llm.generate("what? " * 1024, [video(2)])
        assert llm.generate("what?", [video(2)], generate=GenerateConfig(max_tokens=2)).text is not None


def test_counts_are_known_before_encoding(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aim_local.models.tiles import TileTower

    def encode(*_: Any) -> None:
        raise AssertionError("encoded although the context is too small")

    monkeypatch.setattr(TileTower, "encode", encode)
    with VisionLLM.load(model, config=LoadConfig(n_ctx=256)) as llm, pytest.raises(ContextError):
        llm.generate("what?", [video(200)])


@pytest.mark.parametrize("prompt", ["no marker", "<__media__> <__media__> two"])
def test_raw_markers_must_match(llm: VisionLLM, prompt: str) -> None:
    with pytest.raises(UsageError) as e:
        llm.prefill(prompt, [video()], raw=True)
    assert "marker" in one_line(e)


def test_media_at_the_very_end(llm: VisionLLM) -> None:
    with pytest.raises(UsageError) as e:
        llm.prefill("see: <__media__>", [video()], raw=True)
    assert "ends with a media item" in one_line(e)


def test_media_at_the_very_start(llm: VisionLLM) -> None:
    assert llm.prefill("<__media__> see", [video()], raw=True).stats.n_visual == 28


def test_missing_file(llm: VisionLLM, tmp_path: Path) -> None:
    with pytest.raises(MediaError):
        llm.generate("what?", [tmp_path / "none.mp4"])


# --- token merging ---------------------------------------------------------------------------------------------------


def test_merging_shrinks_the_prompt(llm: VisionLLM) -> None:
    """6x6 patches, pooled to 3x3; a quarter of 9 is 2; the newline row stays."""
    found = llm.prefill("what?", [video(4)], VisualTokenConfig(merge_retain=0.25, prune_layers=None))
    assert (found.stats.n_visual_full, found.stats.n_visual) == (37, 9)
    assert len(found.trace.groups) == 9
    assert found.trace.groups[-1].frame == -1


# --- types of each tower ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tower", ["text", "vision"])
@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_quantised_towers(
    checkpoint: Path, llm: VisionLLM, tmp_path: Path, tower: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    types = {"text_type": "f32", "vision_type": "f32", f"{tower}_type": kind}
    convert(checkpoint, tmp_path / "q", ConvertConfig(**types))
    want = llm.prefill("what happens?", [video(4)]).logits
    with VisionLLM.load(tmp_path / "q", config=F32) as quantised:
        got = quantised.prefill("what happens?", [video(4)]).logits
    distance = np.abs(got - want).max() / np.abs(want).max()
    with capsys.disabled():
        print(f"\n  {tower} tower in {kind}: max logit distance to f32 {distance:.1e} of the largest logit")
    assert 0 < distance < 0.5


def test_kv_types(model: Path, llm: VisionLLM, capsys: pytest.CaptureFixture[str]) -> None:
    want = llm.prefill("what happens?", [video(4)])
    for kind in ("f16", "q8_0"):
        with VisionLLM.load(model, config=LoadConfig(type_k=kind, type_v="f16", n_threads=1)) as other:
            got = other.prefill("what happens?", [video(4)])
        distance = np.abs(got.logits - want.logits).max() / np.abs(want.logits).max()
        with capsys.disabled():
            print(f"\n  K cache in {kind}: max logit distance to f32 {distance:.1e} of the largest logit")
        assert distance < 0.1
        assert got.stats.kv_bytes < want.stats.kv_bytes


# --- a filmed clip ---------------------------------------------------------------------------------------------------


def filmed_clip() -> Path | None:
    root = Path(__file__).resolve().parents[1]
    return next(iter(root.glob("build/*/upstream/llama.cpp/tools/mtmd/test-3.mp4")), None)


@pytest.mark.skipif(filmed_clip() is None, reason="the llama.cpp tree of the build is not here")
def test_filmed_clip(llm: VisionLLM) -> None:
    answer = llm.generate(
        "What happens?", [filmed_clip()], sampling=FrameSampling(n_frames=32), generate=GenerateConfig(max_tokens=8)
    )
    assert answer.stats.n_frames == 32
    assert answer.stats.n_visual == 32 * 9 + 1
