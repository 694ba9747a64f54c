"""Tiles through the vision tower natively, against transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aim_local.errors import UsageError
from aim_local.native.library import mtmd
from aim_local.native.visual import TileEncoder, projector


def open_mmproj(path: Path, flash_attn: bool = False) -> Any:
    params = mtmd.mtmd_context_params_default()
    params.use_gpu = False
    params.print_timings = False
    params.warmup = False
    params.n_threads = 1
    params.flash_attn_type = int(flash_attn)  # off: flash attention rounds K and V to f16
    context = mtmd.mtmd_init_from_file(str(path).encode(), None, params)
    assert context, f"{path} does not load"
    return context


def converted(tmp: Path, family: str, shape: Any) -> tuple[Path, Any]:
    """A tiny checkpoint through our converter: (mmproj, the transformers model)."""
    import checkpoints

    from aim_local.convert import ConvertConfig, convert

    write, make = (
        (checkpoints.write_onevision, checkpoints.onevision_model)
        if family == "onevision"
        else (checkpoints.write_llava, checkpoints.llava_model)
    )
    model = make(shape)
    folder = write(tmp / f"{family}-{shape.grid}", shape, model=model)
    convert(folder, tmp / f"{family}-{shape.grid}-gguf", ConvertConfig(text_type="f32", vision_type="f32"))
    return tmp / f"{family}-{shape.grid}-gguf" / "mmproj.gguf", model


def hf_rows(model: Any, tiles: np.ndarray, mean: float | list[float], std: float | list[float]) -> np.ndarray:
    """Projected rows of uint8 tiles [n, side, side, 3], the way LlavaOnevisionModel and LlavaModel select features."""
    import torch

    pixels = (torch.from_numpy(tiles).float() / 255 - torch.tensor(mean)) / torch.tensor(std)
    inner = model.model
    with torch.no_grad():
        states = inner.vision_tower(pixels.permute(0, 3, 1, 2), output_hidden_states=True).hidden_states
        selected = states[model.config.vision_feature_layer]
        if model.config.vision_feature_select_strategy == "default":
            selected = selected[:, 1:]
        return np.asarray(inner.multi_modal_projector(selected).numpy())


CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


def with_rest(shape: Any) -> Any:
    """Odd grids get pixels that no patch covers, as the 6 of SigLIP's 384."""
    side = property(lambda self: self.grid * self.patch + self.grid % 2 * 3)
    return type("Rest", (shape,), {"side": side})


@pytest.mark.parametrize("grid", [5, 6, 7, 8, 9])
@pytest.mark.parametrize("family", ["onevision", "llava"])
def test_encoded_tiles_equal_transformers(tmp_path: Path, family: str, grid: int) -> None:
    pytest.importorskip("transformers")
    checkpoints = pytest.importorskip("checkpoints")
    shape = with_rest(checkpoints.Shape)(grid=grid, n_vision=2 + grid % 3, heads_vision=1 + grid % 2, seed=grid)
    path, model = converted(tmp_path, family, shape)
    tiles = np.random.default_rng(grid).integers(0, 256, (2, shape.side, shape.side, 3), np.uint8)
    mean, std = ([0.5] * 3, [0.5] * 3) if family == "onevision" else (CLIP_MEAN, CLIP_STD)
    want = hf_rows(model, tiles, mean, std)
    off = {}
    for flash_attn in (False, True):
        context = open_mmproj(path, flash_attn)
        try:
            encoder = TileEncoder(context, n_threads=2)
            assert (encoder.side, encoder.patches_per_side, encoder.n_embd) == (shape.side, grid, shape.d_text)
            got = np.stack([encoder.encode(tile) for tile in tiles])
            check_newline(encoder, model, family)
            assert projector(context) == {"onevision": "llava_onevision", "llava": "mlp"}[family]
        finally:
            mtmd.mtmd_free(context)
        off[flash_attn] = float(np.abs(got - want).max() / np.abs(want).max())
    print(f"{family} {grid}x{grid}: {off[False]:.1e} of the largest value, {off[True]:.1e} with flash attention")
    assert off[False] < 1e-5
    assert off[True] < 3e-3  # it rounds K and V to float16


def check_newline(encoder: TileEncoder, model: Any, family: str) -> None:
    newline = encoder.newline()
    if family == "llava":
        assert newline is None
        return
    assert newline is not None
    assert np.array_equal(newline, model.model.image_newline.detach().numpy())


def test_encoder_refuses_other_tiles(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    checkpoints = pytest.importorskip("checkpoints")
    path, _ = converted(tmp_path, "onevision", checkpoints.Shape(grid=5))
    context = open_mmproj(path)
    try:
        encoder = TileEncoder(context)
        with pytest.raises(UsageError, match="of 1 frames, 20 x 19 pixels; this tower takes one of 20 x 20"):
            encoder.encode(np.zeros((19, 20, 3), np.uint8))
        with pytest.raises(ValueError, match="float32"):
            encoder.encode(np.zeros((20, 20, 3), np.float32))  # type: ignore[arg-type]
    finally:
        mtmd.mtmd_free(context)


def test_null_context_is_an_error() -> None:
    assert not TileEncoder.supports(None)
    with pytest.raises(UsageError, match="context is null"):
        projector(None)
