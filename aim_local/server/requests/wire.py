"""A chat request as it comes over the wire: which fields there are, and what each may hold.

Knows OpenAI's form, and what vLLM's and llama-server's clients send beside it. A field that is not here is refused, and
so is a value that cannot be honoured. What a request means for the model is asked.py's business.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import partial
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from ...media.types import Pick
from ..failures import RequestError
from .content import CONTENT_SCHEMA

MAX_MESSAGES, MAX_STOPS, MAX_NAME = 4096, 16, 256
MAX_STOP_TEXT, MAX_GRAMMAR = 1024, 200_000
MAX_TOKENS = 100_000  # of a body's JSON: strings, and signs before a value; the most messages have a third of them
_OTHER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # UTF-32's other begins as UTF-16's
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[,\[{]', re.DOTALL)


def _only(allowed: bool, value: bool) -> bool:
    """Not a Literal: in Python 0 is False, in JSON it is not. Raises ValueError."""
    if value is not allowed:
        raise ValueError(f"give {str(allowed).lower()} or leave it out")
    return value


Whole = Annotated[int, Field(ge=1, le=2**31 - 1)]
Zero = Annotated[float, Field(ge=0, le=0)]
One = Annotated[float, Field(ge=1, le=1)]
Yes = Annotated[bool, AfterValidator(partial(_only, True)), WithJsonSchema({"const": True})]
No = Annotated[bool, AfterValidator(partial(_only, False)), WithJsonSchema({"const": False})]
Name = Annotated[str, Field(max_length=MAX_NAME)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_TEXT)]
Empty = Annotated[list[object], Field(max_length=0)]
EmptyObject = Annotated[dict[str, object], Field(max_length=0)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]
Frames = Annotated[
    int, Field(ge=-1, le=2**31 - 1), WithJsonSchema({"type": "integer", "anyOf": [{"const": -1}, {"minimum": 1}]})
]


class _Strict(BaseModel):
    """JSON's own types, no other fields, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Message(_Strict):
    """One message. The last one is the user's. A system (or developer) message comes first, if there is one."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[object, WithJsonSchema(CONTENT_SCHEMA)]
    name: Name | None = None  # accepted, not shown to the model
    # what clients send back of an answer, as far as it says nothing
    refusal: None = None
    audio: None = None
    function_call: None = None
    reasoning_content: None = None
    tool_calls: Empty | None = None
    annotations: Empty | None = None


class StreamOptions(_Strict):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # accepted: nothing is padded


class VideoKwargs(_Strict):
    """vLLM's: num_frames -1 means all, up to the service's limit."""

    num_frames: Frames | None = None
    fps: Annotated[float, Field(gt=0, le=1e6)] | None = None


class MediaIoKwargs(_Strict):
    video: VideoKwargs | None = None
    image: EmptyObject | None = None


class _Accepted(_Strict):
    """Fields that clients send and that change nothing here; where only one value changes nothing, it is the only one
    allowed."""

    user: Name | None = None  # takes part in the order of the queue
    metadata: dict[str, object] | None = None
    store: bool | None = None
    service_tier: Name | None = None
    safety_identifier: Name | None = None
    prompt_cache_key: Name | None = None
    parallel_tool_calls: bool | None = None
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None
    tools: Empty | None = None
    tool_choice: Literal["none", "auto"] | None = None
    functions: Empty | None = None
    function_call: Literal["none", "auto"] | None = None
    logit_bias: EmptyObject | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    audio: None = None
    prediction: None = None
    web_search_options: None = None
    reasoning_effort: None = None
    verbosity: None = None
    repetition_penalty: One | None = None
    repeat_penalty: One | None = None
    typical_p: One | None = None
    min_tokens: Annotated[int, Field(ge=0, le=0)] | None = None
    ignore_eos: No | None = None
    echo: No | None = None
    add_generation_prompt: Yes | None = None
    skip_special_tokens: Yes | None = None
    id_slot: Annotated[int, Field(ge=-1, le=-1)] | None = None


class ChatRequest(_Accepted):
    """A request for the next message of a conversation."""

    model: Name | None = Field(None, description="The served name, its file's name, or default.")
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # the answer
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    max_tokens: Whole | None = None
    max_completion_tokens: Whole | None = None
    n_predict: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = Field(
        None, description="llama-server's; -1: the limit."
    )
    temperature: Annotated[float, Field(ge=0, le=5)] | None = Field(None, description="0, the default, is greedy.")
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = Field(None, description="0 or -1 is off.")
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-1, le=2**32 - 2)] | None = Field(None, description="-1 draws one.")
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: dict[str, object] | None = Field(
        None, description="text, json_object, or json_schema with a schema that the answer will follow."
    )
    json_schema: dict[str, object] | None = Field(None, description="llama-server's: a schema for the answer.")
    grammar: Annotated[str, Field(max_length=MAX_GRAMMAR)] | None = Field(None, description="GBNF with a rule root.")
    # the clips and pictures
    visual_tokens: Name | None = Field(
        None, description="A setting of the command line: off, auto, paper, budget=0.15."
    )
    frames: Frames | None = Field(None, description="Of each clip, evenly spread; -1: all, up to the limit.")
    fps: Annotated[float, Field(gt=0, le=1e6)] | None = None
    start: Seconds | None = None
    end: Seconds | None = None
    pick: Pick | None = Field(None, description="What frames are spread over: index, time, auto (as the clip is).")
    media_io_kwargs: MediaIoKwargs | None = None
    mm_processor_kwargs: VideoKwargs | None = None
    # what is told, and how it is computed
    cache_prompt: bool | None = Field(None, description="False: nothing computed for earlier requests is used.")
    return_progress: bool | None = None
    timings_per_token: bool | None = None
    return_looks: bool | None = Field(None, description="What was kept of each frame, with the answer.")


_WHY = {  # what is said of fields and values that are often wrong, or cannot be honoured
    "messages": f"give a list of 1 to {MAX_MESSAGES} messages",
    "temperature": "give a number from 0 (greedy) to 5",
    "top_p": "give a number above 0 and at most 1",
    "min_p": "give a number from 0 (off) to 1",
    "top_k": "give a whole number above 0, or 0 or -1 for all",
    "seed": f"give a whole number from 0 to {2**32 - 2}, or -1 to draw one",
    "frequency_penalty": "give a number from -2 to 2",
    "presence_penalty": "give a number from -2 to 2",
    "max_tokens": "give a whole number above 0",
    "max_completion_tokens": "give a whole number above 0",
    "n_predict": "give a whole number above 0, or -1 for the service's limit",
    "top_logprobs": "give a whole number from 0 to 20",
    "logprobs": "give true or false; top_logprobs is their number",
    "fps": "give frames per second above 0",
    "start": "give seconds, 0 or more",
    "end": "give seconds, 0 or more",
    "pick": "give auto, time or index",
    "tool_calls": "tools are not called; leave it out",
    "n": "there is one answer to a request; send the request again for another",
    "best_of": "there is one answer to a request",
    "tools": "tools are not called; leave it out, or ask for JSON with response_format",
    "tool_choice": 'tools are not called; give "none" or leave it out',
    "functions": "functions are not called; leave it out",
    "logit_bias": "tokens are not weighed; leave it out",
    "modalities": 'answers are text; give ["text"] or leave it out',
    "audio": "answers are text; leave it out",
    "min_pixels": "a frame's size is set when the model is loaded (--frame-tokens); leave it out",
    "max_pixels": "a frame's size is set when the model is loaded (--frame-tokens); leave it out",
    "repetition_penalty": "give 1 or leave it out, or use frequency_penalty",
    "repeat_penalty": "give 1 or leave it out, or use frequency_penalty",
    "frames": "give a whole number above 0, or -1 for all up to the limit",
    "num_frames": "give a whole number above 0, or -1 for all up to the limit",
    "stop": f"give a text, or a list of at most {MAX_STOPS} texts, none of them empty",
    "visual_tokens": 'give a setting as a text, such as "auto", "off" or "budget=0.5"',
    "reasoning_effort": "models answer without it; leave it out",
    "verbosity": "models answer without it; leave it out",
    "prediction": "answers are not predicted; leave it out",
    "web_search_options": "nothing is searched; leave it out",
    "role": "roles are system, developer, user and assistant",
}

_TYPES = {  # what is said of a value of the wrong type, by pydantic's name of the error
    "string_type": "give a text",
    "bool_type": "give true or false",
    "int_type": "give a whole number",
    "int_from_float": "give a whole number",
    "float_type": "give a number",
    "list_type": "give a list",
    "dict_type": "give an object",
    "none_required": "leave it out",
}


def parse_request(body: bytes) -> ChatRequest:
    """Raises RequestError, which names the first field that is wrong."""
    if body.startswith(_OTHER_MARKS):
        raise RequestError(400, "the body begins with the byte order mark of UTF-16 or UTF-32; send it in UTF-8")
    _check_tokens(body)
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as e:
        wrong = [error for error in e.errors(include_url=False) if not _is_unknown_null(error)]
        if wrong:
            raise _refused(wrong[0]) from e
        kept = _without(json.loads(body), [error["loc"] for error in e.errors()])
        return ChatRequest.model_validate_json(json.dumps(kept))


def _is_unknown_null(error: Any) -> bool:
    """Clients send every field that their server has; one that is null asks for nothing, whatever its name."""
    return bool(error["type"] == "extra_forbidden" and error["input"] is None)


def _without(body: Any, paths: Iterable[tuple[object, ...]]) -> Any:
    """A request's JSON without the fields at these paths of pydantic's."""
    for *steps, name in paths:
        place = body
        for step in steps:
            place = place[step]
        del place[name]
    return body


def _check_tokens(body: bytes) -> None:
    """A list of 60 MB of "[]," takes gigabytes and a minute to read, and nothing else runs meanwhile.

    Raises RequestError.
    """
    if sum(map(body.count, (b'"', b",", b"[", b"{"))) <= MAX_TOKENS:  # nearly always: base64 has none of them
        return
    if next(islice(_TOKEN.finditer(body), MAX_TOKENS, None), None):
        said = f"the body has more than {MAX_TOKENS:,} texts, lists, objects and commas; send fewer, and longer ones"
        raise RequestError(400, said, code="too_many_values")


def _refused(error: Any) -> RequestError:
    """error: one of pydantic's."""
    if error["type"] == "json_invalid":
        return RequestError(400, f"the body is not valid JSON: {error['ctx']['error']}", code="invalid_json")
    path, known = list[object](), _Path()
    for step in error["loc"]:
        if known.takes(step):
            path.append(step)
    if not path:
        return RequestError(400, 'the body is not a JSON object; send one such as {"messages": [...]}')
    where, name = dotted(path), str(path[-1])
    why = _WHY.get(name)
    if error["type"] == "missing":
        return RequestError(400, f"{where} is missing", param=where)
    if error["type"] == "extra_forbidden":
        what = (why if len(path) == 1 or name.endswith("_pixels") else None) or _instead(path)
        return RequestError(400, f"{where} is not known here; {what}", param=where, code="unknown_field")
    return RequestError(400, f"{where} is {shown(error['input'])}; {why or _wanted(error)}", param=where)


