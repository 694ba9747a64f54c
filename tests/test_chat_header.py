"""Saved conversations of strangers: every field of a header is checked, in one line, before memory is taken for it.

The files are undamaged: their checksums fit what was changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import struct
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from aim_local import GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.demo import held_out, write_clip
from aim_local.errors import AimError
from aim_local.store import chat_file
from aim_local.store.chat_file import ChatFileError, SavedChat, read_chat, read_header, write_chat

SHORT = GenerateConfig(max_tokens=4)
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def llm() -> Any:
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def kept(llm: VisionLLM, tmp_path_factory: pytest.TempPathFactory) -> SavedChat:
    """A pruned conversation of one turn."""
    folder = tmp_path_factory.mktemp("kept")
    clip = write_clip(next(iter(held_out(1))), folder / "clip.mp4")
    with llm.chat(VisualTokenConfig(merge_retain=0.5), generate=SHORT) as chat:
        chat.ask("What moves?", [clip])
        return read_chat(chat.save(folder / "talk.aimchat"))


def put(*path: Any) -> Change:
    """The last of `path` in the place of what the others lead to."""

    def change(header: dict[str, Any]) -> None:
        *way, key, value = path
        for step in way:
            header = header[step]
        header[key] = value

    return change


def more_tokens(n: int) -> Change:
    """n tokens that the state does not have, with marks and a context that fit them."""

    def change(header: dict[str, Any]) -> None:
        cache = header["cache"]
        n_past, n_cells, n_visual = cache["marks"][-1]
        cache["items"] += [1] * n
        cache["marks"] += [[n_past + i, n_cells + i, n_visual] for i in range(1, n + 1)]
        cache["n_ctx"], cache["rooms"][0] = cache["n_ctx"] + n, cache["rooms"][0] + n

    return change


def large_rooms(header: dict[str, Any]) -> None:
    cache = header["cache"]
    cache["rooms"] = [1 << 22, 1 << 22]
    cache["n_ctx"] = 1 << 23


TYPES = {
    "model": put("model", []),
    "type_k": put("model", "type_k", ["f16"]),
    "flash_attn": put("model", "flash_attn", 1),
    "fingerprint": put("model", "fingerprints", 0, 7),
    "system": put("system", {"text": "x"}),
    "role": put("messages", 0, "role", ["user"]),
    "kind": put("messages", 0, "media", 0, 1, {}),
    "shape": put("media", 0, "shape", "8x8"),
    "a boolean": put("cache", "marks", 1, 0, True),
    "a float": put("cache", "items", 0, 0.5),
    "marks": put("cache", "marks", {}),
    "generate": put("generate", "stop", "END"),
    "tokens": put("tokens", "merge_retain", "0.5"),
    "rerank": put("rerank", "yes"),
    "half a pair": put("messages", 0, "text", "\ud800"),
}
BOUNDS = {
    "n_ctx": put("cache", "n_ctx", 1 << 30),
    "a token": put("cache", "items", 0, 1 << 20),
    "a negative token": put("cache", "items", 0, -1),
    "media": put("cache", "items", [[9, 9]]),
    "frames": put("media", 0, "shape", [1 << 30, 8, 8, 3]),
    "layers": put("cache", "shares", [1.0] * 3),
    "a share": put("cache", "shares", 0, 1.5),
    "a mark": put("cache", "marks", 5, [1, 1, 1]),
    "the last mark": put("cache", "marks", -1, [1 << 20, 1 << 20, 0]),
    "no items": put("cache", "items", []),
    "unknown": put("cache", "new", 1),
    "tokens": put("tokens", "merge_retain", 0),
    "messages": lambda header: header["messages"].extend([{"role": "user", "text": "x", "media": []}] * 20_000),
    "media shown twice": lambda header: header["messages"].append(deepcopy(header["messages"][0])),
    "more tokens than the state": more_tokens(5000),
    "a few more": more_tokens(3),
}


@pytest.mark.parametrize("change", [*TYPES.values(), *BOUNDS.values()], ids=[*TYPES, *BOUNDS])
def test_what_no_version_wrote(llm: VisionLLM, kept: SavedChat, tmp_path: Path, change: Change) -> None:
    header = deepcopy(kept.header)
    change(header)
    path = tmp_path / "odd.aimchat"
    write_chat(path, header, kept.state)
    with pytest.raises(ChatFileError) as e:
        llm.load_chat(path)
    assert str(e.value).startswith(f"{path}: ")
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 500


def times(*seconds: float | None) -> Change:
    """The first times of the clip; the others follow."""

    def change(header: dict[str, Any]) -> None:
        header["media"][0]["timestamps"][: len(seconds)] = seconds

    return change


def digest(text: str) -> Change:
    return put("media", 0, "digest", text)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (times(-1.0), r"media\[0\].timestamps\[0\] is -1.0; allowed is a number from 0 to"),
        (times(-1e-9), r"media\[0\].timestamps\[0\] is -1e-09"),
        (times(0.0, float("1e999")), r"its contents do not fit|timestamps\[1\] is inf"),
        (put("media", 0, "duration", -1), r"media\[0\].duration is -1"),
        (digest("\x1b[31mred"), r"media\[0\].digest is '\\x1b\[31mred'; allowed is 64 hexadecimal digits"),
        (digest("Z" * 64), r"media\[0\].digest is 'ZZZ"),
        (digest("../../etc/passwd"), r"media\[0\].digest is '../../etc"),
        (digest(""), r"media\[0\].digest is ''"),
        (digest("a" * 63), r"media\[0\].digest is 'aaa"),
        (digest("\u0661" * 64), r"media\[0\].digest is "),
        (
            put("model", "fingerprints", 0, "g" * 64),
            r"model.fingerprints\[0\] is 'ggg.*allowed is 64 hexadecimal digits",
        ),
    ],
)
def test_times_and_digests_that_no_clip_has(
    llm: VisionLLM, kept: SavedChat, tmp_path: Path, change: Change, told: str
) -> None:
    header = deepcopy(kept.header)
    change(header)
    path = tmp_path / "odd.aimchat"
    text = json.dumps({**header, "n_state": len(kept.state)}).replace("Infinity", "1e999").encode()
    checksum = hashlib.sha256(text + kept.state).digest()
    path.write_bytes(struct.pack("<8sIQ32s", b"AIMCHAT\n", 2, len(text), checksum) + text + kept.state)
    with pytest.raises(ChatFileError, match=told) as e:
        llm.load_chat(path)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("change", [times(None, None), times(0.0, 0.0)])
def test_times_that_are_unknown_or_equal_are_taken(
    llm: VisionLLM, kept: SavedChat, tmp_path: Path, change: Change
) -> None:
    header = deepcopy(kept.header)
    change(header)
    write_chat(tmp_path / "odd.aimchat", header, kept.state)
    with llm.load_chat(tmp_path / "odd.aimchat") as chat:
        assert chat.used


@pytest.mark.parametrize("change", [large_rooms, put("generate", "max_tokens", 2**31 - 1)])
def test_a_large_claim_takes_no_memory(llm: VisionLLM, kept: SavedChat, tmp_path: Path, change: Change) -> None:
    """8 million cells are 6 GB with this model; what is held, and room to go on, takes a few MB."""
    header = deepcopy(kept.header)
    change(header)
    write_chat(tmp_path / "large.aimchat", header, kept.state)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with llm.load_chat(tmp_path / "large.aimchat", generate=SHORT) as chat:
        assert chat.ask("And now?").stats.n_visual == 0
        assert chat.n_ctx <= 1 << 15
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def head(n_header: int, version: int = 2) -> bytes:
    return struct.pack("<8sIQ32s", b"AIMCHAT\n", version, n_header, bytes(32))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (head(1 << 62), "damaged"),
        (head(1 << 20) + b"{}", "cut short"),
        (head(100_000) + b"[" * 100_000, "damaged"),
        (head(2) + b"{}", "damaged"),
        (head(14) + b'{"n_state":NaN', "damaged"),
        (head(5000) + b'{"n_state":' + b"9" * 4988 + b"}", "damaged"),
        (head(30) + b'{"n_state":1125899906842624}  ', "cut short"),
    ],
)
def test_lengths_that_lie(llm: VisionLLM, tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "odd.aimchat").write_bytes(data)
    with pytest.raises(ChatFileError, match=words) as e:
        llm.load_chat(tmp_path / "odd.aimchat")
    assert "\n" not in str(e.value)


def test_a_file_with_a_hole_is_not_read(llm: VisionLLM, kept: SavedChat, tmp_path: Path) -> None:
    """A terabyte that takes no place on the disk: its size says that it is not this conversation's."""
    text = json.dumps({**kept.header, "n_state": 1 << 40}).encode()
    with (tmp_path / "hole.aimchat").open("wb") as file:
        file.write(head(len(text)) + text)
        file.truncate(52 + len(text) + (1 << 40))
    with pytest.raises(ChatFileError, match=r"has 1099511627776 bytes, with this model \d+ tokens take"):
        llm.load_chat(tmp_path / "hole.aimchat")


