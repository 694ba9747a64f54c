"""Saved conversations (.aimchat): what `--resume` and `load_chat` read, header, lengths and the state of the KV cache.

A mutant's checksum and lengths are put right after most changes, so that the checks behind them are reached.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import math
import random
import struct
from pathlib import Path
from typing import Any

from aim_local import GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.demo import held_out, write_clip

SUFFIXES = (".aimchat",)
MEMORY_MIB = 256  # a context of the toy takes 40

_HEAD = struct.Struct("<8sIQ32s")
_ASKED = GenerateConfig(max_tokens=3, logprobs=1)
_KINDS = {
    "text": None,
    "plain": VisualTokenConfig.off(),
    "pruned": VisualTokenConfig(merge_retain=0.5),
    "sizes": VisualTokenConfig(merge_by="ward", merge_retain=0.2, weigh="size", prune_layers="late"),
}
_NUMBERS = (0, 1, -1, 2, 7, 255, 2**15, 2**20, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64, -(2**31), 10**30)
_VALUES = (
    None,
    True,
    False,
    "",
    "x",
    "auto",
    "\ud800",
    "\0",
    "../../x",
    0.5,
    -0.0,
    1e308,
    [],
    {},
    [[]],
    [1, 2],
    {"a": 1},
)


@functools.cache
def _model() -> VisionLLM:
    return VisionLLM.load(config=LoadConfig(n_threads=1))


def seeds(folder: Path) -> list[Path]:
    """Conversations of the bundled model: of text, and of a clip with visual tokens as they are, pruned and weighed."""
    clip, made = write_clip(next(iter(held_out(1))), folder / "clip.mp4"), []
    for name, tokens in _KINDS.items():
        with _model().chat(tokens, generate=_ASKED) as chat:
            chat.ask("What moves?", [clip] if tokens else [])
            made.append(chat.save(folder / f"{name}.aimchat"))
    return made


def mutate(data: bytes, rng: random.Random) -> bytes:
    if len(data) < _HEAD.size:
        return data + b"\0"
    magic, version, n_header, digest = _HEAD.unpack_from(data)
    text, state = data[_HEAD.size : _HEAD.size + n_header], bytearray(data[_HEAD.size + n_header :])
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = {}
    kind = rng.choice(["header"] * 5 + ["state"] * 5 + ["both", "cells", "head", "bytes"])
    if kind == "bytes":
        return _change_bytes(bytearray(data), rng)
    if kind == "head":
        field = rng.randrange(4)
        odd = [rng.choice([b"AIMCHAT\r", bytes(8)]), rng.choice([0, 1, 3, 2**32 - 1]), rng.choice(_LENGTHS), bytes(32)]
        values = [magic, version, n_header, digest]
        values[field] = odd[field]
        return _HEAD.pack(*values) + text + state
    if kind in ("header", "both"):
        header = _change_json(header, rng)
    if kind in ("state", "both"):
        state = _change_state(state, rng)
    if kind == "cells":
        _change_cells(header, rng)
    return _packed(header, bytes(state), rng)


_LENGTHS = (0, 1, 2**20, 2**31, 2**40, 2**63, 2**64 - 1)


def _packed(header: Any, state: bytes, rng: random.Random) -> bytes:
    if isinstance(header, dict) and rng.random() < 0.95:
        header["n_state"] = len(state)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    if rng.random() < 0.02:
        text = b"[" * 100_000
    return _HEAD.pack(b"AIMCHAT\n", 2, len(text), hashlib.sha256(text + state).digest()) + text + state


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every (container, key) in plain data; of long lists the first and last only, or all places were tokens."""
    if isinstance(value, dict):
        keys: list[Any] = list(value)
    else:
        keys = [i for i in range(len(value)) if i < 3 or i >= len(value) - 3]
    for key in keys:
        found.append((value, key))
        if isinstance(value[key], dict | list):
            _places(value[key], found)
    return found


def _change_json(header: Any, rng: random.Random) -> Any:
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        if not isinstance(header, dict) or not header:
            return copy.deepcopy(rng.choice(_VALUES))
        container, key = rng.choice(_places(header, []))
        other, place = rng.choice(_places(header, []))
        container[key] = _other_value(container[key], copy.deepcopy(other[place]), rng)
        if rng.random() < 0.2:
            del container[key]
        elif rng.random() < 0.1 and isinstance(container, dict):
            container[rng.choice(["new", "", "n_state"])] = copy.deepcopy(rng.choice(_VALUES))
    return header


def _other_value(value: Any, other: Any, rng: random.Random) -> Any:
    """other: a value from elsewhere in the header."""
    how = rng.randrange(6)
    if how == 0:
        return copy.deepcopy(rng.choice(_VALUES))
    if how == 1:
        return rng.choice(_NUMBERS)
    if how == 2 and isinstance(value, int | float):
        return value + rng.choice([1, -1, 0.5, 1000])
    if how in (3, 4) and isinstance(value, str | list) and len(value) < 5000:
        return value * rng.choice([0, 2, 1000])
    return other


def _change_cells(header: Any, rng: random.Random) -> None:
    """Tokens more or fewer than the state has, with marks that fit them: the header alone is right in itself."""
    try:
        cache = header["cache"]
        items, marks = cache["items"], cache["marks"]
        if items and rng.random() < 0.5:
            n = rng.randrange(len(items))
            del items[n:], marks[n + 1 :]
        else:
            for _ in range(rng.choice([1, 50, 5000])):
                items.append(rng.choice([1, 2**20]))
                marks.append([marks[-1][0] + 1, marks[-1][1] + 1, marks[-1][2]])
        if rng.random() < 0.7:
            cache["n_ctx"] = rng.choice([len(items), 2**20, 2**24, cache["n_ctx"]])
            if cache["rooms"]:
                cache["rooms"][0] = cache["n_ctx"] - cache["rooms"][1]
    except (KeyError, TypeError, IndexError, AttributeError):
        return


def _change_state(state: bytearray, rng: random.Random) -> bytearray:
    """Counts, positions and types stand in its first bytes, and between the rows; all are words of 4 bytes."""
    how = rng.randrange(8)
    if how == 0:
        return state[: rng.randrange(len(state) + 1)]
    if how == 1:
        return state + bytes(rng.choice([1, 4, 4096]))
    if how == 2:
        at = rng.randrange(len(state) + 1)
        return state[:at] + state[at + rng.choice([1, 4, 8, 64]) :]
    for _ in range(rng.choice([1, 1, 2, 8])):
        if len(state) < 8:
            break
        near = rng.random()
        end = min(len(state), 64 if near < 0.5 else 2048 if near < 0.8 else len(state))
        at = rng.randrange(0, end - 3)
        struct.pack_into("<I", state, at, rng.choice(_NUMBERS) & 0xFFFFFFFF)
    return state


def _change_bytes(data: bytearray, rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return bytes(data[: rng.randrange(len(data))])
    for _ in range(rng.choice([1, 3])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def read(path: Path) -> None:
    """Taken up, and asked one question."""
    with _model().load_chat(path, generate=_ASKED) as chat:
        answer = chat.ask("And its colour?")
    assert answer.logprobs is not None
    assert all(math.isfinite(token.logprob) for token in answer.logprobs), "an answer of numbers that are none"
