"""Writes tiny random checkpoints, complete folders as they are found in the wild.

The `write_...` functions build the model with transformers' own classes, then store its tensors under one of the naming
schemes of PREFIXES, sharded or not. The weights depend on the seed alone: two folders of one shape hold one model.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torchvision_ops  # noqa: F401  (before transformers, for those who use this without pytest)
from safetensors.torch import save_file
from tiny_tokenizers import llama_tokenizer, qwen2_tokenizer, write_sentencepiece
from tokenizers import Tokenizer

ONEVISION_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\\n' + part['text'] }}{% endfor %}"
    "{{'<|im_end|>'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """A tiny model. `grid` patches a side of `patch` pixels; `n_vision` layers are run, LLaVA-1.5 stores one more."""

    grid: int = 6
    patch: int = 4
    n_vision: int = 2
    d_vision: int = 32
    ff_vision: int = 80  # not a multiple of 32, as SigLIP-so400m's 4304
    heads_vision: int = 2
    n_text: int = 3
    d_text: int = 64
    ff_text: int = 128
    heads: int = 4
    heads_kv: int = 2
    tied: bool = False
    extra_rows: int = 40  # rows of the embedding table behind the tokenizer's last id
    n_frames: int = 8
    seed: int = 0
    text: Mapping[str, Any] = field(default_factory=dict)  # further options of the text config

    @property
    def side(self) -> int:
        return self.grid * self.patch


# --- models ---------------------------------------------------------------------------------------------------------


def onevision_model(shape: Shape) -> Any:
    """A transformers LlavaOnevisionForConditionalGeneration with random weights."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        Qwen2Config,
        SiglipVisionConfig,
    )

    tok = qwen2_tokenizer()
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**vision_shape(shape, shape.n_vision), vision_use_head=False).to_dict(),
        text_config=Qwen2Config(**text_shape(shape, tok), max_position_embeddings=1024, rope_theta=1e6).to_dict(),
        image_token_index=tok.token_to_id("<image>"),
        video_token_index=tok.token_to_id("<video>"),
        image_grid_pinpoints=[[shape.side * h, shape.side * w] for h in range(1, 4) for w in range(1, 4)],
        tie_word_embeddings=shape.tied,
    )
    return randomised(LlavaOnevisionForConditionalGeneration, config, shape.seed)


