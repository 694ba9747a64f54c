"""Pixels against transformers' PIL processors: the same bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aim_local.errors import MediaError, ModelError
from aim_local.models.pixels import PreprocessConfig, image_tiles, plan_image, video_frame

SIZES = [(60, 80), (80, 60), (64, 64), (48, 48), (200, 31), (31, 200), (1, 1), (2, 300), (700, 900), (1500, 40)]
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
SIDE = 48
PINPOINTS = tuple((SIDE * h, SIDE * w) for h in range(1, 4) for w in range(1, 4))
ONEVISION = PreprocessConfig("onevision", SIDE, tuple(MEAN), pinpoints=PINPOINTS)


def picture(height: int, width: int) -> np.ndarray:
    """Smooth colours with noise: edges and gradients both."""
    rng = np.random.default_rng(height * 10007 + width)
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y) % 256], axis=-1)
    return np.clip(base + rng.integers(-40, 41, base.shape), 0, 255).astype(np.uint8)


def bytes_of(values: Any) -> np.ndarray:
    """transformers' normalised [n, 3, H, W] back to 0..255, not rounded: [n, H, W, 3]."""
    array = np.moveaxis(np.asarray(values, np.float64), -3, -1)
    return (array * np.array(STD) + np.array(MEAN)) * 255


def difference(got: np.ndarray, want: Any) -> float:
    theirs = bytes_of(want)
    assert got.shape == theirs.shape
    return float(np.abs(got - theirs).max())


@pytest.mark.parametrize("size", SIZES)
def test_onevision_images(size: tuple[int, int]) -> None:
    hf = pytest.importorskip("transformers.models.llava_onevision.image_processing_pil_llava_onevision")
    processor = hf.LlavaOnevisionImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        image_grid_pinpoints=[list(p) for p in PINPOINTS],
        image_mean=MEAN,
        image_std=STD,
    )
    image = picture(*size)
    want = processor(images=image, input_data_format="channels_last", return_tensors="np")
    got = image_tiles(image, ONEVISION)
    assert len(got) == plan_image(*size, ONEVISION, 6).n_tiles
    worst = difference(got, want["pixel_values"][0])
    print(f"onevision {size}: {len(got)} tiles, largest difference {worst:.1e} of 255")
    assert worst <= 1e-3


@pytest.mark.parametrize("size", SIZES)
def test_video_frames(size: tuple[int, int]) -> None:
    """transformers has no PIL video processor; PIL itself is the reference for the 8-bit frame."""
    from PIL import Image

    frames = np.stack([picture(*size), picture(*size)[::-1]])
    got = [video_frame(frame, ONEVISION) for frame in frames]
    want = [np.asarray(Image.fromarray(f).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for f in frames]
    assert np.array_equal(got, want)


@pytest.mark.parametrize("size", [(60, 80), (96, 96), (31, 200), (700, 900)])
def test_video_frames_near_transformers(size: tuple[int, int]) -> None:
    pytest.importorskip("torchvision")
    hf = pytest.importorskip("transformers.models.llava_onevision.video_processing_llava_onevision")
    processor = hf.LlavaOnevisionVideoProcessor(size={"height": SIDE, "width": SIDE}, image_mean=MEAN, image_std=STD)
    frames = np.stack([picture(*size)] * 2)
    want = processor(videos=[frames], input_data_format="channels_last", return_tensors="np")["pixel_values_videos"][0]
    worst = difference(np.stack([video_frame(frame, ONEVISION) for frame in frames]), want)
    print(f"video {size}: largest difference to torchvision {worst:.2f} of 255")
    assert worst <= 1 + 1e-3


def test_frames_of_the_towers_size_are_not_touched() -> None:
    frame = picture(SIDE, SIDE)
    assert video_frame(frame, ONEVISION) is frame


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("variant", ["crop", "small edge", "square", "padded"])
def test_llava_images(size: tuple[int, int], variant: str) -> None:
    hf = pytest.importorskip("transformers.models.llava.image_processing_pil_llava")
    edge = {"crop": SIDE, "small edge": 30, "square": 0, "padded": SIDE}[variant]
    processor = hf.LlavaImageProcessorPil(
        size={"shortest_edge": edge} if edge else {"height": SIDE, "width": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        do_pad=variant == "padded",
        image_mean=MEAN,
        image_std=STD,
    )
    config = PreprocessConfig("clip-center-crop", SIDE, tuple(MEAN), shortest_edge=edge, pad_square=variant == "padded")
    image = picture(*size)
    want = processor(images=image, input_data_format="channels_last", return_tensors="np")["pixel_values"]
    assert difference(image_tiles(image, config), want) <= 1e-3


@pytest.mark.parametrize("size", SIZES)
def test_clip_processor_is_the_same(size: tuple[int, int]) -> None:
    hf = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    edges = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    image = picture(*size)
    want = hf.CLIPImageProcessorPil(**edges)(images=image, input_data_format="channels_last", return_tensors="np")
    config = PreprocessConfig("clip-center-crop", SIDE, tuple(MEAN), shortest_edge=SIDE)
    assert difference(image_tiles(image, config), want["pixel_values"]) <= 1e-3


def test_config_from_the_files_keys() -> None:
    keys = {
        "aim.preprocess": "onevision",
        "clip.vision.image_size": 48,
        "clip.vision.image_mean": (0.5, 0.25, 0.125),
        "clip.vision.image_grid_pinpoints": (96, 48, 144, 48),  # width, height
        "aim.vision.resample": 2,
        "aim.vision.max_tiles": 4,
    }
    config = PreprocessConfig.from_metadata(keys)
    assert config.pinpoints == ((48, 96), (48, 144))
    assert (config.side, config.max_tiles, config.resample, config.video_resample) == (48, 4, 2, 2)
    assert config.mean == (0.5, 0.25, 0.125)


def test_config_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ModelError, match="'naflex'"):
        PreprocessConfig.from_metadata({"aim.preprocess": "naflex", "clip.vision.image_size": 48})
    with pytest.raises(ModelError, match="0 pixels"):
        PreprocessConfig.from_metadata({"aim.preprocess": "onevision"})


def test_a_strip_too_thin_to_resize_is_refused() -> None:
    config = PreprocessConfig("clip-center-crop", 336, tuple(MEAN), shortest_edge=336)
    with pytest.raises(MediaError, match="crop it first"):
        image_tiles(np.zeros((1, 4000, 3), np.uint8), config)
