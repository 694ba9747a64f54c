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
NEWEST = {"qwen3_5": QWEN3_5}
SPECS.update(NEWEST)
