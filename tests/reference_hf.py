"""What transformers computes for a prompt with media: the truth the runtime is compared with.

Media are uint8 arrays: [T, S, S, 3] a video at the tower's size, [H, W, 3] an image. Images go through transformers'
own PIL processor; video frames of the tower's size need no resampling, only normalisation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

MARKER = "<__media__>"


class Reference:
    """A transformers checkpoint and its tokenizer."""

    def __init__(self, folder: Path, model: Any) -> None:
        from transformers import AutoTokenizer

        self.model, self.is_onevision = model.eval(), "Onevision" in type(model).__name__
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.images = self._image_processor(folder)
        vision = model.config.vision_config
        self.patches = vision.image_size // vision.patch_size

    def _image_processor(self, folder: Path) -> Any:
        if self.is_onevision:
            from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
                LlavaOnevisionImageProcessorPil as Processor,
            )
        else:
            from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil as Processor
        return Processor.from_pretrained(folder)

    def inputs(self, prompt: str, media: list[NDArray[np.uint8]]) -> dict[str, torch.Tensor]:
        """input_ids and pixels of a raw prompt with one marker per media item."""
        videos = [m for m in media if m.ndim == 4]
        images = [m for m in media if m.ndim == 3]
        pixels: dict[str, Any] = {}
        if videos:
            stacked = torch.tensor(np.stack(videos), dtype=torch.float32).permute(0, 1, 4, 2, 3)
            pixels["pixel_values_videos"] = (stacked / 255 - 0.5) / 0.5
        if images:
            processed = self.images(images, return_tensors="pt")
            pixels["pixel_values"] = processed["pixel_values"]
            if self.is_onevision:
                pixels["image_sizes"] = processed["image_sizes"]
        counts = self._counts(media, pixels)
        for item, n in zip(media, counts, strict=True):
            token = "<video>" if item.ndim == 4 else "<image>"
            prompt = prompt.replace(MARKER, token * n, 1)
        ids = self.tokenizer(prompt, return_tensors="pt").input_ids
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pixels}

    def _counts(self, media: list[NDArray[np.uint8]], pixels: dict[str, Any]) -> list[int]:
        """Visual tokens per media item, measured on transformers' own packed features."""
        image_counts: list[int] = []
        if "pixel_values" in pixels:
            with torch.no_grad():
                keys = {k: v for k, v in pixels.items() if k in ("pixel_values", "image_sizes")}
                features = self.model.get_image_features(**keys).pooler_output
            image_counts = [len(f) for f in features]
        pooled = ((self.patches + 1) // 2) ** 2
        return [len(m) * pooled + 1 if m.ndim == 4 else image_counts.pop(0) for m in media]

    def logits(self, prompt: str, media: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """float32 [n_vocab], after the last token of the prompt."""
        with torch.no_grad():
            out = self.model(**self.inputs(prompt, media)).logits[0, -1]
        return out.float().numpy()

    def logits_after(self, prompt: str, media: list[NDArray[np.uint8]], tokens: list[int]) -> NDArray[np.float32]:
        """float32 [n_vocab], after the prompt and some answer tokens."""
        inputs = self.inputs(prompt, media)
        ids = torch.cat([inputs["input_ids"], torch.tensor([tokens], dtype=torch.long)], dim=1)
        inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with torch.no_grad():
            return self.model(**inputs).logits[0, -1].float().numpy()

    def greedy(self, prompt: str, media: list[NDArray[np.uint8]], n: int) -> list[int]:
        """Up to n greedy tokens, ended by any end-of-turn token (not returned)."""
        inputs = self.inputs(prompt, media)
        with torch.no_grad():
            out = self.model.generate(**inputs, max_new_tokens=n, do_sample=False, eos_token_id=self.eos_ids())
        tokens = out[0, inputs["input_ids"].shape[1] :].tolist()
        return [t for t in tokens if t not in self.eos_ids()]

    def eos_ids(self) -> list[int]:
        names = ("<|im_end|>", "<|endoftext|>", "</s>")
        vocab = self.tokenizer.get_vocab()
        return [vocab[name] for name in names if name in vocab]
