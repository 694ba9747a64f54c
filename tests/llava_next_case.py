"""What tests of LLaVA-NeXT share: tiny random checkpoints, transformers' side of them, upstream's form of the mmproj.

Models are transformers' own classes with random weights: LLaVA-NeXT beside a LLaMA or a Mistral, and LLaVA-NeXT-Video.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from checkpoints import (
    LLAVA_TEMPLATE,
    Shape,
    llava_processor,
    randomised,
    state_of,
    text_shape,
    vision_shape,
    write_json,
    write_tokenizer,
    write_weights,
)
from numpy.typing import NDArray
from PIL import Image
from reference_hf import MARKER
from reference_hf import Reference as HfReference
from tiny_tokenizers import llama_tokenizer
from tokenizers import AddedToken, Tokenizer

from aim_local import LoadConfig, VisionLLM
from aim_local.convert import ConvertConfig, convert

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
KINDS = ("llama", "mistral", "video")
CELLS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))  # of the published pinpoints: height, width
EXACT = {"vision_precision": "exact", "prefill_precision": "exact"}
F32 = LoadConfig(type_k="f32", type_v="f32", flash_attn=False, n_threads=1, **EXACT)
TEMPLATE = LLAVA_TEMPLATE.replace(
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text')",
    "{% for part in message['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>\\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text')",
)


def tokenizer() -> Tokenizer:
    tok = llama_tokenizer()
    tok.add_special_tokens([AddedToken("<video>", special=True, normalized=False)])
    return tok


def make_model(shape: Shape, kind: str) -> Any:
    import transformers as hf

    tok, is_video = tokenizer(), kind == "video"
    text = {**text_shape(shape, tok), "max_position_embeddings": 4096}
    if kind == "mistral":
        text_config: Any = hf.MistralConfig(**text, sliding_window=None)
    else:
        text_config = hf.LlamaConfig(**text)
    config_class = hf.LlavaNextVideoConfig if is_video else hf.LlavaNextConfig
    config = config_class(
        vision_config=hf.CLIPVisionConfig(**vision_shape(shape, shape.n_vision + 1)).to_dict(),
        text_config=text_config.to_dict(),
        image_token_index=tok.token_to_id("<image>"),
        image_grid_pinpoints=[[shape.side * h, shape.side * w] for h, w in CELLS],
        tie_word_embeddings=shape.tied,
        **({"video_token_index": tok.token_to_id("<video>")} if is_video else {}),
    )
    cls = hf.LlavaNextVideoForConditionalGeneration if is_video else hf.LlavaNextForConditionalGeneration
    return randomised(cls, config, shape.seed)


def write(folder: Path, shape: Shape, model: Any, scheme: str = "today") -> Path:
    """A checkpoint as transformers saves it."""
    folder.mkdir(parents=True)
    config = model.config.to_dict()
    write_weights(folder, state_of(model, scheme), 1, torch.float32)
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "legacy": True}
    write_tokenizer(folder, tokenizer(), {**tokens, "tokenizer_class": "LlamaTokenizer"})
    write_json(folder / "config.json", {**config, "architectures": [type(model).__name__]})
    pictures = {**llava_processor(shape), "image_grid_pinpoints": config["image_grid_pinpoints"], "do_pad": True}
    write_json(folder / "preprocessor_config.json", pictures)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


# --- transformers' side ---------------------------------------------------------------------------------------------


class Reference(HfReference):
    def _image_processor(self, folder: Path) -> Any:
        from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

        return LlavaNextImageProcessorPil.from_pretrained(folder)

    def inputs(self, prompt: str, media: list[NDArray[np.uint8]]) -> dict[str, torch.Tensor]:
        videos, images = [m for m in media if m.ndim == 4], [m for m in media if m.ndim == 3]
        pixels: dict[str, Any] = {}
        if videos:
            assert len({v.shape for v in videos}) == 1, "get_video_features takes one tensor"
            pixels["pixel_values_videos"] = torch.stack([self.frames(video) for video in videos])
        if images:
            pixels |= self.images(images, return_tensors="pt")
        for item, n in zip(media, self._counts(media, pixels), strict=True):
            prompt = prompt.replace(MARKER, ("<video>" if item.ndim == 4 else "<image>") * n, 1)
        ids = self.tokenizer(prompt, return_tensors="pt").input_ids
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pixels}

    def frames(self, video: NDArray[np.uint8]) -> torch.Tensor:
        """[T, 3, side, side]: LlavaNextVideoVideoProcessor's steps with PIL: shortest edge, middle, normalised."""
        side = self.model.config.vision_config.image_size
        cut = torch.tensor(np.stack([middle(frame, side) for frame in video]), dtype=torch.float32)
        return (cut.permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]

    def _counts(self, media: list[NDArray[np.uint8]], pixels: dict[str, Any]) -> list[int]:
        """As LlavaNextVideoProcessor counts; pictures as the model packs them."""
        images: list[int] = []
        if "pixel_values" in pixels:
            images = [len(rows) for rows in self.image_rows(pixels)]
        return [len(m) * (self.patches**2 // 4) if m.ndim == 4 else images.pop(0) for m in media]

    def image_rows(self, pixels: dict[str, Any]) -> list[torch.Tensor]:
        with torch.no_grad():
            keys = {k: v for k, v in pixels.items() if k in ("pixel_values", "image_sizes")}
            return list(self.model.get_image_features(**keys).pooler_output)

    def rows(self, item: NDArray[np.uint8]) -> NDArray[np.float32]:
        """float32 [n, n_embd]: visual tokens of one item."""
        if item.ndim == 3:
            return np.asarray(self.image_rows(self.images([item], return_tensors="pt"))[0])
        with torch.no_grad():
            found = self.model.model.get_video_features(self.frames(item)[None]).pooler_output
        return np.asarray(torch.cat(list(found)))


def middle(frame: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    long = int(side * max(height, width) / min(height, width))
    size = (side, long) if width <= height else (long, side)  # width, height
    resized = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))
    top, left = (resized.shape[0] - side) // 2, (resized.shape[1] - side) // 2
    return resized[top : top + side, left : left + side]


# --- both sides -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Pair:
    """One checkpoint in both worlds."""

    reference: Reference
    llm: VisionLLM
    shape: Shape
    folder: Path


def make_pair(folder: Path, shape: Shape, kind: str, upstream: str = "", **config: Any) -> Pair:
    """upstream: the mmproj in the form of upstream's script, "layers" named or "" them, see `as_upstream`."""
    model = make_model(shape, kind)
    source = write(folder / "hf", shape, model)
    found = convert(source, folder / "gguf", ConvertConfig(text_type="f32", vision_type="f32"))
    mmproj = found.mmproj
    if upstream:
        mmproj = as_upstream(found.mmproj, folder / "mmproj-model-f32.gguf", says_layer=upstream == "new")
    load = dataclasses.replace(F32, **config)
    return Pair(Reference(source, model), VisionLLM.load(found.model, mmproj, load), shape, found.folder)


def as_upstream(source: Path, target: Path, says_layer: bool) -> Path:
    """Our mmproj as tools/mtmd/legacy-models/convert_image_encoder_to_gguf.py writes it, with weights in f32.

    says_layer: whether the config beside the tower named the layer that is read; older files never say.
    """
    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(target, "clip")
    for key, field in reader.fields.items():
        if key.startswith(("GGUF.", "aim.", "general.arch")) or (key.endswith("feature_layer") and not says_layer):
            continue
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(key, field.contents())
        else:
            value = 768 if key.endswith("projection_dim") else field.contents()  # of CLIP's own heads
            writer.add_key_value(key, value, field.types[0])
    writer.add_bool("clip.has_text_encoder", False)
    writer.add_bool("clip.has_llava_projector", True)
    names = {"v.image_newline": "model.image_newline", "ffn_up": "ffn_down", "ffn_down": "ffn_up"}
    n_layer = int(reader.fields["clip.vision.block_count"].contents())
    for tensor in reader.tensors:
        if tensor.name.startswith(f"v.blk.{n_layer}."):
            continue
        old = next((name for name in names if name in tensor.name), None)
        name = tensor.name.replace(old, names[old]) if old else tensor.name
        writer.add_tensor(name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth, so that resampling is exercised and not dominated by noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / rng.uniform(3, 30) + rng.uniform(0, 6)) * np.cos(y / rng.uniform(3, 30)) for _ in range(3)]
    return ((np.stack(waves, -1) + 1) * 127.5).astype(np.uint8)


def clip(n_frames: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.stack([picture(height, width, 100 * seed + i) for i in range(n_frames)])
