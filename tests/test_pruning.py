"""Token merging and in-LLM pruning through the whole runtime, against an oracle that really removes tokens.

Truth: transformers' vision tower and projector, numpy's token merging (test_visual_tokens), and the float64 language
model of reference_aim, on random LLaVA-OneVision and LLaVA-1.5 checkpoints in f32 with f32 KV.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from checkpoints import Shape, llava_model, onevision_model, write_llava, write_onevision  # noqa: E402
from reference_aim import Reference  # noqa: E402
from reference_hf import Reference as HfReference  # noqa: E402
from test_visual_tokens import numpy_merge  # noqa: E402

from aim_local import GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig  # noqa: E402
from aim_local.convert import ConvertConfig, convert  # noqa: E402
from aim_local.engine.plan import Run  # noqa: E402
from aim_local.errors import AimError, ContextError, ModelError, UsageError  # noqa: E402
from aim_local.models.prompt import mark  # noqa: E402
from aim_local.reduction.planner import layer_counts, layer_shares  # noqa: E402

N_CONFIGS = 32
MARGIN, TOLERANCE = 1e-4, 1e-3
PROMPTS = {
    1: "<|im_start|>user <__media__>\nWhat happens?<|im_end|><|im_start|>assistant\n",
    2: "<|im_start|>user <__media__> and <__media__>\nWhat happens?<|im_end|><|im_start|>assistant\n",
}


@dataclasses.dataclass
class Case:
    kind: str
    shape: Shape
    media: list[np.ndarray]
    tokens: VisualTokenConfig
    n_ubatch: int


def draw(seed: int) -> Case:
    """A checkpoint, media and setting."""
    rng = np.random.default_rng(seed)
    kind = "llava" if seed % 4 == 3 else "onevision"
    n_layer = int(rng.integers(4, 9))
    kv = 4 if kind == "llava" else int(rng.choice([1, 2, 4]))
    shape = Shape(grid=int(rng.integers(5, 10)), n_text=n_layer, heads_kv=kv, tied=bool(rng.integers(2)), seed=seed)
    n_media = int(rng.integers(1, 3))
    size = (shape.side, shape.side, 3)
    frames = [int(rng.integers(1, 6)) for _ in range(n_media)]
    pictures = [rng.integers(0, 256, (n, *size) if kind == "onevision" else size, dtype=np.uint8) for n in frames]
    return Case(kind, shape, pictures, draw_tokens(rng, n_layer), int(rng.choice([16, 64, 512])))


def draw_tokens(rng: np.random.Generator, n_layer: int) -> VisualTokenConfig:
    retain = float(rng.choice([1.0, 0.7, 0.5, 0.3, 0.25]))
    if rng.integers(2):
        l1 = int(rng.integers(0, n_layer - 1))
        return VisualTokenConfig(merge_retain=retain, prune_layers=(l1, int(rng.integers(l1 + 1, n_layer + 1))))
    shares = np.sort(np.round(rng.uniform(0, 1, n_layer), 2))[::-1]
    shares[0] = 1.0
    return VisualTokenConfig(merge_retain=retain, prune_layers=None, retention=[float(s) for s in shares])


@dataclasses.dataclass
class Loaded:
    case: Case
    model: Any
    hf: HfReference
    llm: VisionLLM
    prompt: str


def load(folder: Path, case: Case, **config: Any) -> Loaded:
    make, write = (onevision_model, write_onevision) if case.kind == "onevision" else (llava_model, write_llava)
    model = make(case.shape)
    source = write(folder / "hf", case.shape, model=model)
    convert(source, folder / "gguf", ConvertConfig(text_type="f32", vision_type="f32"))
    f32 = {"type_k": "f32", "type_v": "f32", "flash_attn": False, "n_threads": 1, "n_ubatch": case.n_ubatch}
    llm = VisionLLM.load(folder / "gguf", config=LoadConfig(**{**f32, **config}))
    return Loaded(case, model, HfReference(source, model), llm, PROMPTS[len(case.media)])


def oracle(loaded: Loaded) -> Reference:
    """The language model of a checkpoint as the oracle reads it."""

    class Text:
        config = loaded.model.config.text_config

        @staticmethod
        def state_dict() -> dict[str, Any]:
            names = {"model.language_model.": "model.", "lm_head.": "lm_head."}
            state = loaded.model.state_dict()
            return {
                new + k.removeprefix(old): v
                for k, v in state.items()
                for old, new in names.items()
                if k.startswith(old)
            }

    return Reference(Text())


def encode(loaded: Loaded, tokens: VisualTokenConfig) -> list[np.ndarray]:
    """Visual tokens of each media item as the runtime makes them, float32 [n, n_embd]."""
    run = Run(loaded.llm, tokens, None, None)
    run.read(loaded.case.media)
    marked = loaded.prompt
    for i in range(len(loaded.case.media)):
        marked = marked.replace("<__media__>", mark(i), 1)
    return [block.rows for block in run._encode(run.plan(marked)).values()]


def full_rows(loaded: Loaded) -> list[np.ndarray]:
    """transformers' visual tokens of each media item before merging, float32 [n, n_embd], newline last for videos."""
    out = []
    for item in loaded.case.media:
        with torch.no_grad():
            if item.ndim == 4:
                pixels = torch.tensor(item[None], dtype=torch.float32).permute(0, 1, 4, 2, 3)
                features = loaded.model.model.get_video_features((pixels / 255 - 0.5) / 0.5).pooler_output
                out.append(torch.cat(list(features)).numpy())
            else:
                pixels = loaded.hf.images([item], return_tensors="pt")["pixel_values"]
                out.append(loaded.model.get_image_features(pixel_values=pixels).pooler_output[0].numpy())
    return out


