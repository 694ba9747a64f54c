"""llama.cpp's samplers: greedy, or top-k, top-p, min-p, temperature and a seeded draw; penalties; a grammar.

Plain numbers in, one token after the other out. What a grammar says is grammar.py's business.
"""

from __future__ import annotations

import ctypes
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_char_p, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ClosedError, ModelError, NativeError, UsageError
from ..grammar.gbnf import check_text
from .binding import bind
from .constrained_text import ConstrainedText
from .finite import finite_logits
from .library import LLAMA, libllama, llama
from .llama import LlamaModel
from .outcome import FAILED
from .stop import StopHook, stop_callback

GRAMMAR_MS, GRAMMAR_BYTES = 10_000, 64 << 20  # of one draw, and of a grammar's beginning; rich schemas take 1 MiB
_MAX_REASON = 300
_PAIR = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # struct llama_token_data

# struct llama_sampler * aim_grammar_init(const struct llama_vocab * vocab, const char * text)
_init = bind(libllama, "aim_grammar_init", [c_void_p, c_char_p], llama.llama_sampler_p_ctypes)
# void aim_grammar_bounds(int32_t n_ms, int64_t n_bytes, aim_stop_callback poll, void * data)
_bounds = bind(libllama, "aim_grammar_bounds", [c_int32, c_int64, stop_callback, c_void_p], None)


@dataclass(frozen=True)
class Sampling:
    """temperature 0 is greedy. seed: None draws one. Penalties as OpenAI has them, for the last n_penalized drawn ones.

    grammar: GBNF with a rule "root", "" for none.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    n_penalized: int = 0
    seed: int | None = None
    grammar: str = ""


class Sampler:
    """Draws from a context's logits. `close()` frees it. Raises UsageError for a grammar that is none.

    check: raises what the work on a grammar shall end with. It ends by itself, as UsageError, after GRAMMAR_MS.
    """

    def __init__(self, model: LlamaModel, sampling: Sampling, check: Callable[[], None] = lambda: None) -> None:
        self._n_vocab = model.n_vocab
        self._finite = partial(finite_logits, path=model.path, stop=model.stop)
        self._chain = self._grammar = None
        if sampling.grammar:
            self._stop = StopHook()
            self._stop.poll = check
            check_text(sampling.grammar)
            with self._bounded():
                self._grammar = _checked(_init(model.vocab, sampling.grammar.encode()))
            self._text = ConstrainedText(model, sampling.grammar)
        self._chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        for part in _parts(model.n_vocab, sampling):
            llama.llama_sampler_chain_add(self._chain, part)

    def draw(self, context: Any) -> int:
        """The next token, from the logits after the last decoded one. context: a llama_context.

        Raises ModelError where no token of the model continues what the grammar allows, UsageError where a grammar has
        too many ways to go on, and as finite_logits does.
        """
        if self._chain is None:
            raise ClosedError("the sampler is closed; make another one")
        logits = self._finite(self._logits(context))
        if not self._grammar:
            return int(llama.llama_sampler_sample(self._chain, context, -1))
        with self._bounded():
            token = self._allowed(logits)
            llama.llama_sampler_accept(self._grammar, token)
        self._text.add(token)
        llama.llama_sampler_accept(self._chain, token)
        return token

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        """What a grammar takes in it has bounds, and can be stopped."""
        _bounds(GRAMMAR_MS, GRAMMAR_BYTES, self._stop.callback, None)
        try:
            yield
        except UsageError as e:
            raise UsageError(f"the grammar {_said()}") from e
        except NativeError as e:
            self._stop.reraise()
            if LLAMA.status() != FAILED:
                raise
            raise UsageError(f"llama.cpp cannot follow the grammar: {_said()}; write it without tokens (<...>)") from e
        finally:
            _bounds(0, 0, stop_callback(), None)

    def _allowed(self, logits: NDArray[np.float32]) -> int:
        """A token that the grammar allows. Most draws are; the whole vocabulary is asked where one is not."""
        token = _apply(_candidates(logits), self._chain)
        alone = np.array([(token, 0.0, 0.0)], _PAIR)
        _apply(alone, self._grammar)
        if np.isfinite(alone["logit"][0]) and self._text.goes_on_with(token):
            return token
        every = _candidates(logits)
        _apply(every, self._grammar)
        while np.isfinite(every["logit"]).any():
            token = _apply(every.copy(), self._chain)
            if self._text.goes_on_with(token):
                return token
            every["logit"][token] = -np.inf
        raise ModelError("no token of this model continues what the grammar allows; change the grammar or schema")

    def _logits(self, context: Any) -> NDArray[np.float32]:
        pointer = llama.llama_get_logits_ith(context, -1)
        return np.ctypeslib.as_array(pointer, shape=(self._n_vocab,))

    def close(self) -> None:
        for part in (self._chain, self._grammar):
            if part:
                llama.llama_sampler_free(part)
        self._chain = self._grammar = None


def _said() -> str:
    """What a call failed with: one line, which may quote the rest of the grammar."""
    return " ".join(LLAMA.text().split())[:_MAX_REASON]


def _checked(sampler: Any) -> Any:
    if not sampler:
        raise LLAMA.error()
    return sampler


def _parts(n_vocab: int, sampling: Sampling) -> list[Any]:
    parts = []
    if sampling.frequency_penalty or sampling.presence_penalty:
        each, once = sampling.frequency_penalty, sampling.presence_penalty
        parts.append(llama.llama_sampler_init_penalties(n_vocab, sampling.n_penalized, 1.0, each, once))
    if sampling.temperature == 0:
        return [*parts, llama.llama_sampler_init_greedy()]
    seed = sampling.seed if sampling.seed is not None else secrets.randbelow(2**32 - 1)
    return [
        *parts,
        llama.llama_sampler_init_top_k(sampling.top_k),
        llama.llama_sampler_init_top_p(sampling.top_p, 1),
        llama.llama_sampler_init_min_p(sampling.min_p, 1),
        llama.llama_sampler_init_temp(sampling.temperature),
        llama.llama_sampler_init_dist(seed),
    ]


def _candidates(logits: NDArray[np.float32]) -> NDArray[Any]:
    found = np.zeros(len(logits), _PAIR)
    found["id"], found["logit"] = np.arange(len(logits)), logits
    return found


def _apply(candidates: NDArray[Any], sampler: Any) -> int:
    """Changes candidates in place; the token that the sampler chose, -1 where it only weighs."""
    data = candidates.ctypes.data_as(ctypes.POINTER(llama.llama_token_data))
    array = llama.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)
    llama.llama_sampler_apply(sampler, ctypes.byref(array))
    return int(array.data[array.selected].id) if array.selected >= 0 else -1