def llava_model(shape: Shape) -> Any:
    """A transformers LlavaForConditionalGeneration (LLaMA and CLIP) with random weights."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    tok = llama_tokenizer()
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision_shape(shape, shape.n_vision + 1)).to_dict(),
        text_config=LlamaConfig(**text_shape(shape, tok), max_position_embeddings=1024).to_dict(),
        image_token_index=tok.token_to_id("<image>"),
        image_seq_length=shape.grid**2,
        tie_word_embeddings=shape.tied,
    )
    return randomised(LlavaForConditionalGeneration, config, shape.seed)


def vision_shape(shape: Shape, n_layer: int) -> dict[str, Any]:
    return {
        "hidden_size": shape.d_vision,
        "intermediate_size": shape.ff_vision,
        "num_hidden_layers": n_layer,
        "num_attention_heads": shape.heads_vision,
        "image_size": shape.side,
        "patch_size": shape.patch,
    }


def text_shape(shape: Shape, tokenizer: Tokenizer) -> dict[str, Any]:
    return dict(
        vocab_size=tokenizer.get_vocab_size() + shape.extra_rows,
        hidden_size=shape.d_text,
        intermediate_size=shape.ff_text,
        num_hidden_layers=shape.n_text,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads_kv,
        tie_word_embeddings=shape.tied,
        **shape.text,
    )


def randomised(cls: Any, config: Any, seed: int) -> Any:
    """Every parameter random, norms and biases too: a tensor that is dropped or swapped must show."""
    model = cls(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            is_norm = "norm" in name and name.endswith("weight")
            p.copy_(1 + 0.1 * noise if is_norm else noise * (0.1 if p.ndim < 2 else p[0].numel() ** -0.5))
    return model


# --- the naming schemes ---------------------------------------------------------------------------------------------


# first prefix that fits, from the names of transformers' modules
PREFIXES: dict[str, dict[str, str]] = {
    "today": {"model.language_model.": "language_model.model.", "lm_head.": "language_model.lm_head.", "model.": ""},
    "between": {"model.vision_tower.": "model.vision_tower.vision_model."},
    "llava-hf": {
        "model.language_model.": "language_model.model.",
        "lm_head.": "language_model.lm_head.",
        "model.vision_tower.": "vision_tower.vision_model.",
        "model.": "",
    },
    "original": {
        "model.language_model.": "model.",
        "model.vision_tower.": "model.vision_tower.vision_tower.vision_model.",
        "model.multi_modal_projector.linear_1.": "model.mm_projector.0.",
        "model.multi_modal_projector.linear_2.": "model.mm_projector.2.",
    },
}
SCHEMES = tuple(PREFIXES)


def rename(name: str, scheme: str) -> str:
    """The name that `scheme` gives to a tensor of transformers' state dict."""
    for theirs, ours in PREFIXES[scheme].items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def state_of(model: Any, scheme: str) -> dict[str, torch.Tensor]:
    state = {rename(k, scheme): v.clone().contiguous() for k, v in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        state.pop(rename("lm_head.weight", scheme))
    return state


def write_weights(
    folder: Path, state: dict[str, torch.Tensor], shards: int, dtype: torch.dtype, torch_file: bool = False
) -> None:
    """model.safetensors, or `shards` files with their index; `torch_file` writes pytorch_model.bin in their place."""
    state = {k: v.to(dtype) for k, v in state.items()}
    stem, suffix = ("pytorch_model", ".bin") if torch_file else ("model", ".safetensors")
    save = torch.save if torch_file else save_file
    if shards == 1:
        save(state, folder / f"{stem}{suffix}")
        return
    names = sorted(state)
    weight_map: dict[str, str] = {}
    for i in range(shards):
        file = f"{stem}-{i + 1:05d}-of-{shards:05d}{suffix}"
        part = {n: state[n] for n in names[i::shards]}
        save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    write_json(folder / f"{stem}{suffix}.index.json", {"metadata": {}, "weight_map": weight_map})


def write_tokenizer(folder: Path, tokenizer: Tokenizer, config: dict[str, Any]) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", config)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


# --- folders --------------------------------------------------------------------------------------------------------


def write_onevision(
    folder: Path,
    shape: Shape | None = None,
    scheme: str = "today",
    shards: int = 1,
    dtype: torch.dtype = torch.float32,
    model: Any = None,
) -> Path:
    """A LLaVA-OneVision checkpoint. The original scheme needs `write_tower` beside it to know its SigLIP."""
    shape = shape or Shape()
    model = model or onevision_model(shape)
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config.to_dict()
    write_weights(folder, state_of(model, scheme), shards, dtype)
    tokens = {
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "bos_token": None,
        "tokenizer_class": "Qwen2Tokenizer",
    }
    write_tokenizer(folder, qwen2_tokenizer(), tokens)
    if scheme == "original":
        write_json(folder / "config.json", original_onevision_config(config))
        write_json(folder / "video_preprocessor_config.json", {"num_frames": shape.n_frames})
        (folder / "chat_template.jinja").write_text(ONEVISION_TEMPLATE)
        return folder
    write_json(folder / "config.json", {**config, "architectures": ["LlavaOnevisionForConditionalGeneration"]})
    image = onevision_processor(shape)
    if scheme != "llava-hf":
        video = {**image, "num_frames": shape.n_frames, "video_processor_type": "LlavaOnevisionVideoProcessor"}
        image |= {
            "image_grid_pinpoints": config["image_grid_pinpoints"],
            "image_processor_type": "LlavaOnevisionImageProcessor",
        }
        kinds = {"processor_class": "LlavaOnevisionProcessor", "num_image_tokens": shape.grid**2}
        write_json(folder / "processor_config.json", {"image_processor": image, "video_processor": video, **kinds})
        (folder / "chat_template.jinja").write_text(ONEVISION_TEMPLATE)
    else:
        write_json(folder / "preprocessor_config.json", image)
        write_json(folder / "video_preprocessor_config.json", {**image, "num_frames": shape.n_frames})
        write_json(folder / "chat_template.json", {"chat_template": ONEVISION_TEMPLATE})
    return folder


def onevision_processor(shape: Shape) -> dict[str, Any]:
    size = {"height": shape.side, "width": shape.side}
    return {
        "size": size,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "resample": 3,
        "do_pad": True,
        "rescale_factor": 1 / 255,
    }


def original_onevision_config(config: dict[str, Any]) -> dict[str, Any]:
    pinpoints = [[w, h] for h, w in config["image_grid_pinpoints"]]
    return {
        **config["text_config"],
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava",
        "image_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": pinpoints,
        "mm_patch_merge_type": "spatial_unpad",
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "somebody/siglip-tiny",
    }


def write_llava_video(
    folder: Path,
    shape: Shape | None = None,
    newline: str = "grid",
    pool: str = "bilinear",
    model: Any = None,
    **config: Any,
) -> Path:
    """A LLaVA-Video checkpoint as its authors release it; `write_tower(kind="siglip")` beside it describes its tower.

    `model`: an `onevision_model`, whose parts it has. `config`: further keys of config.json.
    """
    shape = shape or Shape()
    model = model or onevision_model(shape)
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder, state_of(model, "original"), 1, torch.float32)
    video = {
        "add_faster_video": False,
        "add_time_instruction": True,
        "faster_token_stride": 10,
        "force_sample": True,
        "mm_newline_position": newline,
        "mm_spatial_pool_mode": pool,
        "mm_spatial_pool_stride": 2,
        "mm_use_im_start_end": False,
    }
    write_json(folder / "config.json", {**original_onevision_config(model.config.to_dict()), **video, **config})
    tokens = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "tokenizer_class": "Qwen2Tokenizer"}
    write_tokenizer(folder, qwen2_tokenizer(), {**tokens, "chat_template": "{{ messages[0]['content'] }}"})
    return folder


