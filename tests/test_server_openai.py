"""The official openai client against the service: chat, stream, logprobs, schemas, options, and its exception types."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from server_case import HeldLLM, Running, data_url, openai, question, running, served, video_part

from aim_local import GenerateConfig
from aim_local.server.limits import Limits

__all__ = ["served"]
ASK = question("Which way does the shape move?", video_part())


@pytest.fixture(scope="module")
def client(served: Running) -> Any:
    return served.openai()


@pytest.fixture(scope="module")
def expected(client: Any) -> str:
    """The answer to ASK, which is greedy."""
    return str(client.chat.completions.create(model="default", messages=ASK).choices[0].message.content)


def test_an_answer_is_a_completion(client: Any, expected: str) -> None:
    found = client.chat.completions.create(model="demo", messages=ASK)
    assert (found.object, found.model, found.choices[0].finish_reason) == ("chat.completion", "demo", "stop")
    assert found.choices[0].message.role == "assistant"
    assert found.choices[0].message.content == expected
    usage = found.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.visual_tokens_full == 129
    assert found._request_id == found.id


def test_the_answer_is_the_librarys(served: Running, expected: str) -> None:
    """Guards the whole way: what the service says is what two lines of Python say."""
    from server_case import CLIP, load

    with load() as llm:
        assert llm.generate("Which way does the shape move?", [CLIP]).text == expected


def test_a_stream_has_the_same_text_in_openais_order(client: Any, expected: str) -> None:
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="demo", messages=ASK, stream=True, stream_options=options))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    said = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(said) == expected
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "stop"
    assert [bool(chunk.usage) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []
    assert chunks[-2].timings["predicted_n"] == chunks[-1].usage.completion_tokens


def test_a_stream_without_usage_has_no_usage_chunk(client: Any) -> None:
    chunks = list(client.chat.completions.create(model="demo", messages=ASK, stream=True))
    assert all(chunk.choices for chunk in chunks)


def test_the_clients_stream_helper_understands_it(client: Any, expected: str) -> None:
    with client.chat.completions.stream(model="demo", messages=ASK) as stream:
        assert stream.get_final_completion().choices[0].message.content == expected


def test_logprobs_are_those_of_the_library(client: Any) -> None:
    """Against the library's own numbers; whole and streamed are the same."""
    from server_case import CLIP, load

    with load() as llm:
        truth = llm.generate("Which way does the shape move?", [CLIP], generate=GenerateConfig(logprobs=3)).logprobs
    options = {"model": "demo", "messages": ASK, "logprobs": True, "top_logprobs": 3}
    whole = client.chat.completions.create(**options).choices[0].logprobs.content
    streamed = [
        token
        for chunk in client.chat.completions.create(**options, stream=True)
        for choice in chunk.choices
        if choice.logprobs
        for token in choice.logprobs.content
    ]
    assert truth is not None
    assert [bytes(token.bytes) for token in whole] == [token.data for token in truth]
    assert [token.logprob for token in whole] == pytest.approx([token.logprob for token in truth], abs=1e-4)
    assert [t.token for t in whole[0].top_logprobs] == [t.data.decode() for t in truth[0].top]
    assert [t.token for t in streamed] == [t.token for t in whole]
    assert [len(t.top_logprobs) for t in streamed] == [3] * len(whole)


def test_a_json_schema_is_followed(client: Any) -> None:
    schema = {"type": "object", "properties": {"way": {"enum": ["left", "right"]}}, "required": ["way"]}
    form = {"type": "json_schema", "json_schema": {"name": "way", "schema": schema, "strict": True}}
    found = client.chat.completions.create(model="demo", messages=ASK, response_format=form)
    assert json.loads(found.choices[0].message.content)["way"] in ("left", "right")


def test_json_object_gives_an_object(client: Any) -> None:
    found = client.chat.completions.create(
        model="demo", messages=ASK, response_format={"type": "json_object"}, max_tokens=200
    )
    if found.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(found.choices[0].message.content), dict)
    assert found.choices[0].message.content.startswith("{")


def test_stop_cuts_the_answer(client: Any, expected: str) -> None:
    word = expected.split()[-1]
    found = client.chat.completions.create(model="demo", messages=ASK, stop=[word])
    assert found.choices[0].message.content == expected[: expected.index(word)]
    assert found.choices[0].finish_reason == "stop"


def test_max_tokens_cuts_with_length(client: Any) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        found = client.chat.completions.create(model="demo", messages=ASK, **{name: 1})
        assert (found.choices[0].finish_reason, found.usage.completion_tokens) == ("length", 1)


