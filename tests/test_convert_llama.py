"""llama.cpp runs what is written: logits and visual tokens against transformers."""

import ctypes
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import convert_models  # noqa: E402
import llama_logits  # noqa: E402
from checkpoints import Shape  # noqa: E402
from convert_models import F32, FAMILIES, MODEL, WRITE, model_of, tensors  # noqa: E402
from llama_logits import last_logits, load  # noqa: E402

from aim_local.convert import convert  # noqa: E402
from aim_local.convert.vision_towers import CLIP  # noqa: E402

folders = convert_models.folders
converted = convert_models.converted
llama = llama_logits.llama


SHAPES = {
    "plain": Shape(),
    "tied": Shape(tied=True, seed=1),
    "no GQA, deeper": Shape(heads_kv=4, n_text=4, grid=5, seed=2),
    "own head_dim": Shape(text={"head_dim": 32}, seed=3),
    "stretched": Shape(text={"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}, seed=4),
    "biased": Shape(text={"attention_bias": True}, seed=5),
}


@pytest.mark.parametrize(
    ("family", "shape"),
    [*itertools.product(FAMILIES, ("plain", "tied", "no GQA, deeper")), *(("llava", s) for s in list(SHAPES)[3:])],
)
def test_text_logits_equal_transformers(family: str, shape: str, llama: Any, tmp_path: Path) -> None:
    model = MODEL[family](SHAPES[shape])
    src = WRITE[family](tmp_path / "src", SHAPES[shape], model=model)
    result = convert(src, tmp_path / "out", F32)
    assert ("output.weight" in tensors(result.model)) != SHAPES[shape].tied
    ids = [5, 100, 30, 250, 77, 8, 9, 12, 300]
    with torch.no_grad():
        want = model(input_ids=torch.tensor([ids])).logits[0, -1].numpy()
    got = last_logits(llama, result.model, ids)
    assert got.shape == want.shape
    difference = float(np.abs(got - want).max() / np.abs(want).max())
    assert difference < 1e-3, f"max difference {difference:.2g} of the largest logit"


def test_vision_features_equal_transformers(llama: Any, converted: dict[str, Path]) -> None:
    """LLaVA-1.5's mmproj in stock mtmd: the right number of layers, no norm after, class token dropped."""
    try:
        from aim_local.native.library import mtmd
    except Exception as e:
        pytest.skip(f"no libmtmd: {e}")
    shape, folder = Shape(), converted["llava"]
    picture = np.random.default_rng(0).integers(0, 256, (shape.side, shape.side, 3), dtype=np.uint8)
    text_model = load(llama, folder / "model.gguf")
    params = mtmd.mtmd_context_params_default()
    params.use_gpu, params.n_threads, params.warmup = False, 1, False
    context = mtmd.mtmd_init_from_file(str(folder / "mmproj.gguf").encode(), text_model, params)
    assert context
    bitmap = mtmd.mtmd_bitmap_init(shape.side, shape.side, picture.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
    chunks = mtmd.mtmd_input_chunks_init()
    marker = mtmd.mtmd_default_marker()
    text = mtmd.mtmd_input_text(text=marker, text_len=len(marker), add_special=False, parse_special=True)
    bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
    assert mtmd.mtmd_tokenize(context, chunks, ctypes.byref(text), bitmaps, 1) == 0
    all_chunks = [mtmd.mtmd_input_chunks_get(chunks, i) for i in range(mtmd.mtmd_input_chunks_size(chunks))]
    chunk = next(c for c in all_chunks if mtmd.mtmd_input_chunk_get_n_tokens(c) == shape.grid**2)
    assert mtmd.mtmd_encode_chunk(context, chunk) == 0
    got = np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(context), shape=(shape.grid**2, shape.d_text)).copy()
    mtmd.mtmd_free(context)
    llama.lib.llama_model_free(text_model)

    mean, std = CLIP.mean, CLIP.std
    pixels = torch.tensor((picture / 255.0 - mean) / std, dtype=torch.float32).permute(2, 0, 1)[None]  # [1, 3, H, W]
    with torch.no_grad():
        wants = [
            model_of("llava").get_image_features(pixel_values=pixels).pooler_output[0],
            class_last(model_of("llava"), pixels),
        ]
    differences = [float((torch.tensor(got) - want).abs().max() / want.abs().max()) for want in wants]
    assert min(differences) < 5e-3, f"max differences {differences}; upstream's projector has the tanh form of gelu"


def class_last(model: Any, pixels: Any) -> Any:
    """The features as stock mtmd computes them, float32 [n_patches, d_text].

    It appends the class token, and then drops the first row as if that were it (pinned version: models/llava.cpp, and
    the input "patches" in clip.cpp).
    """
    tower = model.model.vision_tower
    rows = tower.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)  # [1, n_patches, d_vision]
    rows = torch.cat([rows, tower.embeddings.class_embedding[None, None]], dim=1)  # [1, n_patches + 1, d_vision]
    rows = tower.pre_layrnorm(rows + tower.embeddings.position_embedding.weight)
    for layer in tower.encoder.layers[:-1]:
        rows = layer(rows, attention_mask=None)
    return model.model.multi_modal_projector(rows[:, 1:])[0]
