"""The chat template: the checkpoint's own where it can place media, else the one that its family gives.

Three formats that families choose from are here, under the names of the language models that brought them. Templates
are stored as they are and rendered with jinja2 at run time.
"""

from .checkpoint import Checkpoint

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


def read_template(checkpoint: Checkpoint, default: str) -> tuple[str, bool]:
    """(template, is it the checkpoint's own). A text-only template of the language model cannot place media."""
    candidates = (
        checkpoint.text("chat_template.jinja"),
        checkpoint.json("chat_template.json").get("chat_template"),
        checkpoint.json("processor_config.json").get("chat_template"),
        checkpoint.json("tokenizer_config.json").get("chat_template"),
    )
    for found in candidates:
        if isinstance(found, str) and ("image" in found or "video" in found):
            return found, True
    return default, False


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
