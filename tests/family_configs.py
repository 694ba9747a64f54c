"""Tiny configs of the families: what transformers builds each model and its processor from.

Text towers have hidden 64 and 4 layers (7 with sliding windows); vision towers 2 to 4, pictures of a few patches.
Everything that a family computes with is there: windows, deepstack layers, M-RoPE sections, pooling, newlines.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import family_templates as templates
import family_tokenizers as tokenizers
from tiny_tokenizers import GEMMA_KINDS, LLAMA_KINDS
from tokenizers import Tokenizer

CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SIDE, PATCH = 112, 14  # of the towers with pictures of one size: 8 x 8 patches
PINPOINTS = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE], [3 * SIDE, SIDE], [SIDE, 3 * SIDE]]
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
EXTRA_ROWS = 24  # rows of the embedding table behind the tokenizer's last id


@dataclass(frozen=True)
class Spec:
    """A family: transformers' classes by name, its configs, tokenizer, template and processors' settings."""

    model: str  # class of the model; its config class is named beside it
    config: str
    processor: str
    tokenizer: Callable[[], Tokenizer]
    tokenizer_config: Mapping[str, Any]
    template: str
    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    top: Mapping[str, Any]  # further keys of config.json
    ids: Mapping[str, str]  # keys of config.json that are ids of tokens
    images: Mapping[str, Any]  # preprocessor_config.json
    videos: Mapping[str, Any] | None  # video_preprocessor_config.json; None: the family has no videos of its own
    parts: Mapping[str, Any]  # further keys of processor_config.json
    sentencepiece: Mapping[str, int] | None = None  # kinds of the pieces in tokenizer.model, which the family publishes


def qwen_text(theta: float = 1e6, section: tuple[int, int, int] = (2, 3, 3), **more: Any) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": theta, "mrope_section": list(section)}
    rope |= more.pop("rope", {})
    # published vocabularies have the number that the config's class has for it; the tests' are shorter
    return {**TEXT, "rms_norm_eps": 1e-6, "rope_parameters": rope, "bos_token_id": None, **more}


def pixels(low: int, high: int) -> dict[str, int]:
    return {"shortest_edge": low, "longest_edge": high}


QWEN_IDS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
QWEN_PATCHES = {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2}
QWEN_FRAMES = {**QWEN_PATCHES, **CLIP, "size": pixels(4 * 28 * 28, 64 * 28 * 28), "cap_pixels_per_frame": False}

QWEN2_VL = Spec(
    model="Qwen2VLForConditionalGeneration",
    config="Qwen2VLConfig",
    processor="Qwen2VLProcessor",
    tokenizer=lambda: tokenizers.qwen(tokenizers.QWEN_VISION),
    tokenizer_config=tokenizers.chatml_config(),
    template=templates.QWEN2_VL,
    text=qwen_text(),
    vision={"depth": 3, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2, **QWEN_PATCHES},
    top={},
    ids=QWEN_IDS,
    images={"image_processor_type": "Qwen2VLImageProcessor", **QWEN_PATCHES, **CLIP, "size": pixels(3136, 12845056)},
    videos={"video_processor_type": "Qwen2VLVideoProcessor", **QWEN_FRAMES},
    parts={},
)
QWEN2_5_VL = Spec(
    model="Qwen2_5_VLForConditionalGeneration",
    config="Qwen2_5_VLConfig",
    processor="Qwen2_5_VLProcessor",
    tokenizer=lambda: tokenizers.qwen(tokenizers.QWEN_VISION),
    tokenizer_config=tokenizers.chatml_config(),
    template=templates.QWEN2_VL,
    text=qwen_text(),
    vision={
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 84,  # 3420 there: no multiple of 32 either
        "num_heads": 2,
        "out_hidden_size": 64,
        "window_size": 112,
        "fullatt_block_indexes": [1, 3],
        "tokens_per_second": 2,
        "patch_size": 14,
    },
    top={},
    ids=QWEN_IDS,
    images={"image_processor_type": "Qwen2VLImageProcessor", **QWEN_PATCHES, **CLIP, "size": pixels(3136, 12845056)},
    videos={"video_processor_type": "Qwen2VLVideoProcessor", **QWEN_FRAMES},
    parts={},
)
QWEN3_PATCHES = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2}
QWEN3_VL = Spec(
    model="Qwen3VLForConditionalGeneration",
    config="Qwen3VLConfig",
    processor="Qwen3VLProcessor",
    tokenizer=lambda: tokenizers.qwen(tokenizers.QWEN_VISION),
    tokenizer_config=tokenizers.chatml_config(),
    template=templates.QWEN3_VL,
    text=qwen_text(5e6, (6, 5, 5), head_dim=32, rope={"mrope_interleaved": True}),
    vision={
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 80,
        "num_heads": 2,
        "out_hidden_size": 64,
        "patch_size": 16,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1, 2],
    },
    top={},
    ids=QWEN_IDS,
    images={"image_processor_type": "Qwen2VLImageProcessor", **QWEN3_PATCHES, **HALF, "size": pixels(4096, 16777216)},
    videos={
        "video_processor_type": "Qwen3VLVideoProcessor",
        **QWEN3_PATCHES,
        **HALF,
        "size": pixels(4096, 25165824),
        "cap_pixels_per_frame": False,
        "fps": 2,
        "min_frames": 4,
        "max_frames": 768,
    },
    parts={},
)
SMOL_SIDE = 128
SMOLVLM = Spec(
    model="SmolVLMForConditionalGeneration",
    config="SmolVLMConfig",
    processor="SmolVLMProcessor",
    tokenizer=tokenizers.smollm,
    tokenizer_config=tokenizers.smollm_config(),
    template=templates.SMOLVLM,
    text={
        **TEXT,
        "architectures": ["VLlama3ForCausalLM"],
        "model_type": "llama",
        "rms_norm_eps": 1e-5,
        "rope_theta": 130000.0,
    },
    vision={
        "hidden_size": 32,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SMOL_SIDE,
        "patch_size": 8,
    },
    top={"scale_factor": 4},
    ids={"image_token_id": "<image>"},
    images={
        "image_processor_type": "SmolVLMImageProcessor",
        **HALF,
        "size": {"longest_edge": 4 * SMOL_SIDE},
        "max_image_size": {"longest_edge": SMOL_SIDE},
        "do_image_splitting": True,
        "do_pad": True,
        "resample": 1,
    },
    videos={
        "video_processor_type": "SmolVLMVideoProcessor",
        **HALF,
        "size": {"longest_edge": SMOL_SIDE},
        "max_image_size": {"longest_edge": SMOL_SIDE},
        "fps": 1,
        "num_frames": 64,
        "resample": 1,
    },
    parts={"image_seq_len": 16},
)


def internvl(text: Mapping[str, Any], tied: bool) -> Spec:
    return Spec(
        model="InternVLForConditionalGeneration",
        config="InternVLConfig",
        processor="InternVLProcessor",
        tokenizer=lambda: tokenizers.qwen(tokenizers.INTERN),
        tokenizer_config=tokenizers.intern_config(),
        template=templates.INTERNVL,
        text={**TEXT, "rms_norm_eps": 1e-6, "rope_theta": 1e6, **text},
        vision={
            "architectures": ["InternVisionModel"],
            "hidden_size": 32,
            "intermediate_size": 80,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "image_size": [SIDE, SIDE],
            "patch_size": [PATCH, PATCH],
            "attention_bias": True,
        },
        top={"image_seq_length": 16, "downsample_ratio": 0.5, "tie_word_embeddings": tied},
        ids={"image_token_id": "<IMG_CONTEXT>"},
        images={
            "image_processor_type": "GotOcr2ImageProcessor",
            **IMAGENET,
            "size": {"height": SIDE, "width": SIDE},
            "crop_to_patches": False,
            "min_patches": 1,
            "max_patches": 12,
            "resample": 3,
        },
        videos={
            "video_processor_type": "InternVLVideoProcessor",
            **IMAGENET,
            "size": {"height": SIDE, "width": SIDE},
            "resample": 3,
        },
        parts={"image_seq_length": 16},
    )


GEMMA3 = Spec(
    model="Gemma3ForConditionalGeneration",
    config="Gemma3Config",
    processor="Gemma3Processor",
    tokenizer=tokenizers.gemma,
    tokenizer_config=tokenizers.gemma_config(),
    template=templates.GEMMA3,
    text={
        **TEXT,
        "num_hidden_layers": 7,  # five with windows, one without, one with
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 24,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    },
    vision={
        "model_type": "siglip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": PATCH,
        "vision_use_head": False,
    },
    top={"mm_tokens_per_image": 16, "tie_word_embeddings": True},
    ids={
        "image_token_index": "<image_soft_token>",
        "boi_token_index": "<start_of_image>",
        "eoi_token_index": "<end_of_image>",
    },
    images={
        "image_processor_type": "Gemma3ImageProcessor",
        **HALF,
        "size": {"height": SIDE, "width": SIDE},
        "image_seq_length": 16,
        "resample": 2,
        "do_pan_and_scan": None,
    },
    videos=None,
    parts={"image_seq_length": 16},
    sentencepiece=GEMMA_KINDS,
)
CLIP_TOWER = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 3,  # the last is never run
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
    "projection_dim": 32,
}
CLIP_PICTURES = {
    **CLIP,
    "size": {"shortest_edge": SIDE},
    "crop_size": {"height": SIDE, "width": SIDE},
    "do_center_crop": True,
    "resample": 3,
}


def llava_next(text: Mapping[str, Any], template: str, video: bool = False) -> Spec:
    name = "LlavaNextVideo" if video else "LlavaNext"
    names = ("<video>", "<image>", "<pad>") if video else ("<image>", "<pad>")
    frames = {"video_processor_type": "LlavaNextVideoVideoProcessor", **CLIP_PICTURES}
    lengths = {"image_seq_length": 64, **({"video_seq_length": 16} if video else {})}
    strategy = {"vision_feature_select_strategy": "default", "patch_size": PATCH, "num_additional_image_tokens": 1}
    return Spec(
        model=f"{name}ForConditionalGeneration",
        config=f"{name}Config",
        processor=f"{name}Processor",
        tokenizer=lambda: tokenizers.llama(names),
        tokenizer_config=tokenizers.llama_config(),
        template=template,
        text={**TEXT, "rms_norm_eps": 1e-5, **text},
        vision=CLIP_TOWER,
        top={"image_grid_pinpoints": PINPOINTS, **lengths},
        ids={"image_token_index": "<image>", **({"video_token_index": "<video>"} if video else {})},
        images={
            "image_processor_type": "LlavaNextImageProcessor",
            **CLIP_PICTURES,
            "image_grid_pinpoints": PINPOINTS,
            "do_pad": True,
        },
        videos=frames if video else None,
        parts=strategy,
        sentencepiece=LLAMA_KINDS,
    )


QWEN2_TEXT = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
QWEN3_TEXT = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 32}
MISTRAL_TEXT = {"model_type": "mistral", "rope_theta": 1e6, "sliding_window": None}
SPECS: dict[str, Spec] = {
    "qwen2_vl": QWEN2_VL,
    "qwen2_5_vl": QWEN2_5_VL,
    "qwen3_vl": QWEN3_VL,
    "smolvlm": SMOLVLM,
    "internvl3": internvl(QWEN2_TEXT, tied=False),
    "internvl3_5": internvl(QWEN3_TEXT, tied=True),
    "gemma3": GEMMA3,
    "llava_next": llava_next({"model_type": "llama"}, templates.VICUNA),
    "llava_next_mistral": llava_next(MISTRAL_TEXT, templates.MISTRAL),
    "llava_next_video": llava_next({"model_type": "llama"}, templates.VICUNA, video=True),
}
