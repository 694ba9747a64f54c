"""Layers asked onto a GPU that is not there: computed on the CPU, and said."""

from __future__ import annotations

import pytest
from cli_case import run

from aim_local import GenerateConfig, LoadConfig, VisionLLM
from aim_local.lab.bench.benchmark import BenchConfig, run_bench
from aim_local.native import devices
from aim_local.settings import refine_load

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


# --- what is taken where nothing was asked ----------------------------------------------------------------------------

CPU = devices.Device("CPU", "a processor", 0, 1 << 34)
CARD = devices.Device("CUDA0", "NVIDIA H100", 1, 1 << 36)
ON_CHIP = devices.Device("Vulkan0", "Intel(R) UHD Graphics", 2, 1 << 33)
SOFTWARE = devices.Device("Vulkan0", "llvmpipe (LLVM 15.0.6, 256 bits)", 1, 1 << 33)


@pytest.mark.parametrize(
    ("there", "layers"),
    [([CPU], 0), ([CPU, CARD], -1), ([CPU, ON_CHIP], 0), ([CPU, SOFTWARE], 0), ([CPU, ON_CHIP, CARD], -1)],
    ids=["cpu", "card", "on-chip", "software", "both"],
)
def test_layers_go_to_a_gpu_unless_told_otherwise(
    there: list[devices.Device], layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "devices", lambda: there)
    monkeypatch.setattr(devices, "has_gpu", lambda: len(there) > 1)
    assert devices.gpu_layers(None) == layers
    assert (devices.gpu_layers(0), devices.gpu_layers(5), devices.gpu_layers(-1)) == (0, 5, -1)


def test_a_cpu_build_takes_none_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aim_local.engine.model.has_gpu", devices.has_gpu)
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as llm:
        found = llm.model.config.n_gpu_layers
        assert found == (-1 if any(device.is_own_gpu for device in devices.devices()) else 0)
        assert llm.model.config == llm.model.text.config
        assert llm.prefill("Hi").warnings == []


def test_the_text_form_says_it_too() -> None:
    assert refine_load(LoadConfig(n_gpu_layers=3), "n_gpu_layers=auto") == LoadConfig()
    assert refine_load(LoadConfig(), "n_gpu_layers=-1").n_gpu_layers == -1


def test_the_command_line_warns_when_the_model_is_loaded() -> None:
    """Once, before the answer, and in its own words; not with what is taken by itself."""
    result = run("chat", "-p", "Hi", "--max-tokens", "1", "--gpu-layers", "5")
    (line,) = gpu_warnings(result.stderr.splitlines())
    assert line.startswith("warning: --gpu-layers is 5, but no GPU is there")
    quiet = run("chat", "-p", "Hi", "--max-tokens", "1", "--gpu-layers", "0")
    assert gpu_warnings(quiet.stderr.splitlines()) == []


def test_a_plan_says_it_too() -> None:
    line = run("plan", "--gpu-layers", "9").stderr
    assert line.count("\n") == 1
    assert line.startswith("warning: --gpu-layers is 9, but no GPU is there")


@pytest.mark.parametrize(("asked", "words"), [("-1", "all layers are on a GPU"), ("9", "up to 9 layers are on a GPU")])
def test_a_plan_says_what_it_does_not_count(asked: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aim_local.engine.model.has_gpu", lambda: True)
    line = run("plan", "--gpu-layers", asked).stderr
    assert words in line
    assert "its memory is not looked at" in line
    assert run("plan", "--gpu-layers", "0").stderr == ""
