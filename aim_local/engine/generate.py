"""Next tokens from a context: llama.cpp's sampler chain, stop conditions, and text that never splits a character."""

from __future__ import annotations

import codecs
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..config import GenerateConfig
from ..native.library import llama
from ..native.llama import Context, TextModel
from ..results import Stats

OnText = Callable[[str], None]
OnDraw = Callable[[int], None]  # a token was drawn, end of turn included; the logits it came from can still be read


class Sampler:
    """Greedy at temperature 0, else top-k, top-p, temperature and a seeded draw."""

    def __init__(self, config: GenerateConfig) -> None:
        self._chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        if config.temperature == 0:
            parts = [llama.llama_sampler_init_greedy()]
        else:
            seed = config.seed if config.seed is not None else secrets.randbelow(2**32 - 1)
            parts = [
                llama.llama_sampler_init_top_k(config.top_k),
                llama.llama_sampler_init_top_p(config.top_p, 1),
                llama.llama_sampler_init_temp(config.temperature),
                llama.llama_sampler_init_dist(seed),
            ]
        for part in parts:
            llama.llama_sampler_chain_add(self._chain, part)

    def next(self, context: Context) -> int:
        return int(llama.llama_sampler_sample(self._chain, context.handle, -1))

    def close(self) -> None:
        if self._chain:
            llama.llama_sampler_free(self._chain)
            self._chain = None


class TextStream:
    """Token bytes in, text out; holds back unfinished UTF-8 and what may become a stop string."""

    def __init__(self, stop: tuple[str, ...], on_text: OnText | None) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop, self._on_text = stop, on_text
        self._held = ""
        self.text = ""
        self.stopped = False

    def feed(self, data: bytes, *, final: bool = False) -> None:
        self._held += self._decoder.decode(data, final)
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
    """An answer: its text, and its tokens without the end-of-turn token. The last token may not be in the KV cache."""

    text: str
    tokens: list[int]


def generate(
    model: TextModel,
    context: Context,
    config: GenerateConfig,
    stats: Stats,
    on_text: OnText | None,
    start: float,
    on_draw: OnDraw | None = None,
) -> Generated:
    """Decodes an answer after a prefilled prompt.

    start: time.perf_counter() of the call, for time to first token. Ctrl-C ends the answer, not the program:
    stats.stop_reason says why it ended ("eos", "length", "stop", "interrupted").
    """
    sampler, stream = Sampler(config), TextStream(config.stop, on_text)
    stats.stop_reason = "length"
    tokens: list[int] = []
    try:
        for token in _tokens(model, context, sampler, config.max_tokens, stats, start, on_draw):
            tokens.append(token)
            stream.feed(model.piece(token))
            if stream.stopped:
                stats.stop_reason = "stop"
                break
    except KeyboardInterrupt:
        stats.stop_reason = "interrupted"
    finally:
        sampler.close()
    stream.feed(b"", final=True)
    return Generated(stream.text, tokens)


def _tokens(
    model: TextModel,
    context: Context,
    sampler: Sampler,
    n_max: int,
    stats: Stats,
    start: float,
    on_draw: OnDraw | None,
) -> Iterator[int]:
    """Yields up to n_max tokens; each is in the KV cache before the next is drawn, the last one yielded is not."""
    first = 0.0
    for i in range(n_max):
        token = sampler.next(context)
        now = time.perf_counter()
        if i == 0:
            first, stats.ttft_ms = now, (now - start) * 1000
        if on_draw:
            on_draw(token)
        if model.is_eog(token):
            stats.stop_reason = "eos"
            return
        stats.n_generated, stats.decode_ms = i + 1, (now - first) * 1000
        yield token
        if i + 1 == n_max or context.n_past == context.n_ctx:
            return
        context.decode_tokens([token], logits=True)
