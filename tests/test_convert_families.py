"""Families that llama.cpp's own converter converts: the pair of files is what it writes when it is run by itself."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import llama_logits  # noqa: E402
import thorough  # noqa: E402
from convert_models import keys, tensors  # noqa: E402
from family_checkpoints import write_family, write_json  # noqa: E402
from family_configs import SPECS  # noqa: E402
from llama_logits import tokenize  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from upstream_conversions import job_of, run_all  # noqa: E402

import aim_local  # noqa: E402

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm", "internvl3", "internvl3_5", "gemma3")
TOLD = ("qwen2_vl", "qwen3_vl", "smolvlm", "internvl3", "gemma3")  # the others are near to one of these
llama = llama_logits.llama
PUBLISHED = {  # names that transformers saves otherwise than they are published, or than the converter wants them
    "internvl3": (("vision_tower.", "model.vision_tower."), ("multi_modal_projector.", "model.multi_modal_projector.")),
    "gemma3": (("vision_tower.", "vision_tower.vision_model."),),
}
PUBLISHED["internvl3_5"] = PUBLISHED["internvl3"]


def rename(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for theirs, ours in pairs:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def published(folder: Path, family: str, target: Path) -> Path:
    """The checkpoint with the names of tensors that the converter knows."""
    if family not in PUBLISHED:
        return folder
    shutil.copytree(folder, target)
    state = load_file(folder / "model.safetensors")
    save_file({rename(n, PUBLISHED[family]): t for n, t in state.items()}, target / "model.safetensors")
    return target


INTERN_NAMES = (
    ("embeddings.cls_token", "embeddings.class_embedding"),
    ("embeddings.patch_embeddings.projection.", "embeddings.patch_embedding."),
    ("embeddings.position_embeddings", "embeddings.position_embedding"),
    ("encoder.layer.", "encoder.layers."),
    (".attention.projection_layer.", ".attn.proj."),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    (".lambda_1", ".ls1"),
    (".lambda_2", ".ls2"),
)
INTERN_PROJECTOR = {"layer_norm": "mlp1.0", "linear_1": "mlp1.1", "linear_2": "mlp1.3"}


def authors_internvl(folder: Path, target: Path) -> Path:
    """An InternVL checkpoint in its authors' layout: InternVLChatModel, q, k and v in one matrix."""
    shutil.copytree(folder, target)
    state, found = load_file(folder / "model.safetensors"), {}
    for name, tensor in state.items():
        if name.startswith("multi_modal_projector."):
            _, part, kind = name.split(".")
            found[f"{INTERN_PROJECTOR[part]}.{kind}"] = tensor
        elif name.startswith("vision_tower.") and "_proj." not in name:
            short = name.removeprefix("vision_tower.")
            for theirs, ours in INTERN_NAMES:
                short = short.replace(theirs, ours)
            found[f"vision_model.{short}"] = tensor
        elif "attention.q_proj." in name and "vision_tower" in name:
            qkv = torch.cat([state[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")])
            short = name.replace("vision_tower.encoder.layer.", "vision_model.encoder.layers.")
            found[short.replace("attention.q_proj", "attn.qkv")] = qkv
        elif "vision_tower" not in name:
            found[name] = tensor
    save_file({n: t.contiguous() for n, t in found.items()}, target / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    vision = {**config["vision_config"], "image_size": 112, "patch_size": 14, "model_type": "intern_vit_6b"}
    plain = {"architectures": ["InternVLChatModel"], "model_type": "internvl_chat", "downsample_ratio": 0.5}
    write_json(target / "config.json", {**plain, "llm_config": config["text_config"], "vision_config": vision})
    return target


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Below it: FAMILY/src, FAMILY/ours, FAMILY/theirs; without the last: the authors' InternVL as internvl_chat, and
    Gemma 3 with added tokens in tokenizer.json alone, as transformers 5 saves it, as bare; one of two types as typed.
    """
    root, tasks = tmp_path_factory.mktemp("families"), []
    for family in thorough.here(FAMILIES, TOLD):
        source = write_family(family, root / family / "src").folder
        (root / family / "theirs").mkdir()
        theirs = [str(root / family / "theirs" / name) for name in ("model.gguf", "mmproj.gguf")]
        known = published(source, family, root / family / "published")
        tasks.append({"job": job_of(source, root / family / "ours"), "published": str(known), "theirs": theirs})
    bare = shutil.copytree(root / "gemma3" / "src", root / "bare" / "src")
    config = json.loads((bare / "tokenizer_config.json").read_text())
    write_json(bare / "tokenizer_config.json", {k: v for k, v in config.items() if k != "added_tokens_decoder"})
    tasks.append({"job": job_of(bare, root / "bare" / "ours"), "published": "", "theirs": []})
    typed = job_of(root / "smolvlm" / "src", root / "typed" / "ours", ("bf16", "q8_0"))
    tasks.append({"job": typed, "published": "", "theirs": []})
    authors = authors_internvl(root / "internvl3" / "src", root / "internvl_chat" / "src")
    tasks.append({"job": job_of(authors, root / "internvl_chat" / "ours"), "published": "", "theirs": []})
    run_all(tasks)
    return root


def differences(ours: Path, theirs: Path) -> list[str]:
    """Tensors and keys that are not the same in two GGUF files."""
    mine, other = tensors(ours), tensors(theirs)
    found = [n for n in mine.keys() | other.keys() if n not in mine or n not in other]
    found += [n for n in mine.keys() & other.keys() if mine[n].data.tobytes() != other[n].data.tobytes()]
    left, right = keys(ours), keys(theirs)
    return found + [k for k in left.keys() | right.keys() if left.get(k) != right.get(k)]


@pytest.mark.parametrize("family", thorough.few(FAMILIES, TOLD))
def test_both_files_are_what_the_converter_writes_by_itself(family: str, folders: Path) -> None:
    for name in ("model.gguf", "mmproj.gguf"):
        ours, theirs = (folders / family / side / name for side in ("ours", "theirs"))
        print(family, name, len(tensors(ours)), "tensors", len(keys(ours)), "keys")
        found = differences(ours, theirs)
        assert not [key for key in found if not key.startswith(("aim.", "GGUF.kv_count"))]


@pytest.mark.parametrize("family", thorough.few(["qwen2_vl", "qwen2_5_vl", "qwen3_vl"], TOLD))
def test_limits_of_pixels_are_the_processors(family: str, folders: Path) -> None:
    found, spec = keys(folders / family / "ours" / "mmproj.gguf"), SPECS[family]
    for part, processor in (("vision", spec.images), ("video", spec.videos)):
        size = (processor or {})["size"]
        assert found[f"aim.{part}.min_pixels"] == size["shortest_edge"]
        assert found[f"aim.{part}.max_pixels"] == size["longest_edge"]


@pytest.mark.parametrize("family", thorough.few(FAMILIES, TOLD))
def test_the_pair_loads_and_answers(family: str, folders: Path) -> None:
    short = aim_local.GenerateConfig(max_tokens=3)
    with aim_local.VisionLLM.load(folders / family / "ours" / "model.gguf") as llm:
        text = llm.generate("How many shapes are there?", generate=short)
        assert text.stats.n_prompt > 0
        seen = llm.generate("Describe it.", [np.zeros((112, 140, 3), np.uint8)], generate=short)
        assert seen.stats.n_prompt > text.stats.n_prompt


def test_the_authors_internvl_is_the_same_model(folders: Path) -> None:
    """Tokens, towers and projector; of the layout it came from the head has a mark, and no more."""
    for name in ("model.gguf", "mmproj.gguf"):
        ours, theirs = (folders / family / "ours" / name for family in ("internvl_chat", "internvl3"))
        found = differences(ours, theirs)
        print(name, found)
        assert not [n for n in found if not n.startswith(("general.", "clip.vision.preproc", "aim.origin"))]


SPECIAL = {
    "smolvlm": "<|im_start|>User:<row_1_col_2><image>\n\n<fake_token_around_image><global-img>",
    "internvl3": "<|im_start|>user\nFrame1: <img><IMG_CONTEXT></img>\nFrame2: ",
    "gemma3": "<start_of_turn>user\n\n\n<start_of_image><image_soft_token><end_of_image>\n\nHi<end_of_turn>\n",
}
QWEN = "<|im_start|>user\n<1.5 seconds><|vision_start|><|image_pad|><|vision_end|>\n\n<|im_end|>"


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl", "smolvlm", "internvl3", "gemma3"])
def test_tokens_equal_transformers(family: str, folders: Path, llama: Any) -> None:
    from transformers import AutoTokenizer

    text = SPECIAL.get(family, QWEN) + "How many red  shapes \u00e9\u4f60, isn't it 1234?\n\n\nTwo"
    want = AutoTokenizer.from_pretrained(folders / family / "src")(text).input_ids
    assert tokenize(llama, folders / family / "ours" / "model.gguf", text) == want


def test_each_tower_has_its_own_type(folders: Path) -> None:
    types = {
        name: {t.tensor_type.name for t in tensors(folders / "typed" / "ours" / name).values()}
        for name in ("model.gguf", "mmproj.gguf")
    }
    assert types["model.gguf"] == {"BF16", "F32"}
    assert {"Q8_0", "F32"} <= types["mmproj.gguf"]


def test_tokens_that_only_tokenizer_json_lists(folders: Path) -> None:
    bare, whole = (keys(folders / family / "ours" / "model.gguf") for family in ("bare", "gemma3"))
    assert "<start_of_image>" in whole["tokenizer.ggml.tokens"]
    assert bare["tokenizer.ggml.tokens"] == whole["tokenizer.ggml.tokens"]
    types = zip(bare["tokenizer.ggml.token_type"], whole["tokenizer.ggml.token_type"], strict=True)
    unknown = whole["tokenizer.ggml.tokens"].index("<unk>")  # upstream calls it control where the list has it
    assert [i for i, (a, b) in enumerate(types) if a != b] == [unknown]


def test_values_are_those_of_the_checkpoint(folders: Path) -> None:
    """Independent of both converters: the embedding table and one matrix of the vision tower, number by number."""
    places = {
        "qwen2_vl": ("model.embed_tokens.weight", "visual.blocks.1.mlp.fc1.weight", "v.blk.1.ffn_up.weight"),
        "internvl3": (
            "language_model.model.embed_tokens.weight",
            "vision_tower.encoder.layer.1.mlp.fc1.weight",
            "v.blk.1.ffn_up.weight",
        ),
    }
    for family, (table, matrix, name) in places.items():
        state = load_file(folders / family / "src" / "model.safetensors")
        text = tensors(folders / family / "ours" / "model.gguf")["token_embd.weight"].data
        vision = tensors(folders / family / "ours" / "mmproj.gguf")[name].data
        pairs: list[tuple[Any, Any]] = [(text, state[table]), (vision, state[matrix])]
        worst = max(float(np.abs(np.asarray(a) - b.numpy()).max()) for a, b in pairs)
        print(family, "largest difference", worst)
        assert worst == 0