def test_a_seed_repeats_a_draw(client: Any) -> None:
    def draw(seed: int) -> str:
        options = {"temperature": 5, "seed": seed, "max_tokens": 12, "top_p": 1, "extra_body": {"top_k": 0}}
        return str(client.chat.completions.create(model="demo", messages=ASK, **options).choices[0].message.content)

    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in range(2, 6)}) > 1


def test_models_name_what_is_served(client: Any) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.owned_by, model.meta["vision"]) == ("demo", "aim-local", True)
    assert client.models.retrieve("demo").id == "demo"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_a_conversation_goes_on(client: Any) -> None:
    first = client.chat.completions.create(model="demo", messages=ASK).choices[0].message
    more = [*ASK, first, {"role": "user", "content": "What color is it?"}]
    assert client.chat.completions.create(model="demo", messages=more).usage.prompt_tokens_details.cached_tokens > 100


def test_files_are_uploaded_named_read_and_deleted(client: Any, expected: str) -> None:
    from server_case import CLIP

    file = client.files.create(file=CLIP, purpose="vision")
    assert (file.bytes, file.filename) == (CLIP.stat().st_size, CLIP.name)
    part = {"type": "file", "file": {"file_id": file.id}}
    found = client.chat.completions.create(model="demo", messages=question("Which way does the shape move?", part))
    assert found.choices[0].message.content == expected
    assert file.id in [known.id for known in client.files.list()]
    assert client.files.content(file.id).read() == CLIP.read_bytes()
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_tokens": 100_000}, "max_tokens"),
        ({"temperature": 9}, "temperature"),
        ({"extra_body": {"visual_tokens": "half"}}, "visual_tokens"),
        ({"extra_body": {"guided_regex": "a"}}, "guided_regex"),
        ({"extra_body": {"mm_processor_kwargs": {"max_pixels": 9}}}, "mm_processor_kwargs.max_pixels"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages[0].role"),
        ({"messages": question("?", {"type": "input_audio", "input_audio": {}})}, "messages[0].content[0].type"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(client: Any, options: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(**{"model": "demo", "messages": ASK, **options})
    assert e.value.param == param
    assert e.value.type == "invalid_request_error"


def test_another_model_is_not_found(client: Any) -> None:
    with pytest.raises(openai.NotFoundError, match="demo") as e:
        client.chat.completions.create(model="gpt-4o", messages=ASK)
    assert e.value.code == "model_not_found"


def test_a_file_that_is_no_clip_is_refused(client: Any) -> None:
    bad = "data:video/mp4;base64,AAAA"
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model="demo", messages=question("?", video_part(bad)))
    assert e.value.param is not None
    assert e.value.param.startswith("messages[0].content[0]")


def test_a_prompt_beyond_the_context_is_told_as_openai_does(client: Any) -> None:
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model="demo", messages=question("word " * 9000))
    assert e.value.code == "context_length_exceeded"


def test_a_text_model_takes_no_media() -> None:
    with running(HeldLLM(vision=False).load) as found, pytest.raises(openai.BadRequestError, match="text-only") as e:
        found.openai().chat.completions.create(model="held", messages=ASK)
    assert e.value.code == "no_vision"


def test_a_full_queue_is_a_rate_limit() -> None:
    llm = HeldLLM()
    with running(llm.load, Limits(n_waiting=1)) as found:
        client = found.openai()
        first = client.chat.completions.create(model="held", messages=question("1"), stream=True)
        call = llm.next_call()
        with ThreadPoolExecutor() as pool:
            second = pool.submit(client.chat.completions.create, model="held", messages=question("2"))
            found.wait(lambda: len(found.service.queue) == 1)
            with pytest.raises(openai.RateLimitError) as e:
                client.chat.completions.create(model="held", messages=question("3"))
            assert int(e.value.response.headers["retry-after"]) >= 1
            call.release.set()
            llm.next_call().release.set()
            assert "".join(chunk.choices[0].delta.content or "" for chunk in first) == "word end"
            assert second.result().choices[0].message.content == "word end"


def test_a_key_is_wanted_and_a_wrong_one_refused() -> None:
    with running(HeldLLM(free=True).load, keys=["right-key-1"]) as found:
        with pytest.raises(openai.AuthenticationError):
            found.openai("wrong-key-2").models.list()
        assert found.openai("right-key-1").models.list().data[0].id == "held"


def test_pictures_are_seen(client: Any, tmp_path: Any) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64), (255, 0, 0)).save(tmp_path / "red.png")
    url = data_url(tmp_path / "red.png", "image/png")
    part = {"type": "image_url", "image_url": {"url": url, "detail": "high"}}
    found = client.chat.completions.create(model="demo", messages=question("What color is it?", part))
    assert found.usage.prompt_tokens_details.visual_tokens > 0
    assert found.toy
    assert any("its answer about the file means nothing" in line for line in found.warnings)
