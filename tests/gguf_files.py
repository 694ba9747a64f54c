"""Tiny GGUF files for tests that read heads and names, not weights."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np


def write_model(path: Path, arch: str = "qwen2", n_vocab: int = 16) -> Path:
    """A language GGUF's head, a vocabulary, and two small tensors (F16 and F32)."""
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name(path.stem)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_token_list([f"t{i}" for i in range(n_vocab)])
    writer.add_tensor("token_embd.weight", np.zeros((n_vocab, 8), np.float16))
    writer.add_tensor("output_norm.weight", np.zeros(8, np.float32))
    return _finish(writer, path)


def write_mmproj(path: Path) -> Path:
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_string("clip.projector_type", "llava_onevision")
    writer.add_tensor("v.patch_embd.weight", np.zeros((4, 8), np.float16))
    return _finish(writer, path)


def write_folder(folder: Path) -> Path:
    """A folder as `convert` leaves it."""
    folder.mkdir(parents=True)
    write_model(folder / "model.gguf")
    write_mmproj(folder / "mmproj.gguf")
    files = {"model": {"path": "model.gguf"}, "mmproj": {"path": "mmproj.gguf"}}
    (folder / "aim.json").write_text(json.dumps({"format": 1, "files": files}))
    return folder


def _finish(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
