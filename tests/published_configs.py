"""What published LLaVA checkpoints say in their configs and processors; the others are in published_upstream.py.

name of the repository -> (our family, file -> content). Language towers without the keys that are mere sizes.
"""

from typing import Any

CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
DONE = {"do_normalize": True, "do_rescale": True, "do_resize": True, "rescale_factor": 0.00392156862745098}
QWEN_TEXT = {
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_window_layers": 70,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
}
CROPPED = {
    **CLIP,
    **DONE,
    "crop_size": {"height": 336, "width": 336},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_pad": True,
    "resample": 3,
    "size": {"shortest_edge": 336},
}
CLIP_TOWER = {
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "model_type": "clip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
    "vocab_size": 32000,
}
NEXT_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
ONEVISION_PINPOINTS = [[384 * h, 384 * w] for h in range(1, 7) for w in range(1, 7)]
ONEVISION_SIZE = {**HALF, **DONE, "do_convert_rgb": True, "resample": 3, "size": {"height": 384, "width": 384}}
SIGLIP_TOWER = {
    "hidden_size": 1152,
    "image_size": 384,
    "intermediate_size": 4304,
    "model_type": "siglip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 26,
    "patch_size": 14,
    "vision_use_head": False,
}

LLAVAS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": (
        "llava_onevision",
        {
            "config.json": {
                "architectures": ["LlavaOnevisionForConditionalGeneration"],
                "image_grid_pinpoints": ONEVISION_PINPOINTS,
                "image_token_index": 151646,
                "model_type": "llava_onevision",
                "projector_hidden_act": "gelu",
                "text_config": {**QWEN_TEXT, "model_type": "qwen2", "max_window_layers": 24},
                "tie_word_embeddings": False,
                "use_image_newline_parameter": True,
                "video_token_index": 151647,
                "vision_aspect_ratio": "anyres_max_9",
                "vision_config": SIGLIP_TOWER,
                "vision_feature_layer": -1,
                "vision_feature_select_strategy": "full",
            },
            "preprocessor_config.json": {
                **ONEVISION_SIZE,
                "do_pad": True,
                "image_grid_pinpoints": ONEVISION_PINPOINTS,
                "image_processor_type": "LlavaOnevisionImageProcessor",
            },
            "video_preprocessor_config.json": {
                **ONEVISION_SIZE,
                "num_frames": 32,
                "video_processor_type": "LlavaOnevisionVideoProcessor",
            },
            "processor_config.json": {
                "num_image_tokens": 729,
                "processor_class": "LlavaOnevisionProcessor",
                "vision_feature_select_strategy": "full",
            },
        },
    ),
    "llava-hf/llava-1.5-7b-hf": (
        "llava",
        {
            "config.json": {
                "architectures": ["LlavaForConditionalGeneration"],
                "ignore_index": -100,
                "image_token_index": 32000,
                "model_type": "llava",
                "pad_token_id": 32001,
                "projector_hidden_act": "gelu",
                "text_config": {"model_type": "llama", "rms_norm_eps": 1e-05, "torch_dtype": "float16"},
                "vision_config": CLIP_TOWER,
                "vision_feature_layer": -2,
                "vision_feature_select_strategy": "default",
            },
            "preprocessor_config.json": {**CROPPED, "do_pad": None, "image_processor_type": "CLIPImageProcessor"},
        },
    ),
    "llava-hf/llava-v1.6-mistral-7b-hf": (
        "llava_next",
        {
            "config.json": {
                "architectures": ["LlavaNextForConditionalGeneration"],
                "image_grid_pinpoints": NEXT_PINPOINTS,
                "model_type": "llava_next",
                "projector_hidden_act": "gelu",
                "text_config": {"model_type": "mistral", "rope_theta": 1000000.0, "sliding_window": None},
                "use_image_newline_parameter": True,
                "vision_config": CLIP_TOWER,
                "vision_feature_layer": -2,
                "vision_feature_select_strategy": "default",
            },
            "preprocessor_config.json": {**CROPPED, "image_grid_pinpoints": NEXT_PINPOINTS},
        },
    ),
    "llava-hf/LLaVA-NeXT-Video-7B-hf": (
        "llava_next",
        {
            "config.json": {
                "architectures": ["LlavaNextVideoForConditionalGeneration"],
                "image_grid_pinpoints": NEXT_PINPOINTS,
                "model_type": "llava_next_video",
                "projector_hidden_act": "gelu",
                "spatial_pool_mode": "average",
                "spatial_pool_out_channels": 1024,
                "spatial_pool_stride": 2,
                "text_config": {
                    "model_type": "llama",
                    "rope_scaling": {"factor": 2.0, "type": "linear"},
                    "pretraining_tp": 1,
                },
                "vision_config": CLIP_TOWER,
            },
            "preprocessor_config.json": {**CROPPED, "image_grid_pinpoints": NEXT_PINPOINTS},
            "video_preprocessor_config.json": {**CROPPED, "do_pad": None},
        },
    ),
}
