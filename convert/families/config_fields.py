"""The fields of transformers' configs: language towers by model_type, vision towers, and what stands above them.

What is honoured by the families of our own is read by ../text.py, ../vision_towers.py and the family's file; of the
others by llama.cpp's converter, whose graphs say what is limited. ../fields.py says what the lists mean.
"""

import math
from typing import Any

from ..fields import NOTHING, Around, Fields, Limit, every, fields, is_close, number, only
from ..vision_towers import ACTIVATIONS

GELU = only("gelu_pytorch_tanh", "gelu")  # one function in ggml
SILU = only("silu", "swish")
GEMMA_PATTERN = 6  # of its layers, the last of each six sees the whole text
GEMMA_27B = 62  # layers; llama.cpp knows the model by them, whose queries are scaled otherwise

BASE = fields(
    honoured="model_type architectures tie_word_embeddings",
    silent="_name_or_path transformers_version dtype torch_dtype chunk_size_feed_forward is_encoder_decoder id2label"
    " label2id problem_type output_attentions output_hidden_states return_dict initializer_range initializer_factor"
    " attention_dropout use_cache pad_token_id bos_token_id eos_token_id",
    per_layer_config=NOTHING,
)

# --- rotary positions -------------------------------------------------------------------------------------------------


def is_yarn_default(value: Any, around: Around) -> bool:
    factor = around.section.get("factor")
    return isinstance(factor, int | float) and factor > 0 and is_close(value, 0.1 * math.log(factor) + 1)


ROPE = fields(
    honoured="rope_theta factor original_max_position_embeddings",
    # of kinds that are refused, or what the graph does unasked
    silent="long_factor short_factor low_freq_factor high_freq_factor mrope_section mrope_interleaved",
    partial_rotary_factor=number(1.0),
    mscale=NOTHING,
    mscale_all_dim=NOTHING,
    truncate=only(True),
)
OWN_ROPE = fields(
    ROPE,
    honoured="rope_type type",  # text.py refuses kinds
    attention_factor=Limit("0.1 ln(factor) + 1", is_yarn_default),
    beta_fast=number(32),
    beta_slow=number(1),
)
KINDS = ("default", "linear", "yarn", "dynamic")  # dynamic begins behind max_position_embeddings
UPSTREAM_ROPE = fields(
    ROPE,
    honoured="attention_factor beta_fast beta_slow mrope_section",
    rope_type=only(*KINDS, "mrope"),
    type=only(*KINDS, "mrope"),
)
LLAMA_ROPE = fields(
    UPSTREAM_ROPE,
    honoured="low_freq_factor high_freq_factor",
    rope_type=only(*KINDS, "llama3"),
    type=only(*KINDS, "llama3"),
)
PART_ROPE = fields(UPSTREAM_ROPE, honoured="partial_rotary_factor")
PLAIN_ROPE = fields(UPSTREAM_ROPE, rope_type=only("default"), type=only("default"))
WHOLE_ROPE = fields(UPSTREAM_ROPE, rope_type=only("default", "linear"), type=only("default", "linear"))
PROPORTIONAL_ROPE = fields(PART_ROPE, factor=number(1.0), rope_type=only("proportional"))


def rope(inner: Fields) -> dict[str, Fields]:
    """Where it stands: since transformers 5, and before."""
    return {"rope_parameters": inner, "rope_scaling": inner}


# --- language towers --------------------------------------------------------------------------------------------------

TEXT = fields(
    BASE,
    honoured="vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads"
    " head_dim max_position_embeddings rms_norm_eps rope_theta",
    hidden_act=SILU,
    partial_rotary_factor=number(1.0),
)
FULL = fields(
    TEXT,
    silent="sliding_window max_window_layers",  # without the flag
    use_sliding_window=only(False),
    layer_types=every("full_attention"),
)
QWEN2 = fields(FULL, objects=rope(UPSTREAM_ROPE))
QWEN3 = fields(QWEN2, attention_bias=only(False))
LLAMA = fields(TEXT, honoured="attention_bias mlp_bias", silent="pretraining_tp", objects=rope(LLAMA_ROPE))
OWN_QWEN2 = fields(FULL, objects=rope(OWN_ROPE))
OWN_LLAMA = fields(LLAMA, objects=rope(OWN_ROPE))
OWN_MISTRAL = fields(TEXT, honoured="sliding_window", objects=rope(OWN_ROPE))  # the family's file refuses windows

# llama.cpp's converter writes the language tower's rms_norm_eps for the vision tower too, which has 1e-6: of Qwen3-VL
# always, of the older ones where both stand in one object
QWEN2_VL = fields(
    QWEN2,
    rms_norm_eps=Limit(
        "1e-06, without a text_config,",
        lambda value, around: "vision_config" not in around.section or is_close(value, 1e-6),
    ),
)
QWEN3_VL = fields(QWEN3, rms_norm_eps=number(1e-6))
QWEN3_5 = fields(
    QWEN3_VL,
    honoured="layer_types linear_conv_kernel_dim linear_key_head_dim linear_value_head_dim linear_num_key_heads"
    " linear_num_value_heads full_attention_interval partial_rotary_factor",
    objects=rope(PART_ROPE),
)


def is_gemma_pattern(value: Any, _: Around) -> bool:
    kinds = ("full_attention" if (i + 1) % GEMMA_PATTERN == 0 else "sliding_attention" for i in range(len(value)))
    return list(value) == list(kinds)


def is_gemma_scale(value: Any, around: Around) -> bool:
    text = around.section
    width = text.get("head_dim") or 256
    if text.get("num_hidden_layers") == GEMMA_27B:
        width = (text.get("hidden_size") or 2304) / (text.get("num_attention_heads") or 8)
    return is_close(value, width)


