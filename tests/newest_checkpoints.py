"""Tiny configs of the newest families, in the form of family_configs.py: text towers whose layers are of several kinds.

Importing this adds them to the families that `write_family` knows.
"""

import family_templates as templates
import family_tokenizers as tokenizers
from family_configs import HALF, QWEN3_PATCHES, QWEN_IDS, SPECS, TEXT, Spec, pixels

QWEN3_5 = Spec(
    model="Qwen3_5ForConditionalGeneration",
    config="Qwen3_5Config",
    processor="Qwen3VLProcessor",
    tokenizer=lambda: tokenizers.qwen(tokenizers.QWEN_VISION),
    tokenizer_config=tokenizers.chatml_config(),
    template=templates.QWEN3_VL,
    text={
        **TEXT,
        "rms_norm_eps": 1e-6,
        "head_dim": 64,
        "full_attention_interval": 2,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e7,
            "mrope_section": [3, 3, 2],
            "mrope_interleaved": True,
            "partial_rotary_factor": 0.25,
        },
    },
    vision={
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 80,
        "num_heads": 2,
        "out_hidden_size": 64,
        "num_position_embeddings": 64,
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

GEMMA4_NAMES = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
}
AS_IT_IS = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
GEMMA4_TOKENS = ("<|turn>", "<turn|>", *GEMMA4_NAMES.values(), "<|video|>", "<mask>")
GEMMA4_ROWS = tokenizers.gemma(GEMMA4_TOKENS).get_vocab_size()  # one each: the converter keeps no others
GEMMA4_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' }}"
    "{% if m['content'] is string %}{{ m['content'] | trim }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}{{ '<|image|>' }}{% elif c['type'] == 'video' %}{{ '<|video|>' }}"
    "{% elif c['type'] == 'text' %}{{ c['text'] | trim }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<turn|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|turn>model\n' }}{% endif %}"
)
GEMMA4_PIXELS = {"patch_size": 4, "pooling_kernel_size": 3, "max_soft_tokens": 70, **AS_IT_IS}
S, F = "sliding_attention", "full_attention"


# of the large ones: a picture's rows see each other, keys are values where attention has no window; of the small ones:
# embeddings for each layer, layers that read the keys of earlier ones, wide products there, products within limits
GEMMA4 = Spec(
    model="Gemma4ForConditionalGeneration",
    config="Gemma4Config",
    processor="Gemma4Processor",
    tokenizer=lambda: tokenizers.gemma(GEMMA4_TOKENS),
    tokenizer_config={**tokenizers.gemma_config(), "extra_special_tokens": GEMMA4_NAMES, **GEMMA4_NAMES},
    template=GEMMA4_TEMPLATE,
    text={
        **TEXT,
        "num_hidden_layers": 6,
        "layer_types": [S, S, F, S, S, F],
        "head_dim": 32,
        "global_head_dim": 64,
        "sliding_window": 96,
        "final_logit_softcapping": 30.0,
        "use_bidirectional_attention": "vision",
        "attention_k_eq_v": True,
        "num_global_key_value_heads": 1,
        "vocab_size": GEMMA4_ROWS,
        "vocab_size_per_layer_input": GEMMA4_ROWS,
        "hidden_size_per_layer_input": 8,
        "num_kv_shared_layers": 3,
        "use_double_wide_mlp": True,
    },
    vision={
        "hidden_size": 32,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "position_embedding_size": 256,
        "patch_size": 4,
        "pooling_kernel_size": 3,
        "standardize": True,
        "use_clipped_linears": True,
    },
    top={"audio_config": None, "tie_word_embeddings": True},
    ids={
        "image_token_id": "<|image|>",
        "boi_token_id": "<|image>",
        "eoi_token_id": "<image|>",
        "video_token_id": "<|video|>",
        "audio_token_id": "<|audio|>",
    },
    images={"image_processor_type": "Gemma4ImageProcessor", **GEMMA4_PIXELS},
    videos={"video_processor_type": "Gemma4VideoProcessor", **GEMMA4_PIXELS},
    parts={"feature_extractor": {"feature_extractor_type": "Gemma4AudioFeatureExtractor"}},
)
NEWEST = {"qwen3_5": QWEN3_5, "gemma4": GEMMA4}
SPECS.update(NEWEST)
