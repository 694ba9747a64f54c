"""What is written of a tensor comes back, within what its type can hold."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import convert_models  # noqa: E402
from checkpoints import Shape, state_of, write_llava, write_weights  # noqa: E402
from convert_models import FAMILIES, WRITE, model_of, tensors  # noqa: E402

from aim_local.convert import ConvertConfig, ConvertError, convert, types  # noqa: E402

folders = convert_models.folders


TEXT_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
VISION_NAMES = {
    "ln1": "layer_norm1",
    "ln2": "layer_norm2",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_out": "self_attn.out_proj",
    "ffn_up": "mlp.fc1",
    "ffn_down": "mlp.fc2",
}
OTHER_NAMES = {
    "token_embd.weight": "model.language_model.embed_tokens.weight",
    "output_norm.weight": "model.language_model.norm.weight",
    "output.weight": "lm_head.weight",
    "v.patch_embd.weight": "model.vision_tower.embeddings.patch_embedding.weight",
    "v.patch_embd.bias": "model.vision_tower.embeddings.patch_embedding.bias",
    "v.position_embd.weight": "model.vision_tower.embeddings.position_embedding.weight",
    "v.class_embd": "model.vision_tower.embeddings.class_embedding",
    "v.pre_ln.weight": "model.vision_tower.pre_layrnorm.weight",
    "v.pre_ln.bias": "model.vision_tower.pre_layrnorm.bias",
    "mm.0.weight": "model.multi_modal_projector.linear_1.weight",
    "mm.0.bias": "model.multi_modal_projector.linear_1.bias",
    "mm.2.weight": "model.multi_modal_projector.linear_2.weight",
    "mm.2.bias": "model.multi_modal_projector.linear_2.bias",
    "v.image_newline": "model.image_newline",
}


def source_of(name: str) -> str:
    """The name in transformers' state dict of a tensor in our files."""
    if name in OTHER_NAMES:
        return OTHER_NAMES[name]
    *start, il, part, suffix = name.split(".")
    if start == ["v", "blk"]:
        return f"model.vision_tower.encoder.layers.{il}.{VISION_NAMES[part]}.{suffix}"
    return f"model.language_model.layers.{il}.{TEXT_NAMES[part]}.{suffix}"


def pairs_to_halves(x: np.ndarray, head_dim: int) -> np.ndarray:
    """Undo llama.cpp's row order: even rows of a head are its first half, odd rows its second."""
    heads = x.reshape(-1, head_dim, *x.shape[1:])
    return np.concatenate([heads[:, 0::2], heads[:, 1::2]], axis=1).reshape(x.shape)


# share of a tensor's norm that rounding may cost, normal weights
TOLERANCE = {"f32": 0.0, "f16": 5e-4, "bf16": 4e-3, "q8_0": 1e-2, "q5_1": 5e-2, "q5_0": 6e-2, "q4_1": 0.1, "q4_0": 0.12}


@pytest.mark.parametrize("kind", TOLERANCE)
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_come_back(family: str, kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    result = convert(folders[family], tmp_path / "out", ConvertConfig(kind, kind))
    state = {k: v.numpy() for k, v in model_of(family).state_dict().items()}
    seen = set()
    for path in (result.model, result.mmproj):
        for name, t in tensors(path).items():
            got = gguf.quants.dequantize(t.data, t.tensor_type)
            want = state[source_of(name)]
            if family == "llava" and name.split(".")[-2] in ("attn_q", "attn_k") and path == result.model:
                got = pairs_to_halves(got, 16)
            assert got.shape == want.shape, name
            error = float(np.linalg.norm(got - want) / np.linalg.norm(want))
            assert error <= TOLERANCE[kind] * 1.5, f"{name} ({t.tensor_type.name}): {error:.2g}"
            seen.add(source_of(name))
    unread = {k for k in state if k not in seen}
    last = Shape().n_vision
    assert all("post_layernorm" in k or f"vision_tower.encoder.layers.{last}." in k for k in unread), unread


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_source(family: str, tmp_path: Path) -> None:
    src = WRITE[family](tmp_path / "src", model=model_of(family), dtype=torch.bfloat16)
    result = convert(src, tmp_path / "out", ConvertConfig("bf16", "f32"))
    state = model_of(family).state_dict()
    for path in (result.model, result.mmproj):
        for name, t in tensors(path).items():
            got = gguf.quants.dequantize(t.data, t.tensor_type)
            if ".attn_q." not in name and ".attn_k." not in name:
                assert np.array_equal(got, state[source_of(name)].bfloat16().float().numpy()), name


def test_rows_that_are_no_whole_blocks_become_f16_and_are_told(folders: dict[str, Path], tmp_path: Path) -> None:
    """ff_vision is 80, as SigLIP-so400m's 4304 not a multiple of 32."""
    result = convert(folders["llava_onevision"], tmp_path / "out", ConvertConfig("q4_0", "q4_0"))
    found = tensors(result.mmproj)
    assert {n: found[n].tensor_type.name for n in found if n.startswith("v.blk.0.") and n.endswith("weight")} == {
        "v.blk.0.ln1.weight": "F32",
        "v.blk.0.ln2.weight": "F32",
        "v.blk.0.attn_q.weight": "Q4_0",
        "v.blk.0.attn_k.weight": "Q4_0",
        "v.blk.0.attn_v.weight": "Q4_0",
        "v.blk.0.attn_out.weight": "Q4_0",
        "v.blk.0.ffn_up.weight": "Q4_0",
        "v.blk.0.ffn_down.weight": "F16",
    }
    assert found["v.patch_embd.weight"].tensor_type.name == "F16"
    assert found["v.position_embd.weight"].tensor_type.name == "F32"
    assert tensors(result.model)["output.weight"].tensor_type.name == "Q8_0"
    assert any("2 vision tensors are F16 instead of Q4_0: rows of 80" in note for note in result.notes), result.notes
    assert result.types["mmproj"] == {"F16": 3, "F32": 25, "Q4_0": 12}


@given(st.sampled_from(list(types.WEIGHT_TYPES.values())), st.integers(1, 300), st.integers(1, 5000))
def test_a_planned_type_always_fits_its_rows(kind: gguf.GGMLQuantizationType, n_rows: int, n_row: int) -> None:
    for plan, name in ((types.text_type, "blk.0.ffn_down.weight"), (types.vision_type, "v.blk.0.ffn_down.weight")):
        got = plan(name, (n_rows, n_row), kind)
        block, size = gguf.GGML_QUANT_SIZES[got]
        assert n_row % block == 0
        assert types.n_bytes((n_rows, n_row), got) == n_rows * (n_row // block) * size
        assert got == kind or (n_row % 32 != 0 and got == gguf.GGMLQuantizationType.F16)
        assert plan(name, (n_row,), kind) == gguf.GGMLQuantizationType.F32


def test_values_beyond_f16_are_refused(tmp_path: Path) -> None:
    src = write_llava(tmp_path / "src", model=model_of("llava"))
    state = state_of(model_of("llava"), "today")
    state["language_model.model.layers.1.mlp.up_proj.weight"][3, 5] = 70000.0
    write_weights(src, state, 1, torch.float32)
    with pytest.raises(
        ConvertError, match=r"layers\.1\.mlp\.up_proj\.weight has values that f16 cannot hold.*use bf16"
    ):
        convert(src, tmp_path / "out")
    convert(src, tmp_path / "out", ConvertConfig("bf16", "f16"))
