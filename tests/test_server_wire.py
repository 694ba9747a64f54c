"""What the fields of a request become, and what is said of those that are refused; no service and no model."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("pydantic")

from aim_local import FrameSampling, GenerateConfig, VisualTokenConfig
from aim_local.server.failures import RequestError
from aim_local.server.limits import Limits
from aim_local.server.media.part_sampling import part_sampling
from aim_local.server.requests.asked import Asked, Defaults, Served, understand
from aim_local.server.requests.wire import MAX_MESSAGES, parse_request
from aim_local.settings import parse_setting

SERVED = Served(("demo", "demo-q8", "default"), has_vision=True, default_frames=8, n_ctx_train=4096)
LIMITS = Limits(n_frames=64, n_answer=1000, n_media=2)
USER = {"role": "user", "content": "hello"}
CLIP = {"type": "video_url", "video_url": {"url": "data:,x"}}


def read(messages: list[Any] | None = None, **fields: Any) -> Asked:
    body = {"messages": [USER] if messages is None else messages, **fields}
    return understand(parse_request(json.dumps(body).encode()), SERVED, LIMITS)


def refused(messages: list[Any] | None = None, **fields: Any) -> RequestError:
    with pytest.raises(RequestError) as e:
        read(messages, **fields)
    assert "\n" not in str(e.value)
    return e.value


def test_nothing_asked_is_the_librarys_default() -> None:
    asked = read()
    assert (asked.generate, asked.tokens, asked.sampling) == (GenerateConfig(), None, None)
    assert asked.cache_prompt
    assert not any((asked.stream, asked.include_usage, asked.return_progress, asked.return_looks))


def test_what_a_request_leaves_out_is_the_services_default() -> None:
    tokens = parse_setting("paper")
    served = replace(SERVED, defaults=Defaults(tokens, 4))

    def asked(**fields: Any) -> Asked:
        return understand(parse_request(json.dumps({"messages": [USER], **fields}).encode()), served, LIMITS)

    assert (asked().tokens, asked().sampling) == (tokens, FrameSampling(4))
    said = asked(visual_tokens="off", frames=2)
    assert (said.tokens, said.sampling) == (parse_setting("off"), FrameSampling(2))
    assert asked(start=1).sampling == FrameSampling(4, start=1)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("visual_tokens", 0.5, 'visual_tokens is 0.5; give a setting as a text, such as "auto"'),
        ("reasoning_effort", "low", 'reasoning_effort is "low"; models answer without it; leave it out'),
        ("model", 5, "model is 5; give a text"),
        ("user", 5, "user is 5; give a text"),
        ("json_schema", [], "json_schema is []; give an object"),
        ("grammar", 1.5, "grammar is 1.5; give a text"),
        ("max_token", 5, "max_token is not known here; did you mean max_tokens?"),
        ("visual_token", "off", "visual_token is not known here; did you mean visual_tokens?"),
        ("num_ctx", 4096, "num_ctx is not known here; leave it out"),
    ],
)
def test_refusals_are_in_words_for_people(field: str, value: object, said: str) -> None:
    assert str(refused(**{field: value})).startswith(said)


def test_null_is_left_out() -> None:
    from aim_local.server.requests.wire import ChatRequest

    nulls = dict.fromkeys(ChatRequest.model_fields.keys() - {"messages"})
    assert read(**nulls) == read()


def test_a_null_that_is_not_known_is_left_out() -> None:
    """vLLM's clients send all of its fields."""
    assert read(prompt_logprobs=None, foo=None) == read()
    message = {**USER, "foo": None}
    assert read(
        messages=[message], media_io_kwargs={"video": {"num_frames": 3, "foo": None}}
    ).sampling == FrameSampling(3)
    assert str(refused(prompt_logprobs=None, max_token=5)).startswith("max_token is not known here")
    assert str(refused(prompt_logprobs=3)).startswith("prompt_logprobs is not known here")


@pytest.mark.parametrize("coding", ["utf-16", "utf-32"])
def test_another_byte_order_mark(coding: str) -> None:
    with pytest.raises(RequestError, match="byte order mark of UTF-16 or UTF-32; send it in UTF-8"):
        parse_request(json.dumps({"messages": [USER]}).encode(coding))


@pytest.mark.parametrize(
    ("value", "said"), [(True, "true"), (False, "false"), (1.5, "1.5"), ("4", "'4'"), ([], "a list")]
)
def test_numbers_of_a_part_are_told_as_json(value: object, said: str) -> None:
    with pytest.raises(RequestError, match=f"frames is {said}; give a whole number"):
        part_sampling({"frames": value}, None, LIMITS)


