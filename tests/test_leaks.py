"""What is made through our interfaces is freed again, by good ways and by bad ones, as the leak sanitizer sees it.

Python and torch never free all they have, so that only what has one of our libraries in its stack counts.
`make sanitize` runs this; without the sanitizer there is nothing to ask (test_life_cycle.py counts what Python sees).
"""

from __future__ import annotations

import ctypes
import gc
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz import sanitizer

from aim_local import GenerateConfig, VisionLLM, VisualTokenConfig
from aim_local.errors import AimError, CancelledError

pytestmark = pytest.mark.skipif(not sanitizer.LEAKS, reason="needs the address sanitizer: make sanitize")

OURS = re.compile(r"/llama\.cpp/|lib(?:llama|mtmd|ggml[\w.-]*)\.so")  # the source, or a library without
PICTURE = np.full((112, 112, 3), 99, np.uint8)
SHORT = GenerateConfig(max_tokens=2)


def leaks(path: Path) -> Counter[str]:
    """Stacks with one of our libraries in them, of what nothing points to any more."""
    gc.collect()
    asked = ctypes.CDLL(None)
    asked.__sanitizer_set_report_path.argtypes = [ctypes.c_char_p]
    asked.__sanitizer_set_report_path(str(path).encode())
    asked.__lsan_do_recoverable_leak_check()
    asked.__sanitizer_set_report_path(sanitizer.LOG.encode() if sanitizer.LOG else b"stderr")
    text = "".join(file.read_text(errors="replace") for file in path.parent.glob(f"{path.name}.*"))
    stacks = re.findall(r"^(?:Direct|Indirect) leak of .+?(?=\n\n)", text, re.MULTILINE | re.DOTALL)
    return Counter(re.sub(r"0x[0-9a-f]+", "", stack) for stack in stacks if OURS.search(stack))


def answered() -> None:
    with VisionLLM.load() as llm:
        llm.generate("What is it?", [PICTURE], VisualTokenConfig.paper(), SHORT)
        llm.prefill("What is it?", [PICTURE], tokens=VisualTokenConfig(merge_by="ward", merge_retain=0.5))


def dropped() -> None:
    """Nobody closes it."""
    llm = VisionLLM.load()
    llm.chat(generate=SHORT).ask("What is it?", [PICTURE])


def saved(folder: Path) -> None:
    with VisionLLM.load() as llm:
        with llm.chat(generate=SHORT) as chat:
            chat.ask("What is it?", [PICTURE])
            kept = chat.save(folder / "a.aimchat")
        with llm.load_chat(kept, generate=SHORT) as chat:
            chat.ask("And now?")
        data = bytearray(kept.read_bytes())
        for at in range(0, len(data), len(data) // 20):
            bent = folder / "b.aimchat"
            bent.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
            with pytest.raises(AimError):
                llm.load_chat(bent)


def stopped() -> None:
    with VisionLLM.load() as llm, pytest.raises(CancelledError):
        llm.generate("What is it?", [PICTURE], should_stop=lambda: True, generate=SHORT)


def grammars() -> None:
    with VisionLLM.load() as llm:
        for grammar in ('root ::= "a"', "root ::= ", 'root ::= b "', 'root ::= root "a"', "x"):
            try:
                llm.generate("What is it?", generate=GenerateConfig(max_tokens=2, grammar=grammar))
            except AimError:
                continue
        for schema in ({"type": "object"}, {"type": "nothing"}, {"$ref": "#/x"}, {"enum": ["a", 1]}):
            try:
                llm.generate("What is it?", generate=GenerateConfig(max_tokens=2, json_schema=schema))
            except AimError:
                continue


def refused(folder: Path) -> None:
    """Damaged files, without the rehearsal that comes before them."""
    from aim_local.native.library import llama, mtmd
    from aim_local.store.names import resolve

    paths = resolve()
    params = llama.llama_model_default_params()
    text = llama.llama_model_load_from_file(str(paths.model).encode(), params)
    towers = mtmd.mtmd_context_params_default()
    towers.use_gpu = towers.warmup = False
    for source in (paths.model, paths.mmproj):
        data = source.read_bytes()
        for i in range(12):
            bent = folder / "bent.gguf"
            bent.write_bytes(data[: len(data) * i // 12] if i % 2 else data[: 40 * i] + b"\xff" + data[40 * i + 1 :])
            if model := llama.llama_model_load_from_file(str(bent).encode(), params):  # a name or a weight was bent
                llama.llama_model_free(model)
            if tower := mtmd.mtmd_init_from_file(str(bent).encode(), text, towers):
                mtmd.mtmd_free(tower)
    llama.llama_model_free(text)


LIVES: dict[str, Callable[..., None]] = {
    life.__name__: life for life in (answered, dropped, saved, stopped, grammars, refused)
}


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """What is made once for a process."""
    answered()


@pytest.mark.parametrize("name", LIVES)
def test_nothing_is_left(name: str, tmp_path: Path) -> None:
    before = leaks(tmp_path / "before")
    life: Any = LIVES[name]
    for _ in range(2):
        life(*[tmp_path] * life.__code__.co_argcount)
    assert not leaks(tmp_path / "after") - before


def test_what_is_lost_is_seen(tmp_path: Path) -> None:
    """What this file relies on."""
    from aim_local.native.library import mtmd

    before = leaks(tmp_path / "before")
    for _ in range(3):  # a copy of the last pointer may lie in a register
        mtmd.mtmd_bitmap_init(8, 8, (ctypes.c_uint8 * 192)())
    assert any("mtmd_bitmap_init" in stack for stack in leaks(tmp_path / "after") - before)