GEMMA = fields(
    TEXT,
    honoured="final_logit_softcapping sliding_window rope_local_base_freq",
    hidden_activation=only("gelu_pytorch_tanh"),
    attention_bias=only(False),
    silent="hidden_act",  # transformers reads hidden_activation
)
GEMMA3 = fields(
    GEMMA,
    query_pre_attn_scalar=Limit("head_dim, or the published 27B model's", is_gemma_scale),
    attn_logit_softcapping=NOTHING,
    use_bidirectional_attention=only(False),
    layer_types=Limit("every sixth 'full_attention', the others 'sliding_attention'", is_gemma_pattern),
    _sliding_window_pattern=only(GEMMA_PATTERN),
    sliding_window_pattern=only(GEMMA_PATTERN),
    objects=rope(fields(WHOLE_ROPE, objects={"full_attention": WHOLE_ROPE, "sliding_attention": PLAIN_ROPE})),
)
GEMMA4 = fields(
    GEMMA,
    honoured="layer_types vocab_size_per_layer_input hidden_size_per_layer_input attention_k_eq_v num_kv_shared_layers"
    " enable_moe_block use_double_wide_mlp num_experts top_k_experts moe_intermediate_size per_layer_config"
    " global_head_dim num_global_key_value_heads",
    use_bidirectional_attention=only("vision"),
    objects={"rope_parameters": fields(objects={"full_attention": PROPORTIONAL_ROPE, "sliding_attention": PLAIN_ROPE})},
)

# --- vision towers ----------------------------------------------------------------------------------------------------

VISION = fields(BASE, honoured="hidden_size intermediate_size patch_size image_size")
VIT = fields(VISION, honoured="num_hidden_layers num_attention_heads layer_norm_eps", num_channels=only(3))
OWN_VIT = fields(
    VIT,
    silent="projection_dim vision_use_head vocab_size",  # of heads that no family runs
    hidden_act=only(*ACTIVATIONS),
)
GELU_VIT = fields(VIT, silent="vision_use_head", hidden_act=GELU)
QWEN_VISION = fields(
    VISION,
    honoured="depth num_hidden_layers num_heads num_attention_heads out_hidden_size embed_dim mlp_ratio"
    " tokens_per_second fullatt_block_indexes",
    in_channels=only(3),
    temporal_patch_size=only(2),
    spatial_merge_size=only(2),
    window_size=only(112),
    objects=rope(fields(silent="factor", rope_theta=number(10000), rope_type=only("axial", "default"))),
)
QWEN2_VISION = fields(QWEN_VISION, hidden_act=only("quick_gelu"))
QWEN2_5_VISION = fields(QWEN_VISION, hidden_act=SILU)
QWEN3_VISION = fields(
    QWEN_VISION, honoured="num_position_embeddings deepstack_visual_indexes spatial_merge_size", hidden_act=GELU
)


def is_intern_norm(value: Any, around: Around) -> bool:
    is_6b = around.section.get("hidden_size") == 3200 and around.section.get("num_hidden_layers") == 45
    return bool(value == ("rms_norm" if is_6b else "layer_norm"))


INTERN_VISION = fields(
    VIT,
    honoured="attention_bias use_qk_norm",
    silent="hidden_dropout_prob projection_dropout use_mask_token layer_scale_init_value",
    hidden_act=only("gelu", "silu"),
    norm_type=Limit("'layer_norm', or 'rms_norm' in a tower of 45 layers and 3200 values", is_intern_norm),
    use_absolute_position_embeddings=only(True),
    use_mean_pooling=only(True),
)
GEMMA4_VISION = fields(
    VISION,
    honoured="num_hidden_layers num_attention_heads num_key_value_heads head_dim position_embedding_size"
    " use_clipped_linears standardize",
    silent="max_position_embeddings",
    hidden_activation=only("gelu_pytorch_tanh"),
    rms_norm_eps=number(1e-6),
    attention_bias=only(False),
    pooling_kernel_size=only(3),
    objects=rope(fields(silent="factor", rope_theta=number(100), rope_type=only("axial", "default"))),
)

# --- above them -------------------------------------------------------------------------------------------------------

TOP = fields(
    BASE,
    honoured="text_config vision_config",
    # tokens that stand for rows, which the runtime counts itself
    silent="image_token_id video_token_id vision_start_token_id vision_end_token_id image_token_index video_token_index"
    " boi_token_id eoi_token_id boi_token_index eoi_token_index image_seq_length video_seq_length",
)
LLAVA_TOP = fields(
    TOP,
    honoured="vision_feature_layer vision_feature_select_strategy image_grid_pinpoints vision_aspect_ratio"
    " spatial_pool_mode spatial_pool_stride",
    projector_hidden_act=GELU,
    multimodal_projector_bias=only(True),
)
SMOLVLM_TOP = fields(TOP, honoured="scale_factor", silent="_pad_token_id")


def is_one_of_whole(value: Any, _: Around) -> bool:
    return isinstance(value, int | float) and 0 < value <= 1 and is_close(value, 1 / round(1 / value))


INTERN_TOP = fields(
    TOP,
    downsample_ratio=Limit("1 divided by a whole number", is_one_of_whole),
    projector_hidden_act=GELU,
    vision_feature_layer=only(-1),
    vision_feature_select_strategy=only("default"),
    select_layer=only(-1),  # in the authors' own layout, as the next
    ps_version=only("v2"),
)
GEMMA3_TOP = fields(TOP, honoured="mm_tokens_per_image")
GEMMA4_TOP = fields(
    TOP,
    silent="audio_config boa_token_id eoa_token_id eoa_token_index audio_token_id",  # the audio tower is not run
)
