"""What LLaVA-Video's authors compute for a question about a clip: the truth the runtime is compared with.

Written from the authors' formulas (https://github.com/LLaVA-VL/LLaVA-NeXT: llava/model/llava_arch.py, get_2dPool and
add_token_per_grid; llava/train/train.py, the sentence that tells the times) on top of transformers' SigLIP and Qwen2
modules. Knows nothing of the project; convert/families/llava_video.py says in words what is done here in torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"


class VideoReference:
    """A tiny model whose parts are those of `model`, a transformers LlavaOnevisionForConditionalGeneration.

    folder: has the tokenizer.json. newline: "grid" or "one_token". pool: "bilinear" or "average". times: whether the
    prompt tells the times.
    """

    def __init__(self, folder: Path, model: Any, newline: str, pool: str, times: bool = True) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.model, self.newline, self.pool, self.times = model.eval(), newline, pool, times

    def logits(
        self, prompt: str, frames: NDArray[np.uint8], timestamps: Sequence[float], duration: float
    ) -> NDArray[np.float32]:
        """float32 [n_vocab], after the question `prompt` about frames uint8 [T, S, S, 3] at the tower's size.

        timestamps, duration: seconds.
        """
        with torch.no_grad():
            text = self.model.model.language_model
            before, after = self.text(prompt, timestamps, duration)
            parts = [text.embed_tokens(self.ids(before)), self.rows(frames), text.embed_tokens(self.ids(after))]
            states = text(inputs_embeds=torch.cat(parts)[None]).last_hidden_state  # [1, n, d_text]
            return self.model.lm_head(states[0, -1]).float().numpy()

    # --- text -------------------------------------------------------------------------------------------------------

    def text(self, prompt: str, timestamps: Sequence[float], duration: float) -> tuple[str, str]:
        """What stands before and behind the clip's rows."""
        times = f"\n{sentence(timestamps, duration)}" if self.times else ""
        return f"{SYSTEM}<|im_start|>user\n", f"{times}\n{prompt}<|im_end|>\n<|im_start|>assistant\n"

    def ids(self, text: str) -> torch.Tensor:
        return torch.tensor(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def n_prompt(self, prompt: str, frames: NDArray[np.uint8], timestamps: Sequence[float], duration: float) -> int:
        """Tokens of the whole prompt."""
        before, after = self.text(prompt, timestamps, duration)
        with torch.no_grad():
            return len(self.ids(before)) + len(self.rows(frames)) + len(self.ids(after))

    # --- clip -------------------------------------------------------------------------------------------------------

    def rows(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        """float32 [n, d_text]: the clip as it enters the language tower."""
        pooled = self.pooled(self.patches(frames))  # [T, h, w, d_text]
        newline = self.model.model.image_newline
        if self.newline == "grid":
            column = newline.expand(*pooled.shape[:2], 1, -1)  # [T, h, 1, d_text]
            return torch.cat([pooled, column], dim=2).flatten(0, 2)  # [T * h * (w + 1), d_text]
        return torch.cat([pooled.flatten(0, 2), newline[None]])  # [T * h * w + 1, d_text]

    def patches(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        """float32 [T, d_text, g, g]: what the last layer gives, without the norm that follows it, projected."""
        pixels = (torch.tensor(frames, dtype=torch.float32).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5  # [T, 3, S, S]
        tower = self.model.model.vision_tower
        rows = tower.embeddings(pixels)  # [T, g * g, d_vision]
        for layer in tower.encoder.layers:
            rows = layer(rows, attention_mask=None)
        projected = self.model.model.multi_modal_projector(rows)  # [T, g * g, d_text]
        side = math.isqrt(projected.shape[1])
        return projected.transpose(1, 2).unflatten(2, (side, side))

    def pooled(self, patches: torch.Tensor) -> torch.Tensor:
        """[T, d_text, g, g] -> [T, h, w, d_text]; two by two become one."""
        if self.pool == "average":
            pooled = torch.nn.functional.avg_pool2d(patches, 2)
        else:
            size = [math.ceil(n / 2) for n in patches.shape[2:]]
            pooled = torch.nn.functional.interpolate(patches, size=size, mode="bilinear")
        return pooled.permute(0, 2, 3, 1)


def sentence(timestamps: Sequence[float], duration: float) -> str:
    """What the authors write of a clip's length and of the times of its frames."""
    times = ",".join(f"{t:.2f}s" for t in timestamps)
    return (
        f"The video lasts for {duration:.2f} seconds, and {len(timestamps)} frames are uniformly sampled from it. "
        f"These frames are located at {times}.Please answer the following questions related to this video."
    )
