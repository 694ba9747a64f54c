"""Grammars as llama.cpp itself reads them: whether one takes a text, and texts drawn from one.

By the demo's vocabulary, which has a token for each byte; no logits are computed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from aim_local.native import sampler as native
from aim_local.native.library import llama
from aim_local.native.llama import LlamaModel


class Grammars:
    """model: of the demo."""

    def __init__(self, model: LlamaModel) -> None:
        pieces = [model.piece(token) for token in range(model.n_vocab)]
        self._model = model
        self._of_byte = {piece[0]: token for token, piece in enumerate(pieces) if len(piece) == 1}
        self._end = next(token for token in range(model.n_vocab) if model.is_eog(token))

    def takes(self, grammar: str, text: str) -> bool:
        """Whether the whole text is one of the grammar's."""
        with self._followed(grammar) as at:
            return all(at.step(self._of_byte[byte]) for byte in text.encode()) and self._end in at.allowed([self._end])

    def drawn(self, grammar: str, seed: int, limit: int = 300) -> str | None:
        """A text of the grammar, None if it was not done after as many bytes.

        Nor where it is no UTF-8: llama.cpp takes a character that is written in more bytes than it needs.
        """
        pick, said = random.Random(seed), bytearray()
        tokens = [*self._of_byte.values(), self._end]
        of_token = {token: byte for byte, token in self._of_byte.items()}
        with self._followed(grammar) as at:
            while len(said) < limit:
                allowed = at.allowed(tokens)
                closing = [token for token in allowed if token == self._end or of_token[token] in b'"}]']
                token = pick.choice(closing if closing and pick.random() < 0.3 else allowed)
                if token == self._end:
                    return _text(said)
                assert at.step(token)
                said.append(of_token[token])
        return None

    @contextmanager
    def _followed(self, grammar: str) -> Iterator[_Place]:
        used = native.Sampler(self._model, native.Sampling(grammar=grammar))
        try:
            yield _Place(used)
        finally:
            used.close()


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


class _Place:
    """Where a grammar is after the tokens so far."""

    def __init__(self, sampler: native.Sampler) -> None:
        self._sampler = sampler

    def allowed(self, tokens: list[int]) -> list[int]:
        candidates = np.array([(token, 0.0, 0.0) for token in tokens], native._PAIR)
        with self._sampler._bounded():
            native._apply(candidates, self._sampler._grammar)
        return [int(one["id"]) for one in candidates if np.isfinite(one["logit"])]

    def step(self, token: int) -> bool:
        if not self.allowed([token]):
            return False
        with self._sampler._bounded():
            llama.llama_sampler_accept(self._sampler._grammar, token)
        return True
