"""The fields of transformers' image and video processors. ../fields.py says what the lists mean.

The runtime divides pixels by 255, and has one mean and deviation for pictures and frames. How many frames of a clip are
taken is the user's choice, so what processors say of it is silent.
"""

from typing import Any

from ..fields import NOTHING, Around, Fields, Limit, fields, is_close, number, only
from ..preprocess import sides


def normalises(value: Any, around: Around) -> bool:
    """Whether to normalise or not is the same with a mean of 0 and a deviation of 1."""
    means, deviations = (around.section.get(key) for key in ("image_mean", "image_std"))
    return value is True or (all_are(means, 0.0) and all_are(deviations, 1.0))


def all_are(values: Any, value: float) -> bool:
    found = values if isinstance(values, list) else [values]
    return bool(found) and all(is_close(one, value) for one in found)


def crops_nothing(value: Any, around: Around) -> bool:
    """Cutting out as much as the picture was resized to leaves all of it."""
    size, crop = around.section.get("size"), around.section.get("crop_size")
    return value is False or (size is not None and crop is not None and sides_of(size) == sides_of(crop))


def sides_of(size: Any) -> set[Any]:
    return sides(size) if isinstance(size, int | dict) else set()


def is_side(value: Any, around: Around) -> bool:
    return sides_of(value) == {around.side}


def is_longest_side(value: Any, around: Around) -> bool:
    return isinstance(value, dict) and value.get("longest_edge", around.side) == around.side


def as_pictures(key: str) -> Limit:
    """Frames have the mean and deviation of pictures."""

    def holds(value: Any, around: Around) -> bool:
        return key not in around.image or numbers(value) == numbers(around.image[key])

    return Limit(f"the image processor's {key}", holds)


def numbers(value: Any) -> list[Any]:
    """One number is as good as three of it."""
    return list(value) if isinstance(value, list) else [value] * 3


def as_tower(key: str, default: int) -> Limit:
    return Limit(f"vision_config.{key}", lambda value, around: value == (around.vision.get(key) or default))


def as_config(key: str) -> Limit:
    """A list of pairs that config.json has too, in any order."""

    def holds(value: Any, around: Around) -> bool:
        given = around.config.get(key)
        return not isinstance(given, list) or not isinstance(value, list) or sorted(value) == sorted(given)

    return Limit(f"config.json's {key}", holds)


TOWER_SIDE = Limit("the vision tower's image_size", is_side)

PICTURES = fields(
    honoured="image_mean image_std resample size",
    silent="processor_class image_processor_type video_processor_type feature_extractor_type auto_map data_format"
    " input_data_format device disable_grouping return_tensors image_seq_length default_to_square crop_size"
    " do_convert_rgb do_pad",  # padding is of a batch's pictures to one size, in families where it is not honoured
    do_resize=only(True),
    do_rescale=only(True),
    rescale_factor=number(1 / 255),
    do_normalize=Limit("true, or a mean of 0 and a deviation of 1", normalises),
    do_center_crop=Limit("false, or a crop_size that is the size", crops_nothing),
    pad_size=NOTHING,
)


def video(image: Fields) -> Fields:
    """The lists of a video processor beside those of the family's image processor."""
    return fields(
        image,
        silent="do_sample_frames fps num_frames min_frames max_frames return_metadata video_metadata initial_shift",
        image_mean=as_pictures("image_mean"),
        image_std=as_pictures("image_std"),
    )


# processor_config.json, of what ties tokenizer, image and video processor together: how many tokens stand for a picture
TOGETHER = fields(
    honoured="image_processor video_processor tokenizer chat_template image_token video_token image_seq_length",
    silent="processor_class auto_map feature_extractor patch_size num_additional_image_tokens num_image_tokens"
    " image_seq_len vision_feature_select_strategy vision_aspect_ratio audio_seq_length audio_ms_per_token",
)
CROPPED = fields(PICTURES, honoured="do_center_crop crop_size do_pad")
TILED = fields(PICTURES, image_grid_pinpoints=as_config("image_grid_pinpoints"))
CROPPED_TILED = fields(CROPPED, silent="do_pad", image_grid_pinpoints=as_config("image_grid_pinpoints"))
ONEVISION_VIDEO = fields(video(PICTURES), size=TOWER_SIDE)
NEXT_VIDEO = video(fields(CROPPED, silent="do_pad"))

QWEN = fields(
    PICTURES,
    honoured="min_pixels max_pixels",
    patch_size=as_tower("patch_size", 14),
    merge_size=as_tower("spatial_merge_size", 2),
    temporal_patch_size=only(2),
)
QWEN3 = fields(QWEN, patch_size=as_tower("patch_size", 16))
# without cap_pixels_per_frame transformers says that true will be its meaning one day, and does as with false
QWEN_VIDEO = fields(video(QWEN), silent="max_video_tokens", cap_pixels_per_frame=only(False))
QWEN3_VIDEO = fields(video(QWEN3), silent="max_video_tokens", cap_pixels_per_frame=only(False))

SMOLVLM = fields(
    PICTURES,
    honoured="do_image_splitting video_sampling",
    silent="return_row_col_info",
    max_image_size=Limit("the vision tower's image_size as longest_edge", is_longest_side),
)
SMOLVLM_VIDEO = video(fields(SMOLVLM, silent="do_image_splitting"))
# transformers' InternVLProcessor cuts pictures whatever the file says
INTERN = fields(PICTURES, honoured="min_patches max_patches", silent="crop_to_patches", size=TOWER_SIDE)
INTERN_VIDEO = fields(video(PICTURES), size=TOWER_SIDE)
GEMMA3 = fields(
    PICTURES,
    honoured="image_seq_length",
    silent="pan_and_scan_min_crop_size pan_and_scan_max_num_crops pan_and_scan_min_ratio_to_activate",
    do_pan_and_scan=only(False),
    size=TOWER_SIDE,
)
GEMMA4 = fields(
    PICTURES,
    honoured="max_soft_tokens",
    silent="size",  # transformers' processor has none
    patch_size=as_tower("patch_size", 16),
    pooling_kernel_size=as_tower("pooling_kernel_size", 3),
)
GEMMA4_VIDEO = video(GEMMA4)