def test_the_last_of_two_keys_counts() -> None:
    """As with other servers; docs/server.md says so."""
    body = json.dumps({"messages": [USER], "temperature": 1})[:-1] + ', "temperature": 2}'
    assert parse_request(body.encode()).temperature == 2


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"temperature": 1}, {"temperature": 1}),
        ({"top_p": 0.5, "top_k": 7, "min_p": 0.1}, {"top_p": 0.5, "top_k": 7, "min_p": 0.1}),
        ({"top_k": -1}, {"top_k": 0}),
        ({"seed": 5}, {"seed": 5}),
        ({"seed": -1}, {"seed": None}),
        ({"stop": "a"}, {"stop": ("a",)}),
        ({"stop": ["a", "b"]}, {"stop": ("a", "b")}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"n_predict": -1}, {"max_tokens": 1000}),
        ({"frequency_penalty": 1, "presence_penalty": -1}, {"frequency_penalty": 1, "presence_penalty": -1}),
        ({"logprobs": True}, {"logprobs": 0}),
        ({"logprobs": True, "top_logprobs": 4}, {"logprobs": 4}),
        ({"logprobs": False}, {}),
        ({"grammar": "root ::= [a-z]"}, {"grammar": "root ::= [a-z]"}),
        ({"json_schema": {"type": "object"}}, {"json_schema": {"type": "object"}}),
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"json_schema": {}}),
        ({"response_format": {"type": "json_object", "schema": {"enum": [1]}}}, {"json_schema": {"enum": [1]}}),
        ({"response_format": {"type": "json_schema", "schema": {"enum": [1]}}}, {"json_schema": {"enum": [1]}}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [1]}}}},
            {"json_schema": {"enum": [1]}},
        ),
    ],
)
def test_options_of_the_answer(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert read(**fields).generate == GenerateConfig(**expected)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"frames": 4}, FrameSampling(4)),
        ({"frames": -1}, FrameSampling(64)),
        ({"pick": "time"}, FrameSampling(8, pick="time")),
        ({"fps": 2}, FrameSampling(64, fps=2)),
        ({"fps": 2, "frames": 10}, FrameSampling(10, fps=2)),
        ({"start": 1, "end": 2.5}, FrameSampling(8, start=1, end=2.5)),
        ({"media_io_kwargs": {"video": {"num_frames": 4}}}, FrameSampling(4)),
        ({"media_io_kwargs": {"video": {"num_frames": -1, "fps": 1}}}, FrameSampling(64, fps=1)),
        ({"media_io_kwargs": {}}, None),
        ({"mm_processor_kwargs": {"num_frames": 4, "fps": 2}}, FrameSampling(4, fps=2)),
        ({"frames": 4, "mm_processor_kwargs": {"num_frames": 4}}, FrameSampling(4)),
    ],
)
def test_frames(fields: dict[str, Any], expected: FrameSampling | None) -> None:
    assert read(**fields).sampling == expected


def test_a_limit_below_the_models_own_frames_holds() -> None:
    request = parse_request(json.dumps({"messages": [USER]}).encode())
    assert understand(request, SERVED, Limits(n_frames=4)).sampling == FrameSampling(4)


def test_visual_tokens() -> None:
    assert read(visual_tokens="paper:keep=0.5").tokens == VisualTokenConfig(merge_retain=0.5)
    assert read(visual_tokens="budget=0.25").tokens == VisualTokenConfig.budget(0.25)


MANY = 200_000


@pytest.mark.parametrize(
    "body",
    [
        '{"messages":[{"role":"user","content":[' + "[]," * MANY + "[]]}]}",
        '{"messages":[' + "{}," * MANY + "{}]}",
        '{"messages":[],' + ",".join(f'"{i}":1' for i in range(MANY)) + "}",
        '{"messages":[],"metadata":{' + ",".join(f'"{i}":{{}}' for i in range(MANY)) + "}}",
        '{"messages":[],"stop":[' + ",".join(['"a"'] * MANY) + "]}",
        '{"messages":' + "[" * MANY,
        "," * MANY,
    ],
    ids=["lists", "messages", "fields", "metadata", "stops", "deep", "commas"],
)
def test_a_body_of_very_many_values_is_refused_before_they_are_made(body: str) -> None:
    """Guards against gigabytes of small objects, and a minute in which nothing else runs."""
    with pytest.raises(RequestError) as e:
        parse_request(body.encode())
    assert (e.value.status, e.value.code) == (400, "too_many_values")


@pytest.mark.parametrize("text", ["[]," * MANY, '{"a": 1}, ' * MANY, '\\"' * MANY, '\\\\", "' * MANY])
def test_a_text_may_hold_any_number_of_signs(text: str) -> None:
    assert parse_request(json.dumps({"messages": [{**USER, "content": text}]}).encode()).messages[0].content == text


def test_as_many_messages_as_are_allowed_are_read() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = {"messages": [{**USER, "content": parts}] * MAX_MESSAGES}
    assert len(parse_request(json.dumps(body).encode()).messages) == MAX_MESSAGES


