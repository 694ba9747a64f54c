"""What a chat request asks of the model: turns, options of the answer, frames, visual tokens.

Knows how fields of the request become the library's options, and the limits of one request. The media are still as
they came; sources.py makes files of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from ...config import GenerateConfig, VisualTokenConfig
from ...errors import UsageError
from ...media import FrameSampling
from ...settings import parse_setting
from ..failures import RequestError
from ..limits import Limits
from .content import MediaPart, read_content
from .wire import ChatRequest, shown

T = TypeVar("T")
MAX_BYTES_A_TOKEN = 32  # of text, on average: more than any language or code has; it is told apart in one go, and late


@dataclass(frozen=True)
class Defaults:
    """What holds where a request says nothing of it. tokens, frames: None for the model's own."""

    tokens: VisualTokenConfig | None = None
    frames: int | None = None


@dataclass(frozen=True)
class Served:
    """The model as requests see it. names: under which it may be asked for, the first is told. n_ctx_train: tokens."""

    names: tuple[str, ...]
    has_vision: bool
    default_frames: int
    n_ctx_train: int
    defaults: Defaults = Defaults()


@dataclass(frozen=True)
class AskedTurn:
    role: str
    text: str
    media: tuple[MediaPart, ...] = ()


@dataclass(frozen=True)
class Asked:
    """turns: without the system prompt; the last is the user's. tokens, sampling: None for the model's default.

    user and the flags are the request's fields of that name.
    """

    turns: tuple[AskedTurn, ...]
    system: str | None
    generate: GenerateConfig
    tokens: VisualTokenConfig | None
    sampling: FrameSampling | None
    user: str = ""
    logprobs: bool = False
    stream: bool = False
    include_usage: bool = False
    cache_prompt: bool = True
    return_progress: bool = False
    timings_per_token: bool = False
    return_looks: bool = False

    @property
    def parts(self) -> tuple[MediaPart, ...]:
        return tuple(part for turn in self.turns for part in turn.media)

    def without_parts(self) -> Asked:
        """The same, without what came of its media, which may be large."""
        return replace(self, turns=tuple(replace(turn, media=()) for turn in self.turns))


def understand(request: ChatRequest, served: Served, limits: Limits) -> Asked:
    """Raises RequestError, naming the field."""
    _check_model(request.model, served)
    system, turns = _turns(request)
    _check_length([system or "", *(turn.text for turn in turns)], served)
    _check_media([part for turn in turns for part in turn.media], served, limits)
    options = request.stream_options
    if options is not None and not request.stream:
        raise RequestError(400, "stream_options needs stream: true; leave one out", param="stream_options")
    with blaming("visual_tokens"):
        tokens = served.defaults.tokens if request.visual_tokens is None else parse_setting(request.visual_tokens)
    return Asked(
        turns=turns,
        system=system,
        generate=_generate(request, limits),
        tokens=tokens,
        sampling=_sampling(request, served, limits),
        user=request.user or "",
        logprobs=bool(request.logprobs),
        stream=bool(request.stream),
        include_usage=bool(options and options.include_usage),
        cache_prompt=request.cache_prompt is not False,
        return_progress=bool(request.return_progress),
        timings_per_token=bool(request.timings_per_token),
        return_looks=bool(request.return_looks),
    )


@contextmanager
def blaming(param: str) -> Iterator[None]:
    """A UsageError of the library raised inside becomes a refusal of that field."""
    try:
        yield
    except UsageError as e:
        raise RequestError(400, f"{param}: {e}", param=param) from e


def _check_model(name: str | None, served: Served) -> None:
    if name is not None and name not in served.names:
        names = " or ".join(served.names)
        said = f"model {shown(name)} is not served here; give {names}, leave it out, or start the service with --name"
        raise RequestError(404, said, param="model", code="model_not_found")


# --- messages ---------------------------------------------------------------------------------------------------------


