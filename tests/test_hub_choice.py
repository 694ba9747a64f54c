"""Which files of a repository are taken, and the table of known names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aim_local.convert import QUANTIZE_TYPES, WEIGHT_TYPES, ConvertConfig
from aim_local.errors import HubError
from aim_local.hub.answers import RepoFile
from aim_local.hub.choose import choose, quant_of
from aim_local.hub.listing import Listing
from aim_local.store.known import find_known, known_models, parse_reference


def listing(*names: str) -> Listing:
    return Listing("a/b", "0" * 40, tuple(RepoFile(name, 10) for name in names), Path("cache"))


# names as they stand in repositories
@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("Qwen2.5-VL-3B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("gemma-3-4b-it-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("llava-v1.5-7b-mmproj-model-f16.gguf", "F16"),
        ("mmproj-model-f16.gguf", "F16"),
        ("Qwen3-VL-8B-Instruct.BF16-mmproj.gguf", "BF16"),
        ("SmolVLM2-256M-Video-Instruct.Q4_K_S.gguf", "Q4_K_S"),
        ("InternVL3_5-38B-iq4_xs.gguf", "IQ4_XS"),
        ("ggml-model-fp16.gguf", "F16"),
        ("Q5_K_M/Hermes-3-00001-of-00002.gguf", "Q5_K_M"),
        ("big-Q8_0-00001-of-00002.gguf", "Q8_0"),
        ("gpt-oss-20b-MXFP4.gguf", "MXFP4"),
        ("Qwen3VL-2B.gguf", ""),
    ],
)
def test_quantisation_of_a_name(name: str, quant: str) -> None:
    assert quant_of(name) == quant


def test_default_order() -> None:
    names = ["m-F16.gguf", "m-Q8_0.gguf", "m-Q4_0.gguf", "m-Q4_K_M.gguf", "mmproj-m-F16.gguf"]
    for wanted, left in (("Q4_K_M", names), ("Q4_0", names[:3] + names[4:]), ("Q8_0", names[:2] + names[4:])):
        found = choose(listing(*left))
        assert (found.quant, found.default) == (wanted, True)
    assert choose(listing(*names), preferred="Q8_0").quant == "Q8_0"
    assert choose(listing(*names), "q8_0").others == ("Q4_K_M", "Q4_0", "F16")


@pytest.mark.parametrize(
    ("towers", "taken"),
    [
        (["mmproj-F32.gguf", "mmproj-Q8_0.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf"], "mmproj-F16.gguf"),
        (["mmproj-F32.gguf", "mmproj-Q8_0.gguf", "mmproj-BF16.gguf"], "mmproj-BF16.gguf"),
        (["mmproj-F32.gguf", "mmproj-Q8_0.gguf"], "mmproj-Q8_0.gguf"),
        (["vit.MMPROJ.gguf"], "vit.MMPROJ.gguf"),
        (["mmproj-toy-2b-f16.gguf", "mmproj-toy-8b-f16.gguf"], "mmproj-toy-8b-f16.gguf"),
    ],
)
def test_vision_tower(towers: list[str], taken: str) -> None:
    found = choose(listing("toy-8b-Q4_0.gguf", "imatrix-toy.gguf", *towers))
    assert found.mmproj is not None
    assert found.mmproj.name == taken


def test_split_model_is_one() -> None:
    parts = [f"Q4_K_M/big-Q4_K_M-0000{i}-of-00003.gguf" for i in (3, 1, 2)]
    found = choose(listing(*parts, "mmproj.gguf"))
    assert [file.name for file in found.model] == sorted(parts)
    assert (found.quant, found.n_bytes) == ("Q4_K_M", 40)


def test_one_of_several_by_its_file() -> None:
    names = ("a-Q4_0.gguf", "b-Q4_0.gguf", "mmproj.gguf")
    with pytest.raises(HubError, match=r"name one: a/b:a-Q4_0.gguf"):
        choose(listing(*names))
    assert choose(listing(*names), "b-q4_0.gguf").model[0].name == "b-Q4_0.gguf"


def test_checkpoint() -> None:
    """Not the other frameworks' weights, not the authors' own form, no folders."""
    names = ("config.json", "model-1.safetensors", "consolidated.safetensors", "tokenizer.model", "merges.txt",
             "chat_template.jinja", "pytorch_model.bin", "onnx/model.onnx", "README.md", ".gitattributes")  # fmt: skip
    found = choose(listing(*names), "q4_0")
    assert sorted(file.name for file in found.model) == [
        "chat_template.jinja", "config.json", "merges.txt", "model-1.safetensors", "tokenizer.model",
    ]  # fmt: skip
    assert (found.quant, found.mmproj) == ("Q4_0", None)
    with pytest.raises(HubError, match=r"Q4_X is no type for that; it can be had as F32, F16, .*Q4_0, .*Q4_K_M"):
        choose(listing(*names), "Q4_X")
    for name in (*WEIGHT_TYPES, *QUANTIZE_TYPES):  # all that `convert --type` takes
        assert choose(listing(*names), name).quant == ConvertConfig(text_type=name).kinds[0].upper()
    assert choose(listing(*names), "q4_k").quant == "Q4_K_M"


# --- known names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", known_models(), ids=lambda known: known.name)
def test_known_names_agree_with_their_files(known: object) -> None:
    """The rules choose the files that the table tells, out of those and other quantisations."""
    from aim_local.store.known import KnownModel

    assert isinstance(known, KnownModel)
    assert re.fullmatch(r"[a-z][a-z0-9.-]*", known.name)
    assert parse_reference(known.name.upper()) == parse_reference(known.name)
    assert find_known(known.repo) == known
    assert known.download < 20e9
    assert known.memory > 0.3 * known.download
    if known.files:
        model, mmproj = known.files
        other = [name.replace(known.quant, "Q6_K") for name in known.files if known.quant in name]
        found = choose(listing(model, mmproj, *other), preferred=known.quant)
        assert [file.name for file in found.files] == [model, mmproj]
        assert found.quant == known.quant


def test_known_names_are_there() -> None:
    names = {known.name for known in known_models()}
    assert {"qwen2.5-vl-3b", "qwen3-vl-8b", "smolvlm2-2.2b", "internvl3-2b", "gemma3-4b", "llava-onevision-7b"} <= names
    assert len(names) == len(known_models()) == len({known.repo for known in known_models()})


@pytest.mark.parametrize(
    ("text", "repo", "quant"),
    [
        ("a/b", "a/b", ""),
        ("a/b:Q4_0", "a/b", "Q4_0"),
        ("https://hub.example/a/b", "a/b", ""),
        ("https://hub.example/a/b/", "a/b", ""),
        ("https://hub.example/a/b/tree/main", "a/b", ""),
        ("hub.example/a/b/tree/main/", "a/b", ""),
        ("https://hub.example:80/a/b/tree/main:q8_0", "a/b", "q8_0"),
        ("hub.example/a/b:q8_0", "a/b", "q8_0"),
        ("gemma3-4b:Q8_0", "ggml-org/gemma-3-4b-it-GGUF", "Q8_0"),
    ],
)
def test_references(text: str, repo: str, quant: str) -> None:
    found = parse_reference(text)
    assert found is not None
    assert (found.repo, found.quant) == (repo, quant)
