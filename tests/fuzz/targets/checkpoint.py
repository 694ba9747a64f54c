"""The JSON files of checkpoints, one damaged at a time beside the others: converted, loaded and asked about a picture.

The corpus holds them as FAMILY.FILE; FAMILY.header.json is the header of model.safetensors, whose data are drawn.
Families that llama.cpp's converter writes are taken up to where it would begin: it is a process of its own.
`PYTHONPATH=tests python -m fuzz.targets.checkpoint` makes the corpus anew; that alone needs torch.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.damage import damage_bytes, damage_json, damage_json_text, json_text, other, walk
from fuzz.target import CORPUS

FOLDER = CORPUS / "checkpoint"
OURS, THEIRS = ("llava_onevision", "llava"), ("qwen2_5_vl", "smolvlm", "internvl3")
HEADER = "header.json"
PIXELS = 32
KEPT = sorted(path.name for path in FOLDER.glob("*.*")) if FOLDER.is_dir() else []
SUFFIXES = tuple(KEPT)
SHORT = 10


def seeds(folder: Path) -> list[Path]:
    return []  # the corpus has them


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Mostly one value outside tables of tokens, which would hide the few keys that mean something."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return damage_bytes(data, rng)
    if rng.random() < 0.6:
        places = [(holder, key) for holder, key in walk(value) if len(holder) < 60]
        if places:
            holder, key = rng.choice(places)
            holder[key] = other(holder[key], rng)
            return json_text(value, rng)
    return damage_json(data, rng) if rng.random() < 0.9 else damage_json_text(data, rng)


def read(path: Path) -> None:
    from aim_local.convert import ConvertConfig, convert
    from aim_local.convert.pipeline import plan_work

    name = next(name for name in sorted(SUFFIXES, key=len, reverse=True) if path.name.endswith(name))
    family, _, file = name.partition(".")
    folder = Path(tempfile.mkdtemp())
    try:
        checkpoint = folder / family
        write_checkpoint(checkpoint, family, file, path.read_bytes())
        if family in THEIRS:
            plan_work(checkpoint, ConvertConfig())
            return
        convert(checkpoint, folder / "out", ConvertConfig("f16", "f16", name="tiny"))
        ask(folder / "out", folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def ask(model: Path, folder: Path) -> None:
    """What convert has written must be of use."""
    from PIL import Image

    from aim_local import GenerateConfig, LoadConfig, VisionLLM
    from aim_local.errors import AimError

    picture = folder / "p.png"
    Image.new("RGB", (PIXELS, PIXELS), "red").save(picture)
    try:
        with VisionLLM.load(model, config=LoadConfig(cache_media=False, n_threads=1)) as llm:
            answer = llm.generate("What?", [picture], generate=GenerateConfig(max_tokens=4))
    except AimError as e:
        raise AssertionError(f"convert wrote what cannot be used: {e}") from e
    assert isinstance(answer.text, str)


# --- folders ----------------------------------------------------------------------------------------------------------


def write_checkpoint(folder: Path, family: str, file: str, data: bytes) -> None:
    """The family's kept files, with `data` in the place of one."""
    folder.mkdir()
    texts = {name.partition(".")[2]: FOLDER / name for name in KEPT if name.startswith(f"{family}.")}
    for name, source in texts.items():
        if name != HEADER:
            (folder / name).write_bytes(data if name == file else source.read_bytes())
    header = data if file == HEADER else texts[HEADER].read_bytes()
    weights = drawn_weights(family)
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + weights)


@cache
def drawn_weights(family: str) -> bytes:
    header = json.loads((FOLDER / f"{family}.{HEADER}").read_text())
    n_bytes = max(info["data_offsets"][1] for name, info in header.items() if name != "__metadata__")
    draw = np.random.default_rng(13)
    return (draw.standard_normal(n_bytes // 2) * 0.2).astype("<f2").tobytes()


def main() -> None:
    """Makes the corpus: the small files of tiny checkpoints, and the header of their weights."""
    import checkpoints
    import torch
    from family_checkpoints import write_family

    shape = checkpoints.Shape(d_vision=16, ff_vision=24, d_text=32, ff_text=32, n_text=2, extra_rows=8)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    root = Path(tempfile.mkdtemp())
    checkpoints.write_onevision(root / OURS[0], shape, dtype=torch.float16)
    checkpoints.write_llava(root / OURS[1], shape, dtype=torch.float16)
    for family in THEIRS:
        write_family(family, root / family)
    for family in (*OURS, *THEIRS):
        keep(root / family, family)
    beside(OURS[1])
    shutil.rmtree(root)


def keep(folder: Path, family: str) -> None:
    for path in sorted(folder.iterdir()):
        match path.name:
            case "model.safetensors":
                with path.open("rb") as file:
                    header: Any = json.loads(file.read(int.from_bytes(file.read(8), "little")))
                (FOLDER / f"{family}.{HEADER}").write_text(json.dumps(header) + "\n")
            case name if path.suffix in (".json", ".jinja"):
                text = path.read_text()
                text = json.dumps(json.loads(text), ensure_ascii=False) + "\n" if path.suffix == ".json" else text
                (FOLDER / f"{family}.{name}").write_text(text)


def beside(family: str) -> None:
    """Files that some checkpoints have, and say nothing new here."""
    names = json.loads((FOLDER / f"{family}.{HEADER}").read_text())
    weights = {name: "model.safetensors" for name in names if name != "__metadata__"}
    added = json.loads((FOLDER / f"{family}.tokenizer.json").read_text())["added_tokens"]
    files = {
        "model.safetensors.index.json": {"metadata": {}, "weight_map": weights},
        "added_tokens.json": {token["content"]: token["id"] for token in added},
        "special_tokens_map.json": {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}},
    }
    for name, value in files.items():
        (FOLDER / f"{family}.{name}").write_text(json.dumps(value) + "\n")


if __name__ == "__main__":
    main()
