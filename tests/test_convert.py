"""The converter against transformers and llama.cpp: names, types, tokenizer, pictures, errors, faults.

AIM_LLAMA_TREE names an unpacked llama.cpp of the pinned version; with it the text tower is also compared with what
upstream's own converter writes.
"""

import ctypes
import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import jinja2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from checkpoints import (  # noqa: E402
    LLAVA_TEMPLATE,
    ONEVISION_TEMPLATE,
    SCHEMES,
    Shape,
    llama_tokenizer,
    llava_model,
    onevision_model,
    state_of,
    write_json,
    write_llava,
    write_onevision,
    write_sentencepiece,
    write_tower,
    write_weights,
)

from aim_local.convert import (  # noqa: E402
    ConvertConfig,
    ConvertError,
    convert,
    defaults,
    pipeline,
    quantize,
    quantize_worker,
    staging,
    templates,
    types,
)
from aim_local.convert.checkpoint import Checkpoint  # noqa: E402
from aim_local.convert.names import sanitize  # noqa: E402
from aim_local.convert.spec import read_spec  # noqa: E402

FAMILIES = ("llava_onevision", "llava")
WRITE: dict[str, Callable[..., Path]] = {"llava_onevision": write_onevision, "llava": write_llava}
F32 = ConvertConfig("f32", "f32", name="tiny")


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {"llava_onevision": onevision_model(Shape()), "llava": llava_model(Shape())}


