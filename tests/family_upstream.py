"""Tiny checkpoints through llama.cpp's own converter: the GGUF pairs that people publish, in float32.

Knows how the published folders differ from those that transformers writes today. AIM_LLAMA_TREE names an unpacked
llama.cpp of the pinned version, to be taken before the converter that is installed with the package; without either
the tests are skipped.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import sys
tree, tests, tasks = sys.argv[1:]
sys.path[:0] = [tree, tree + "/gguf-py", tests]
from torchvision_ops import need_torchvision
need_torchvision()
import json
from pathlib import Path
import torch
from conversion import ModelBase, ModelType, get_model_architecture, get_model_class
from conversion.base import TextModel, gguf
torch.set_num_threads(1)
for pre, source, target, numbers in json.loads(tasks):
    TextModel.get_vocab_base_pre = lambda self, tokenizer, pre=pre: pre
    hparams = ModelBase.load_hparams(Path(source), False)
    for kind, name in ((ModelType.TEXT, "model.gguf"), (ModelType.MMPROJ, "mmproj.gguf")):
        model = get_model_class(get_model_architecture(hparams, kind), mmproj=kind == ModelType.MMPROJ)
        with torch.inference_mode():
            made = model(Path(source), gguf.LlamaFileType.ALL_F32, Path(target) / name)
            for key, number in (numbers if kind == ModelType.MMPROJ else {}).items():
                made.gguf_writer.add_uint32(key, number)
            made.write()
"""


@dataclass(frozen=True)
class Layout:
    """How a family is published. names: beginnings of tensors' names; config: further keys; pre: word splitting."""

    names: Mapping[str, str]
    pre: str
    config: Mapping[str, Any]


LAYOUTS = {
    "smolvlm": Layout({}, "smollm", {"text_config": {"architectures": ["VLlama3ForCausalLM"]}}),
    "internvl3": Layout({"vision_tower.": "model.vision_tower.", "multi_modal": "model.multi_modal"}, "qwen2", {}),
    "gemma3": Layout({"vision_tower.": "vision_tower.vision_model."}, "", {}),
}
LAYOUTS["internvl3_5"] = LAYOUTS["internvl3"]
LAYOUTS |= dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), Layout({}, "qwen2", {}))


def tree() -> Path:
    """llama.cpp's `conversion` and `gguf-py`."""
    from aim_local.errors import NativeError
    from aim_local.native.installed import converter_folder

    if "AIM_LLAMA_TREE" in os.environ:
        return Path(os.environ["AIM_LLAMA_TREE"])
    try:
        return converter_folder()
    except NativeError:
        pytest.skip("neither the package has llama.cpp's converter, nor does AIM_LLAMA_TREE name a tree of it")


def write_pairs(folders: Mapping[str, Path], target: Path, numbers: Mapping[str, Mapping[str, int]]) -> None:
    """model.gguf and mmproj.gguf of every family's checkpoint, below `target`, by llama.cpp in one process.

    numbers: further keys of the mmproj, by family.
    """
    tasks = list[tuple[str, str, str, Mapping[str, int]]]()
    for family, folder in folders.items():
        own = target / family
        source = published(LAYOUTS[family], folder, own / "published")
        tasks.append((LAYOUTS[family].pre, str(source), str(own), numbers[family]))
    command = [sys.executable, "-c", SCRIPT, str(tree()), str(Path(__file__).parent), json.dumps(tasks)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def published(layout: Layout, folder: Path, target: Path) -> Path:
    """A copy of the folder with the names and keys of the published one."""
    from safetensors.torch import load_file, save_file

    target.mkdir(parents=True)
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (target / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    for key, more in layout.config.items():
        config[key] |= more
    (target / "config.json").write_text(json.dumps(config))
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    words = json.loads((folder / "tokenizer_config.json").read_text())
    words["added_tokens_decoder"] = {str(token.pop("id")): token for token in added}
    (target / "tokenizer_config.json").write_text(json.dumps(words))
    tensors = load_file(folder / "model.safetensors")
    save_file({renamed(layout, name): tensor for name, tensor in tensors.items()}, target / "model.safetensors")
    return target


def renamed(layout: Layout, name: str) -> str:
    for old, new in layout.names.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
