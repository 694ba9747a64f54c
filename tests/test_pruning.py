"""Token merging and in-LLM pruning through the whole runtime, against an oracle that really removes tokens.

Truth: transformers' vision tower and projector, numpy's token merging, and the float64 language model of reference_aim,
on random LLaVA-OneVision and LLaVA-1.5 checkpoints in f32 with f32 KV.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import pruning_case  # noqa: E402
from checkpoints import write_onevision  # noqa: E402
from limits import LIMITS  # noqa: E402
from prompt_steps import encoded  # noqa: E402
from pruning_case import Loaded, draw, load  # noqa: E402
from reference_aim import Reference, Result  # noqa: E402
from reference_merging import numpy_merge  # noqa: E402
from thorough import few  # noqa: E402

from aim_local import GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig  # noqa: E402
from aim_local.convert import ConvertConfig, convert  # noqa: E402
from aim_local.reduction.planner import layer_counts, layer_shares  # noqa: E402

N_CONFIGS = 32

loaded = pruning_case.loaded


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
    return [block.rows for block in encoded(loaded.llm, loaded.prompt, loaded.case.media, tokens).blocks.values()]


def full_rows(loaded: Loaded) -> list[np.ndarray]:
    """transformers' visual tokens of each media item before merging, float32 [n, n_embd], newline last for videos."""
    out = []
    for item in loaded.case.media:
        with torch.no_grad():
            if item.ndim == 4:
                pixels = torch.tensor(item[None], dtype=torch.float32).permute(0, 1, 4, 2, 3)
                features = loaded.model.model.get_video_features((pixels / 255 - 0.5) / 0.5).pooler_output
                out.append(with_newline(loaded, torch.cat(list(features)), len(item)).numpy())
            else:
                pixels = loaded.hf.images([item], return_tensors="pt")["pixel_values"]
                out.append(loaded.model.get_image_features(pixel_values=pixels).pooler_output[0].numpy())
    return out


def with_newline(loaded: Loaded, rows: Any, n_frames: int) -> Any:
    """transformers 5.17 adds the newline later, when it puts the rows into the prompt; 5.24 has it among them."""
    vision = loaded.model.config.vision_config
    n_whole = n_frames * math.ceil(vision.image_size // vision.patch_size / 2) ** 2
    return torch.cat([rows, loaded.model.model.image_newline[None]]) if len(rows) == n_whole else rows


def visual_rows(loaded: Loaded) -> list[np.ndarray]:
    """Merged visual tokens of each media item, [n, n_embd]. Checks the unmerged and the merged rows of the runtime.

    numpy merges the runtime's own unmerged rows: 3e-7 beside transformers' they may fall on the other side of a tie.
    """
    ours = encode(loaded, VisualTokenConfig.off())
    for got, want in zip(ours, full_rows(loaded), strict=True):
        assert got.shape == want.shape
        assert np.abs(got - want).max() < LIMITS.rows * max(1.0, np.abs(want).max())
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


@pytest.mark.parametrize("seed", few(range(N_CONFIGS), 5))
def test_whole_path(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load(tmp_path, draw(seed))
    with loaded.llm:
        check_whole_path(loaded, visual_rows(loaded), capsys)


def check_whole_path(loaded: Loaded, rows: list[np.ndarray], capsys: pytest.CaptureFixture[str]) -> None:
    """Counts, kept sets, logits and a greedy answer, against the oracle on visual rows that it has merged."""
    llm, media, tokens = loaded.llm, loaded.case.media, loaded.case.tokens
    found = llm.prefill(loaded.prompt, media, tokens, raw=True)
    answer = llm.generate(loaded.prompt, media, tokens, GenerateConfig(max_tokens=32), raw=True)
    reference = oracle(loaded)
    n_visual = sum(len(r) for r in rows)
    assert found.stats.n_visual == n_visual
    counts = layer_counts(n_visual, layer_shares(tokens, llm.text.n_layer))
    assert [len(k) for k in found.trace.kept] == counts
    embeds, flags = embed_prompt(loaded, reference, rows)
    forced = {il: kept.tolist() for il, kept in enumerate(found.trace.kept)}
    want = reference.prefill(embeds, flags, counts, forced=forced)
    apart = check_kept(want, found.trace.kept)
    logits = want.logits.numpy()
    difference = np.abs(found.logits[: len(logits)] - logits).max() / np.abs(logits).max()
    with capsys.disabled():
        print(f"\n  {loaded.case.kind}, {counts}: logits {difference:.1e}, other rows {apart:.1e} apart")
    assert difference < LIMITS.whole
    check_greedy(reference, want.logits, answer.tokens, llm)


def check_kept(want: Result, kept: list[np.ndarray]) -> float:
    """Equal sets in every layer, but for rows of nearly equal scores; returns how far those are apart, see Result."""
    apart = [0.0]
    for il in want.chosen:
        apart.append(want.apart(il, kept[il].tolist()))
        assert apart[-1] < LIMITS.tie, f"layer {il} keeps other rows, {apart[-1]:.1e} of the cut's score apart"
    return max(apart)


def check_greedy(reference: Reference, logits: Any, tokens: list[int], llm: VisionLLM) -> None:
    """The answer's tokens are the oracle's, each layer on its own kept set; they may part at a near tie only."""
    for i in range(32):
        best = int(logits.argmax())
        if i == len(tokens):
            assert llm.text.llama.is_eog(best) or i == 32
            return
        if best != tokens[i]:
            top = torch.sort(logits, descending=True).values
            assert (top[0] - logits[tokens[i]]) / logits.abs().max() < LIMITS.whole, f"token {i}"
        logits = reference.decode(tokens[i])


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