def _turns(request: ChatRequest) -> tuple[str | None, tuple[AskedTurn, ...]]:
    system, turns = None, list[AskedTurn]()
    for i, message in enumerate(request.messages):
        where = f"messages[{i}]"
        text, media = read_content(message.content, f"{where}.content")
        if media and message.role != "user":
            raise RequestError(400, f"{media[0].where}: only the user shows media", param=media[0].where)
        if message.role in ("system", "developer"):
            if i:
                raise RequestError(
                    400, f"{where} is a {message.role} message; there may be one, as the first", param=where
                )
            system = text
            continue
        expected = "assistant" if turns and turns[-1].role == "user" else "user"
        if message.role != expected:
            raise RequestError(
                400, f"{where} is the {message.role}'s; user and assistant take turns, and the user begins", param=where
            )
        turns.append(AskedTurn(message.role, text, media))
    if not turns or turns[-1].role != "user":
        raise RequestError(400, "the last message must be the user's", param="messages")
    return system or None, tuple(turns)


def _check_length(texts: Sequence[str], served: Served) -> None:
    """Before the tokenizer, which nothing stops: 10 MB of text take it many seconds. Raises RequestError."""
    n_bytes, n_max = sum(len(text.encode()) for text in texts), MAX_BYTES_A_TOKEN * served.n_ctx_train
    if n_bytes > n_max:
        raise RequestError(
            400,
            f"the texts have {n_bytes:,} bytes; {served.names[0]} was trained for {served.n_ctx_train} tokens, and at "
            f"most {MAX_BYTES_A_TOKEN} bytes for each are taken ({n_max:,}): shorten the text",
            param="messages",
            code="context_length_exceeded",
        )


def _check_media(parts: Sequence[MediaPart], served: Served, limits: Limits) -> None:
    if parts and not served.has_vision:
        raise RequestError(
            400,
            f"{served.names[0]} is a text-only model, it cannot take a video or picture; serve it with its mmproj, or "
            "serve another model",
            param=parts[0].where,
            code="no_vision",
        )
    if len(parts) > limits.n_media:
        raise RequestError(
            400,
            f"{len(parts)} videos and pictures are more than one request may show ({limits.n_media})",
            param="messages",
        )


# --- the answer -------------------------------------------------------------------------------------------------------


def _generate(request: ChatRequest, limits: Limits) -> GenerateConfig:
    schema, grammar = _form(request)
    if request.top_logprobs is not None and not request.logprobs:
        raise RequestError(400, "top_logprobs needs logprobs: true", param="top_logprobs")
    default = GenerateConfig()
    return GenerateConfig(  # its other checks are those of the request's fields
        max_tokens=_max_tokens(request, limits),
        temperature=_or(request.temperature, default.temperature),
        seed=None if request.seed == -1 else request.seed,
        top_k=max(0, _or(request.top_k, default.top_k)),
        top_p=_or(request.top_p, default.top_p),
        stop=(request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ()),
        min_p=_or(request.min_p, default.min_p),
        frequency_penalty=_or(request.frequency_penalty, default.frequency_penalty),
        presence_penalty=_or(request.presence_penalty, default.presence_penalty),
        logprobs=_n_alternatives(request),
        json_schema=schema,
        grammar=grammar,
    )


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def _n_alternatives(request: ChatRequest) -> int | None:
    """GenerateConfig.logprobs, which is also how tokens are counted while they come."""
    if request.logprobs:
        return request.top_logprobs or 0
    return 0 if request.timings_per_token else None


def _max_tokens(request: ChatRequest, limits: Limits) -> int:
    """What was asked, else the library's default within the limit. Raises RequestError beyond the limit."""
    given = {
        name: limits.n_answer if value == -1 else value
        for name in ("max_completion_tokens", "max_tokens", "n_predict")
        if (value := getattr(request, name)) is not None
    }
    if len(set(given.values())) > 1:
        said = " and ".join(f"{name} {value}" for name, value in given.items())
        raise RequestError(400, f"{said} say different things; give one of them", param=next(iter(given)))
    for name, value in given.items():
        if not 1 <= value <= limits.n_answer:
            said = f"{name} is {value}; this service allows from 1 to {limits.n_answer}"
            raise RequestError(400, said, param=name)
    return next(iter(given.values()), min(GenerateConfig().max_tokens, limits.n_answer))


