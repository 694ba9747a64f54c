"""The KV cache in a saved conversation: its rows are those that its header has, or it is refused.

llama.cpp reads a state within its buffers and believes it otherwise. States are taken apart here by their layout alone.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aim_local import GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.demo import held_out, write_clip
from aim_local.errors import AimError
from aim_local.store.chat_file import ChatFileError, SavedChat, read_chat, write_chat

SHORT = GenerateConfig(max_tokens=4)
# of a plain context: magic, sequence, streams, cells; per cell position, number of sequences, the sequence
PLAIN_COUNT, PLAIN_CELLS, PLAIN_CELL = 12, 16, 12
# of a staged one: length and letters of "qwen2", stages, first layer, streams, cells; cells as above
STAGED_STAGES, STAGED_COUNT, STAGED_CELLS = 9, 21, 25


@pytest.fixture(scope="module")
def llm() -> Any:
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def plain(llm: VisionLLM, tmp_path_factory: pytest.TempPathFactory) -> SavedChat:
    with llm.chat(generate=SHORT) as chat:
        chat.ask("Hello")
        return read_chat(chat.save(tmp_path_factory.mktemp("plain") / "talk.aimchat"))


@pytest.fixture(scope="module")
def pruned(llm: VisionLLM, tmp_path_factory: pytest.TempPathFactory) -> SavedChat:
    folder = tmp_path_factory.mktemp("pruned")
    clip = write_clip(next(iter(held_out(1))), folder / "clip.mp4")
    with llm.chat(VisualTokenConfig(merge_retain=0.5), generate=SHORT) as chat:
        chat.ask("What moves?", [clip])
        return read_chat(chat.save(folder / "talk.aimchat"))


def word(at: int, value: int) -> Callable[[bytearray], None]:
    return lambda state: struct.pack_into("<I", state, at, value & 0xFFFFFFFF)


def cut_to(n: int) -> Callable[[bytearray], None]:
    def change(state: bytearray) -> None:
        del state[n:]

    return change


def without_cells(at: int) -> Callable[[bytearray], None]:
    """An empty cache, sound in itself, behind the number of cells."""

    def change(state: bytearray) -> None:
        word(at, 0)(state)
        del state[at + 4 :]

    return change


PLAIN = {
    "no cells": without_cells(PLAIN_COUNT),
    "fewer cells": word(PLAIN_COUNT, 3),
    "more cells": word(PLAIN_COUNT, 1 << 30),
    "streams": word(8, 2),
    "magic": word(0, 1),
    "a position below 0": word(PLAIN_CELLS, -1),
    "a far position": word(PLAIN_CELLS, 1 << 30),
    "one position twice": word(PLAIN_CELLS + PLAIN_CELL, 0),
    "two sequences": word(PLAIN_CELLS + 4, 2),
    "no sequence": word(PLAIN_CELLS + 4, 0),
    "cut short": cut_to(5000),
    "more behind it": lambda state: state.extend(bytes(64)),
}
STAGED = {
    "a name of 4 GB": word(0, 2**32 - 1),
    "another name": word(4, 0),
    "stages": word(STAGED_STAGES, 1),
    "a billion stages": word(STAGED_STAGES, 1 << 28),
    "held rows": word(STAGED_STAGES, 1 << 31 | 2),
    "no cells": word(STAGED_COUNT, 0),
    "more cells": word(STAGED_COUNT, 1 << 31),
    "no position": word(STAGED_CELLS, -1),
    "below 0": word(STAGED_CELLS, -7),
    "a far position": word(STAGED_CELLS, 1 << 30),
    "one position twice": word(STAGED_CELLS + 12, 0),
    "no sequence": word(STAGED_CELLS + 4, 0),
    "another sequence": word(STAGED_CELLS + 8, 1),
    "many sequences": word(STAGED_CELLS + 4, 1 << 31),
    "cut short": cut_to(9000),
}


def refused(llm: VisionLLM, kept: SavedChat, folder: Path, change: Callable[[bytearray], None]) -> None:
    state = bytearray(kept.state)
    change(state)
    assert state != kept.state
    write_chat(folder / "odd.aimchat", kept.header, state)
    with pytest.raises(ChatFileError) as e:
        llm.load_chat(folder / "odd.aimchat")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("change", PLAIN.values(), ids=PLAIN)
def test_a_plain_state(llm: VisionLLM, plain: SavedChat, tmp_path: Path, change: Any) -> None:
    refused(llm, plain, tmp_path, change)


@pytest.mark.parametrize("change", STAGED.values(), ids=STAGED)
def test_a_staged_state(llm: VisionLLM, pruned: SavedChat, tmp_path: Path, change: Any) -> None:
    refused(llm, pruned, tmp_path, change)


def test_an_unchanged_one_goes_on(llm: VisionLLM, plain: SavedChat, pruned: SavedChat, tmp_path: Path) -> None:
    """So the places above are those of a file that is read."""
    for kept in (plain, pruned):
        (n_cells,) = struct.unpack_from("<I", kept.state, PLAIN_COUNT if kept is plain else STAGED_COUNT)
        assert n_cells == kept.header["cache"]["marks"][-1][1]
        write_chat(tmp_path / "same.aimchat", kept.header, kept.state)
        with llm.load_chat(tmp_path / "same.aimchat") as chat:
            assert chat.used == n_cells
            assert chat.ask("And now?").stats.n_generated > 0


# --- numbers in it that say nothing -----------------------------------------------------------------------------------


def overwritten(kept: SavedChat, share: float, data: bytes) -> SavedChat:
    """With other bytes from a share of its state on, where it has keys, values or rows."""
    state = bytearray(kept.state)
    at = int(len(state) * share) // 4 * 4
    state[at : at + len(data)] = data
    return SavedChat(kept.header, state)


def kept_of(llm: VisionLLM, kind: str, folder: Path) -> SavedChat:
    clip = write_clip(next(iter(held_out(1))), folder / "clip.mp4")
    tokens = VisualTokenConfig(merge_retain=0.5) if kind == "pruned" else VisualTokenConfig.off()
    with llm.chat(tokens, generate=SHORT) as chat:
        chat.ask("What moves?", [clip])
        return read_chat(chat.save(folder / "talk.aimchat"))


NAN = b"\xff" * 64  # in every type that a cache can have: two blocks of the largest one


@pytest.mark.parametrize("share", [0.1, 0.3, 0.45, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("kind", ["plain", "pruned"])
def test_numbers_that_are_none_are_the_files_fault(
    llm: VisionLLM, kind: str, share: float, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Not the model's, which it was said to be; some led to an answer."""
    odd = overwritten(request.getfixturevalue(kind), share, NAN)
    path = tmp_path / "odd.aimchat"
    write_chat(path, odd.header, odd.state)
    with pytest.raises(ChatFileError) as e:
        llm.load_chat(path)
    assert str(e.value) == f"{path}: its KV cache is damaged: it holds numbers that are not finite (NaN or infinity)"