def visual_rows(loaded: Loaded) -> list[np.ndarray]:
    """Merged visual tokens of each media item, [n, n_embd]. Checks the unmerged and the merged rows of the runtime.

    numpy merges the runtime's own unmerged rows: 3e-7 beside transformers' they may fall on the other side of a tie.
    """
    ours = encode(loaded, VisualTokenConfig.off())
    for got, want in zip(ours, full_rows(loaded), strict=True):
        assert got.shape == want.shape
        assert np.abs(got - want).max() < 1e-5 * max(1.0, np.abs(want).max())
    merged = [
        merge_item(item, rows, loaded.case.tokens.merge_retain)
        for item, rows in zip(loaded.case.media, ours, strict=True)
    ]
    for got, want in zip(encode(loaded, loaded.case.tokens), merged, strict=True):
        assert got.shape == want.shape
        assert np.abs(got - want).max() < 1e-5 * max(1.0, np.abs(want).max())
    return merged


def merge_item(item: np.ndarray, rows: np.ndarray, retain: float) -> np.ndarray:
    if item.ndim == 3:
        return numpy_merge(rows, retain)[0]
    frames = np.split(rows[:-1], len(item))
    return np.concatenate([*(numpy_merge(frame, retain)[0] for frame in frames), rows[-1:]])


def embed_prompt(loaded: Loaded, reference: Reference, rows: list[np.ndarray]) -> tuple[Any, list[bool]]:
    """Embedding rows of the whole prompt and which of them are visual; tokens are transformers'."""
    text, media = loaded.llm.text, iter(rows)
    parts, flags = [], []
    for i, piece in enumerate(loaded.prompt.split("<__media__>")):
        if i:
            visual = torch.tensor(next(media)).double()
            parts.append(visual)
            flags += [True] * len(visual)
        tokens = text.tokenize(piece, start=i == 0)
        parts.append(reference.embed(tokens))
        flags += [False] * len(tokens)
    return torch.cat(parts), flags


