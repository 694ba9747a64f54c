"""What rules cannot know of a GGUF is tried out in a child: its death is one line here, and is paid for once."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import bent_gguf as bent
import pytest
from bent_gguf import number, text
from fuzz.targets.gguf import File

from aim_local import store
from aim_local.child import Child
from aim_local.errors import ModelError
from aim_local.native import rehearsal
from aim_local.native.rehearsal import rehearse
from aim_local.store import gguf_header
from aim_local.store.gguf_header import read_header
from aim_local.store.seen import Look


def tried(file: File, path: Path, kind: str = "text", *, weights: bool = True) -> str:
    """What is said of it, "" for nothing."""
    found = ""
    try:
        rehearse([read_header(bent.save(file, path))], kind, weights=weights)
    except ModelError as e:
        found = str(e)
    print(found)
    assert found.count("download or convert it again") == bool(found)
    assert not found or found.startswith(f"{path} does not load: ")
    assert "\n" not in found
    return found


def twice(file: File) -> File:
    tokens = next(e for e in file.entries if e.key == b"tokenizer.ggml.tokens")
    first, second = tokens.value[12:21], tokens.value[21:30]
    assert len(first) == len(second) == 8 + struct.unpack_from("<Q", first)[0]
    return bent.with_key(
        file, "tokenizer.ggml.tokens", {"kind": tokens.kind, "value": tokens.value.replace(second, first, 1)}
    )


TEXTS = {
    "two tokens of one text": (twice, "two tokens of its vocabulary have the same text"),
    "another tokenizer": (
        lambda f: bent.with_key(f, "tokenizer.ggml.model", text("llama")),
        "its tokenizer.ggml.model does not fit its vocabulary",
    ),
    "more to turn than a head has": (
        lambda f: bent.with_key(f, "qwen2.rope.dimension_count", number("uint32", 4096)),
        "does not load",
    ),
    "a head of odd values": (
        lambda f: bent.with_key(f, "qwen2.rope.dimension_count", number("uint32", 3)),
        "does not load: llama.cpp gave up (",
    ),
    "a scaling that nobody knows": (
        lambda f: bent.with_key(f, "qwen2.rope.scaling.type", text("frog")),
        "does not load: llama.cpp gave up (",
    ),
    "more experts than it has": (
        lambda f: bent.with_key(f, "qwen2.expert_used_count", number("uint32", 9)),
        "does not load: llama.cpp gave up (",
    ),
    "heads that do not divide": (
        lambda f: bent.with_key(f, "qwen2.attention.head_count", number("uint32", 7)),
        "shape",
    ),
    "fewer layers than it has": (
        lambda f: bent.with_key(f, "qwen2.block_count", number("uint32", 11)),
        "wrong number of",
    ),
    "an architecture that nobody knows": (
        lambda f: bent.with_key(f, "general.architecture", text("qwen7")),
        "unknown model architecture: 'qwen7'",
    ),
    "a renamed bias": (
        lambda f: replace(
            f, tensors=tuple(replace(t, name=t.name.replace(b"attn_q.bias", b"attn_q.offset")) for t in f.tensors)
        ),
        "wrong number of tensors",
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_language_model_that_does_not_fit_together(name: str, tmp_path: Path) -> None:
    bend, said = TEXTS[name]
    assert said in tried(bend(bent.whole("model")), tmp_path / "model.gguf")


TOWERS = {
    "a renamed bias": (
        lambda f: bent.with_tensor(f, "v.blk.1.attn_q.bias", lambda t: replace(t, name=b"v.blk.1.attn_q.offset")),
        "its tensor 'v.blk.1.attn_q.offset' is none that its projector has",
    ),
    "a tensor too many": (
        lambda f: replace(f, tensors=(*f.tensors, replace(f.tensors[1], name=b"v.blk.9.attn_q.bias"))),
        "its tensor 'v.blk.9.attn_q.bias' is none",
    ),
    "a narrow matrix": (lambda f: bent.with_tensor(f, "v.blk.0.attn_q.weight", bent.as_numbers((128, 64))), ""),
    "half a norm": (lambda f: bent.with_tensor(f, "v.blk.0.ln2.weight", bent.as_numbers((64,))), ""),
    "half a table of positions": (
        lambda f: bent.with_tensor(f, "v.position_embd.weight", bent.as_numbers((64, 64))),
        "",
    ),
    "no projector": (lambda f: bent.with_tensor(f, "mm.2.weight", lambda _: None), "mm.2.weight"),
}


@pytest.mark.parametrize("name", TOWERS)
def test_a_tower_that_does_not_fit_together(name: str, tmp_path: Path) -> None:
    bend, said = TOWERS[name]
    found = tried(bend(bent.whole("mmproj")), tmp_path / "mmproj.gguf", "vision")
    assert found
    assert said in found


@pytest.mark.parametrize(
    ("kind", "name", "bad"),
    [
        ("model", "blk.7.attn_norm.weight", b"\x00\x00\xc0\x7f"),  # NaN of float32
        ("model", "blk.2.ffn_down.weight", b"\x00\x7c"),  # infinity of float16
        ("mmproj", "v.blk.2.ffn_up.weight", b"\x00\x7e"),  # NaN of float16
        ("mmproj", "v.image_newline", b"\x00\x00\x80\xff"),  # -infinity of float32
    ],
)
def test_a_weight_that_is_no_number(kind: str, name: str, bad: bytes, tmp_path: Path) -> None:
    file = bent.with_tensor(bent.whole(kind), name, lambda t: replace(t, data=t.data[: -len(bad)] + bad))
    path = tmp_path / f"{kind}.gguf"
    found = tried(file, path, "text" if kind == "model" else "vision")
    assert f"its tensor '{name}' holds NaN or infinity" in found


def test_it_is_done_once_and_for_weights_again_when_they_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[list[str]] = []
    send = Child.send

    def watched(child: Child, **message: Any) -> None:
        steps.append([kind for kind, _ in message["steps"]])
        send(child, **message)

    monkeypatch.setattr(Child, "send", watched)
    path = tmp_path / "mmproj.gguf"
    file = bent.with_key(bent.whole("mmproj"), "general.description", text(str(tmp_path)))  # a head of its own
    assert tried(file, path, "vision", weights=False) == ""
    assert tried(file, path, "vision") == ""
    assert tried(file, path, "vision") == ""  # the same bytes, written anew
    rehearse([read_header(path)], "vision", weights=True)
    assert steps == [["vision"], ["weights"], ["weights"]]
    seen = json.loads((store.cache_folder() / "seen.json").read_text())
    assert [len(value) for value in seen.values()] == [4]
    for name in ("model", "mmproj"):  # ours
        rehearse([read_header(bent.FOLDER / f"{name}.gguf")], "text" if name == "model" else "vision", weights=True)
    assert len(steps) == 3


def test_a_bad_file_is_never_taken_for_seen(tmp_path: Path) -> None:
    path, file = tmp_path / "model.gguf", twice(bent.whole("model"))
    assert tried(file, path) == tried(file, path) != ""


def test_a_file_that_takes_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "LIMIT_S", -1e9)
    file = bent.with_key(bent.whole("model"), "general.description", text(str(tmp_path)))
    assert "it takes over" in tried(file, tmp_path / "model.gguf")


def test_several_at_once_agree(tmp_path: Path) -> None:
    """Two processes with two threads each, on two files."""
    paths = []
    for name in ("model", "mmproj"):
        file = bent.with_key(bent.whole(name), "general.description", text(str(tmp_path)))
        paths.append(str(bent.save(file, tmp_path / f"{name}.gguf")))
    code = (
        "import sys, threading\n"
        "from aim_local.native.rehearsal import rehearse\n"
        "from aim_local.store.gguf_header import read_header\n"
        "def one(path, kind):\n"
        "    rehearse([read_header(path)], kind, weights=True)\n"
        "    print('right\\n', end='', flush=True)\n"
        "threads = [threading.Thread(target=one, args=a) for a in zip(sys.argv[1:], ('text', 'vision'))]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code, *paths], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [run.communicate(timeout=120)[0] for run in runs]
    assert said == ["right\nright\n"] * 2
    found = json.loads((store.cache_folder() / "seen.json").read_text())
    assert all(len(value) == 4 for value in found.values())


def test_a_split_model_is_tried_as_one(tmp_path: Path) -> None:
    """Its parts' heads count, too."""
    head = read_header(bent.FOLDER / "model.gguf")
    copies = [Path(shutil.copy(head.path, tmp_path / name)) for name in ("a.gguf", "b.gguf")]
    looks = [Look.at([read_header(p) for p in part], "x") for part in ((copies[0],), copies)]
    assert looks[0].key != looks[1].key
    assert gguf_header.head_sha256(head) == gguf_header.head_sha256(read_header(copies[0]))