def _wanted(error: Any) -> str:
    """What pydantic wanted in the place of a value, as a request to whoever sent it."""
    said = str(error["msg"]).removeprefix("Value error, ")
    said = _TYPES.get(error["type"]) or said.replace("Input should be", "give", 1)
    return said[:1].lower() + said[1:]


def _instead(path: Sequence[object]) -> str:
    """What to do with a field that is not known."""
    near = get_close_matches(str(path[0]), ChatRequest.model_fields, n=1, cutoff=0.8) if len(path) == 1 else []
    return f"did you mean {near[0]}?" if near else "leave it out"


class _Path:
    """Which steps of pydantic's paths are fields and places of lists; the others name the branch of a union."""

    def __init__(self) -> None:
        self._before: object = None

    def takes(self, step: object) -> bool:
        found = isinstance(step, int) or self._before is None or not _names_a_type(str(step))
        if found:
            self._before = step
        return found


def _names_a_type(step: str) -> bool:
    return step in ("str", "dict", "bool", "int", "float") or step.startswith(
        ("list[", "dict[", "constrained-", "literal[")
    )


def dotted(path: Sequence[object]) -> str:
    """`messages[0].content` from its steps."""
    out = ""
    for step in path:
        out += f"[{step}]" if isinstance(step, int) else f".{step}" if out else str(step)
    return out if len(out) <= 200 else f"{out[:200]}..."


def shown(value: object, n: int = 60) -> str:
    """A value in an error line: JSON, and no more than n characters of it."""
    if isinstance(value, (dict, list)) and len(value) > 8:
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    try:
        text = json.dumps(value, ensure_ascii=True)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= n else f"{text[: n - 3]}..."