@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize("kv", ["f32", "bf16", "q8_0", "q5_1", "q4_0"])
def test_every_type_of_a_cache(kv: str, flash: bool, tmp_path: Path) -> None:
    if not flash and kv.startswith("q"):
        pytest.skip("quantised values need flash attention")
    config = LoadConfig(type_k=kv, type_v=kv, flash_attn=flash, n_threads=1)
    with VisionLLM.load(config=config) as llm:
        for kind in ("plain", "pruned"):
            kept = kept_of(llm, kind, tmp_path)
            write_chat(tmp_path / "same.aimchat", kept.header, kept.state)
            with llm.load_chat(tmp_path / "same.aimchat") as chat:
                assert chat.used
            for share in (0.2, 0.7):
                odd = overwritten(kept, share, NAN)
                write_chat(tmp_path / "odd.aimchat", odd.header, odd.state)
                with pytest.raises(ChatFileError, match="its KV cache is damaged"):
                    llm.load_chat(tmp_path / "odd.aimchat")


@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
def test_numbers_that_are_too_large_are_told_with_both_files(share: float, tmp_path: Path) -> None:
    """Finite, and what is computed from them is not: a model with such weights does the same."""
    path = tmp_path / "odd.aimchat"
    with VisionLLM.load(config=LoadConfig(type_k="f32", type_v="f32", n_threads=1)) as llm:
        odd = overwritten(kept_of(llm, "plain", tmp_path), share, struct.pack("<f", 3e38) * 2000)
        write_chat(path, odd.header, odd.state)
        with llm.load_chat(path) as chat:
            with pytest.raises(AimError) as e:
                chat.ask("And now?")
            told = str(e.value)
            assert told.startswith(f"{path}: ")
            assert "its KV cache is damaged, or the model is" in told
            assert "start a new conversation" in told
            assert "\n" not in told
            chat.reset()
            assert chat.ask("And now?").stats.n_generated > 0