@pytest.mark.parametrize("seed", range(N_CONFIGS))
def test_whole_path(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load(tmp_path, draw(seed))
    with loaded.llm as llm:
        found = llm.prefill(loaded.prompt, loaded.case.media, loaded.case.tokens, raw=True)
        answer = llm.generate(
            loaded.prompt, loaded.case.media, loaded.case.tokens, GenerateConfig(max_tokens=32), raw=True
        )
        reference, rows = oracle(loaded), visual_rows(loaded)
        n_visual = sum(len(r) for r in rows)
        assert found.stats.n_visual == n_visual
        counts = layer_counts(n_visual, layer_shares(loaded.case.tokens, llm.text.n_layer))
        assert [len(k) for k in found.trace.kept] == counts
        embeds, flags = embed_prompt(loaded, reference, rows)
        forced = {il: kept.tolist() for il, kept in enumerate(found.trace.kept)}
        want = reference.prefill(embeds, flags, counts, forced=forced)
        near = check_kept(want, found.trace.kept)
        logits = want.logits.numpy()
        difference = np.abs(found.logits[: len(logits)] - logits).max() / np.abs(logits).max()
        with capsys.disabled():
            print(f"\n  {loaded.case.kind}, {counts}: logits {difference:.1e}, {near} near ties")
        assert difference < TOLERANCE
        check_greedy(reference, want.logits, answer.tokens, llm)


def check_kept(want: Any, kept: list[np.ndarray]) -> int:
    """Equal sets in every layer whose cut-off margin is clear; returns how many were closer."""
    near = 0
    for il, chosen in want.chosen.items():
        if want.margin[il] > MARGIN:
            assert kept[il].tolist() == chosen, f"layer {il}, margin {want.margin[il]:.1e}"
        else:
            near += 1
    return near


def check_greedy(reference: Reference, logits: Any, tokens: list[int], llm: VisionLLM) -> None:
    """The answer's tokens are the oracle's, each layer on its own kept set; they may part at a near tie only."""
    for i in range(32):
        best = int(logits.argmax())
        if i == len(tokens):
            assert llm.text.is_eog(best) or i == 32
            return
        if best != tokens[i]:
            top = torch.sort(logits, descending=True).values
            assert (top[0] - logits[tokens[i]]) / logits.abs().max() < TOLERANCE, f"token {i}"
        logits = reference.decode(tokens[i])


# --- what else the runtime does with it


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    shape = Shape(grid=8, n_text=6, heads=2, heads_kv=2, seed=77)
    media = [np.random.default_rng(7).integers(0, 256, (6, shape.side, shape.side, 3), dtype=np.uint8)]
    case = Case("onevision", shape, media, VisualTokenConfig(prune_layers=(2, 5), merge_retain=0.5), 512)
    found = load(tmp_path_factory.mktemp("pruning"), case)
    with found.llm:
        yield found


def test_low_precision(tmp_path: Path, loaded: Loaded, capsys: pytest.CaptureFixture[str]) -> None:
    """f16 and Q8_0: overlap of the kept sets and distance of the logits to f32."""
    want = loaded.llm.prefill(loaded.prompt, loaded.case.media, loaded.case.tokens, raw=True)
    source = write_onevision(tmp_path / "hf", loaded.case.shape, model=loaded.model)
    for kind, kv in (("f16", "f16"), ("q8_0", "f16"), ("q8_0", "q8_0")):
        convert(source, tmp_path / f"{kind}-{kv}", ConvertConfig(text_type=kind, vision_type="f16"))
        with VisionLLM.load(tmp_path / f"{kind}-{kv}", config=LoadConfig(type_k=kv, n_threads=1)) as llm:
            got = llm.prefill(loaded.prompt, loaded.case.media, loaded.case.tokens, raw=True)
        pairs = [
            (a, b) for a, b in zip(got.trace.kept, want.trace.kept, strict=True) if 0 < len(b) < want.stats.n_visual
        ]
        overlap = np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in pairs])
        distance = np.abs(got.logits - want.logits).max() / np.abs(want.logits).max()
        with capsys.disabled():
            print(f"\n  weights {kind}, K {kv}: kept-set overlap {overlap:.3f}, logit distance {distance:.1e}")
        assert overlap > 0.8


def test_kv_memory_shrinks(loaded: Loaded) -> None:
    full = loaded.llm.prefill(loaded.prompt, loaded.case.media, VisualTokenConfig.off(), raw=True)
    pruned = loaded.llm.prefill(loaded.prompt, loaded.case.media, loaded.case.tokens, raw=True)
    assert pruned.stats.kv_bytes < full.stats.kv_bytes / 2
    assert pruned.stats.flops_share < 0.6


def test_callback_sees_the_scores_and_chooses(loaded: Loaded) -> None:
    seen: dict[int, int] = {}

    def first(il: int, importance: np.ndarray, n_keep: int) -> np.ndarray:
        seen[il] = len(importance)
        return np.arange(n_keep)

    tokens = dataclasses.replace(loaded.case.tokens, importance=first)
    trace = loaded.llm.prefill(loaded.prompt, loaded.case.media, tokens, raw=True).trace
    assert seen == {il: len(score) for il, score in trace.importance.items()}
    assert all(kept.tolist() == list(range(len(kept))) for kept in trace.kept)


@pytest.mark.parametrize("answer", [lambda n: [0] * n, lambda n: [0], lambda n: [-1, *range(n - 1)], lambda n: "ab"])
def test_callback_faults(loaded: Loaded, answer: Any) -> None:
    tokens = dataclasses.replace(loaded.case.tokens, importance=lambda _il, _scores, n: answer(n))
    with pytest.raises((AimError, ValueError)) as e:
        loaded.llm.prefill(loaded.prompt, loaded.case.media, tokens, raw=True)
    assert "\n" not in str(e.value)


