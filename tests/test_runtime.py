"""The runtime on tiny converted checkpoints: bad input is one clear error, chats keep their cache, types differ."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from checkpoints import Shape, write_llava, write_onevision

from aim_local import FrameSampling, GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.convert import ConvertConfig, convert
from aim_local.errors import AimError, ContextError, MediaError, ModelError, NativeError, UsageError
from aim_local.models.prompt import Message, mark

F32 = LoadConfig(type_k="f32", type_v="f32", flash_attn=False, n_threads=1)
SHAPE = Shape(grid=6, n_text=3, heads=2, heads_kv=2, seed=11)  # trained for 1024 tokens


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onevision(tmp_path_factory.mktemp("ov") / "hf", SHAPE)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Path:
    convert(checkpoint, checkpoint.parent / "gguf", ConvertConfig(text_type="f32", vision_type="f32"))
    return checkpoint.parent / "gguf"


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    convert(write_llava(folder / "hf", Shape(d_text=32)), folder / "gguf", ConvertConfig())
    return folder / "gguf"


@pytest.fixture(scope="module")
def llm(model: Path) -> Any:
    with VisionLLM.load(model, config=F32) as loaded:
        yield loaded


def video(n_frames: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n_frames, SHAPE.side, SHAPE.side, 3), dtype=np.uint8)


def one_line(error: pytest.ExceptionInfo[AimError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) > 20
    return text


# --- models that cannot be -------------------------------------------------------------------------------------------


def test_towers_the_wrong_way_round(model: Path) -> None:
    with pytest.raises(ModelError) as e:
        VisionLLM.load(model / "mmproj.gguf", model / "model.gguf")
    assert "mmproj" in one_line(e)
    with pytest.raises(ModelError) as e:
        VisionLLM.load(model / "model.gguf", model / "model.gguf")
    assert "not a mmproj" in one_line(e)


def test_mmproj_of_another_width(model: Path, llava: Path) -> None:
    with pytest.raises(ModelError) as e:
        VisionLLM.load(model / "model.gguf", llava / "mmproj.gguf")
    assert "32" in one_line(e)
    assert "64" in one_line(e)


@pytest.mark.parametrize("name", ["model.gguf", "mmproj.gguf"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
def test_truncated(model: Path, tmp_path: Path, name: str, share: float) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    data = (broken / name).read_bytes()
    (broken / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError) as e:
        VisionLLM.load(broken)
    assert name in one_line(e)


def test_unsupported_architecture(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "m")
    data = (tmp_path / "m" / "model.gguf").read_bytes()
    (tmp_path / "m" / "model.gguf").write_bytes(data.replace(b"qwen2", b"qwenX"))
    with pytest.raises(ModelError) as e:
        VisionLLM.load(tmp_path / "m")
    assert "qwenX" in one_line(e)


def test_text_only_model_refuses_media(model: Path, tmp_path: Path) -> None:
    shutil.copy(model / "model.gguf", tmp_path / "text.gguf")
    with VisionLLM.load(tmp_path / "text.gguf", config=F32) as llm:
        assert llm.generate("hello", generate=GenerateConfig(max_tokens=4)).stats.n_visual == 0
        with pytest.raises(ModelError) as e:
            llm.generate("what is it?", [video()])
        assert "text-only" in one_line(e)


def test_stock_library(tmp_path: Path) -> None:
    """A library without our symbols: gcc's own libm under the names of ours."""
    from aim_local.native.library import LIB_FOLDER

    for lib in LIB_FOLDER.iterdir():
        shutil.copy(lib, tmp_path / lib.name)
    data = (tmp_path / "libllama.so").read_bytes()
    (tmp_path / "libllama.so").write_bytes(data.replace(b"aim_llama_patch_version", b"aim_llama_patch_versioX"))
    code = (
        "from aim_local.errors import NativeError\n"
        "try:\n import aim_local.native.library\nexcept NativeError as e:\n print(e)"
    )
    environment = {"AIM_LOCAL_LIB": str(tmp_path), "PATH": "/usr/bin"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "stock libllama" in out.stdout
    assert out.stdout.count("\n") == 1


# --- prompts that do not fit -----------------------------------------------------------------------------------------


def test_context_too_small(model: Path) -> None:
    with VisionLLM.load(model, config=LoadConfig(n_ctx=256, n_threads=1)) as llm:
        with pytest.raises(ContextError) as e:
            llm.generate("what?", [video(60)])
        text = one_line(e)
        assert "needs" in text
        assert "--ctx" in text
        assert "--frames" in text
        with pytest.raises(ContextError, match="trained for 1024"):
            llm.generate("what?", [video(200)])
        assert llm.generate("what?", [video(2)], generate=GenerateConfig(max_tokens=2)).text is not None


def test_counts_are_known_before_encoding(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aim_local.models.tiles import VisionTower

    def encode(*_: Any) -> None:
        raise AssertionError("encoded although the context is too small")

    monkeypatch.setattr(VisionTower, "encode", encode)
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


# --- chat ------------------------------------------------------------------------------------------------------------


def turns(chat: Any) -> list[dict[str, Any]]:
    return [{"role": m.role, "text": m.text, "media": m.media} for m in chat._messages]


def test_chat_equals_one_prompt(llm: VisionLLM) -> None:
    """The second turn's logits, from the cache, equal those of the whole conversation prefilled at once."""
    short = GenerateConfig(max_tokens=6)
    with llm.chat(generate=short) as chat:
        first = chat.ask("what is it?", [video()])
        second = chat.ask("and then?")
        rendered = llm.render([Message(**m) for m in turns(chat)[:3]])
        used = chat.used
    assert second.stats.n_prompt < first.stats.n_prompt
    raw = rendered.replace(mark(0), "<__media__>")
    again = llm.generate(raw, [video()], raw=True, generate=short)
    assert again.text == second.text
    assert used >= again.stats.n_prompt


def test_chat_takes_back_a_failed_turn(llm: VisionLLM, tmp_path: Path) -> None:
    short = GenerateConfig(max_tokens=4)
    with llm.chat(generate=short) as chat, llm.chat(generate=short) as calm:
        for c in (chat, calm):
            c.ask("what is it?", [video()])
        with pytest.raises(MediaError):
            chat.ask("and this?", [tmp_path / "none.mp4"])
        assert len(chat.messages) == 2
        assert chat.ask("go on").text == calm.ask("go on").text


def test_chat_interrupted_keeps_what_was_said(llm: VisionLLM) -> None:
    def stop(_: str) -> None:
        raise KeyboardInterrupt

    with llm.chat(generate=GenerateConfig(max_tokens=30)) as chat:
        answer = chat.ask("what is it?", [video()], on_text=stop)
        assert answer.stats.stop_reason == "interrupted"
        assert chat.ask("go on").stats.n_generated > 0
        assert len(chat.messages) == 4


def test_chat_grows_its_context(llm: VisionLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    import aim_local.chat

    monkeypatch.setattr(aim_local.chat, "_FIRST_CELLS", 64)
    short = GenerateConfig(max_tokens=4)
    with llm.chat(generate=short) as chat:
        chat.ask("what is it?", [video(2)])
        before = chat.n_ctx
        for i in range(12):
            chat.ask("and then? " * 10, [video(2, i)])
        assert chat.n_ctx > before


def test_chat_full_context_is_a_choice(model: Path) -> None:
    def talk(chat: Any) -> None:
        for _ in range(50):
            chat.ask("and then? " * 5)

    config = LoadConfig(n_ctx=256, n_threads=1)
    with VisionLLM.load(model, config=config) as llm, llm.chat(generate=GenerateConfig(max_tokens=4)) as chat:
        with pytest.raises(ContextError) as e:
            talk(chat)
        assert "/reset" in one_line(e)
        chat.reset()
        assert chat.ask("hello").stats.n_generated > 0


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


def test_closed_model_says_so(model: Path) -> None:
    llm = VisionLLM.load(model, config=F32)
    llm.close()
    llm.close()
    with pytest.raises(NativeError):
        llm.prefill("hello")