@pytest.fixture(scope="module")
def folders(models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One checkpoint per family, as today's transformers names it."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {f: WRITE[f](root / f, model=models[f]) for f in FAMILIES}


@pytest.fixture(scope="module")
def converted(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("converted")
    return {f: convert(folders[f], root / f, F32).folder for f in FAMILIES}


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def keys(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def tensors(path: Path) -> dict[str, Any]:
    return {t.name: t for t in gguf.GGUFReader(path).tensors}


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_naming_scheme_gives_the_same_files(
    family: str, scheme: str, models: dict[str, Any], converted: dict[str, Path], tmp_path: Path
) -> None:
    src = WRITE[family](tmp_path / "src", scheme=scheme, model=models[family], shards=2)
    tower = None
    if scheme == "original":
        tower = write_tower(tmp_path / "tower", model=models[family], kind="clip" if family == "llava" else "siglip")
    config = ConvertConfig("f32", "f32", vision_tower=tower, name="tiny")
    result = convert(src, tmp_path / "out", config)
    assert content(result.folder) == content(converted[family])


@pytest.mark.parametrize("family", FAMILIES)
def test_todays_scheme_is_what_transformers_saves(family: str, models: dict[str, Any], tmp_path: Path) -> None:
    from safetensors import safe_open

    models[family].save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(state_of(models[family], "today"))


def test_pytorch_shards_are_read_too(models: dict[str, Any], converted: dict[str, Path], tmp_path: Path) -> None:
    """The original LLaVA-1.5 files are pickles."""
    src = write_llava(tmp_path / "src", scheme="original", model=models["llava"], shards=3, torch_file=True)
    tower = write_tower(tmp_path / "tower", model=models["llava"])
    result = convert(src, tmp_path / "out", ConvertConfig("f32", "f32", vision_tower=tower, name="tiny"))
    assert content(result.folder) == content(converted["llava"])


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("model.language_model.norm.weight", "text.norm.weight"),
        ("model.norm.weight", "text.norm.weight"),
        ("language_model.lm_head.weight", "text.lm_head.weight"),
        ("model.vision_tower.vision_tower.vision_model.post_layernorm.bias", "vision.post_layernorm.bias"),
        ("model.mm_projector.2.bias", "projector.2.bias"),
        ("multi_modal_projector.linear_1.weight", "projector.0.weight"),
        ("model.image_newline", "newline"),
        ("model.faster_token", "model.faster_token"),
    ],
)
def test_sanitize(name: str, ours: str) -> None:
    assert sanitize(name) == ours


# --- weights --------------------------------------------------------------------------------------------------------

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
def test_weights_come_back(
    family: str, kind: str, models: dict[str, Any], folders: dict[str, Path], tmp_path: Path
) -> None:
    result = convert(folders[family], tmp_path / "out", ConvertConfig(kind, kind))
    state = {k: v.numpy() for k, v in models[family].state_dict().items()}
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
def test_bfloat16_source(family: str, models: dict[str, Any], tmp_path: Path) -> None:
    src = WRITE[family](tmp_path / "src", model=models[family], dtype=torch.bfloat16)
    result = convert(src, tmp_path / "out", ConvertConfig("bf16", "f32"))
    state = models[family].state_dict()
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


def test_values_beyond_f16_are_refused(models: dict[str, Any], tmp_path: Path) -> None:
    src = write_llava(tmp_path / "src", model=models["llava"])
    state = state_of(models["llava"], "today")
    state["language_model.model.layers.1.mlp.up_proj.weight"][3, 5] = 70000.0
    write_weights(src, state, 1, torch.float32)
    with pytest.raises(
        ConvertError, match=r"layers\.1\.mlp\.up_proj\.weight has values that f16 cannot hold.*use bf16"
    ):
        convert(src, tmp_path / "out")
    convert(src, tmp_path / "out", ConvertConfig("bf16", "f16"))


# --- llama.cpp runs it ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama() -> Any:
    """llama_cpp's C functions on the configured library, without its log."""
    try:
        lib = quantize_worker.bindings()
    except Exception as e:  # no library is a matter of the set-up, whatever it is called
        pytest.skip(f"no libllama: {e}")
    from aim_local.native import log as _logs

    _logs.clear()  # llama.cpp's log goes there, and not to the terminal
    lib.llama_backend_init()
    return SimpleNamespace(lib=lib)


def load(llama: Any, path: Path) -> Any:
    params = llama.lib.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama.lib.llama_model_load_from_file(str(path).encode(), params)
    assert model, f"llama.cpp does not load {path}"
    return model


def last_logits(llama: Any, path: Path, ids: list[int]) -> np.ndarray:
    """Logits after `ids`, float32 [n_vocab]."""
    lib, model = llama.lib, load(llama, path)
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = 64, 1, 1
    params.type_k = params.type_v = 0  # f32
    params.flash_attn_type = 0
    context = lib.llama_init_from_model(model, params)
    tokens = (ctypes.c_int32 * len(ids))(*ids)
    assert lib.llama_decode(context, lib.llama_batch_get_one(tokens, len(ids))) == 0
    n_vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    logits = np.ctypeslib.as_array(lib.llama_get_logits(context), shape=(n_vocab,)).copy()
    lib.llama_free(context)
    lib.llama_model_free(model)
    return logits


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
    build = onevision_model if family == "llava_onevision" else llava_model
    model = build(SHAPES[shape])
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


PROMPTS = {
    "llava_onevision": "<|im_start|>user <video>\nHow many? It's 12:30 \u00e9\u4f60<|im_end|><|im_start|>assistant\n",
    "llava": "USER: <image>\nHow many red  shapes \u00e9\u4f60, isn't it? ASSISTANT: two</s>USER: and",
}


def tokenize(llama: Any, path: Path, text: str) -> list[int]:
    lib, model = llama.lib, load(llama, path)
    raw, room = text.encode(), (ctypes.c_int32 * 500)()
    n = lib.llama_tokenize(lib.llama_model_get_vocab(model), raw, len(raw), room, 500, True, True)
    lib.llama_model_free(model)
    return list(room[:n])


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_equal_transformers(
    family: str, llama: Any, folders: dict[str, Path], converted: dict[str, Path]
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folders[family])
    want = tokenizer(PROMPTS[family]).input_ids
    assert tokenize(llama, converted[family] / "model.gguf", PROMPTS[family]) == want


def test_tokens_from_a_sentencepiece_model(llama: Any, models: dict[str, Any], tmp_path: Path) -> None:
    """tokenizer.model alone, as in the original LLaVA-1.5 files."""
    src = write_llava(tmp_path / "src", model=models["llava"], sentencepiece=True)
    (src / "tokenizer.json").unlink()
    n = len(json.loads(llama_tokenizer().to_str())["model"]["vocab"])
    write_json(src / "added_tokens.json", {"<image>": n, "<pad>": n + 1})
    config = json.loads((src / "tokenizer_config.json").read_text())
    decoder = {str(n): {"content": "<image>", "special": True}}
    write_json(src / "tokenizer_config.json", {**config, "added_tokens_decoder": decoder})
    result = convert(src, tmp_path / "out")
    want = llama_tokenizer().encode(PROMPTS["llava"]).ids
    assert tokenize(llama, result.model, PROMPTS["llava"]) == want
    found = keys(result.model)
    assert (found["tokenizer.ggml.bos_token_id"], found["tokenizer.ggml.eos_token_id"]) == (1, 2)
    assert found["tokenizer.ggml.token_type"][: n + 3][-3:] == [3, 3, 5]  # control, control, unused


def test_vision_features_equal_transformers(llama: Any, models: dict[str, Any], converted: dict[str, Path]) -> None:
    """LLaVA-1.5's mmproj in stock mtmd: the right number of layers, no norm after, class token dropped."""
    try:
        import llama_cpp.mtmd_cpp as mtmd
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

    mean, std = defaults.PROCESSOR_NUMBERS["clip"]
    pixels = torch.tensor((picture / 255.0 - mean) / std, dtype=torch.float32).permute(2, 0, 1)[None]  # [1, 3, H, W]
    with torch.no_grad():
        wants = [
            models["llava"].get_image_features(pixel_values=pixels).pooler_output[0],
            class_last(models["llava"], pixels),
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


@pytest.mark.parametrize("family", FAMILIES)
def test_upstreams_converter_writes_the_same_text_tower(
    family: str, folders: dict[str, Path], converted: dict[str, Path], tmp_path: Path
) -> None:
    tree = os.environ.get("AIM_LLAMA_TREE")
    if not tree:
        pytest.skip("AIM_LLAMA_TREE names no llama.cpp tree")
    cls = {"llava_onevision": "qwen.Qwen2Model", "llava": "llama.LlamaModel"}[family]
    module, name = cls.split(".")
    # the converter knows text-only checkpoints of these classes: give it one, under a pre-tokenizer it has no hash for
    src = tmp_path / "text"
    shutil.copytree(folders[family], src)
    config = json.loads((src / "config.json").read_text())
    text_class = {"llava_onevision": "Qwen2ForCausalLM", "llava": "LlamaForCausalLM"}[family]
    write_json(src / "config.json", {**config["text_config"], "architectures": [text_class]})
    from safetensors.torch import load_file

    state = load_file(src / "model.safetensors")
    text = {k.removeprefix("language_model."): v for k, v in state.items() if k.startswith("language_model.")}
    write_weights(src, text, 1, torch.float32)
    script = f"""
import sys, types
sys.path[:0] = [{tree!r}, {tree + "/gguf-py"!r}]
from pathlib import Path
from conversion.base import TextModel
from conversion.{module} import {name} as Model
import gguf
# it looks for a tokenizer.model first, and needs sentencepiece to find none
sys.modules["sentencepiece"] = types.SimpleNamespace(SentencePieceProcessor=object)
TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
Model(Path({str(src)!r}), gguf.LlamaFileType.ALL_F32, Path({str(tmp_path / "theirs.gguf")!r})).write()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    ours, theirs = tensors(converted[family] / "model.gguf"), tensors(tmp_path / "theirs.gguf")
    assert {n: t.data.tobytes() for n, t in ours.items()} == {n: t.data.tobytes() for n, t in theirs.items()}
    our_keys, their_keys = keys(converted[family] / "model.gguf"), keys(tmp_path / "theirs.gguf")
    # upstream gives every piece of a tokenizer.json one score; ours carry the order of the merges
    ignored = ("general.", "GGUF.", "tokenizer.chat_template", "tokenizer.ggml.scores", "tokenizer.ggml.add_")
    differing: dict[str, tuple[Any, Any]] = {
        k: (our_keys.get(k), v) for k, v in their_keys.items() if not k.startswith(ignored) and our_keys.get(k) != v
    }
    if family == "llava":  # upstream pads nothing here, and takes <unk> for control and <image> for ordinary text
        mine, other = differing.pop("tokenizer.ggml.tokens")
        assert mine[: len(other)] == other
        mine, other = differing.pop("tokenizer.ggml.token_type")
        assert [i for i, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b] == [0, len(other) - 2]
    for key in ("llama.attention.key_length", "llama.attention.value_length"):  # the default said aloud
        differing.pop(key, None)
    assert not differing


# --- keys -----------------------------------------------------------------------------------------------------------


def test_onevision_keys(converted: dict[str, Path]) -> None:
    found = keys(converted["llava_onevision"] / "mmproj.gguf")
    side = Shape().side
    want = {
        "general.architecture": "clip",
        "general.name": "tiny",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "llava_onevision",
        "clip.use_gelu": True,
        "clip.use_silu": False,
        "clip.vision.image_size": side,
        "clip.vision.patch_size": 4,
        "clip.vision.embedding_length": 32,
        "clip.vision.feed_forward_length": 80,
        "clip.vision.projection_dim": 64,
        "clip.vision.block_count": 2,
        "clip.vision.attention.head_count": 2,
        "clip.vision.attention.layer_norm_epsilon": pytest.approx(1e-6),
        "clip.vision.image_mean": [0.5, 0.5, 0.5],
        "clip.vision.image_std": [0.5, 0.5, 0.5],
        "clip.vision.mm_patch_merge_type": "spatial_unpad",
        "clip.vision.image_grid_pinpoints": [side * n for h in (1, 2, 3) for w in (1, 2, 3) for n in (w, h)],
        "aim.vision.max_tiles": 9,
        "aim.vision.resample": 3,
        "aim.video.resample": 3,
        "aim.video.n_frames": 8,
        "aim.preprocess": "onevision",
        "aim.image_token": "<image>",
        "aim.video_token": "<video>",
    }
    assert {k: found.get(k) for k in want} == want
    assert not any(n.startswith("v.post_ln") for n in tensors(converted["llava_onevision"] / "mmproj.gguf"))


def test_llava_keys(converted: dict[str, Path]) -> None:
    found = keys(converted["llava"] / "mmproj.gguf")
    side = Shape().side
    want = {
        "clip.projector_type": "mlp",
        "clip.use_gelu": False,
        "clip.use_silu": False,
        "clip.vision.block_count": 2,
        "clip.vision.feature_layer": [2],
        "aim.preprocess": "clip-center-crop",
        "aim.vision.shortest_edge": side,
        "aim.vision.crop_size": side,
        "aim.vision.do_center_crop": True,
        "aim.vision.do_pad": False,
        "aim.vision.resample": 3,
        "aim.video.n_frames": 32,
        "aim.image_token": "<image>",
    }
    assert {k: found.get(k) for k in want} == want
    assert "aim.video_token" not in found
    assert found["clip.vision.image_mean"] == pytest.approx([0.48145466, 0.4578275, 0.40821073])


def test_embedding_table_longer_than_the_tokenizer(converted: dict[str, Path], models: dict[str, Any]) -> None:
    for family in FAMILIES:
        found = keys(converted[family] / "model.gguf")
        n = models[family].config.text_config.vocab_size
        tokens, kinds = found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"]
        assert len(tokens) == len(kinds) == n
        assert tokens[-40:] == [f"[PAD{i}]" for i in range(n - 40, n)]
        assert kinds[-41:] == [3, *[5] * 40]  # the last added token is control, padding is unused


def test_embedding_table_longer_than_the_config_says(models: dict[str, Any], tmp_path: Path) -> None:
    src = write_llava(tmp_path / "src", model=models["llava"])
    config = json.loads((src / "config.json").read_text())
    rows = config["text_config"]["vocab_size"]
    config["text_config"]["vocab_size"] -= 30
    write_json(src / "config.json", config)
    assert keys(convert(src, tmp_path / "out").model)["llama.vocab_size"] == rows


def test_a_config_that_says_tied_beside_another_output_table(models: dict[str, Any], tmp_path: Path) -> None:
    src = write_onevision(tmp_path / "src", model=models["llava_onevision"])
    config = json.loads((src / "config.json").read_text())
    write_json(src / "config.json", {**config, "tie_word_embeddings": True})
    assert "output.weight" in tensors(convert(src, tmp_path / "out").model)


def test_sparse_config_gets_the_class_defaults() -> None:
    """llava-hf/llava-1.5-7b-hf's config.json leaves out whatever is LLaMA's default."""
    from transformers import CLIPVisionConfig, LlamaConfig, Qwen2Config, SiglipVisionConfig

    classes = {"qwen2": Qwen2Config, "llama": LlamaConfig}
    vision = {"siglip_vision_model": SiglipVisionConfig, "clip_vision_model": CLIPVisionConfig}
    for table, configs in ((defaults.TEXT_DEFAULTS, classes), (defaults.VISION_DEFAULTS, vision)):
        for name, ours in table.items():
            theirs = configs[name]().to_dict()
            # LLaMA's None means "as many as attention heads"
            ours = {k: theirs["num_attention_heads"] if v is None else v for k, v in ours.items()}
            assert {k: theirs[k] for k in ours} == ours
    assert Qwen2Config().rope_parameters["rope_theta"] == defaults.ROPE_THETA


QWEN2_05B = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
}
ONEVISION_05B_ORIGINAL = QWEN2_05B | {
    "architectures": ["LlavaQwenForCausalLM"],
    "model_type": "llava",
    "image_aspect_ratio": "anyres_max_9",
    "image_grid_pinpoints": "(1x1),...,(6x6)",
    "mm_patch_merge_type": "spatial_unpad",
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "google/siglip-so400m-patch14-384",
}
ONEVISION_05B = {
    "architectures": ["LlavaOnevisionForConditionalGeneration"],
    "text_config": QWEN2_05B | {"model_type": "qwen2", "vocab_size": 152000},
    "tie_word_embeddings": False,
    "vision_config": defaults.KNOWN_TOWERS["siglip-so400m-patch14-384"] | {"num_hidden_layers": 26},
    "vision_feature_layer": -1,
}
LLAVA_7B = {
    "architectures": ["LlavaForConditionalGeneration"],
    "model_type": "llava",
    "text_config": {"model_type": "llama", "max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "vocab_size": 32064},
    "vision_config": defaults.KNOWN_TOWERS["clip-vit-large-patch14-336"] | {"projection_dim": 768},
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
}


@pytest.mark.parametrize(
    ("config", "layers", "patches", "head_dim", "tied", "tiles"),
    [
        (ONEVISION_05B, (24, 26), 729, 64, True, 36),
        (ONEVISION_05B_ORIGINAL, (24, 26), 729, 64, True, 36),
        (LLAVA_7B, (32, 23), 576, 128, False, 0),
    ],
)
def test_the_published_configs(
    config: dict[str, Any], layers: tuple[int, int], patches: int, head_dim: int, tied: bool, tiles: int, tmp_path: Path
) -> None:
    """What the published checkpoints say of themselves, sparse as they are."""
    spec = read_spec(Checkpoint(tmp_path, config, {}), None)
    assert (spec.text.n_layer, spec.vision.n_layer) == layers
    assert (spec.vision.n_patches, spec.text.head_dim, spec.text.tied) == (patches, head_dim, tied)
    assert len(spec.preprocess.pinpoints) == tiles
    assert spec.preprocess.n_frames == 32
    assert spec.preprocess.mean == defaults.PROCESSOR_NUMBERS[spec.vision.kind][0]


@pytest.mark.parametrize("listed", ["(1x1),...,(3x3)", [[24 * w, 24 * h] for w in (1, 2, 3) for h in (1, 2, 3)]])
def test_pinpoints_of_the_original_code_are_width_first(listed: Any) -> None:
    from aim_local.convert.preprocess import read_pinpoints

    got = read_pinpoints({"image_grid_pinpoints": listed}, 24, original=True)
    assert got[:4] == ((24, 24), (48, 24), (72, 24), (24, 48))
    assert len(got) == 9


# --- chat templates -------------------------------------------------------------------------------------------------


def render(template: str, messages: list[dict[str, Any]]) -> str:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # as transformers renders
    return str(environment.from_string(template).render(messages=messages, add_generation_prompt=True))


def test_the_checkpoints_template_is_stored_as_it_is(converted: dict[str, Path]) -> None:
    assert keys(converted["llava_onevision"] / "model.gguf")["tokenizer.chat_template"] == ONEVISION_TEMPLATE
    assert keys(converted["llava"] / "model.gguf")["tokenizer.chat_template"] == LLAVA_TEMPLATE


def test_a_text_only_template_gives_way_to_the_familys(models: dict[str, Any], tmp_path: Path) -> None:
    for family, default in (("llava_onevision", templates.CHATML), ("llava", templates.VICUNA)):
        src = WRITE[family](tmp_path / family, model=models[family])
        (src / "chat_template.jinja").unlink()
        config = json.loads((src / "tokenizer_config.json").read_text())
        write_json(src / "tokenizer_config.json", {**config, "chat_template": "{{ messages[0]['content'] }}"})
        result = convert(src, tmp_path / f"{family}-out")
        assert keys(result.model)["tokenizer.chat_template"] == default
        assert any("chat template" in note for note in result.notes)


def test_the_familys_templates_write_the_authors_prompts() -> None:
    question = [{"type": "video"}, {"type": "text", "text": "What is it?"}]
    talk: list[dict[str, Any]] = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "Sure?"},
    ]
    assert render(templates.CHATML, talk) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<video>\nWhat is it?<|im_end|>\n"
        "<|im_start|>assistant\nA cat.<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n"
    )
    question[0]["type"] = "image"
    assert render(templates.VICUNA, talk) == (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions. "
        "USER: <image>\nWhat is it? ASSISTANT: A cat.</s>USER: Sure? ASSISTANT:"
    )


# --- bad checkpoints ------------------------------------------------------------------------------------------------


def edit_config(src: Path, **changes: Any) -> None:
    write_json(src / "config.json", {**json.loads((src / "config.json").read_text()), **changes})


def drop_tensors(src: Path, models: dict[str, Any], part: str) -> None:
    state = {k: v for k, v in state_of(models["llava_onevision"], "today").items() if part not in k}
    write_weights(src, state, 1, torch.float32)


def cut_short(src: Path) -> None:
    path = src / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def shard_and_lose_one(src: Path, models: dict[str, Any]) -> None:
    (src / "model.safetensors").unlink()
    write_weights(src, state_of(models["llava_onevision"], "today"), 3, torch.float32)
    (src / "model-00002-of-00003.safetensors").unlink()


def resize(src: Path, models: dict[str, Any]) -> None:
    state = state_of(models["llava_onevision"], "today")
    for il in range(2):
        name = f"language_model.model.layers.{il}.mlp.up_proj.weight"
        state[name] = state[name][:-1].contiguous()
    write_weights(src, state, 1, torch.float32)


def add_tensor(src: Path, models: dict[str, Any]) -> None:
    write_weights(
        src, state_of(models["llava_onevision"], "today") | {"model.faster_token": torch.ones(4)}, 1, torch.float32
    )


def pack(src: Path, models: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    state = state_of(models["llava_onevision"], "today")
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    save_file(state | {name: state[name].to(torch.int8)}, src / "model.safetensors")


FAULTS: dict[str, tuple[Callable[[Path, dict[str, Any]], Any], str]] = {
    "no config": (lambda s, m: (s / "config.json").unlink(), "is not a checkpoint folder: it has no config.json"),
    "broken config": (lambda s, m: (s / "config.json").write_text("{"), r"config\.json cannot be read as JSON"),
    "no weights": (
        lambda s, m: (s / "model.safetensors").unlink(),
        "has a config.json but no weights; expected one of",
    ),
    "no shard": (shard_and_lose_one, r"lacks 1 of 3 weight shards \(model-00002-of-00003\.safetensors\)"),
    "cut short": (lambda s, m: cut_short(s), r"is cut short \(\d+ of \d+ bytes\); download it again"),
    "LFS pointer": (
        lambda s, m: (s / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "not a safetensors file",
    ),
    "missing": (
        lambda s, m: drop_tensors(s, m, "down_proj"),
        r"lacks 3 of 39 tensors \(text\.layers\.0\.mlp\.down_proj",
    ),
    "no newline": (lambda s, m: drop_tensors(s, m, "newline"), r"lacks 1 of 40 tensors \(newline\)"),
    "no tower": (lambda s, m: drop_tensors(s, m, "vision_tower"), "does not carry its vision tower.*--vision-tower"),
    "misshapen": (
        resize,
        r"2 tensors have another shape than config\.json says \(.*up_proj\.weight is \[127, 64\], not \[128",
    ),
    "unknown tensor": (add_tensor, r"1 tensors that a llava_onevision model does not know \(model\.faster_token\)"),
    "packed": (pack, r"1 tensors are not plain numbers \(.* is I8\).*convert the unquantised checkpoint"),
    "architecture": (
        lambda s, m: edit_config(s, architectures=["Qwen2VLForConditionalGeneration"]),
        "architecture Qwen2VLForConditionalGeneration is not supported; supported are LLaVA-OneVision",
    ),
    "language tower": (
        lambda s, m: edit_config(s, text_config={"model_type": "gemma2"}),
        "llava_onevision with a gemma2 language tower is not supported",
    ),
    "several layers": (lambda s, m: edit_config(s, vision_feature_layer=[-2, -1]), "several vision layers"),
    "layer": (lambda s, m: edit_config(s, vision_feature_layer=-7), "selects vision layer -7 of a tower with 2 layers"),
    "no tokenizer": (lambda s, m: (s / "tokenizer.json").unlink(), "has no tokenizer"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_checkpoint_is_one_clear_line(
    fault: str, models: dict[str, Any], folders: dict[str, Path], tmp_path: Path
) -> None:
    src = tmp_path / "src"
    shutil.copytree(folders["llava_onevision"], src)
    damage, line = FAULTS[fault]
    damage(src, models)
    with pytest.raises(ConvertError, match=line) as caught:
        convert(src, tmp_path / "deep" / "out")
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["src"]


def test_sources_that_are_no_folder(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match=r"does not exist; name a checkpoint folder .*hf download"):
        convert("llava-hf/llava-1.5-7b-hf", tmp_path / "out")
    with pytest.raises(ConvertError, match="is a file; a checkpoint is a folder"):
        convert(folders["llava"] / "model.safetensors", tmp_path / "out")


def test_original_llava_without_its_tower_says_so(models: dict[str, Any], tmp_path: Path) -> None:
    src = write_llava(tmp_path / "src", scheme="original", model=models["llava"])
    line = r"does not carry its vision tower \(openai/clip-vit-large-patch14-336\); download that .*--vision-tower"
    with pytest.raises(ConvertError, match=line):
        convert(src, tmp_path / "out")
    wrong = write_onevision(tmp_path / "wrong", model=onevision_model(Shape()))
    with pytest.raises(ConvertError, match="siglip_vision_model vision tower is not supported"):
        convert(src, tmp_path / "out", ConvertConfig(vision_tower=wrong))


def test_unknown_types_are_refused_at_construction() -> None:
    with pytest.raises(ConvertError, match=r"text type 'q4_k_m' is not a type .*aim-local quantize"):
        ConvertConfig(text_type="q4_k_m")
    with pytest.raises(
        ConvertError, match=r"vision type 'int8' is not a type this converter writes; it writes f32, f16"
    ):
        ConvertConfig(vision_type="int8")


def test_processor_that_does_not_fit_the_tower(models: dict[str, Any], tmp_path: Path) -> None:
    src = write_llava(tmp_path / "src", model=models["llava"], scheme="llava-hf")
    processor = json.loads((src / "preprocessor_config.json").read_text())
    write_json(src / "preprocessor_config.json", {**processor, "crop_size": 32})
    with pytest.raises(ConvertError, match="makes pictures of 32 pixels, the vision tower takes 24"):
        convert(src, tmp_path / "out")


# --- bad outputs ----------------------------------------------------------------------------------------------------


class After:
    """A progress callback that raises once `share` of the work is done."""

    def __init__(self, error: BaseException, share: float = 0.5) -> None:
        self.error, self.share = error, share

    def __call__(self, done: int, total: int, name: str) -> None:
        if done >= self.share * total:
            raise self.error


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_interrupted_conversion_leaves_nothing(share: float, folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        convert(folders["llava"], tmp_path / "a" / "b" / "out", progress=After(KeyboardInterrupt(), share))
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_nothing_and_says_so(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match=r"the disk filled up while writing .*out; nothing was left behind"):
        convert(folders["llava"], tmp_path / "out", progress=After(OSError(errno.ENOSPC, "No space left on device")))
    assert list(tmp_path.iterdir()) == []


def test_too_small_a_disk_is_noticed_before(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(
        ConvertError, match=r"out needs 0\.\d MiB and the disk has 0\.0 MiB free; free some space or name"
    ):
        convert(folders["llava"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_output(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(staging.tempfile, "mkdtemp", refuse)
    with pytest.raises(
        ConvertError, match=r"out cannot be written \(Permission denied\); name a folder you may write to"
    ):
        convert(folders["llava"], tmp_path / "x" / "out")
    assert list(tmp_path.iterdir()) == []


def test_output_below_a_file(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConvertError, match="cannot be written"):
        convert(folders["llava"], tmp_path / "file" / "out")
    with pytest.raises(ConvertError, match="exists and is not a folder"):
        convert(folders["llava"], tmp_path / "file")


def test_earlier_conversion_is_replaced_whole_or_kept(folders: dict[str, Path], tmp_path: Path) -> None:
    first = content(convert(folders["llava"], tmp_path / "out").folder)
    with pytest.raises(KeyboardInterrupt):
        convert(folders["llava_onevision"], tmp_path / "out", progress=After(KeyboardInterrupt()))
    assert content(tmp_path / "out") == first
    convert(folders["llava_onevision"], tmp_path / "out")
    assert json.loads((tmp_path / "out" / "aim.json").read_text())["architecture"] == "llava_onevision"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_foreign_files_are_not_overwritten(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "diary.txt").touch()
    with pytest.raises(ConvertError, match=r"holds other files \(diary\.txt\); name a new or empty folder"):
        convert(folders["llava"], tmp_path / "out")
    with pytest.raises(ConvertError, match="holds other files"):
        convert(folders["llava"], folders["llava"])


def test_progress_and_manifest(folders: dict[str, Path], tmp_path: Path) -> None:
    import hashlib

    calls: list[tuple[int, int, str]] = []
    result = convert(folders["llava"], tmp_path / "out", F32, progress=lambda *a: calls.append(a))
    assert [c[0] for c in calls] == sorted(c[0] for c in calls)
    assert calls[-1][0] == calls[-1][1]
    manifest = json.loads((tmp_path / "out" / "aim.json").read_text())
    assert manifest["format"] == pipeline.FORMAT
    for key, path in (("model", result.model), ("mmproj", result.mmproj)):
        entry = manifest["files"][key]
        assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (entry["path"], entry["bytes"]) == (path.name, path.stat().st_size)
        assert entry["tensors"] == result.tensors[key] == len(tensors(path))
    assert str(folders["llava"]) not in (tmp_path / "out" / "aim.json").read_text()


# --- quantize -------------------------------------------------------------------------------------------------------


def test_quantize_a_file(llama: Any, converted: dict[str, Path], models: dict[str, Any], tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    source = converted["llava_onevision"] / "model.gguf"
    result = quantize(source, tmp_path / "small.gguf", "q4_k", progress=lambda *a: calls.append(a), threads=1)
    assert result.type == "q4_k_m"
    assert calls[-1][0] == calls[-1][1] == len(tensors(source))
    assert result.n_bytes < result.n_bytes_before / 3
    assert "F32" in result.types
    assert len(result.types) > 1
    assert np.isfinite(last_logits(llama, result.path, [5, 100, 30])).all()
    assert [p.name for p in tmp_path.iterdir()] == ["small.gguf"]


def test_quantize_a_model_folder(llama: Any, converted: dict[str, Path], tmp_path: Path) -> None:
    result = quantize(converted["llava"], tmp_path / "out", "q8_0", threads=1)
    manifest = json.loads((result.path / "aim.json").read_text())
    assert manifest["files"]["model"]["type"] == "q8_0"
    assert manifest["files"]["model"]["bytes"] == result.model.stat().st_size == result.n_bytes
    assert (result.path / "mmproj.gguf").read_bytes() == (converted["llava"] / "mmproj.gguf").read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    with pytest.raises(ConvertError, match=r"is quantised already \(Q8_0\); quantise from an f16 file"):
        quantize(result.path, tmp_path / "again", "q4_k_m")


def test_quantize_interrupted_leaves_nothing(llama: Any, converted: dict[str, Path], tmp_path: Path) -> None:
    for source in (converted["llava"], converted["llava"] / "model.gguf"):
        with pytest.raises(KeyboardInterrupt):
            quantize(source, tmp_path / "out", "q8_0", progress=After(KeyboardInterrupt()), threads=1)
        assert list(tmp_path.iterdir()) == []


def test_quantize_refuses_in_one_line(converted: dict[str, Path], tmp_path: Path) -> None:
    folder = converted["llava"]
    (tmp_path / "text.txt").write_text("not a model")
    (tmp_path / "half").mkdir()
    shutil.copyfile(folder / "model.gguf", tmp_path / "half" / "model.gguf")
    cases: list[tuple[Path, Path, str, str]] = [
        (
            folder / "mmproj.gguf",
            tmp_path / "o",
            "q4_k_m",
            r"is an mmproj .*convert the checkpoint again with --vision-type",
        ),
        (folder / "model.gguf", tmp_path / "o", "q9", r"type 'q9' is unknown; allowed are q2_k, "),
        (folder / "model.gguf", folder / "model.gguf", "q4_k_m", "is the source itself"),
        (tmp_path / "none.gguf", tmp_path / "o", "q4_k_m", "does not exist; name a language GGUF or a folder"),
        (tmp_path / "text.txt", tmp_path / "o", "q4_k_m", "is not a readable GGUF"),
        (
            tmp_path / "half",
            tmp_path / "o",
            "q4_k_m",
            r"is not a folder that .* it lacks mmproj\.gguf and aim\.json",
        ),
    ]
    for source, out, kind, line in cases:
        with pytest.raises(ConvertError, match=line) as caught:
            quantize(source, out, kind)
        assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["half", "text.txt"]


def test_sentencepiece_file_is_read_as_it_is_written(tmp_path: Path) -> None:
    from aim_local.convert.vocab import read_sentencepiece

    write_sentencepiece(llama_tokenizer(), tmp_path / "tokenizer.model")
    vocab = read_sentencepiece(tmp_path / "tokenizer.model")
    assert [vocab.tokens[i][0] for i in (0, 1, 2, 3 + 10)] == ["<unk>", "<s>", "</s>", "<0x0A>"]
    assert [int(vocab.tokens[i][1]) for i in (0, 1, 2, 3)] == [2, 3, 3, 6]
    assert vocab.space_prefix is True
    (tmp_path / "tokenizer.model").write_bytes(b"\xff\xff\xff")
    with pytest.raises(ConvertError, match="is not a sentencepiece model"):
        read_sentencepiece(tmp_path / "tokenizer.model")
