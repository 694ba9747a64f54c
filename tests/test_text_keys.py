"""Keys of a language model that ask for what is not done here: refused, as they would change nothing."""

from __future__ import annotations

from pathlib import Path

import bent_gguf as bent
import pytest
from bent_gguf import array, number, text, texts

from aim_local import GenerateConfig, LoadConfig, VisionLLM
from aim_local.errors import ModelError
from aim_local.models.text_head import check_text_head
from aim_local.store.gguf_header import read_header

Value = dict[str, int | bytes]
GREEDY = GenerateConfig(max_tokens=4)


def checked(architecture: str, keys: dict[str, Value], path: Path) -> None:
    file = bent.of_architecture(bent.whole("model"), architecture)
    for key, value in keys.items():
        file = bent.with_key(file, key, value)
    check_text_head(read_header(bent.save(file, path)))


def refusal(architecture: str, keys: dict[str, Value], path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        checked(architecture, keys, path)
    said = str(caught.value)
    print(said)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said


NOT_WRITING = [
    ("attention.causal", number("bool", 0), "is False (bool); it has to be True"),
    ("attention.causal", number("uint32", 1), "is 1 (uint32); it has to be bool"),
    ("pooling_type", number("uint32", 1), "is 1 (uint32); it has to be 0"),
    ("pooling_type", number("uint32", 3), "is 3 (uint32); it has to be 0"),
    ("pooling_type", text("mean"), "is 'mean' (text); it has to be a whole number"),
    ("classifier.pooling_type", number("uint32", 2), "is 2 (uint32); it has to be 0"),
    ("classifier.output_labels", texts("yes", "no"), "is an array of 2 (array of text); models that sort texts"),
]


@pytest.mark.parametrize("architecture", ["qwen2", "lfm2"])
@pytest.mark.parametrize(("name", "value", "said"), NOT_WRITING, ids=lambda v: v if isinstance(v, str) else "")
def test_a_model_that_does_not_write_text(
    architecture: str, name: str, value: Value, said: str, tmp_path: Path
) -> None:
    found = refusal(architecture, {f"{architecture}.{name}": value}, tmp_path / "model.gguf")
    assert f"{architecture}.{name} {said}" in found
    of_its_kind = "whole number" not in said and "to be bool" not in said
    assert found.endswith("Take a model that answers, `aim-local models --known` lists some") == of_its_kind


OF_OTHERS = [
    ("qwen2", "attention.max_alibi_bias", number("float32", 8)),
    ("llama", "attention.max_alibi_bias", number("float32", 1)),
    ("gemma3", "attention.max_alibi_bias", number("float32", 8)),
    ("qwen2", "attention.clamp_kqv", number("float32", 1)),
    ("qwen2", "attention.scale", number("float32", 0.5)),
    ("qwen2", "n_deepstack_layers", number("uint32", 3)),
    ("qwen2vl", "n_deepstack_layers", number("uint32", 1)),
    ("llama", "n_deepstack_layers", number("uint32", 3)),
    ("qwen2", "rope.dimension_sections", array("int32", 99, 99, 99, 99)),
    ("llama", "rope.dimension_sections", array("int32", 4, 6, 6, 0)),
    ("qwen3", "rope.dimension_sections", array("int32", 4, 6, 6, 0)),
    ("qwen2", "embedding_scale", number("float32", 12)),
    ("qwen2", "residual_scale", number("float32", 0.5)),
    ("llama", "logit_scale", number("float32", 0.1)),
    ("gemma3", "attn_logit_softcapping", number("float32", 50)),
    ("qwen2", "final_logit_softcapping", number("float32", 30)),
    ("llama", "attention.sliding_window", number("uint32", 16)),
    ("qwen2", "attention.sliding_window", number("uint32", 1)),
    ("qwen2", "attention.key_length_swa", number("uint32", 16)),
    ("qwen2", "rope.freq_base_swa", number("float32", 10000)),
    ("qwen2", "expert_count", number("uint32", 8)),
    ("qwen3", "ssm.state_size", number("uint32", 128)),
    ("qwen2", "nextn_predict_layers", number("uint32", 1)),
    ("llama", "attention.shared_kv_layers", number("uint32", 4)),
]


@pytest.mark.parametrize(("architecture", "name", "value"), OF_OTHERS, ids=lambda v: v if isinstance(v, str) else "")
def test_a_key_of_other_architectures(architecture: str, name: str, value: Value, tmp_path: Path) -> None:
    keys = {f"{architecture}.{name}": value}
    if name == "expert_count":
        keys[f"{architecture}.expert_used_count"] = number("uint32", 2)
    found = refusal(architecture, keys, tmp_path / "model.gguf")
    assert f"{architecture}.{name} is " in found
    assert f"models of the architecture '{architecture}' have no such value" in found


@pytest.mark.parametrize(
    ("architecture", "name", "value"),
    [
        ("qwen2", "attention.causal", number("bool", 1)),
        ("qwen2", "pooling_type", number("uint32", 0)),
        ("qwen2", "n_deepstack_layers", number("uint32", 0)),
        ("qwen3vl", "n_deepstack_layers", number("uint32", 3)),
        ("gemma3", "attention.sliding_window", number("uint32", 512)),
        ("gemma3", "final_logit_softcapping", number("float32", 30)),
        ("qwen2", "logit_scale", number("float32", 1)),
        ("qwen2", "expert_count", number("uint32", 0)),
        ("mpt", "attention.max_alibi_bias", number("float32", 8)),
        ("minicpm", "embedding_scale", number("float32", 12)),
    ],
)
def test_a_key_that_asks_for_nothing_or_is_the_models_own(
    architecture: str, name: str, value: Value, tmp_path: Path
) -> None:
    checked(architecture, {f"{architecture}.{name}": value}, tmp_path / "model.gguf")


ADD = {what: f"tokenizer.ggml.add_{what}_token" for what in ("bos", "eos")}
ID = {what: f"tokenizer.ggml.{what}_token_id" for what in ("bos", "eos", "eot", "padding", "unknown")}
YES, NONE = number("bool", 1), number("uint32", 2**32 - 1)
TOKENS = [
    ({ADD["bos"]: YES}, f"{ADD['bos']} is True (bool); there is no {ID['bos']} that could be added"),
    ({ADD["bos"]: YES, ID["bos"]: NONE}, f"there is no {ID['bos']} that could be added"),
    ({ADD["eos"]: YES, ID["eos"]: NONE}, f"{ADD['eos']} is True (bool); there is no {ID['eos']} that could be added"),
    ({ID["bos"]: number("uint32", 99999)}, f"{ID['bos']} is 99999 (uint32); it has to be a token's number, 0 to 473"),
    ({ID["bos"]: number("uint32", 474)}, f"{ID['bos']} is 474 (uint32); it has to be a token's number, 0 to 473"),
    ({ID["bos"]: number("uint32", 151643), ADD["bos"]: number("bool", 0)}, f"{ID['bos']} is 151643 (uint32)"),
    ({ID["padding"]: number("int32", -2)}, f"{ID['padding']} is -2 (int32)"),
    ({ID["eot"]: number("float32", 474)}, f"{ID['eot']} is 474.0 (float32)"),
]


@pytest.mark.parametrize(("keys", "said"), TOKENS, ids=[said[:60] for _, said in TOKENS])
def test_a_special_token_that_is_none(keys: dict[str, Value], said: str, tmp_path: Path) -> None:
    assert said in refusal("qwen2", keys, tmp_path / "model.gguf")


@pytest.mark.parametrize("what", ["eot", "padding", "unknown", "image"])
def test_a_special_token_behind_the_last_one(what: str, tmp_path: Path) -> None:
    """As converters have written them (padding 32000 of 32000 tokens, image 128256 of 128256): llama.cpp warns."""
    key = f"tokenizer.ggml.{what}_token_id"
    path = bent.save(bent.with_key(bent.whole("model"), key, number("uint32", 474)), tmp_path / "model.gguf")
    with VisionLLM.load(path, config=LoadConfig(n_threads=1)) as llm:
        (note,) = llm.notes
        assert f"{key} is 474, which is no token of its vocabulary; it is left out" in note
        assert llm.generate("Hi", generate=GREEDY).text == bundled_says("Hi")


@pytest.mark.parametrize("what", ["bos", "eos"])
def test_llama_has_numbers_of_its_own(what: str, tmp_path: Path) -> None:
    """<s> and </s> of its tokenizer: llama.cpp takes 1 and 2."""
    as_llama = {"tokenizer.ggml.model": text("llama"), "tokenizer.ggml.scores": array("float32", *[0.0] * 474)}
    checked("llama", {**as_llama, ID[what]: number("uint32", 32000), ADD[what]: YES}, tmp_path / "model.gguf")


def test_an_eos_that_is_added_behind_texts(tmp_path: Path) -> None:
    """A prompt goes on: it stood in front of the first picture, or of the answer."""
    path = bent.save(bent.with_key(bent.whole("model"), ADD["eos"], YES), tmp_path / "model.gguf")
    with VisionLLM.load(path, config=LoadConfig(n_threads=1)) as llm, VisionLLM.load() as bundled:
        assert llm.text.llama.eos_text == "<|im_end|>"
        for said in ("Hi", "Hi<|im_end|>", ""):
            assert llm.text.tokenize(said, start=True) == bundled.text.tokenize(said, start=True)
        assert llm.generate("Hi", generate=GREEDY).tokens == bundled.generate("Hi", generate=GREEDY).tokens


def test_no_word_on_how_texts_are_split(tmp_path: Path) -> None:
    path = bent.save(bent.with_key(bent.whole("model"), "tokenizer.ggml.pre", None), tmp_path / "model.gguf")
    with VisionLLM.load(path, config=LoadConfig(n_threads=1)) as llm:
        (note,) = llm.notes
    assert "does not say how its tokenizer splits texts (tokenizer.ggml.pre" in note


def bundled_says(question: str) -> str:
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as llm:
        assert llm.notes == []
        return llm.generate(question, generate=GREEDY).text


def test_a_token_that_is_added_and_there(tmp_path: Path) -> None:
    checked("qwen2", {ADD["bos"]: YES, ID["bos"]: number("uint32", 469)}, tmp_path / "model.gguf")
    checked("qwen2", {ADD["eos"]: YES}, tmp_path / "model.gguf")
