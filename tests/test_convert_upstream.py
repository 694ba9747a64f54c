"""The text tower against what llama.cpp's own converter writes of it.

AIM_LLAMA_TREE names an unpacked llama.cpp of the pinned version; without it these tests are skipped.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import convert_models  # noqa: E402
from checkpoints import write_json, write_weights  # noqa: E402
from convert_models import FAMILIES, keys, tensors  # noqa: E402

folders = convert_models.folders
converted = convert_models.converted


CLASSES = {
    "llava_onevision": ("qwen", "Qwen2Model", "Qwen2ForCausalLM"),
    "llava": ("llama", "LlamaModel", "LlamaForCausalLM"),
}
SCRIPT = """
import sys, types
tree, module, name, source, target = sys.argv[1:]
sys.path[:0] = [tree, tree + "/gguf-py"]
import importlib
from pathlib import Path
from conversion.base import TextModel
import gguf
Model = getattr(importlib.import_module("conversion." + module), name)
# it looks for a tokenizer.model first, and needs sentencepiece to find none
sys.modules["sentencepiece"] = types.SimpleNamespace(SentencePieceProcessor=object)
TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
Model(Path(source), gguf.LlamaFileType.ALL_F32, Path(target)).write()
"""


def text_only(folder: Path, target: Path, architecture: str) -> Path:
    """The checkpoint's language tower as a checkpoint of its own: upstream's converter knows that."""
    from safetensors.torch import load_file

    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    write_json(target / "config.json", {**config["text_config"], "architectures": [architecture]})
    state = load_file(target / "model.safetensors")
    text = {k.removeprefix("language_model."): v for k, v in state.items() if k.startswith("language_model.")}
    write_weights(target, text, 1, torch.float32)
    return target


def differing_keys(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    # upstream gives every piece of a tokenizer.json one score; ours carry the order of the merges
    ignored = ("general.", "GGUF.", "tokenizer.chat_template", "tokenizer.ggml.scores", "tokenizer.ggml.add_")
    # key_length and value_length are the default said aloud
    ignored += ("llama.attention.key_length", "llama.attention.value_length")
    return {k: (ours.get(k), v) for k, v in theirs.items() if not k.startswith(ignored) and ours.get(k) != v}


@pytest.mark.parametrize("family", FAMILIES)
def test_upstreams_converter_writes_the_same_text_tower(
    family: str, folders: dict[str, Path], converted: dict[str, Path], tmp_path: Path
) -> None:
    tree = os.environ.get("AIM_LLAMA_TREE")
    if not tree:
        pytest.skip("AIM_LLAMA_TREE names no llama.cpp tree")
    module, name, architecture = CLASSES[family]
    source, target = text_only(folders[family], tmp_path / "text", architecture), tmp_path / "theirs.gguf"
    command = [sys.executable, "-c", SCRIPT, tree, module, name, str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    ours, theirs = tensors(converted[family] / "model.gguf"), tensors(target)
    assert {n: t.data.tobytes() for n, t in ours.items()} == {n: t.data.tobytes() for n, t in theirs.items()}
    differing = differing_keys(keys(converted[family] / "model.gguf"), keys(target))
    if family == "llava":  # upstream pads nothing here, and takes <unk> for control and <image> for ordinary text
        mine, other = differing.pop("tokenizer.ggml.tokens")
        assert mine[: len(other)] == other
        mine, other = differing.pop("tokenizer.ggml.token_type")
        assert [i for i, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b] == [0, len(other) - 2]
    assert not differing