def test_messages_become_turns() -> None:
    asked = read(
        [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, CLIP, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c", "refusal": None, "tool_calls": None, "annotations": []},
            {"role": "user", "content": "d", "name": "me"},
        ]
    )
    assert asked.system == "Be brief."
    assert [(turn.role, turn.text, len(turn.media)) for turn in asked.turns] == [
        ("user", "a\nb", 1), ("assistant", "c", 0), ("user", "d", 0),
    ]  # fmt: skip
    assert asked.parts[0].where == "messages[1].content[1]"
    assert asked.parts[0].content == CLIP
    assert not asked.without_parts().parts


@pytest.mark.parametrize("name", [None, "demo", "demo-q8", "default"])
def test_names_of_the_model(name: str | None) -> None:
    read(model=name)


def test_another_model_is_told_what_there_is() -> None:
    error = refused(model="gpt-4o")
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert "demo or demo-q8 or default" in str(error)


ASSISTANT, SYSTEM = {"role": "assistant", "content": "x"}, {"role": "system", "content": "x"}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ([USER, ASSISTANT], "messages"),
        ([SYSTEM], "messages"),
        ([USER, USER], "messages[1]"),
        ([ASSISTANT, USER], "messages[0]"),
        ([USER, SYSTEM, USER], "messages[1]"),
        ([SYSTEM, SYSTEM, USER], "messages[1]"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": ["a"]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "text", "text": "a", "x": 1}]}], "messages[0].content[0].x"),
        ([{"role": "user", "content": [{"text": "a"}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": {}}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": []}]}], "messages[0].content[0].type"),
        ([{"role": "system", "content": [CLIP]}, USER], "messages[0].content[0]"),
        ([{"role": "user", "content": [CLIP] * 3}], "messages"),
        ([{**USER, "tool_calls": [{}]}], "messages[0].tool_calls"),
        ([{**USER, "colour": 1}], "messages[0].colour"),
    ],
)
def test_messages_that_are_none(messages: list[Any], param: str) -> None:
    error = refused(messages)
    assert (error.status, error.param) == (400, param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1001}, "max_tokens"),
        ({"max_tokens": 5.5}, "max_tokens"),
        ({"max_tokens": 5, "n_predict": 6}, "max_tokens"),
        ({"n_predict": 0}, "n_predict"),
        ({"seed": 2**32}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": 5}, "stop"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"logprobs": 5}, "logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}},
            "response_format.json_schema.schema",
        ),
        ({"response_format": {"type": "text", "x": 1}}, "response_format.x"),
        ({"response_format": {"type": "json_object"}, "grammar": "root ::= [a-z]"}, "grammar"),
        ({"frames": 0}, "frames"),
        ({"frames": 65}, "frames"),
        ({"frames": 4, "media_io_kwargs": {"video": {"num_frames": 5}}}, "frames"),
        ({"fps": 0}, "fps"),
        ({"start": 5, "end": 4}, "end"),
        ({"media_io_kwargs": {"audio": {}}}, "media_io_kwargs.audio"),
        ({"media_io_kwargs": {"video": {"backend": "x"}}}, "media_io_kwargs.video.backend"),
        ({"mm_processor_kwargs": {"size": 5}}, "mm_processor_kwargs.size"),
        ({"visual_tokens": "nothing"}, "visual_tokens"),
        ({"visual_tokens": "paper:keep=2"}, "visual_tokens"),
        ({"tools": [{}]}, "tools"),
        ({"echo": 0}, "echo"),
        ({"echo": True}, "echo"),
        ({"skip_special_tokens": False}, "skip_special_tokens"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"logit_bias": {"1": 1}}, "logit_bias"),
        ({"repetition_penalty": 1.1}, "repetition_penalty"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"user": "x" * 300}, "user"),
        ({"unknown": 1}, "unknown"),
        ({"x" * 5000: 1}, "x" * 200 + "..."),
    ],
)
def test_fields_that_cannot_be_honoured(fields: dict[str, Any], param: str) -> None:
    error = refused(**fields)
    assert (error.status, error.param) == (400, param)
    assert len(str(error)) < 600


def test_media_of_a_text_model() -> None:
    request = parse_request(json.dumps({"messages": [{"role": "user", "content": [CLIP]}]}).encode())
    with pytest.raises(RequestError, match="text-only") as e:
        understand(request, Served(("words",), has_vision=False, default_frames=0, n_ctx_train=4096), LIMITS)
    assert (e.value.code, e.value.param) == ("no_vision", "messages[0].content[0]")


def test_a_text_that_no_context_holds_is_refused_before_it_is_tokenized() -> None:
    for text, is_fine in (("a" * 32 * 4096, True), ("a" * (32 * 4096 + 1), False), ("\u20ac" * 32 * 4096, False)):
        request = parse_request(json.dumps({"messages": [{"role": "user", "content": text}]}).encode())
        if is_fine:
            assert understand(request, SERVED, LIMITS).turns[0].text == text
        else:
            with pytest.raises(RequestError, match="shorten the text") as e:
                understand(request, SERVED, LIMITS)
            assert (e.value.status, e.value.code) == (400, "context_length_exceeded")
