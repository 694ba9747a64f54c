"""The tokenizer that is written: the same tokens as transformers', from every kind of file."""

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import convert_models  # noqa: E402
import llama_logits  # noqa: E402
from checkpoints import write_json, write_llava  # noqa: E402
from convert_models import FAMILIES, keys, model_of  # noqa: E402
from llama_logits import tokenize  # noqa: E402
from tiny_tokenizers import llama_tokenizer, write_sentencepiece  # noqa: E402

from aim_local.convert import ConvertError, convert  # noqa: E402
from aim_local.convert.vocab import read_sentencepiece  # noqa: E402

folders = convert_models.folders
converted = convert_models.converted
llama = llama_logits.llama


PROMPTS = {
    "llava_onevision": "<|im_start|>user <video>\nHow many? It's 12:30 \u00e9\u4f60<|im_end|><|im_start|>assistant\n",
    "llava": "USER: <image>\nHow many red  shapes \u00e9\u4f60, isn't it? ASSISTANT: two</s>USER: and",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_equal_transformers(
    family: str, llama: Any, folders: dict[str, Path], converted: dict[str, Path]
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folders[family])
    want = tokenizer(PROMPTS[family]).input_ids
    assert tokenize(llama, converted[family] / "model.gguf", PROMPTS[family]) == want


def test_tokens_from_a_sentencepiece_model(llama: Any, tmp_path: Path) -> None:
    """tokenizer.model alone, as in the original LLaVA-1.5 files."""
    src = write_llava(tmp_path / "src", model=model_of("llava"), sentencepiece=True)
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


def test_sentencepiece_file_is_read_as_it_is_written(tmp_path: Path) -> None:

    write_sentencepiece(llama_tokenizer(), tmp_path / "tokenizer.model")
    vocab = read_sentencepiece(tmp_path / "tokenizer.model")
    assert [vocab.tokens[i][0] for i in (0, 1, 2, 3 + 10)] == ["<unk>", "<s>", "</s>", "<0x0A>"]
    assert [int(vocab.tokens[i][1]) for i in (0, 1, 2, 3)] == [2, 3, 3, 6]
    assert vocab.space_prefix is True
    (tmp_path / "tokenizer.model").write_bytes(b"\xff\xff\xff")
    with pytest.raises(ConvertError, match="is not a sentencepiece model"):
        read_sentencepiece(tmp_path / "tokenizer.model")
