"""Who asks is told in their own words: Python's arguments, options of the command line, or fields of a request."""

from __future__ import annotations

import re

import cli_case
import pytest
from cli_case import Play, run
from fake_llm import Scripted

from aim_local.cli._option_names import in_options
from aim_local.cli._repl import Repl
from aim_local.errors import ContextError, ModelError, NativeError
from aim_local.models.prompt import ChatTemplate, Message
from aim_local.models.template_process import TemplateProcess
from aim_local.server.request_words import in_fields

play = cli_case.play

TEMPLATES = {
    "no Jinja": "{% if %}",
    "drops the text": "hello",
    "fails": "{{ raise_exception('no') }}",
    "endless text": "{% for i in range(9999) %}{{ 'x' * 9999 }}{% endfor %}",
    "too long": " " * (1 << 19),
    "empty": "",
    "blanks": " \n\t",
    "another number of media": "{% for m in messages %}{{ m.content }}<image><image>{% endfor %}",
}


def template_error(source: str) -> ModelError:
    template = ChatTemplate(source, bos="", eos="", image_token="<image>", video_token="<video>")
    shown = Message("user", "What?", [(0, "image")])
    with pytest.raises(ModelError) as e:
        template.render([shown])
    return e.value


@pytest.mark.parametrize("source", TEMPLATES.values(), ids=TEMPLATES)
def test_a_template_that_fails(source: str, play: Play) -> None:
    e = template_error(source)
    play(Scripted(error=e))
    line = run("chat", "-p", "x").stderr
    for told in (line.removeprefix("error: ").rstrip("\n"), in_fields(str(e))):
        assert "raw" not in told
        assert re.search(r"(take the model from elsewhere|convert the model again)$", told), told
    assert "raw=True" in str(e)


def test_no_process_for_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("aim_local.models.template_process.Child", fail)
    with pytest.raises(NativeError) as e:
        list(TemplateProcess().texts("x", [{}], 9))
    for told in (in_options(str(e.value)), in_fields(str(e.value))):
        assert "raw" not in told
        assert "Resource temporarily unavailable" in told


@pytest.mark.parametrize(
    ("said", "option", "field"),
    [
        (
            "the context holds 256: load with n_ctx=900 or more, or use n_frames=12 or fewer; at most 3% fit",
            "the context holds 256: load with --ctx 900 or more, or use --frames 12 or fewer; at most 3% fit",
            "the context holds 256: start the server with --ctx 900 or more, or use frames=12 or fewer; at most 3% fit",
        ),
        (
            "the context is full; start a new conversation, or load with a larger n_ctx",
            "the context is full; start a new conversation, or load with a larger --ctx",
            "the context is full; start a new conversation, or start the server with a larger --ctx",
        ),
        (
            "the answer was cut: the context of 256 tokens is full; use a larger n_ctx",
            "the answer was cut: the context of 256 tokens is full; use a larger --ctx",
            "the answer was cut: the context of 256 tokens is full; start the server with a larger --ctx",
        ),
        (
            "not one frame fits: keep fewer visual tokens (merge_retain), or take fewer pictures",
            "not one frame fits: keep fewer visual tokens (--keep), or take fewer pictures",
            "not one frame fits: keep fewer visual tokens (visual_tokens: keep), or take fewer pictures",
        ),
        (
            "visual tokens cannot be pruned inside m: it has windows; use prune_layers=None",
            "visual tokens cannot be pruned inside m: it has windows; use --prune off",
            "visual tokens cannot be pruned inside m: it has windows; use visual_tokens with prune=off",
        ),
        (
            "clip.mp4: 9000 pixels, at most 10 are allowed; scale it down, or give max_pixels=9000 or more",
            "clip.mp4: 9000 pixels, at most 10 are allowed; scale it down, or give --max-pixels 9000 or more",
            "clip.mp4: 9000 pixels, at most 10 are allowed; scale it down, or start the server with --max-pixels 9000 "
            "or more",
        ),
        (
            "merge_retain is 2.0; it is the share retained",
            "--keep is 2.0; it is the share retained",
            "visual_tokens: keep is 2.0; it is the share retained",
        ),
        (
            "m.gguf: was saved with the vision tower a.gguf, the model here has none; name that one with mmproj=FILE",
            "m.gguf: was saved with the vision tower a.gguf, the model here has none; name that one with --mmproj FILE",
            "m.gguf: was saved with the vision tower a.gguf, the model here has none; name that one with mmproj=FILE",
        ),
        (
            "'authors' is for pictures; use tokens=paper",
            "'authors' is for pictures; use --tokens paper",
            "'authors' is for pictures; use visual_tokens=paper",
        ),
        (
            "not kept (no room); cache_media=False does not try",
            "not kept (no room); --no-cache does not try",
            "not kept (no room); the server's --no-cache does not try",
        ),
        ("/data/n_ctx/n_frames=3.mp4: is damaged",) * 3,
    ],
)
def test_words(said: str, option: str, field: str) -> None:
    assert in_options(said) == option
    assert in_fields(said) == field


def test_at_the_prompt_the_command_is_named(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    llm = play(Scripted(error=ContextError("the context is full; start a new conversation, or use a larger n_ctx")))
    Repl(llm.chat(), "demo", stats=False, quiet=True).handle("What?")
    told = "error: the context is full; start a new conversation (/reset), or use a larger --ctx\n"
    assert capsys.readouterr().err.endswith(told)
