"""A vision tower that is not ours, run by mtmd: Janus-Pro's projector on a random SigLIP, next to our Qwen2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from checkpoints import Shape, write_onevision
from prompt_steps import encoded
from reference_ward import ward_merge

from aim_local import GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.convert import ConvertConfig, convert
from aim_local.engine.encode import encode_media
from aim_local.engine.plan import plan_prompt
from aim_local.engine.read import read_media
from aim_local.engine.tile_rows import ItemRows
from aim_local.engine.watch import Watch
from aim_local.errors import UsageError
from aim_local.lab.explain import explain
from aim_local.models.mtmd import MtmdTower
from aim_local.models.prompt import mark_raw
from aim_local.models.reuse import Seen, Shared
from aim_local.native.mtmd import ImageChunk
from aim_local.settings import parse_setting

SHAPE = Shape(grid=6, n_text=6, seed=21)
N_PATCH = 36


def as_janus(source: Path, target: Path) -> None:
    """Our mmproj with the keys and names of "janus_pro": SigLIP, two layers, one row per patch."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "clip")
    for key, field in reader.fields.items():
        if key.startswith(("GGUF.", "aim.", "general.architecture", "clip.vision.image_grid", "clip.vision.mm_patch")):
            continue
        value = "janus_pro" if key == "clip.projector_type" else field.contents()
        kind = field.types[0]
        if kind == gguf.GGUFValueType.ARRAY:
            writer.add_array(key, value)
        else:
            writer.add_key_value(key, value, kind)
    for tensor in reader.tensors:
        if tensor.name != "v.image_newline":
            name = tensor.name.replace("mm.2.", "mm.1.")
            writer.add_tensor(name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("foreign")
    convert(write_onevision(folder / "hf", SHAPE), folder / "gguf", ConvertConfig("f32", "f32"))
    as_janus(folder / "gguf" / "mmproj.gguf", folder / "janus.gguf")
    with VisionLLM.load(folder / "gguf" / "model.gguf", folder / "janus.gguf", LoadConfig(n_threads=1)) as loaded:
        yield loaded


def frames(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, SHAPE.side, SHAPE.side, 3), dtype=np.uint8)


def test_picture_and_clip(llm: VisionLLM) -> None:
    tower = llm.model.tower
    assert tower is not None
    assert (tower.projector, tower.facts) == ("janus_pro", None)
    for media, n in (([frames(1)[0]], N_PATCH), ([frames(3)], 3 * N_PATCH)):
        answer = llm.generate("What is it?", media, generate=GenerateConfig(max_tokens=4))
        assert answer.stats.n_visual == answer.stats.n_visual_full == n


def test_merging_and_pruning_work_on_it(llm: VisionLLM) -> None:
    """Two frames, half of each merged away: every later layer sees what the schedule says."""
    tokens = VisualTokenConfig(merge_retain=0.5, prune_layers=(2, 4))
    found = llm.prefill("What is it?", [frames(2)], tokens)
    assert (found.stats.n_visual_full, found.stats.n_visual) == (2 * N_PATCH, N_PATCH)
    assert [len(k) for k in found.trace.kept] == [N_PATCH] * 3 + [N_PATCH // 2, 0, 0]


def test_ward_merges_frame_by_frame(llm: VisionLLM) -> None:
    """Rows are scipy's clusters; frames stand apart in the prompt, so a window is refused at once."""
    full = encoded(llm, "<__media__>x", [frames(2)], VisualTokenConfig.off())
    found = encoded(llm, "<__media__>x", [frames(2)], parse_setting("ward:keep=0.25:prune=off"))
    for i, block in found.blocks.items():
        rows, slots, _ = ward_merge(full.blocks[i].rows, N_PATCH // 4, by_medoid=False)
        assert np.abs(block.rows - rows).max() < 1e-6 * np.abs(rows).max()
        assert [group.slot for group in block.groups] == slots
        assert block.sizes is not None
        assert (block.sizes.sum(), len(block.sizes)) == (N_PATCH, N_PATCH // 4)
    for setting, told in (
        ("ward:window=2", r"\(a window of 2\) for this vision tower"),
        ("average", "merging by average is not"),
    ):
        with pytest.raises(UsageError, match=told):
            llm.prefill("What is it?", [frames(2)], parse_setting(setting))
    assert llm.prefill("What is it?", [frames(1)[0]], parse_setting("ward:window=2")).stats.n_visual == 3


def test_nothing_is_reduced_unasked(llm: VisionLLM) -> None:
    assert llm.prefill("What is it?", [frames(2)]).stats.flops_share == 1.0


def test_towers_that_decode_themselves_say_so(llm: VisionLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """M-RoPE: nothing is offered that would be refused."""
    tower = llm.model.tower
    assert isinstance(tower, MtmdTower)
    monkeypatch.setattr(tower, "_chunks_of", lambda *_: [ImageChunk(N_PATCH, True, None)])
    assert tower.unreduced.endswith("positions (M-RoPE) or with a mask of its own that rule merging and pruning out")


def told(warnings: list[str]) -> list[str]:
    return [line for line in warnings if "are not reduced" in line]


def test_it_is_told_that_nothing_is_reduced(llm: VisionLLM) -> None:
    """Beside the answer, with the reason and what can be done, and only where it is true."""
    assert llm.notes == []
    (line,) = told(llm.prefill("What is it?", [frames(2)]).warnings)
    assert "visual tokens of gguf are not reduced: its projector 'janus_pro' has no family of its own here" in line
    assert line.endswith("tokens=merge-only merges them when asked")
    assert not told(llm.prefill("What is it?", [frames(2)], VisualTokenConfig(prune_layers=None)).warnings)
    assert not told(llm.prefill("What is it?", [frames(2)], VisualTokenConfig.off()).warnings)  # it was asked for
    assert not told(llm.prefill("What is it?", [frames(1)[0]]).warnings)  # a picture
    with llm.chat(generate=GenerateConfig(max_tokens=1)) as chat:
        said = [told(chat.ask("And this?", [item]).warnings) for item in (frames(1)[0], frames(2), frames(2))]
    assert [len(lines) for lines in said] == [0, 1, 0]


def test_chat_keeps_its_pictures(llm: VisionLLM) -> None:
    with llm.chat(generate=GenerateConfig(max_tokens=3)) as chat:
        chat.ask("What is it?", [frames(2)])
        assert chat.ask("And then?").stats.n_visual == 0


def test_explain_has_nothing_to_draw(llm: VisionLLM) -> None:
    """Told before anything is computed."""
    with pytest.raises(UsageError, match=r"its vision tower \(janus_pro\) does not tell which patches"):
        explain(llm, "What is it?", [frames(2)])


def test_equal_frames_are_encoded_once(llm: VisionLLM) -> None:
    """Where a chunk is a picture: the rows are those of encoding each frame."""
    clip = frames(2)[[0, 1, 1, 0]]
    found = llm.prefill("What is it?", [clip])
    assert (found.stats.n_tiles_encoded, found.stats.n_tiles_equal) == (2, 2)
    reading = read_media(llm.model, [clip], None, Watch())
    plan = plan_prompt(llm.model, mark_raw("<__media__>x", 1), [reading.items[0].shape])
    every, once = (
        encode_media(llm.model, plan, dict(enumerate(reading.items)), Watch(), rows)
        for rows in (None, {0: ItemRows(Seen("video", Shared(), 0))})
    )
    assert (every.tiles.encoded, once.tiles.encoded) == (4, 2)
    for i, block in every.blocks.items():
        assert np.array_equal(block.rows, once.blocks[i].rows)