def _form(request: ChatRequest) -> tuple[dict[str, object] | None, str]:
    """(JSON schema, grammar) that the answer has to follow. Raises RequestError."""
    schema, own = _response_schema(request.response_format), request.json_schema
    found = {"response_format": schema, "json_schema": own, "grammar": request.grammar}
    given = [name for name, value in found.items() if value is not None]
    if len(given) > 1:
        said = f"{' and '.join(given)} each give the answer's form; give one of them"
        raise RequestError(400, said, param=given[-1])
    return (own if schema is None else schema), request.grammar or ""


def _response_schema(given: dict[str, object] | None) -> dict[str, object] | None:
    """The schema in `response_format`, in OpenAI's and in llama-server's form. Raises RequestError."""
    if given is None:
        return None
    kind, where = given.get("type"), "response_format"
    keys = {"text": {"type"}, "json_object": {"type", "schema"}, "json_schema": {"type", "json_schema", "schema"}}
    if not isinstance(kind, str) or kind not in keys:
        said = f"{where}.type is {shown(kind)}; give text, json_object or json_schema"
        raise RequestError(400, said, param=f"{where}.type")
    _check_keys(given, keys[kind], where)
    if kind == "text":
        return None
    inner = given.get("json_schema")
    if isinstance(inner, dict):
        _check_keys(inner, {"name", "description", "schema", "strict"}, f"{where}.json_schema")
        where, given = f"{where}.json_schema", inner
    schema = given.get("schema")
    if schema is None and kind == "json_object":
        return {}  # any object
    if not isinstance(schema, dict):
        raise RequestError(400, f"{where}.schema is not a JSON schema; give an object", param=f"{where}.schema")
    return schema


def _check_keys(given: dict[str, object], known: set[str], where: str) -> None:
    for key in given.keys() - known:
        raise RequestError(400, f"{where}.{key[:60]} is not known here; leave it out", param=f"{where}.{key[:60]}")


# --- frames -----------------------------------------------------------------------------------------------------------


def _sampling(request: ChatRequest, served: Served, limits: Limits) -> FrameSampling | None:
    """None where nothing was asked, here or of the service, and the model's default is within the limit.

    Raises RequestError.
    """
    io = request.media_io_kwargs.video if request.media_io_kwargs else None
    processor = request.mm_processor_kwargs
    n_frames = _one_of(
        {
            "frames": request.frames,
            "media_io_kwargs.video.num_frames": io.num_frames if io else None,
            "mm_processor_kwargs.num_frames": processor.num_frames if processor else None,
        }
    )
    fps = _one_of(
        {
            "fps": request.fps,
            "media_io_kwargs.video.fps": io.fps if io else None,
            "mm_processor_kwargs.fps": processor.fps if processor else None,
        }
    )
    default = min(served.defaults.frames or served.default_frames, limits.n_frames)
    if all(said is None for said in (n_frames, fps, request.start, request.end, request.pick)):
        return None if default == served.default_frames else FrameSampling(default)
    n = default if fps is None else limits.n_frames  # a rate is obeyed as far as that goes
    if n_frames is not None:
        n = _n_frames(*n_frames, limits)
    with blaming("end" if request.end is not None else "start"):
        return FrameSampling(n, fps[1] if fps else None, request.start, request.end, request.pick or "auto")


def _n_frames(field: str, asked: float, limits: Limits) -> int:
    """-1 is as many as are allowed. Raises RequestError."""
    if asked == -1:
        return limits.n_frames
    if not 1 <= asked <= limits.n_frames:
        said = f"{field} is {asked:.0f}; this service allows from 1 to {limits.n_frames}"
        raise RequestError(400, said, param=field)
    return int(asked)


def _one_of(given: dict[str, int | float | None]) -> tuple[str, float] | None:
    """The one value of several ways to say it, and its field. Raises RequestError where they differ."""
    said = {name: value for name, value in given.items() if value is not None}
    if len(set(said.values())) > 1:
        both = " and ".join(f"{name} {value:g}" for name, value in said.items())
        raise RequestError(400, f"{both} say different things; give one of them", param=next(iter(said)))
    return next(iter(said.items()), None)
