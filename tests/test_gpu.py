"""Layers asked onto a GPU that is not there: computed on the CPU, and said."""

from __future__ import annotations

import pytest

from aim_local import GenerateConfig, LoadConfig, VisionLLM
from aim_local.lab.bench.benchmark import BenchConfig, run_bench
from aim_local.native import devices

SHORT = GenerateConfig(max_tokens=2)
ASKED = LoadConfig(n_gpu_layers=-1, n_threads=1)
WARNING = "n_gpu_layers is -1, but no GPU is there"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a machine that has one."""
    monkeypatch.setattr("aim_local.engine.model.has_gpu", lambda: False)


def gpu_warnings(found: list[str]) -> list[str]:
    return [line for line in found if "GPU" in line]


def test_every_answer_says_it() -> None:
    with VisionLLM.load(config=ASKED) as llm:
        for found in (llm.prefill("Hi"), llm.generate("Hi", generate=SHORT), llm.score("Hi", generate=SHORT).answer):
            (line,) = gpu_warnings(found.warnings)
            assert line.startswith(WARNING)
            assert "doctor" in line


def test_a_conversation_says_it_once() -> None:
    with VisionLLM.load(config=ASKED) as llm, llm.chat(generate=SHORT) as chat:
        assert len(gpu_warnings(chat.ask("Hi").warnings)) == 1
        assert gpu_warnings(chat.ask("And?").warnings) == []


def test_nothing_is_said_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as llm:
        assert llm.prefill("Hi").warnings == []
    monkeypatch.setattr("aim_local.engine.model.has_gpu", lambda: True)
    with VisionLLM.load(config=ASKED) as llm:
        assert llm.prefill("Hi").warnings == []


def test_bench_notes_it() -> None:
    config = BenchConfig(frames=(2,), settings=("off",), rounds=1, n_decode=1, skip_vision=True, load=ASKED)
    assert len(gpu_warnings(run_bench(config, lambda line: None).notes)) == 1


def test_a_gpu_is_a_listed_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp's answer, ggml's list of devices and the warning agree; on a machine with a GPU, too."""
    listed = bool(devices.gpu_names())
    assert devices.has_gpu() == listed
    monkeypatch.setattr("aim_local.engine.model.has_gpu", devices.has_gpu)
    with VisionLLM.load(config=ASKED) as llm:
        assert bool(gpu_warnings(llm.prefill("Hi").warnings)) != listed


def test_rows_are_kept_for_the_device_that_made_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a CPU that computes because the GPU is away are not those of the GPU, nor are another GPU's."""
    facts = []
    for names in ([], ["Vulkan0: a"], ["CUDA0: b"]):
        monkeypatch.setattr("aim_local.engine.model.gpu_names", lambda names=names: names)
        with VisionLLM.load(config=ASKED) as llm:
            facts.append(llm.model.vision_facts)
    assert facts[0] != facts[1] != facts[2] != facts[0]
    with VisionLLM.load() as llm:
        assert llm.model.vision_facts["gpu"] == []
