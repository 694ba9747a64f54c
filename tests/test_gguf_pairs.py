"""GGUF files from elsewhere: told apart by their heads, in any order, by any name; pairs that are none are refused."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import bent_gguf as bent
import gguf
import numpy as np
import pytest
from gguf_files import write_mmproj, write_model

from aim_local import GenerateConfig, LoadConfig, VisionLLM, store
from aim_local.errors import ModelError
from aim_local.models.pairs import check_pair, pair_doubt
from aim_local.store.gguf_files import ggufs, is_mmproj, parts, whole
from aim_local.store.gguf_header import GgufHeader, TensorInfo, read_architecture, read_header
from aim_local.store.names import ModelPaths, bundled_folder

NAMES = [
    ("ggml-model-q4_k.gguf", "llava-mmproj-f16.gguf"),
    ("MODEL.GGUF", "MMPROJ.GGUF"),
    ("sha256-aaaa", "sha256-bbbb"),
    ("mmproj-no-really-the-model.gguf", "vision.gguf"),
]


@pytest.fixture(params=NAMES, ids=lambda names: names[0])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    model, mmproj = request.param
    (tmp_path / "README.md").write_text("nothing")
    return write_model(tmp_path / model), write_mmproj(tmp_path / mmproj)


def test_told_apart_by_head(pair: tuple[Path, Path]) -> None:
    model, mmproj = pair
    assert (is_mmproj(model), is_mmproj(mmproj)) == (False, True)
    wanted = ModelPaths(model.stem, model, mmproj)
    for named in ((model,), (model, mmproj), (mmproj, model), (mmproj,), (str(model), model.parent)):
        assert store.resolve(*named) == wanted, named
    found = store.resolve(model.parent)
    assert (found.model, found.mmproj) == (model, mmproj)


def test_a_blob_here_by_its_bare_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "sha256-aaaa")
    monkeypatch.chdir(tmp_path)
    assert store.resolve("sha256-aaaa").model == Path("sha256-aaaa")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.gguf")
    assert read_architecture(tmp_path / "model.gguf") == ""
    with pytest.raises(ModelError, match="is no GGUF file"):
        read_header(store.resolve(tmp_path / "model.gguf").model)


def test_a_model_without_a_vocabulary_reads_no_text(tmp_path: Path) -> None:
    file = bent.with_key(bent.whole("model"), "tokenizer.ggml.model", bent.text("none"))
    path = bent.save(file, tmp_path / "model.gguf")
    with pytest.raises(ModelError, match="has no vocabulary"), VisionLLM.load(path) as llm:
        llm.generate("What is it?")


def test_mmproj_alone(tmp_path: Path) -> None:
    mmproj = write_mmproj(tmp_path / "vision.gguf")
    with pytest.raises(ModelError, match=r"is a vision tower \(mmproj\); name its language model"):
        store.resolve(mmproj)


def test_architecture_without_the_rest(tmp_path: Path) -> None:
    """Empty for what is no GGUF, whatever it is cut to: never an error of ours."""
    path = write_model(tmp_path / "model.gguf", arch="llama")
    assert read_architecture(path) == "llama"
    content = path.read_bytes()
    for n in (*range(0, 80), len(content) - 1):
        path.write_bytes(content[:n])
        assert read_architecture(path) in ("", "llama")
    assert read_architecture(tmp_path) == read_architecture(tmp_path / "none") == ""


def test_split_models(tmp_path: Path) -> None:
    first = write_model(tmp_path / "big-00001-of-00002.gguf")
    with pytest.raises(ModelError, match=r"its part big-00002-of-00002.gguf is missing"):
        store.resolve(first)
    second = write_model(tmp_path / "big-00002-of-00002.gguf")
    assert ggufs(tmp_path) == [first]
    assert parts(first) == [first, second]
    assert whole(first) == store.resolve(tmp_path).model == first
    with pytest.raises(ModelError, match=r"is part 2 of 2; name big-00001-of-00002.gguf instead"):
        store.resolve(second)


def test_split_model_answers(tmp_path: Path) -> None:
    """The bundled model in two files says what it says in one, and all of its parameters are counted."""
    folder = bundled_folder()
    assert folder is not None, "this checkout has the bundled model"
    reader = gguf.GGUFReader(folder / "model.gguf")
    writer = gguf.GGUFWriter(tmp_path / "big.gguf", "qwen2", split_max_tensors=len(reader.tensors) // 2 + 1)
    for key, field in reader.fields.items():
        if not key.startswith(("GGUF.", "general.architecture")):
            sub = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), field.types[0], sub)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    shutil.copy(folder / "mmproj.gguf", tmp_path / "mmproj.gguf")
    answers = []
    for source in (folder, tmp_path):
        with VisionLLM.load(source, config=LoadConfig(n_threads=1)) as llm:
            answers.append(llm.generate("hello", generate=GenerateConfig(max_tokens=6)).tokens)
    assert answers[0] == answers[1]
    assert store.resolve(tmp_path).model.name == "big-00001-of-00002.gguf"


# --- pairs that do not belong together --------------------------------------------------------------------------------


def vision(projector: str, **keys: str) -> GgufHeader:
    return header("clip", {"clip.projector_type": projector}, keys)


def text(architecture: str, **keys: str) -> GgufHeader:
    return header(architecture, {}, keys)


def header(architecture: str, metadata: Mapping[str, object], keys: dict[str, str]) -> GgufHeader:
    general = {f"general.{key.replace('__', '.')}": value for key, value in keys.items()}
    content = {"general.architecture": architecture, **metadata, **general}
    return GgufHeader(Path(f"{architecture}.gguf"), 3, content, (), 0, 0)


@pytest.mark.parametrize(
    ("projector", "architecture"),
    [
        ("qwen2.5vl_merger", "llama"),
        ("qwen2.5vl_merger", "qwen2"),
        ("qwen3vl_merger", "qwen2vl"),
        ("gemma3", "gemma2"),
        ("llava_onevision", "llama"),
        ("internvl", "qwen2vl"),
        ("mlp", "qwen3vl"),
        ("gemma4v", "qwen2vl"),
        ("gemma4v", "llama"),
        ("gemma4v", "qwen2"),
        ("gemma4v", "gemma3"),
        ("gemma4uv", "qwen35"),
        *itertools.product(("idefics3", "internvl", "mlp"), ("qwen35", "qwen35moe", "gemma3", "gemma4", "gemma3n")),
    ],
)
def test_refused(projector: str, architecture: str) -> None:
    with pytest.raises(ModelError, match="take the mmproj that was converted with this model") as e:
        check_pair(vision(projector), text(architecture))
    assert projector in str(e.value)
    assert architecture in str(e.value)
    apart = header("clip", {"clip.vision.projector_type": projector}, {})  # as files that hear too have it
    with pytest.raises(ModelError, match="take the mmproj that was converted with this model"):
        check_pair(apart, text(architecture))


# architecture and projector as upstream's converter writes them for one model
@pytest.mark.parametrize(
    ("projector", "architecture"),
    [
        ("qwen2vl_merger", "qwen2vl"), ("qwen2.5vl_merger", "qwen2vl"), ("qwen3vl_merger", "qwen3vl"),
        ("qwen3vl_merger", "qwen35"), ("internvl", "qwen2"), ("internvl", "qwen3"), ("idefics3", "llama"),
        ("gemma3", "gemma3"), ("mlp", "llama"), ("mlp", "qwen2"), ("janus_pro", "llama"), ("pixtral", "llama"),
        ("llava_onevision", "qwen2"), ("qwen4vl_merger", "qwen3vl"),
        ("gemma4v", "gemma4"), ("gemma4uv", "gemma4"), ("minicpmv4_6", "qwen35"), ("qwen3vl_merger", "qwen35moe"),
    ],
)  # fmt: skip
def test_let_through(projector: str, architecture: str) -> None:
    check_pair(vision(projector), text(architecture))


@pytest.mark.parametrize(
    ("theirs", "ours", "told"),
    [
        ({"basename": "Qwen2.5-VL"}, {"basename": "MiMo-VL"}, "general.basename is 'Qwen2.5-VL' there and 'MiMo-VL'"),
        ({"base_model__0__repo_url": "x/a"}, {"base_model__0__repo_url": "x/b"}, "general.base_model.0.repo_url"),
        ({"name": "Toy 3B", "size_label": "3B"}, {"name": "Toy 7B", "size_label": "7B"}, "general.size_label is '3B'"),
        ({"basename": "Qwen2.5-VL"}, {"basename": "qwen2.5 vl"}, ""),
        ({"name": "Toy", "size_label": "400M"}, {"name": "Toy", "size_label": "1.7B"}, ""),  # counted, not named
        ({"basename": "a"}, {}, ""),
    ],
)
def test_doubtful(theirs: dict[str, str], ours: dict[str, str], told: str) -> None:
    line = pair_doubt(vision("mlp", **theirs), text("llama", **ours))
    assert (told in line) if told else (line == "")


@pytest.mark.parametrize(
    ("theirs", "ours", "told"),
    [
        ("Qwen2 VL 2B Instruct", "Qwen2.5 VL 3B Instruct", "general.name is 'Qwen2 VL 2B Instruct' there and 'Qwen2.5"),
        ("SmolVLM2 500M", "InternVL3 1B", "general.name"),
        ("Qwen2 VL 2B Instruct", "Qwen2-VL-2B-Instruct-Q4_K_M", ""),
        ("mmproj Gemma 3 4b It f16", "Gemma-3-4B-It-IQ3_XXS.gguf", ""),
        ("Gemma 3 4b It Vision", "gemma 3 4b it", ""),
        ("SmolVLM2", "SmolVLM2 500M Video Instruct", ""),
        ("openai/clip-vit-large-patch14-336", "LLaVA v1.6 Mistral 7B", ""),  # of the tower, as old scripts write it
        ("vision encoder for model", "Toy", ""),
        ("Hf", "Toy", ""),
        ("Toy", "", ""),
    ],
)
def test_names_that_differ_in_more_than_quantisation(theirs: str, ours: str, told: str) -> None:
    line = pair_doubt(vision("mlp", name=theirs), text("llama", name=ours))
    assert (told in line) if told else (line == "")
    same = {"basename": "toy"}
    assert pair_doubt(vision("mlp", name=theirs, **same), text("llama", name=ours, **same)) == ""


@pytest.mark.parametrize(("theirs", "ours", "fits"), [("a1", "a1", True), ("a1", "b2", False), ("", "b2", True)])
def test_marks_of_two_conversions(theirs: str, ours: str, fits: bool) -> None:
    heads = [
        header(arch, {"clip.projector_type": "mlp"} | ({"aim.origin": mark} if mark else {}), {"name": name})
        for arch, mark, name in (("clip", theirs, "Toy 1"), ("llama", ours, "Other 2"))
    ]
    if fits:
        check_pair(heads[0], heads[1])
        assert bool(pair_doubt(heads[0], heads[1])) == (not theirs)  # one origin is above two names
        return
    with pytest.raises(ModelError, match=r"another checkpoint than llama.gguf \(aim.origin is a1 there and b2 here\)"):
        check_pair(heads[0], heads[1])


@pytest.mark.parametrize(("made", "taken"), [((), 3), ((5, 11, 17), 0), ((5, 11, 17), 4), ((0,), 2)])
def test_features_for_more_or_fewer_layers_than_take_them(made: tuple[int, ...], taken: int) -> None:
    tensors = tuple(TensorInfo(f"v.deepstack.{i}.fc1.weight", (8, 8), 0, 0) for i in made)
    tower = replace(vision("qwen3vl_merger"), tensors=(*tensors, TensorInfo("mm.2.weight", (8, 8), 0, 0)))
    said = f"n_deepstack_layers is {taken}, and clip.gguf makes features for {len(made)} layers"
    with pytest.raises(ModelError, match=said):
        check_pair(tower, header("qwen3vl", {"qwen3vl.n_deepstack_layers": taken}, {}))
    check_pair(tower, header("qwen3vl", {"qwen3vl.n_deepstack_layers": len(made)}, {}))


def test_bundled_pair_is_in_no_doubt() -> None:
    paths = store.resolve()
    assert paths.mmproj is not None
    heads = read_header(paths.mmproj), read_header(paths.model)
    check_pair(*heads)
    assert pair_doubt(*heads) == ""
