"""Writes a tiny random checkpoint of any family, a whole folder as it is published, and loads it with transformers.

    folder = write_family("qwen2_5_vl", tmp_path / "model").folder
    loaded = load_family(folder)
    messages = [message("user", ("image",), "Describe it.")]
    logits = loaded.logits(loaded.inputs(messages, pictures=[picture(100, 160)]))

gemma3 and llava_next have no videos in transformers: a video is a picture per frame there (`has_videos`). smolvlm's
processor loses the pictures of a prompt that has a video too. The processors are transformers' own: they need
torchvision, whose absence skips the test (`torchvision_ops`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from family_configs import EXTRA_ROWS, SPECS, Spec
from numpy.typing import NDArray
from PIL import Image
from tiny_tokenizers import write_sentencepiece
from torchvision_ops import need_torchvision

need_torchvision()
FAMILIES = tuple(SPECS)


@dataclass(frozen=True)
class Checkpoint:
    family: str
    folder: Path

    @property
    def spec(self) -> Spec:
        return SPECS[self.family]


@dataclass(frozen=True)
class Clip:
    """Frames of a video, uint8 [T, H, W, 3], taken at `indices` of a source of `fps` frames per second."""

    frames: NDArray[np.uint8]
    fps: float = 2.0
    indices: tuple[int, ...] | None = None  # 0, 1, 2, ... where not given
    total: int | None = None  # frames of the source; the last index and one where not given

    def metadata(self) -> Any:
        from transformers.video_utils import VideoMetadata

        indices = list(self.indices or range(len(self.frames)))
        total, size = self.total or indices[-1] + 1, self.frames.shape[1:3]
        return VideoMetadata(
            total, fps=self.fps, width=size[1], height=size[0], duration=total / self.fps, frames_indices=indices
        )


@dataclass(frozen=True)
class Loaded:
    """A checkpoint in transformers: the model in float32, and its processor."""

    model: Any
    processor: Any

    @property
    def has_videos(self) -> bool:
        """False: a video is a picture per frame."""
        return getattr(self.processor, "video_processor", None) is not None

    def prompt(self, messages: Sequence[Mapping[str, Any]]) -> str:
        return str(self.processor.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False))

    def inputs(
        self, messages: Sequence[Mapping[str, Any]], pictures: Sequence[Any] = (), clips: Sequence[Clip] = ()
    ) -> dict[str, Any]:
        """What the model is called with: messages in transformers' form, media in the order of the prompt."""
        text = self.prompt(messages)
        bos = self.processor.tokenizer.bos_token
        media: dict[str, Any] = {"images": list(pictures)} if pictures else {}
        if clips:
            media |= {"videos": [c.frames for c in clips], "video_metadata": [c.metadata() for c in clips]}
            media |= {"do_sample_frames": False}
        own_bos = bos is not None and text.startswith(bos)
        out = self.processor(text=[text], **media, add_special_tokens=not own_bos, return_tensors="pt")
        return dict(out)

    def logits(self, inputs: Mapping[str, Any]) -> NDArray[np.float32]:
        """float32 [n_vocab], after the last token."""
        with torch.inference_mode():
            out = self.model(**inputs).logits[0, -1]
        return np.asarray(out.float().numpy())

    def greedy(self, inputs: Mapping[str, Any], n: int) -> list[int]:
        """n tokens, each the likeliest; no token ends them."""
        with torch.inference_mode():
            out = self.model.generate(**inputs, max_new_tokens=n, min_new_tokens=n, do_sample=False)
        return [int(t) for t in out[0, inputs["input_ids"].shape[1] :]]


def write_family(
    name: str,
    folder: Path,
    *,
    seed: int = 0,
    text: Mapping[str, Any] | None = None,
    vision: Mapping[str, Any] | None = None,
    top: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "1GB",
) -> Checkpoint:
    """The checkpoint of family `name` (FAMILIES); `text`, `vision`, `top` replace keys of its configs."""
    spec, tok = SPECS[name], SPECS[name].tokenizer()
    folder.mkdir(parents=True, exist_ok=True)
    model = random_model(spec, tok, {"text": text or {}, "vision": vision or {}, "top": top or {}}, seed)
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    write_json(folder / "tokenizer_config.json", {**spec.tokenizer_config, "added_tokens_decoder": added_tokens(tok)})
    tok.save(str(folder / "tokenizer.json"))
    if spec.sentencepiece:
        write_sentencepiece(tok, folder / "tokenizer.model", spec.sentencepiece)
    write_json(folder / "preprocessor_config.json", {**spec.images, "processor_class": spec.processor})
    if spec.videos:
        write_json(folder / "video_preprocessor_config.json", {**spec.videos, "processor_class": spec.processor})
    write_json(folder / "processor_config.json", {**spec.parts, "processor_class": spec.processor})
    (folder / "chat_template.jinja").write_text(spec.template, encoding="utf-8")
    return Checkpoint(name, folder)


def load_family(folder: Path) -> Loaded:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    return Loaded(model, AutoProcessor.from_pretrained(folder))


def random_model(spec: Spec, tok: Any, changes: Mapping[str, Mapping[str, Any]], seed: int) -> Any:
    import transformers

    ends = {k: tok.token_to_id(v) for k, v in token_names(spec).items()}
    text = {"vocab_size": tok.get_vocab_size() + EXTRA_ROWS, **ends, **spec.text, **changes["text"]}
    ids = {k: tok.token_to_id(v) for k, v in spec.ids.items()}
    assert None not in ids.values(), ids
    top = {"tie_word_embeddings": False, **spec.top, **ids, **changes["top"]}
    text["tie_word_embeddings"] = top["tie_word_embeddings"]
    config = getattr(transformers, spec.config)(
        text_config=text, vision_config={**spec.vision, **changes["vision"]}, **top
    )
    model = getattr(transformers, spec.model)(config).eval()
    randomise(model, seed)
    return model


def added_tokens(tok: Any) -> dict[str, dict[str, Any]]:
    """As published tokenizer_config.json list them; transformers 5 writes none."""
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {
        str(i): {"content": t.content, **plain, "special": t.special} for i, t in tok.get_added_tokens_decoder().items()
    }


def token_names(spec: Spec) -> dict[str, str]:
    named = {k: spec.tokenizer_config[k] for k in ("bos_token", "eos_token", "pad_token")}
    return {f"{k}_id": v for k, v in named.items() if v is not None}


def randomise(model: Any, seed: int) -> None:
    """Every parameter random, norms, biases and position tables too: a tensor that is dropped or swapped must show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            if ("norm" in name and name.endswith("weight")) or "lambda" in name:
                p.copy_(p.mean().round() + 0.1 * noise)  # 0 before where a norm multiplies by one and the weight
            else:
                p.copy_(noise * (0.1 if p.ndim < 2 else p[0].numel() ** -0.5))


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """A smooth random picture, so that resampling has something to get wrong but little to alias."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def clip(n_frames: int, height: int, width: int, seed: int = 0, **times: Any) -> Clip:
    """Frames that change slowly; `times`: fps, indices, total of Clip."""
    frames = [np.asarray(picture(height, width, seed * 1000 + i // 2)) // (1 + i % 2) for i in range(n_frames)]
    return Clip(np.stack(frames), **times)


def message(role: str, *parts: Any) -> dict[str, Any]:
    """A turn of texts and media: `("image",)` and `("video",)` stand for a picture and a clip."""
    content = [{"type": p[0]} if isinstance(p, tuple) else {"type": "text", "text": p} for p in parts]
    return {"role": role, "content": content}


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