def write_llava(
    folder: Path,
    shape: Shape | None = None,
    scheme: str = "today",
    shards: int = 1,
    dtype: torch.dtype = torch.float32,
    model: Any = None,
    sentencepiece: bool = False,
    torch_file: bool = False,
) -> Path:
    """A LLaVA-1.5 checkpoint. The original scheme has no vision tower, as the authors' files: see `write_tower`."""
    shape = shape or Shape()
    model = model or llava_model(shape)
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config.to_dict()
    state = state_of(model, scheme)
    if scheme == "original":
        state = {k: v for k, v in state.items() if "vision_tower" not in k}
    write_weights(folder, state, shards, dtype, torch_file)
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "legacy": True}
    write_tokenizer(folder, llama_tokenizer(), {**tokens, "tokenizer_class": "LlamaTokenizer"})
    if sentencepiece:
        write_sentencepiece(llama_tokenizer(), folder / "tokenizer.model")
    if scheme == "original":
        write_json(folder / "config.json", original_llava_config(config))
        write_json(folder / "chat_template.json", {"chat_template": LLAVA_TEMPLATE})
        return folder
    write_json(folder / "config.json", {**config, "architectures": ["LlavaForConditionalGeneration"]})
    if scheme != "llava-hf":
        image = {**llava_processor(shape), "image_processor_type": "LlavaImageProcessor"}
        write_json(folder / "processor_config.json", {"image_processor": image, "processor_class": "LlavaProcessor"})
        (folder / "chat_template.jinja").write_text(LLAVA_TEMPLATE)
    else:
        write_json(folder / "preprocessor_config.json", llava_processor(shape))
        write_json(folder / "chat_template.json", {"chat_template": LLAVA_TEMPLATE})
    return folder


def llava_processor(shape: Shape) -> dict[str, Any]:
    return {
        "size": {"shortest_edge": shape.side},
        "crop_size": {"height": shape.side, "width": shape.side},
        "do_center_crop": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
    }


def original_llava_config(config: dict[str, Any]) -> dict[str, Any]:
    return {
        **config["text_config"],
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava",
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    }


def write_tower(folder: Path, shape: Shape | None = None, model: Any = None, kind: str = "clip") -> Path:
    """The vision tower on its own, as openai/clip-... and google/siglip-... publish it: with a text half and a head.

    The original OneVision files carry one layer less than their tower's config: the last never runs.
    """
    shape = shape or Shape()
    model = model or (llava_model(shape) if kind == "clip" else onevision_model(shape))
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v for k, v in state_of(model, "llava-hf").items() if k.startswith("vision_tower.")}
    state = {k.removeprefix("vision_tower."): v for k, v in state.items()}
    d = shape.d_vision
    state |= {"text_model.final_layer_norm.weight": torch.ones(d), "logit_scale": torch.ones(1)}
    state |= {
        "vision_model.embeddings.position_ids": torch.arange(4)[None],
        "visual_projection.weight": torch.ones(d, d),
    }
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "model.safetensors")
    vision = model.config.vision_config.to_dict()
    if kind == "siglip":
        vision["num_hidden_layers"] += 1
        processor = onevision_processor(shape)
    else:
        side = shape.side
        processor = {**llava_processor(shape), "size": side, "crop_size": side}  # the oldest style: plain numbers
    write_json(folder / "config.json", {"model_type": kind, "vision_config": vision})
    write_json(folder / "preprocessor_config.json", processor)
    return folder
