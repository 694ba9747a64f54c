"""Turn the bundled GGUF pair back into weights that training can begin with: export and conversion, reversed.

Writes a state with the model alone (F16 values as F32); optimiser state and auxiliary heads are not in a GGUF.
"""

import argparse
from pathlib import Path

import gguf
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel

from aim_local.convert.names import IGNORED, sanitize
from aim_local.convert.vision_towers import LAYER
from aim_local.demo.training.model import build
from aim_local.demo.training.toys import BUNDLED

PARTS = {
    "vision.embeddings.patch_embedding": "v.patch_embd",
    "vision.embeddings.position_embedding": "v.position_embd",
    "projector.0": "mm.0",
    "projector.2": "mm.2",
}


def gguf_name(ours: str, names: gguf.TensorNameMap) -> str:
    """The GGUF's name of a tensor under our converter's name."""
    if ours == "newline":
        return "v.image_newline"
    stem, kind = ours.rsplit(".", 1)
    if stem in PARTS:
        return f"{PARTS[stem]}.{kind}"
    if stem.startswith("vision.encoder.layers."):
        il, theirs = stem.removeprefix("vision.encoder.layers.").split(".", 1)
        return f"v.blk.{il}.{LAYER[theirs]}.{kind}"
    stem = stem.removeprefix("text.")
    found = names.get_name(stem if stem == "lm_head" else f"model.{stem}")
    assert found is not None, ours
    return f"{found}.{kind}"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """F32 tensors by name, dimensions in PyTorch's order."""
    tensors = gguf.GGUFReader(path).tensors
    kinds = (gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.F32)
    if other := [t.name for t in tensors if t.tensor_type not in kinds]:
        raise ValueError(f"{path}: {other[0]} is quantised; training begins with an F16 or F32 pair")
    return {t.name: torch.from_numpy(t.data.astype("float32")) for t in tensors}


def load(model: PreTrainedModel, folder: Path) -> None:
    """Fill the model from model.gguf and mmproj.gguf. Raises ValueError unless every tensor has its place."""
    tensors = read_tensors(folder / "model.gguf") | read_tensors(folder / "mmproj.gguf")
    state = model.state_dict()
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, len(model.model.language_model.layers))
    wanted = {key: sanitize(key) for key in state}
    wanted = {key: gguf_name(ours, names) for key, ours in wanted.items() if not IGNORED.search(ours)}
    if wrong := sorted(set(wanted.values()) ^ set(tensors)):
        raise ValueError(f"{folder} is not the demo model: {len(wrong)} tensors differ, {wrong[0]} among them")
    model.load_state_dict(state | {key: tensors[name] for key, name in wanted.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of model.gguf and mmproj.gguf")
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("state", type=Path)
    args = parser.parse_args()
    model = build(AutoTokenizer.from_pretrained(args.tokenizer), BUNDLED)
    load(model, args.folder)
    torch.save({"model": model.state_dict()}, args.state)


if __name__ == "__main__":
    main()
