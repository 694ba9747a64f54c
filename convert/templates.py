"""The chat template: the checkpoint's own where it can place media, else the one that its family gives.

Three formats that families choose from are here, under the names of the language models that brought them. Templates
are stored as they are and rendered at run time; whether they can be, is tried here.
"""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from aim_local.engine.model import open_model
from aim_local.errors import ModelError
from aim_local.models.prompt import ChatTemplate, Message
from aim_local.models.template_trial import try_template

from .checkpoint import Checkpoint
from .errors import ConvertError
from .vocab import Vocab

# text and media of a message, media first, whether the content is a string or a list of parts
PARTS = """\
{%- macro parts(content) -%}
{%- if content is string -%}{{ content }}
{%- else -%}
{%- for part in content if part.type in ('image', 'video') -%}{{ '<' + part.type + '>\\n' }}{%- endfor -%}
{%- for part in content if part.type == 'text' -%}{{ part.text }}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
"""

# what the authors' code calls qwen_1_5
CHATML = (
    PARTS
    + """\
{%- if messages[0].role != 'system' -%}
{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' + parts(message.content) + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""
)

# what the authors' code calls vicuna_v1
VICUNA = (
    PARTS
    + """\
{%- if messages[0].role != 'system' -%}
{{ "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, \
and polite answers to the user's questions. " }}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}{{ parts(message.content) + ' ' }}
{%- elif message.role == 'user' -%}{{ 'USER: ' + parts(message.content) + ' ' }}
{%- else -%}{{ 'ASSISTANT: ' + parts(message.content) + '</s>' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}
"""
)

# of Mistral-7B-Instruct-v0.2, media first
MISTRAL = (
    PARTS
    + """\
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}{%- set ns.system = parts(message.content) + '\\n\\n' -%}
{%- elif message.role == 'user' -%}{{ '[INST] ' + ns.system + parts(message.content) + ' [/INST]' }}
{%- set ns.system = '' -%}
{%- else -%}{{ ' ' + parts(message.content) + '</s>' }}
{%- endif -%}
{%- endfor -%}
"""
)


@dataclass(frozen=True)
class Around:
    """What a template is rendered with: texts of the tokens bos and eos, and what it writes for media ("": nothing)."""

    bos: str
    eos: str
    adds_bos: bool
    image_token: str
    video_token: str


def around(vocab: Vocab, image_token: str, video_token: str | None) -> Around:
    bos, eos = (vocab.tokens[i][0] if i in vocab.tokens else "" for i in map(vocab.special_ids.get, ("bos", "eos")))
    return Around(bos, eos, vocab.add_bos, image_token, video_token or "")


def read_template(checkpoint: Checkpoint, default: str, given: Around) -> tuple[str, tuple[str, ...]]:
    """(template, notes on it): the checkpoint's own, or `default` where that cannot place media, or fails."""
    own = own_template(checkpoint, media=True)
    why = "the checkpoint has no chat template for media"
    if own is not None:
        try:
            return own, tried(own, given)
        except ModelError as e:
            why = f"the checkpoint's chat template was left out ({e})"
    return default, (f"{why}: the family's own was written", *tried(default, given))


def tried(template: str, given: Around) -> tuple[str, ...]:
    """A line for each form of conversation that cannot be had with it. Raises ModelError where nothing can."""
    return try_template(
        ChatTemplate(
            template,
            bos=given.bos,
            eos=given.eos,
            adds_bos=given.adds_bos,
            image_token=given.image_token,
            video_token=given.video_token,
        )
    )


def check_question(checkpoint: Checkpoint) -> None:
    """Raises ConvertError for a template that cannot write a question; before weights are read, without its tokens."""
    own = own_template(checkpoint, media=False)
    try:
        if own is not None:
            ChatTemplate(own, bos="", eos="", image_token="", video_token="").render([Message("user", "What is it?")])
    except ModelError as e:
        raise ConvertError(f"{checkpoint.folder}: {e}") from e


def written_notes(model: Path, mmproj: Path) -> tuple[str, ...]:
    """As `tried`, of a converted model: with the template that a chat with it uses. Raises ConvertError."""
    try:
        with closing(open_model(model, mmproj, weights=False)) as found:
            return try_template(found.template)
    except ModelError as e:
        raise ConvertError(f"the converted model cannot be used: {e}") from e


def own_template(checkpoint: Checkpoint, *, media: bool) -> str | None:
    """media: one that writes media. A text-only template of the language model cannot place them."""
    candidates = (
        checkpoint.text("chat_template.jinja"),
        checkpoint.json("chat_template.json").get("chat_template"),
        checkpoint.json("processor_config.json").get("chat_template"),
        checkpoint.json("tokenizer_config.json").get("chat_template"),
    )
    for found in candidates:
        if isinstance(found, str) and (not media or "image" in found or "video" in found):
            return found
    return None


def template_notes(checkpoint: Checkpoint) -> tuple[str, ...]:
    """A line where llama.cpp's converter finds no chat template, which it looks for beside tokenizer_config.json."""
    name = "tokenizer_config.json"
    if not (checkpoint.folder / name).is_file():
        why = f"{name}, without which llama.cpp's converter reads none"
    elif (
        checkpoint.json(name).get("chat_template") is None
        and checkpoint.text("chat_template.jinja") is None
        and checkpoint.json("chat_template.json").get("chat_template") is None
    ):
        why = "chat_template.jinja, nor one in chat_template.json or tokenizer_config.json"
    else:
        return ()
    return (
        f"no chat template was written: {checkpoint.folder} has no {why}; chat will write turns as ChatML, which the "
        "model may not have learned: copy the file from the model's repository and convert again",
    )


def media_token(checkpoint: Checkpoint, kind: str) -> str:
    """What the chat template writes where a picture or a video goes."""
    for name in ("processor_config.json", "tokenizer_config.json"):
        token = checkpoint.json(name).get(f"{kind}_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and token:
            return token
    return f"<{kind}>"
