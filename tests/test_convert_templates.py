"""Chat templates: the checkpoint's own, or the one its family gives."""

import json
from pathlib import Path
from typing import Any

import jinja2
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import convert_models  # noqa: E402
from checkpoints import LLAVA_TEMPLATE, ONEVISION_TEMPLATE, write_json  # noqa: E402
from convert_models import WRITE, keys, model_of  # noqa: E402

from aim_local.convert import ConvertError, convert, templates  # noqa: E402
from aim_local.convert.checkpoint import open_checkpoint  # noqa: E402

folders = convert_models.folders
converted = convert_models.converted


def render(template: str, messages: list[dict[str, Any]]) -> str:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # as transformers renders
    return str(environment.from_string(template).render(messages=messages, add_generation_prompt=True))


def test_the_checkpoints_template_is_stored_as_it_is(converted: dict[str, Path]) -> None:
    assert keys(converted["llava_onevision"] / "model.gguf")["tokenizer.chat_template"] == ONEVISION_TEMPLATE
    assert keys(converted["llava"] / "model.gguf")["tokenizer.chat_template"] == LLAVA_TEMPLATE


def test_a_text_only_template_gives_way_to_the_familys(tmp_path: Path) -> None:
    for family, default in (("llava_onevision", templates.CHATML), ("llava", templates.VICUNA)):
        src = WRITE[family](tmp_path / family, model=model_of(family))
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


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("{% for image in messages %}", "not valid Jinja"),
        ("{{ image // 0 }}", "undefined"),
        ("{# image #}{{ 1 // (messages | length - messages | length) }}", "ZeroDivisionError"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_found_at_convert(tmp_path: Path, source: str, told: str) -> None:
    src = WRITE["llava"](tmp_path / "llava", model=model_of("llava"))
    (src / "chat_template.jinja").write_text(source)
    result = convert(src, tmp_path / "out")
    assert keys(result.model)["tokenizer.chat_template"] == templates.VICUNA
    (note,) = (note for note in result.notes if "chat template" in note)
    assert told in note
    assert "the family's own was written" in note
    with pytest.raises(ConvertError) as e:  # what llama.cpp's converter would write as it is
        templates.check_question(open_checkpoint(src))
    assert told in str(e.value)


def test_a_conversation_that_cannot_be_had_is_told_at_convert(tmp_path: Path) -> None:
    src = WRITE["llava"](tmp_path / "llava", model=model_of("llava"))
    no_system = "{% if messages[0].role == 'system' %}{{ raise_exception('No system prompts.') }}{% endif %}"
    (src / "chat_template.jinja").write_text(no_system + LLAVA_TEMPLATE)
    notes = convert(src, tmp_path / "out").notes
    assert any("a system prompt cannot be had" in note and "No system prompts." in note for note in notes)
