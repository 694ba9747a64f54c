"""llama.cpp's samplers: greedy, or top-k, top-p, min-p, temperature and a seeded draw; penalties; a grammar.

Plain numbers in, one token after the other out. What a grammar says is grammar.py's business.
"""

from __future__ import annotations

import ctypes
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ClosedError, ModelError, UsageError
from . import log
from .aside import aside, is_busy
from .finite import finite_logits
from .library import llama
from .llama import LlamaModel

T = TypeVar("T")
MAX_GRAMMAR, MAX_NESTING = 1 << 20, 200
_SAID = "parse: error parsing grammar: "  # before llama.cpp's reason
_PAIR = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # struct llama_token_data


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

    check: raises what the work on a grammar shall end with, which may be endless (aside.py).
    """

    def __init__(self, model: LlamaModel, sampling: Sampling, check: Callable[[], None] = lambda: None) -> None:
        self._n_vocab, self._check, self._is_left = model.n_vocab, check, False
        self._finite = partial(finite_logits, path=model.path, stop=model.stop)
        self._chain = self._grammar = None
        if sampling.grammar:
            _check_text(sampling.grammar)
            self._aside(partial(self._read, model.vocab, sampling.grammar.encode()))
        self._chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        for part in _parts(model.n_vocab, sampling):
            llama.llama_sampler_chain_add(self._chain, part)

    def draw(self, context: Any) -> int:
        """The next token, from the logits after the last decoded one. context: a llama_context.

        Raises ModelError where no token of the model continues what the grammar allows, and as finite_logits does.
        """
        if self._chain is None:
            raise ClosedError("the sampler is closed; make another one")
        if not self._grammar:
            self._finite(self._logits(context))
            return int(llama.llama_sampler_sample(self._chain, context, -1))
        return self._aside(partial(self._draw, self._finite(self._logits(context).copy())))

    def _read(self, vocab: Any, grammar: bytes) -> None:
        log.clear()  # what llama.cpp says is heard in the thread that asks
        self._grammar = llama.llama_sampler_init_grammar(vocab, grammar, b"root")
        if not self._grammar:
            why = " ".join(log.last_error("it does not parse").split()).removeprefix(_SAID)
            raise UsageError(f"the grammar is no GBNF with a rule root: {why}")

    def _draw(self, logits: NDArray[np.float32]) -> int:
        token = self._allowed(logits)
        llama.llama_sampler_accept(self._grammar, token)
        llama.llama_sampler_accept(self._chain, token)
        return token

    def _aside(self, call: Callable[[], T]) -> T:
        was_busy = is_busy()
        try:
            return aside(call, self._free, self._check)
        finally:
            self._is_left = is_busy() and not was_busy

    def _allowed(self, logits: NDArray[np.float32]) -> int:
        """A token that the grammar allows. Most draws are; the whole vocabulary is asked where one is not."""
        token = _apply(_candidates(logits), self._chain)
        alone = np.array([(token, 0.0, 0.0)], _PAIR)
        _apply(alone, self._grammar)
        if np.isfinite(alone["logit"][0]):
            return token
        every = _candidates(logits)
        _apply(every, self._grammar)
        if not np.isfinite(every["logit"]).any():
            raise ModelError("no token of this model continues what the grammar allows; change the grammar or schema")
        return _apply(every, self._chain)

    def _logits(self, context: Any) -> NDArray[np.float32]:
        pointer = llama.llama_get_logits_ith(context, -1)
        return np.ctypeslib.as_array(pointer, shape=(self._n_vocab,))

    def close(self) -> None:
        if not self._is_left:  # a thread that works on it frees it
            self._free()

    def _free(self) -> None:
        for part in (self._chain, self._grammar):
            if part:
                llama.llama_sampler_free(part)
        self._chain = self._grammar = None


def _check_text(grammar: str) -> None:
    """llama.cpp's parser calls itself for each parenthesis, and writes what it cannot parse to the terminal."""
    if len(grammar) > MAX_GRAMMAR:
        raise UsageError(f"the grammar has {len(grammar)} characters; give at most {MAX_GRAMMAR}")
    strange = next((c for c in grammar if not c.isprintable() and c not in "\n\r\t"), None)
    if strange is not None:
        raise UsageError(f"the grammar has the control character {strange!r}; write it as \\x{ord(strange):02X}")
    depth = deepest = 0
    for character in grammar:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    if deepest > MAX_NESTING:
        raise UsageError(f"the grammar is {deepest} parentheses deep; give at most {MAX_NESTING}")


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
