"""Next tokens from a context: stop conditions, and text that never splits a character."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from ..config import GenerateConfig
from ..errors import CancelledError
from ..grammar.schema import object_grammar, schema_grammar
from ..native.llama import LlamaModel, Rows
from ..native.sampler import Sampler, Sampling
from ..results import TokenLogprob
from .contexts import Context
from .watch import Watch

OnText = Callable[[str], None]
OnToken = Callable[[TokenLogprob], None]  # with GenerateConfig.logprobs; before on_text gets the token's text
OnDraw = Callable[[int], None]  # a token was drawn, end of turn included; the logits it came from can still be read


class TextStream:
    """Token bytes in, text out; holds back unfinished UTF-8 and what may become a stop string."""

    def __init__(self, stop: tuple[str, ...], on_text: OnText | None) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop, self._on_text = stop, on_text
        self._held = ""
        self.text = ""
        self.stopped = False

    def feed(self, data: bytes) -> None:
        self._take(self._decoder.decode(data))

    def end(self, *, is_cut: bool) -> None:
        """Gives out what was held back. is_cut: not by the model, so that bytes of half a character are no fault of it.

        They are left out then, and U+FFFD otherwise.
        """
        self._take("" if is_cut else self._decoder.decode(b"", final=True), final=True)

    def _take(self, text: str, *, final: bool = False) -> None:
        self._held += text
        for stop in self._stop:
            at = self._held.find(stop)
            if at >= 0:
                self._held, self.stopped = self._held[:at], True
        hold = 0 if final or self.stopped else self._may_become_stop()
        out, self._held = self._held[: len(self._held) - hold], self._held[len(self._held) - hold :]
        if out:
            self.text += out
            if self._on_text:
                self._on_text(out)

    def _may_become_stop(self) -> int:
        """Length of the longest tail that begins a stop string."""
        for n in range(min(len(self._held), max((len(s) for s in self._stop), default=0)), 0, -1):
            if any(s.startswith(self._held[-n:]) for s in self._stop):
                return n
        return 0


@dataclass(frozen=True)
class Generated:
    """An answer: its text, and its tokens without the end-of-turn token. The last token may not be in the KV cache.

    first: time.perf_counter() when the first token was drawn. decode_ms: from there to the last one.
    stop_reason: "eos", "length", "stop", "interrupted" or "cancelled". logprobs: of each token, None if not asked for.
    """

    text: str
    tokens: list[int]
    first: float
    decode_ms: float
    stop_reason: str
    logprobs: list[TokenLogprob] | None = None


@dataclass
class _Course:
    """How far an answer is."""

    first: float = 0.0
    last: float = 0.0
    stop_reason: str = "length"
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def drew(self) -> None:
        self.last = time.perf_counter()
        self.first = self.first or self.last


def generate(
    context: Context,
    config: GenerateConfig,
    on_text: OnText | None = None,
    on_draw: OnDraw | None = None,
    watch: Watch | None = None,
    on_token: OnToken | None = None,
) -> Generated:
    """Decodes an answer after a prefilled prompt. Ctrl-C and a cancel end the answer once it has begun.

    Before its first token they come out: KeyboardInterrupt, CancelledError.
    """
    llama = context.text.llama
    watch = watch or Watch()
    sampler = Sampler(llama, sampling_of(config), watch.check)
    stream, course = TextStream(config.stop, on_text), _Course()
    try:
        for token in _tokens(context, sampler, config, course, on_draw, watch):
            course.tokens.append(token)
            if on_token and course.logprobs:
                on_token(course.logprobs[-1])
            stream.feed(llama.piece(token))
            if stream.stopped:
                course.stop_reason = "stop"
                break
    except (KeyboardInterrupt, CancelledError) as e:
        if not course.tokens:  # there is no answer yet
            raise
        course.stop_reason = "interrupted" if isinstance(e, KeyboardInterrupt) else "cancelled"
    finally:
        sampler.close()
    stream.end(is_cut=course.stop_reason != "eos")
    decode_ms = (course.last - course.first) * 1000 if course.tokens else 0.0
    logprobs = None if config.logprobs is None else course.logprobs
    return Generated(stream.text, course.tokens, course.first, decode_ms, course.stop_reason, logprobs)


def sampling_of(config: GenerateConfig) -> Sampling:
    """Raises UsageError for a JSON schema that has no grammar."""
    grammar, schema = config.grammar, config.json_schema
    if schema is not None:
        grammar = schema_grammar(schema) if schema else object_grammar()
    return Sampling(
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        min_p=config.min_p,
        frequency_penalty=config.frequency_penalty,
        presence_penalty=config.presence_penalty,
        n_penalized=config.max_tokens,
        seed=config.seed,
        grammar=grammar,
    )


def check_sampling(llama: LlamaModel, config: GenerateConfig, watch: Watch | None = None) -> None:
    """What a grammar or schema gets wrong, told before a prompt is computed. Raises UsageError."""
    if config.grammar or config.json_schema is not None:
        Sampler(llama, sampling_of(config), (watch or Watch()).check).close()


def token_logprob(llama: LlamaModel, logits: Rows, token: int, n_top: int) -> TokenLogprob:
    """logits: float32 [n_vocab] that `token` was drawn from."""
    wide = logits.astype(np.float64)
    largest = wide.max()
    logprobs = wide - (largest + np.log(np.exp(wide - largest).sum()))
    top = np.argsort(-logprobs, kind="stable")[:n_top]
    likeliest = tuple(TokenLogprob(int(i), llama.piece(int(i), special=True), float(logprobs[i])) for i in top)
    return TokenLogprob(token, llama.piece(token), float(logprobs[token]), likeliest)


def _tokens(
    context: Context,
    sampler: Sampler,
    config: GenerateConfig,
    course: _Course,
    on_draw: OnDraw | None,
    watch: Watch,
) -> Iterator[int]:
    """Yields up to max_tokens; each is in the KV cache before the next is drawn, the last one yielded is not."""
    n_max, llama = config.max_tokens, context.text.llama
    for i in range(n_max):
        watch.check()
        token = sampler.draw(context.handle)
        is_last = llama.is_eog(token)
        if not is_last or not i:
            course.drew()
        if on_draw:
            on_draw(token)
        if is_last:
            course.stop_reason = "eos"
            return
        if config.logprobs is not None:
            course.logprobs.append(token_logprob(llama, context.logits(), token, config.logprobs))
        yield token
        if i + 1 == n_max or context.n_past == context.n_ctx:
            return
        context.decode_tokens([token], logits=True)


def cut_warning(context: Context, generated: Generated, config: GenerateConfig) -> list[str]:
    """A line where the answer ended because the context is full."""
    if generated.stop_reason != "length" or len(generated.tokens) >= config.max_tokens:
        return []
    return [f"the answer was cut: the context of {context.n_ctx} tokens is full; use a larger n_ctx"]
