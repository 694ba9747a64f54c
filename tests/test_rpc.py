"""Layers on two RPC servers: the same logits, kept sets, tokens and conversations as on this machine.

In float32, where this machine's kernels and a server's are the same: weights of other types are laid out anew here when
they are loaded and there not, and each layout rounds its own way (docs/scale.md).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rpc_case
from limits import FLOAT32
from prompt_steps import encoded
from rpc_case import Relay, needs_rpc
from staged_models import COUNTS, Models, distance, make_prompt, run, stages_of
from test_golden import ANSWERS, CLIPS
from test_golden import SETTINGS as GOLDEN
from thorough import few
from tiny_text import TextShape

from aim_local import Chat, GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.native import rpc
from aim_local.native.kernels import kernels
from aim_local.native.library import llama
from aim_local.native.llama import LlamaModel
from aim_local.native.mtmd import MARKER
from aim_local.native.quantize import quantize_file
from aim_local.native.staged import StagedContext
from aim_local.store import resolve

pytestmark = needs_rpc
servers = rpc_case.servers

GREEDY = GenerateConfig(max_tokens=16)
F32 = LoadConfig(n_threads=1, type_k="f32", type_v="f32", flash_attn=False, prefill_precision="exact")
ALL_F32 = 0  # enum llama_ftype
SETTINGS = {
    "off": VisualTokenConfig.off(),
    "auto": VisualTokenConfig.auto(),
    "paper": VisualTokenConfig.paper(),
    "by the question": VisualTokenConfig(importance="question_value"),
    "by the last token": VisualTokenConfig(importance="last_query"),
    "nothing late": VisualTokenConfig.late_drop(),
}


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path | None]:
    """The bundled model with float32 weights, and its vision tower."""
    paths, target = resolve(), tmp_path_factory.mktemp("f32") / "model.gguf"
    assert quantize_file(str(paths.model), str(target), ALL_F32, 1, lambda level, text: None) == 0
    return target, paths.mmproj


@pytest.fixture(scope="module")
def here(exact: tuple[Path, Path]) -> Iterator[VisionLLM]:
    with VisionLLM.load(*exact, config=F32) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def there(exact: tuple[Path, Path], servers: tuple[str, str]) -> Iterator[VisionLLM]:
    with VisionLLM.load(*exact, config=on(F32, servers)) as loaded:
        yield loaded


def on(config: LoadConfig, addresses: Sequence[str], **changes: Any) -> LoadConfig:
    return replace(config, rpc=addresses, **changes)


def same_lists(found: Sequence[Any], wanted: Sequence[Any]) -> bool:
    return [list(x) for x in found] == [list(x) for x in wanted]


def test_the_vision_tower_stays_here(exact: tuple[Path, Path], servers: tuple[str, str]) -> None:
    """Encoding a clip says nothing to a server, and its rows are those of a model that is here alone."""
    clip, question, *_ = ANSWERS[0]
    facts = []
    with Relay(servers[0]) as relay:
        with VisionLLM.load(*exact, config=on(F32, [relay.address])) as llm:
            devices = rpc.RemoteDevices([relay.address])
            devices.memory()  # asked and answered: what was sent before is counted
            n_before = relay.n_up + relay.n_down
            assert encoded(llm, f"{MARKER}{question}", [CLIPS / clip], VisualTokenConfig.off()).blocks
            assert relay.n_up + relay.n_down == n_before > 0
            devices.close()
            facts.append(llm.model.vision_facts)
        with VisionLLM.load(*exact, config=on(F32, [relay.address], n_gpu_layers=5)) as llm:
            facts.append(llm.model.vision_facts)
    with VisionLLM.load(*exact, config=F32) as llm:
        assert facts == [llm.model.vision_facts] * 2


@pytest.mark.parametrize("name", SETTINGS)
def test_the_whole_path(here: VisionLLM, there: VisionLLM, name: str) -> None:
    tokens, off = SETTINGS[name], list[float]()
    for clip, question, *_ in ANSWERS[:2]:
        want, found = (llm.prefill(question, [CLIPS / clip], tokens) for llm in (here, there))
        assert same_lists(found.trace.kept, want.trace.kept)
        off.append(distance(found.logits, want.logits))
        answers = [llm.generate(question, [CLIPS / clip], tokens, GREEDY).tokens for llm in (here, there)]
        assert answers[0] == answers[1]
    print(f"\n{name}: logits differ by {max(off):.1e} of the largest", end="")
    assert max(off) < FLOAT32.logits


@pytest.mark.parametrize("setting", GOLDEN)
def test_the_bundled_model_as_it_is(servers: tuple[str, str], setting: str) -> None:
    """Its weights are float16. Right answers, and no warning that something is missing."""
    tokens, counts = GOLDEN[setting]
    with VisionLLM.load(config=on(LoadConfig(n_threads=1), servers)) as llm:
        for clip, question, text, _ in ANSWERS:
            answer = llm.generate(question, [CLIPS / clip], tokens, GREEDY)
            assert answer.text == text
            assert [len(kept) for kept in answer.trace.kept] == counts
            assert answer.warnings == []


@pytest.mark.parametrize("n_layers", few([1, 2, 5, 12, 13], (2, 13)))
def test_some_layers_stay_here(
    exact: tuple[Path, Path], here: VisionLLM, servers: tuple[str, str], n_layers: int
) -> None:
    """The output alone, a few layers, all of them without the output's neighbour, and all."""
    clip, question, *_ = ANSWERS[0]
    want = here.prefill(question, [CLIPS / clip], VisualTokenConfig.paper())
    with VisionLLM.load(*exact, config=on(F32, servers, n_gpu_layers=n_layers)) as llm:
        found = llm.prefill(question, [CLIPS / clip], VisualTokenConfig.paper())
    assert same_lists(found.trace.kept, want.trace.kept)
    assert distance(found.logits, want.logits) < FLOAT32.logits