@pytest.mark.parametrize("piece", [b"[],", b'{"a":{}},', b'["[\\"[",[]],'])
def test_a_header_of_nothing_but_lists_is_not_read(
    piece: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 MB of them take a minute and gigabytes."""
    monkeypatch.setattr(chat_file, "_LISTS", 1000)
    text = b'{"n_state": 0, "messages": [' + piece * 1000 + b"[]]}"
    (tmp_path / "lists.aimchat").write_bytes(head(len(text)) + text)
    with pytest.raises(ChatFileError, match="is damaged"):
        read_header(tmp_path / "lists.aimchat")


def test_brackets_in_a_text_are_text(kept: SavedChat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_file, "_LISTS", 1000)
    header = deepcopy(kept.header)
    header["messages"][1]["text"] = '["\\' * 1000
    write_chat(tmp_path / "text.aimchat", header, kept.state)
    assert read_header(tmp_path / "text.aimchat")["messages"] == header["messages"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "talk.aimchat")
    with pytest.raises(ChatFileError, match="is no file"):
        read_header(tmp_path / "talk.aimchat")


def test_names_that_are_not_utf8_are_kept(llm: VisionLLM, kept: SavedChat, tmp_path: Path) -> None:
    """As Python has them in paths, and the conversation is not lost."""
    header = deepcopy(kept.header)
    header["media"][0]["source"] = os.fsdecode(b"clip-\xff.mp4")
    write_chat(tmp_path / "odd.aimchat", header, kept.state)
    with llm.load_chat(tmp_path / "odd.aimchat") as chat:
        assert os.fsencode(chat.messages[0]["media"][0]) == b"clip-\xff.mp4"


def test_earlier_versions_are_read(llm: VisionLLM, kept: SavedChat, tmp_path: Path) -> None:
    """They had no times of frames, no frame_tokens and no rerank."""
    header = deepcopy(kept.header)
    del header["rerank"], header["model"]["frame_tokens"], header["media"][0]["timestamps"]
    for name in ("min_p", "logprobs", "json_schema", "grammar", "frequency_penalty", "presence_penalty"):
        del header["generate"][name]
    write_chat(tmp_path / "old.aimchat", header, kept.state)
    try:
        with llm.load_chat(tmp_path / "old.aimchat", generate=SHORT) as chat:
            assert chat.ask("And now?").stats.n_generated > 0
    except AimError as e:
        pytest.fail(str(e))