def test_callback_exception_comes_out(loaded: Loaded) -> None:
    def fail(*_: Any) -> Any:
        raise ZeroDivisionError("mine")

    tokens = dataclasses.replace(loaded.case.tokens, importance=fail)
    with pytest.raises(ZeroDivisionError, match="mine"):
        loaded.llm.prefill(loaded.prompt, loaded.case.media, tokens, raw=True)
    assert loaded.llm.prefill(loaded.prompt, loaded.case.media, loaded.case.tokens, raw=True).stats.n_visual > 0


@pytest.mark.parametrize("how", ["last_query", "random", "grid"])
def test_other_rankings(loaded: Loaded, how: str) -> None:
    tokens = dataclasses.replace(loaded.case.tokens, importance=how)
    paper = loaded.llm.prefill(loaded.prompt, loaded.case.media, loaded.case.tokens, raw=True).trace
    other = loaded.llm.prefill(loaded.prompt, loaded.case.media, tokens, raw=True).trace
    assert [len(k) for k in other.kept] == [len(k) for k in paper.kept]
    assert any(a.tolist() != b.tolist() for a, b in zip(other.kept, paper.kept, strict=True))


@pytest.mark.parametrize("share", [0.5, 0.25, 0.15])
def test_budget(loaded: Loaded, share: float) -> None:
    found = loaded.llm.prefill("What?", loaded.case.media, VisualTokenConfig.budget(share))
    assert share * 0.5 < found.stats.flops_share <= share


@pytest.mark.parametrize(
    "tokens",
    [VisualTokenConfig(prune_layers=(3, 9)), VisualTokenConfig(prune_layers=None, retention=[1.0, 0.5])],
    ids=["l2 beyond the depth", "wrong length"],
)
def test_settings_that_do_not_fit(loaded: Loaded, tokens: VisualTokenConfig) -> None:
    with pytest.raises(UsageError):
        loaded.llm.prefill("What?", loaded.case.media, tokens)


@pytest.mark.parametrize(
    "options",
    [
        {"merge_retain": 0.0},
        {"merge_retain": 1.5},
        {"prune_layers": (5, 5)},
        {"prune_layers": (-1, 5)},
        {"retention": [0.5, 0.8]},
        {"retention": [1.0, -0.1]},
        {"importance": "magic"},
        {"flops_share": 0.0},
    ],
    ids=str,
)
def test_settings_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as e:
        VisualTokenConfig(**options)
    assert "\n" not in str(e.value)


def test_one_visual_token_and_none(loaded: Loaded) -> None:
    everything_goes = VisualTokenConfig(merge_retain=1.0, prune_layers=None, retention=[1.0] + [0.0] * 5)
    found = loaded.llm.prefill("What?", loaded.case.media, everything_goes)
    assert [len(k) for k in found.trace.kept] == [97, 0, 0, 0, 0, 0]
    assert loaded.llm.prefill("What?", [], loaded.case.tokens).stats.n_visual == 0


def test_chat_with_pruning(loaded: Loaded) -> None:
    """Text turns, and a new clip later, for which the context grows; the first answer is that of `generate`."""
    media, tokens = loaded.case.media[0], loaded.case.tokens
    short = GenerateConfig(max_tokens=5)
    with loaded.llm.chat(tokens, generate=short) as chat:
        first = chat.ask("What happens?", [media])
        again = loaded.llm.generate("What happens?", [media], tokens, short)
        assert first.text == again.text
        chat.ask("And then?")
        before = chat.n_ctx
        third = chat.ask("And here?", [media[:3]])
        assert third.stats.n_visual == 3 * 8 + 1
        assert chat.n_ctx > before
        assert chat.ask("go on " * 20).stats.n_visual == 0


def test_chat_until_the_model_ends(loaded: Loaded) -> None:
    def talk() -> None:
        with loaded.llm.chat(loaded.case.tokens, generate=GenerateConfig(max_tokens=2)) as chat:
            for _ in range(400):
                chat.ask("go on " * 20, [loaded.case.media[0][:2]])

    with pytest.raises(ContextError, match="/reset"):
        talk()


def test_unsupported_architecture_is_named(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    import aim_local.engine.plan

    monkeypatch.setattr(aim_local.engine.plan, "unsupported_reason", lambda _: "gemma3 is not among qwen2, llama")
    with pytest.raises(ModelError, match="qwen2, llama"):
        loaded.llm.prefill("What?", loaded.case.media, loaded.case.tokens)
    assert loaded.llm.prefill("What?", loaded.case.media).stats.flops_share == 1.0  # the default falls back to off