class Remote:
    """Tiny text models on the servers."""

    def __init__(self, models: Models, addresses: Sequence[str]) -> None:
        self._models, self._addresses, self._loaded = models, addresses, list[LlamaModel]()

    def load(self, shape: TextShape, weights: str) -> int:
        devices = rpc.RemoteDevices(self._addresses)
        self._loaded.append(LlamaModel(self._models.path(shape, weights), -1, remote=devices))
        return int(self._loaded[-1].handle)

    def close(self) -> None:
        gc.collect()
        for model in self._loaded:
            model.close()


@pytest.fixture(scope="module")
def remote(models: Models, servers: tuple[str, str]) -> Iterator[Remote]:
    made = Remote(models, servers)
    yield made
    made.close()


def staged(model: int, **options: Any) -> StagedContext:
    exact: dict[str, Any] = {"type_k": "f32", "type_v": "f32", "flash_attn": False, "n_threads": 1}
    return StagedContext(model, stages_of(COUNTS, 64), **(exact | options))


@pytest.mark.parametrize("arch", ["qwen2", "qwen3vl", "llama"])
@pytest.mark.parametrize(
    "options",
    [{}, {"n_ubatch": 8}, {"flash_attn": True, "type_k": "q8_0", "type_v": "q8_0"}, {"hold": "queries"}],
    ids=["f32", "small batches", "q8_0 cache", "ranked again"],
)
def test_staged_prefill(models: Models, remote: Remote, arch: str, options: dict[str, Any]) -> None:
    """Kept rows, importance, logits and what is decoded behind them; two turns, where earlier rows are ranked again."""
    shape = TextShape(n_layer=6, arch=arch, d_head=32, n_deep=2 if arch == "qwen3vl" else 0)
    prompt, found = make_prompt(shape, [5, 24, 6]), []
    for model in (models.load(shape), remote.load(shape, "F32")):
        with staged(model, **options) as ctx:
            steps = [run(ctx, prompt, COUNTS)]
            kept = [ctx.kept(il) for il in range(6)]
            if "hold" in options:
                steps.append(again(ctx, prompt.rows, len(prompt.ids)))
                kept += [ctx.kept(il) for il in range(6)]
            for _ in range(8):
                steps.append(ctx.decode(int(steps[-1].argmax())))
            found.append((kept, steps))
    (want_kept, want), (kept, steps) = found
    assert same_lists(kept, want_kept)
    assert [int(step.argmax()) for step in steps] == [int(step.argmax()) for step in want]
    off = max(distance(a, b) for a, b in zip(steps, want, strict=True))
    print(f"\n{arch}: logits differ by {off:.1e} of the largest", end="")
    assert off < FLOAT32.logits


def again(ctx: StagedContext, rows: list[int], n_held: int) -> np.ndarray[Any, Any]:
    """Another question about the same rows."""
    counts = [COUNTS[il] for il in ctx.plan.il_begin]
    return ctx.prefill([*rows, 0, 0, 0], [0] * n_held + [7, 8, 9], None, counts, n_held=n_held)


@pytest.mark.skipif(not kernels(), reason="this CPU has none of our kernels")
def test_how_a_prefill_is_computed_goes_along(models: Models, remote: Remote) -> None:
    """A server computes a prefill with our kernels where this side asks for it, as this machine would.

    Here with weights as they lie in the file, which is how a server has them.
    """
    shape, counts = TextShape(n_layer=2, d_head=32, n_ff=128), [200, 200]
    prompt, found = make_prompt(shape, [5, 200, 60]), {}
    params = llama.llama_model_default_params()
    params.n_gpu_layers, params.use_extra_bufts = 0, False
    plain = llama.llama_model_load_from_file(str(models.path(shape, "Q8_0")).encode(), params)
    for where, model in (("here", plain), ("there", remote.load(shape, "Q8_0"))):
        for precision in ("exact", "auto"):
            with StagedContext(model, stages_of(counts, 100), n_threads=1, precision=precision) as ctx:
                found[where, precision] = run(ctx, prompt, counts)
    llama.llama_model_free(plain)
    assert distance(found["there", "exact"], found["here", "exact"]) < FLOAT32.logits
    assert distance(found["there", "auto"], found["here", "auto"]) < FLOAT32.logits
    assert not np.array_equal(found["there", "auto"], found["there", "exact"])


def talk(chat: Chat) -> list[list[int]]:
    clip, question, *_ = ANSWERS[1]
    return [chat.ask(question, [CLIPS / clip]).tokens, chat.ask("And its colour?").tokens]


@pytest.mark.parametrize("name", few(["paper", "off", "auto"], 1))
def test_a_conversation(here: VisionLLM, there: VisionLLM, name: str, tmp_path: Path) -> None:
    """Turns, saved there and gone on here and the other way round."""
    last, path = list[list[int]](), tmp_path / "talk.aimchat"
    turns = []
    for one, other in ((here, there), (there, here)):
        with one.chat(SETTINGS[name], generate=GREEDY) as chat:
            turns.append(talk(chat))
            chat.save(path)
            last.append(chat.ask("Where does it go?").tokens)
        with other.load_chat(path) as chat:
            last.append(chat.ask("Where does it go?").tokens)
    assert turns[0] == turns[1]
    assert last == [last[0]] * 4
