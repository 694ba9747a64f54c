"""Biases and scales left out or put in where it does not show: upstream's loaders compute on without a word."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import bent_gguf as bent
import pytest
from fuzz.targets.gguf import File, Tensor

from aim_local.errors import ModelError
from aim_local.models.text_head import check_text_head
from aim_local.models.tower_head import check_tower_head
from aim_local.store.gguf_header import read_header


def without(pattern: str) -> Callable[[File], File]:
    """Without the tensors of such names, in all layers."""

    def bend(file: File) -> File:
        kept = tuple(t for t in file.tensors if not re.fullmatch(pattern, t.name.decode()))
        assert len(kept) < len(file.tensors)
        return replace(file, tensors=kept)

    return bend


def with_one(name: str, *shape: int) -> Callable[[File], File]:
    n = shape[0] if shape else 1
    made = Tensor(name.encode(), shape, bent.F32, struct.pack("<f", 0.7) * n)
    return lambda file: replace(file, tensors=(*file.tensors, made))


def with_each(name: str) -> Callable[[File], File]:
    """With one number of that name in each of the three layers."""

    def bend(file: File) -> File:
        for layer in "012":
            file = with_one(name.replace("*", layer), 1)(file)
        return file

    return bend


BENDS = {
    "queries": ("model", without(r"blk\.\d+\.attn_q\.bias"), "blk.0.attn_q.bias' is missing"),
    "values": ("model", without(r"blk\.\d+\.attn_v\.bias"), "blk.0.attn_v.bias' is missing"),
    "all three": ("model", without(r"blk\.\d+\.attn_[qkv]\.bias"), "is missing, and models of its kind have it"),
    "a tower's keys": ("mmproj", without(r"v\.blk\.\d+\.attn_k\.bias"), "v.blk.0.attn_k.bias' is missing"),
    "a tower's norms": ("mmproj", without(r"v\.blk\.\d+\.ln[12]\.bias"), "v.blk.0.ln1.bias' is missing"),
    "a tower's matrices": ("mmproj", without(r"v\.blk\.\d+\.ffn_up\.bias"), "v.blk.0.ffn_up.bias' is missing"),
    "all of a tower": ("mmproj", without(r"v\.blk\..*\.bias"), "is missing, and models of its kind have it"),
    "patches": ("mmproj", without(r"v\.patch_embd\.bias"), "'v.patch_embd.bias' is missing"),
    "the projector": ("mmproj", without(r"mm\.0\.bias"), "'mm.0.bias' is missing"),
    "a norm of one number": ("mmproj", with_each("v.blk.*.attn_q_norm.weight"), "has 1 value; it has to be one for"),
    "a scale of one number": ("mmproj", with_each("v.blk.*.ls2.weight"), "has 1 value; it has to be one for"),
    "a norm behind the layers": ("mmproj", with_one("v.post_ln.weight", 1), "has 1 value; it has to be one for"),
    "a norm of one layer": ("mmproj", with_one("v.blk.1.attn_q_norm.weight", 128), "is missing, and other layers have"),
    "a scale of one layer": ("mmproj", with_one("v.blk.0.ls1.weight", 128), "'v.blk.1.ls1.weight' is missing"),
    "a bias of nothing": ("mmproj", with_one("v.blk.0.attn_qkv.bias", 384), "is a bias of v.blk.0.attn_qkv.weight"),
}


@pytest.mark.parametrize("name", BENDS)
def test_what_changes_answers_in_silence_is_refused(name: str, tmp_path: Path) -> None:
    kind, bend, said = BENDS[name]
    header = read_header(bent.save(bend(bent.whole(kind)), tmp_path / f"{kind}.gguf"))
    with pytest.raises(ModelError, match="The file is damaged") as caught:
        (check_tower_head if kind == "mmproj" else check_text_head)(header)
    assert said in str(caught.value)
