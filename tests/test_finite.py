"""Scores and visual rows that are no finite numbers are errors: in the library, the command line and the service."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import bent_gguf as bent
import numpy as np
import pytest

from aim_local import GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.errors import ModelError
from aim_local.native.finite import finite_logits, finite_rows

PICTURE = np.full((90, 120, 3), 99, np.uint8)
HUGE = struct.pack("<f", 3e38)


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that are all finite, and whose products are not."""
    file = bent.with_tensor(bent.whole("model"), "output_norm.weight", lambda t: replace(t, data=HUGE * t.shape[0]))
    return bent.save(file, tmp_path_factory.mktemp("loud") / "model.gguf")


@pytest.fixture(scope="module")
def blinding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = bent.with_tensor(bent.whole("mmproj"), "mm.0.bias", lambda t: replace(t, data=HUGE * t.shape[0]))
    return bent.save(file, tmp_path_factory.mktemp("blinding") / "mmproj.gguf")


ASKED: dict[str, Callable[[VisionLLM], object]] = {
    "an answer": lambda llm: llm.generate("What is it?"),
    "a draw": lambda llm: llm.generate("What is it?", generate=GenerateConfig(temperature=1.0, seed=1)),
    "a grammar": lambda llm: llm.generate("What is it?", generate=GenerateConfig(grammar='root ::= "a"')),
    "a pruned picture": lambda llm: llm.generate("What is it?", [PICTURE], tokens=VisualTokenConfig.paper()),
    "a prefill": lambda llm: llm.prefill("What is it?", [PICTURE]),
    "a score": lambda llm: llm.score("What is it?", [], answer_tokens=[1, 2]),
    "a turn": lambda llm: llm.chat().ask("What is it?"),
}


@pytest.mark.parametrize("what", ASKED)
def test_scores_that_are_not_finite_are_no_answer(what: str, loud: Path) -> None:
    with (
        VisionLLM.load(loud, bent.FOLDER / "mmproj.gguf", LoadConfig(n_threads=1)) as llm,
        pytest.raises(ModelError, match=r"next-token scores are not finite numbers"),
    ):
        ASKED[what](llm)


def test_a_turn_that_failed_is_not_in_the_conversation(loud: Path) -> None:
    with VisionLLM.load(loud, bent.FOLDER / "mmproj.gguf", LoadConfig(n_threads=1)) as llm:
        chat = llm.chat()
        with pytest.raises(ModelError):
            chat.ask("What is it?")
        assert list(chat.messages) == []


@pytest.mark.parametrize("precision", ["exact", "auto"])
def test_visual_rows_that_are_not_finite_are_not_read(precision: str, blinding: Path) -> None:
    config = LoadConfig(n_threads=1, vision_precision=precision)
    with (
        VisionLLM.load(bent.FOLDER / "model.gguf", blinding, config) as llm,
        pytest.raises(ModelError, match=r"visual tokens are not finite numbers"),
    ):
        llm.generate("What is it?", [PICTURE])


def test_the_command_line_ends_with_one_line(loud: Path) -> None:
    code = "from aim_local.cli import main; main()"
    command = [sys.executable, "-c", code, "chat", str(loud), "-q", "-p", "What is it?"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1
    assert "next-token scores are not finite numbers" in run.stderr


@pytest.mark.parametrize("tensor", ["output.weight", "output_norm.weight"])
def test_scores_that_are_all_the_same_are_no_answer(tensor: str, tmp_path: Path) -> None:
    file = bent.with_tensor(bent.whole("model"), tensor, lambda t: replace(t, data=bytes(len(t.data))))
    path = bent.save(file, tmp_path / "model.gguf")
    with (
        VisionLLM.load(path, config=LoadConfig(n_threads=1)) as llm,
        pytest.raises(ModelError, match="scores are all 0"),
    ):
        llm.generate("What is it?")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_number_is_enough(bad: float) -> None:
    logits = np.zeros(150_000, np.float32)
    logits[3] = 1
    assert finite_logits(logits) is logits
    logits[7] = -np.inf  # a token that cannot be
    assert finite_logits(logits) is logits
    logits[149_999] = bad
    with pytest.raises(ModelError):
        finite_logits(logits)
    with pytest.raises(ModelError):
        finite_logits(np.full(9, -np.inf, np.float32))
    rows = np.zeros((3, 4), np.float32)
    assert finite_rows(rows) is rows
    rows[2, 3] = -bad
    with pytest.raises(ModelError):
        finite_rows(rows)


@pytest.mark.parametrize(("program", "code"), [("", -6), ("aborts.exit_with(1); ", 1)])
def test_llama_cpp_gives_up_with_one_line(program: str, code: int) -> None:
    """No trace of its functions, no debugger."""
    script = (
        "import ctypes, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        f"from aim_local.native import aborts, library; {program}\n"
        "base = ctypes.CDLL(str(library.LIB_FOLDER / 'libggml-base.so'))\n"
        "base.ggml_abort(b'/a/b/ggml.c', 12, b'GGML_ASSERT(%s) failed', b'x > 0')\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert run.returncode == code
    assert run.stderr.count("\n") == 1
    assert run.stderr.startswith("error: llama.cpp gave up (ggml.c:12: GGML_ASSERT(x > 0) failed)")
