"""llama.cpp's sampler chain: greedy, or top-k, top-p, temperature and a seeded draw."""

from __future__ import annotations

import secrets
from typing import Any

from .library import llama


class Sampler:
    """Greedy at temperature 0. seed: None draws one. `close()` frees it."""

    def __init__(self, temperature: float, top_k: int, top_p: float, seed: int | None) -> None:
        self._chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        if temperature == 0:
            parts = [llama.llama_sampler_init_greedy()]
        else:
            parts = [
                llama.llama_sampler_init_top_k(top_k),
                llama.llama_sampler_init_top_p(top_p, 1),
                llama.llama_sampler_init_temp(temperature),
                llama.llama_sampler_init_dist(seed if seed is not None else secrets.randbelow(2**32 - 1)),
            ]
        for part in parts:
            llama.llama_sampler_chain_add(self._chain, part)

    def draw(self, context: Any) -> int:
        """The next token, from the logits after the last decoded one. context: a llama_context."""
        return int(llama.llama_sampler_sample(self._chain, context, -1))

    def close(self) -> None:
        if self._chain:
            llama.llama_sampler_free(self._chain)
            self._chain = None
