"""What the keys of a checkpoint's JSON files hold: a value of another kind is one clear line before anybody uses it.

One table per kind of file, for all families: a key means the same wherever it is. Keys that no table lists are not
looked at, and null is no value at all. Whether the values fit each other is the families' business.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ConvertError

LARGEST = 2**31 - 1  # what a GGUF's counts can hold
LEAST_FLOAT, LARGEST_FLOAT = 2.0**-126, (2 - 2**-23) * 2.0**127  # what a GGUF's float32 can hold
LONGEST_NAME = 255  # bytes of a file's name, on every common file system


@dataclass(frozen=True)
class Kind:
    """A kind of value, and its name in the error."""

    text: str
    holds: Callable[[Any], bool]


def is_int(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= LARGEST


def is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= (LARGEST if isinstance(value, int) else LARGEST_FLOAT)


def is_id(text: str) -> bool:
    return text.isdecimal() and len(text) <= len(str(LARGEST)) and int(text) <= LARGEST


def list_of(one: Kind, text: str, length: int | None = None) -> Kind:
    def holds(value: Any) -> bool:
        return isinstance(value, list) and all(map(one.holds, value)) and length in (None, len(value))

    return Kind(text, holds)


def either(a: Kind, b: Kind) -> Kind:
    return Kind(f"{a.text} or {b.text}", lambda value: a.holds(value) or b.holds(value))


COUNT = Kind("a whole number above 0", lambda v: is_int(v, 1))
NATURAL = Kind("a whole number, 0 or more", lambda v: is_int(v, 0))
INTEGER = Kind("a whole number", lambda v: is_int(v, -LARGEST))
POSITIVE = Kind("a number above 0", lambda v: is_number(v) and v >= LEAST_FLOAT)
NUMBER = Kind("a number", is_number)
FLAG = Kind("true or false", lambda v: isinstance(v, bool))
TEXT = Kind("text", lambda v: isinstance(v, str))
OBJECT = Kind("an object", lambda v: isinstance(v, dict))
TEXTS = list_of(TEXT, "a list of texts")
COUNTS = list_of(COUNT, "a list of whole numbers above 0")
NATURALS = list_of(NATURAL, "a list of whole numbers")
INTEGERS = list_of(INTEGER, "a list of whole numbers")
TRIPLE = either(NUMBER, list_of(NUMBER, "a list of three numbers", 3))
PAIRS = list_of(list_of(COUNT, "two whole numbers", 2), "a list of pairs of whole numbers")
SIDES = either(COUNT, COUNTS)
SIZE = Kind(
    "a whole number or an object of them",
    lambda v: COUNT.holds(v) or (isinstance(v, dict) and all(n is None or COUNT.holds(n) for n in v.values())),
)
TOKEN = Kind("text, or an object with text as content", lambda v: isinstance(v, str) or is_token(v))
IDS = either(INTEGER, INTEGERS)


def is_token(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("content"), str)


def table(kinds: Mapping[Kind, str]) -> dict[str, Kind]:
    return {key: kind for kind, keys in kinds.items() for key in keys.split()}


CONFIG = table(
    {
        COUNT: "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads"
        " head_dim max_position_embeddings depth embed_dim num_heads in_channels num_channels out_hidden_size"
        " window_size"
        " spatial_merge_size num_position_embeddings tokens_per_second scale_factor mm_tokens_per_image"
        " image_seq_length video_seq_length original_max_position_embeddings spatial_pool_stride"
        " mm_spatial_pool_stride",
        SIDES: "image_size patch_size temporal_patch_size",
        NATURAL: "sliding_window max_window_layers projection_dim",
        POSITIVE: "rms_norm_eps layer_norm_eps rope_theta rope_local_base_freq factor mlp_ratio downsample_ratio"
        " query_pre_attn_scalar",
        FLAG: "tie_word_embeddings use_sliding_window attention_bias mlp_bias use_qk_norm mrope_interleaved"
        " add_faster_video add_time_instruction mm_use_im_start_end",
        TEXT: "model_type hidden_act hidden_activation rope_type type vision_feature_select_strategy"
        " mm_vision_select_feature mm_vision_tower mm_patch_merge_type mm_newline_position mm_spatial_pool_mode"
        " spatial_pool_mode image_aspect_ratio vision_aspect_ratio projector_hidden_act",
        OBJECT: "text_config vision_config llm_config rope_parameters rope_scaling full_attention sliding_attention",
        TEXTS: "architectures layer_types",
        NATURALS: "fullatt_block_indexes deepstack_visual_indexes mrope_section",
        IDS: "vision_feature_layer mm_vision_select_layer bos_token_id eos_token_id pad_token_id unk_token_id",
        INTEGER: "image_token_id video_token_id image_token_index video_token_index vision_start_token_id"
        " vision_end_token_id boi_token_index eoi_token_index",
        either(PAIRS, TEXT): "image_grid_pinpoints",
    }
)
PROCESSOR = table(
    {
        SIZE: "size crop_size max_image_size",
        TRIPLE: "image_mean image_std",
        NATURAL: "resample",
        POSITIVE: "rescale_factor fps",
        COUNT: "num_frames patch_size merge_size temporal_patch_size min_pixels max_pixels min_patches max_patches"
        " image_seq_length image_seq_len min_frames max_frames",
        FLAG: "do_resize do_rescale do_normalize do_center_crop do_pad do_convert_rgb do_image_splitting"
        " crop_to_patches",
        OBJECT: "image_processor video_processor feature_extractor",
        TOKEN: "image_token video_token",
        PAIRS: "image_grid_pinpoints",
    }
)
TOKENIZER_CONFIG = table(
    {
        TOKEN: "bos_token eos_token unk_token pad_token image_token video_token",
        FLAG: "add_bos_token add_eos_token",
        Kind(
            "an object of tokens by id",
            lambda v: isinstance(v, dict) and all(is_id(i) and is_token(t) for i, t in v.items()),
        ): "added_tokens_decoder",
    }
)
IDS_BY_TEXT = Kind("an object of ids by token", lambda v: isinstance(v, dict) and all(is_int(i, 0) for i in v.values()))
MERGES = Kind(
    "a list of pairs of tokens",
    lambda v: (
        isinstance(v, list) and all((isinstance(m, str) and " " in m) or (TEXTS.holds(m) and len(m) == 2) for m in v)
    ),
)
ADDED = Kind(
    "a list of tokens with id and content",
    lambda v: isinstance(v, list) and all(is_token(t) and is_int(t.get("id"), 0) for t in v),
)
TOKENIZER = {
    "model": OBJECT,
    "vocab": IDS_BY_TEXT,
    "merges": MERGES,
    "added_tokens": ADDED,
    "pre_tokenizer": OBJECT,
    "normalizer": OBJECT,
    "post_processor": OBJECT,
    "byte_fallback": FLAG,
    "unk_token": TEXT,
}
WEIGHT_MAP = Kind(
    "an object of file names by tensor", lambda v: isinstance(v, dict) and all(map(is_file_name, v.values()))
)
INDEX = {"weight_map": WEIGHT_MAP}


def is_file_name(value: Any) -> bool:
    """A name beside the index that a file can have, not a way to another folder."""
    is_name = isinstance(value, str) and value not in ("", ".", "..") and not set(value) & set("/\\:\0")
    return is_name and len(value.encode("utf-8", "surrogatepass")) <= LONGEST_NAME


KINDS: dict[str, Mapping[str, Kind]] = {
    "config.json": CONFIG,
    "preprocessor_config.json": PROCESSOR,
    "video_preprocessor_config.json": PROCESSOR,
    "processor_config.json": PROCESSOR,
    "tokenizer_config.json": TOKENIZER_CONFIG,
    "special_tokens_map.json": TOKENIZER_CONFIG,
    "tokenizer.json": TOKENIZER,
    "model.safetensors.index.json": INDEX,
    "pytorch_model.bin.index.json": INDEX,
}


def check_kinds(content: Mapping[str, Any], file: str) -> None:
    """Raises ConvertError for the first value of another kind than its key's, in the objects inside too."""
    if file in KINDS:
        walk(content, KINDS[file], file, "")


def walk(content: Mapping[str, Any], kinds: Mapping[str, Kind], file: str, at: str) -> None:
    for key, value in content.items():
        kind = kinds.get(key)
        if kind is None or value is None:
            continue
        if not kind.holds(value):
            raise ConvertError(
                f"{file}: {at}{key} is {shown(value)}, {kind.text} is expected; "
                "take the file from the model's repository again"
            )
        if kind is OBJECT:
            walk(value, kinds, file, f"{at}{key}.")


def without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    """The object without keys whose value is null, in the objects inside too."""
    return {k: without_nulls(v) if isinstance(v, dict) else v for k, v in value.items() if v is not None}


def shown(value: Any) -> str:
    """A value in an error line, not longer than the line can bear."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of 5000 digits, or lists in lists without end
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
