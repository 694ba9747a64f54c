"""Towers that see pictures of any size, beside transformers: its patches, its rounding where ggml rounds, merged rows.

ggml multiplies patches of pixels with the first weights in half floats, and looks GELU up by half floats. What these do
to random models hides what is wrong, so transformers' model is made to round there, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from family_case import (
    F32,
    VIDEO_LEVELS,
    Case,
    Media,
    Messages,
    Run,
    check_inputs,
    run,
    tiles_of,
    use_pil,
)
from family_checkpoints import Clip, load_family, write_family
from family_prompts import PROMPTS
from family_reduced import Rows, check_merged, compare_answers, laid_out
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from upstream_conversions import write_models

from aim_local import LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.models.pieces import TextPiece


def write_newest(names: Sequence[str], root: Path) -> None:
    """NAME/hf and NAME/gguf below `root`."""
    sources = {name: write_family(name, root / name / "hf").folder for name in names}
    for source in sources.values():
        calm(source / "model.safetensors")
    write_models({f"{name}/gguf": source for name, source in sources.items()}, root)


def open_newest(name: str, folder: Path) -> Case:
    """folder: with what `write_newest` wrote of it."""
    loaded = load_family(folder / "hf")
    use_pil(loaded)
    case = Case(name, folder, loaded, VisionLLM.load(folder / "gguf", config=LoadConfig(**F32)))
    round_as_ggml(case)
    draw_text_alone(case)
    return case


def calm(path: Path) -> None:
    """Attention without a scale of its own gets one in the norm of its queries, or all weight falls on one key."""
    tensors = load_file(path)
    is_unscaled = any("pre_feedforward_layernorm" in name for name in tensors)
    for name, tensor in tensors.items():
        if is_unscaled and name.endswith("q_norm.weight"):
            tensor *= len(tensor) ** -0.5
    save_file(tensors, path, metadata={"format": "pt"})


def half(x: torch.Tensor) -> torch.Tensor:
    return x.half().float()


def round_as_ggml(case: Case) -> None:
    """GELU is computed from half floats and to half floats, and patches are multiplied in them."""

    def gelu(_module: Any, given: Any, _out: Any) -> torch.Tensor:
        return half(torch.nn.functional.gelu(half(given[0]), approximate="tanh"))

    for name, module in case.loaded.model.named_modules():
        if "GELU" in type(module).__name__.upper():
            module.register_forward_hook(gelu)
        if name.endswith(("patch_embedder.input_proj", "patch_embed.proj")):
            module.weight.data = half(module.weight.data)
            module.register_forward_pre_hook(lambda _module, given: (half(given[0]),))


def draw_text_alone(case: Case) -> None:
    """Tokens that stand for media end an answer: transformers would look for pixels where one was drawn."""
    case.loaded.model.generation_config.eos_token_id = [*case.end_ids, *case.media_ids]


def patches(case: Case, tile: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the processor makes of a tile of the runtime, one row a patch."""
    processor: Any = case.loaded.processor.image_processor
    p = processor.patch_size
    frames = tile if tile.ndim == 4 else tile[None]
    t, height, width = frames.shape[:3]
    mean, std = np.float32(processor.image_mean), np.float32(processor.image_std)
    x = (frames.astype(np.float32) / 255 - mean) / std
    if "qwen" not in case.family:
        x = x[0].reshape(height // p, p, width // p, p, 3).transpose(0, 2, 1, 3, 4)
        return np.ascontiguousarray(x.reshape(-1, p * p * 3))
    x = np.repeat(x, 2, axis=0) if t == 1 else x
    x = x.reshape(2, height // p // 2, 2, p, width // p // 2, 2, p, 3).transpose(1, 4, 2, 5, 7, 0, 3, 6)
    return np.ascontiguousarray(x.reshape(-1, 3 * 2 * p * p))


def runs_of(case: Case, item: Media) -> Iterator[NDArray[np.uint8]]:
    """What each run of the tower sees."""
    tiles = tiles_of(case, item)
    step = getattr(case.llm.model.tower, "pair", 1)
    for i in range(0, len(tiles), step):
        pair = [tiles[min(j, len(tiles) - 1)] for j in range(i, i + step)]
        yield np.stack(pair) if step > 1 and isinstance(item, Clip) else tiles[i]


def theirs(case: Case, messages: Messages, media: Sequence[Media]) -> dict[str, Any]:
    """What transformers' model is called with. Its pixels are near the runtime's, which take their place."""
    pictures, clips = [m for m in media if not isinstance(m, Clip)], [m for m in media if isinstance(m, Clip)]
    inputs = case.loaded.inputs(messages, pictures, clips)
    for name, items, limit in (("pixel_values", pictures, 0.01), ("pixel_values_videos", clips, VIDEO_LEVELS)):
        if not items:
            continue
        want, got = inputs[name].numpy(), [patches(case, tile) for item in items for tile in runs_of(case, item)]
        if want.ndim == 3:  # padded to one number of patches
            got = [np.pad(rows, ((0, want.shape[1] - len(rows)), (0, 0))) for rows in got]
        found = np.concatenate(got).reshape(want.shape)
        apart = np.abs(found - want).max() * 255 * np.max(case.loaded.processor.image_processor.image_std)
        print(f"{name} differ by {apart:.2g} of 255 at most")
        assert apart < limit
        inputs[name] = torch.tensor(found)
    return inputs


def check(case: Case, messages: Messages, media: Sequence[Media] = ()) -> None:
    """Tokens of the prompt, next-token logits and a greedy answer are transformers'."""
    check_inputs(case, theirs(case, messages, media), messages, media)


# --- merging ---------------------------------------------------------------------------------------------------------


def check_merged_only(case: Case, prompt: str, tokens: VisualTokenConfig) -> None:
    """As transformers' language model has it, given the merged rows, with their ids."""
    rows, _ = check_merged(case, prompt, tokens)
    with run(case, *PROMPTS[prompt], tokens) as found, torch.inference_mode():
        text = Text(case, laid_out(found, rows), ids_of(case, found))
        compare_answers(found, text.logits(), text.decode, n=6)


def ids_of(case: Case, found: Run) -> NDArray[np.int64]:
    """Rotary ids of all rows, [n, 3]: a merged row has those of the slot that its group names."""
    tower: Any = case.llm.model.tower
    out, at, groups = list[NDArray[np.int64]](), 0, list(found.filled.trace.groups)
    for piece in found.plan.pieces:
        if isinstance(piece, TextPiece) or not tower.gives_rotary_ids:
            out.append(np.arange(at, at + piece.n)[:, None].repeat(3, axis=1))
            at += piece.n
            groups = groups if isinstance(piece, TextPiece) else groups[piece.n :]
            continue
        tiles = tower.tiles(found.reading.items[piece.media].shape)
        cols, here = tiles[0].cols, groups[: piece.n]
        out.append(np.array([[at, at + g.slot // cols, at + g.slot % cols] for g in here]))
        at, groups = at + max(tiles[0].rows, cols), groups[piece.n :]
    return np.concatenate(out)


class Text:
    """transformers' language model on given rows."""

    def __init__(self, case: Case, pieces: Sequence[tuple[Any, Rows | None]], ids: NDArray[np.int64]) -> None:
        self.model, self.ids, pad = case.loaded.model, ids.tolist(), 0
        embed = self.model.get_input_embeddings()
        self.tokens, self.rows, self.kinds = list[int](), list[torch.Tensor](), list[int]()
        for piece, merged in pieces:
            self.tokens += piece.tokens if merged is None else [pad] * piece.n
            self.rows.append(embed(torch.tensor(piece.tokens)) if merged is None else torch.tensor(merged).float())
            self.kinds += [int(merged is not None)] * piece.n

    def logits(self) -> NDArray[Any]:
        whole, more = torch.cat(self.rows)[None], dict[str, Any]()
        inner = self.model.model.language_model
        if "qwen" in type(inner).__name__.lower():
            places = torch.tensor([[i, *turned] for i, turned in enumerate(self.ids)])
            hidden = inner(inputs_embeds=whole, position_ids=places.T[:, None]).last_hidden_state
            return np.asarray(self.model.lm_head(hidden)[0, -1].numpy())
        if self.model.config.text_config.hidden_size_per_layer_input:
            more["per_layer_inputs"] = inner.get_per_layer_inputs(torch.tensor([self.tokens]), whole)
        kinds = torch.tensor([self.kinds])
        return np.asarray(self.model(inputs_embeds=whole, mm_token_type_ids=kinds, **more).logits[0, -1].numpy())

    def decode(self, token: int) -> NDArray[Any]:
        self.rows.append(self.model.get_input_embeddings()(torch.tensor([token])))
        self.tokens.append(token)
        self.kinds.append(0)
        self.ids.append([max(self.ids[-1]) + 1] * 3)
        return self.logits()
