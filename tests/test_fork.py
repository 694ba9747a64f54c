"""Forked processes: the parent's model is refused there, and one of their own computes, with two threads too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import multiprocessing, os, signal
from aim_local import GenerateConfig, LoadConfig, VisionLLM
from aim_local.errors import AimError
SHORT, CONFIG = GenerateConfig(max_tokens=3), LoadConfig(n_threads=2)

def answer(queue):
    signal.alarm(60)  # ends a child that waits for threads it does not have
    with VisionLLM.load(config=CONFIG) as own:
        queue.put(own.generate("Hello", generate=SHORT).tokens)

if __name__ == "__main__":
    llm = VisionLLM.load(config=CONFIG)
    chat = llm.chat(generate=SHORT)
    wanted = llm.generate("Hello", generate=SHORT).tokens
    chat.ask("Hello")
    for way in ("fork", "spawn"):
        queue = (context := multiprocessing.get_context(way)).Queue()
        child = context.Process(target=answer, args=(queue,))
        child.start()
        assert queue.get(timeout=100) == wanted
        child.join()
        assert child.exitcode == 0, child.exitcode
    native, text = chat._cache.context, llm.text
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        said = 0
        for use in (lambda: llm.generate("x"), lambda: chat.ask("x"), lambda: chat.save("none.aimchat"),
                    native.state, native.logits, lambda: text.tokenize("x", start=True)):
            try: use()
            except AimError as e: said += "forked" in str(e)
        llm.close(); chat.close(); native.close()
        del llm, chat, native, text, use
        os._exit(said)
    assert os.waitpid(pid, 0)[1] >> 8 == 6
    assert llm.generate("Hello", generate=SHORT).tokens == wanted
    assert chat.ask("And?").tokens
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_computes_with_a_model_of_its_own(tmp_path: Path) -> None:
    (program := tmp_path / "program.py").write_text(PROGRAM)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_THREAD_LIMIT"}
    environment["OMP_WAIT_POLICY"] = "passive"
    ran = subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
