"""Answers as they go over the wire: OpenAI's chat completions and chunks, usage, llama-server's timings.

Knows the form. Takes what the library returns.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...results import STAGES, Stats, TokenLogprob
from ...visible import json_text
from ..jobs import Answered, Moved, Said

Json = dict[str, object]
_FINISH = {"eos": "stop", "stop": "stop", "length": "length"}


@dataclass(frozen=True)
class Reply:
    """The frame of one answer. model: the served name."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, done: Answered, tokens: Sequence[TokenLogprob] | None, looks: object = None) -> Json:
        """The whole answer. tokens: None where no logprobs were asked."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": done.answer.text, "refusal": None},
            "logprobs": None if tokens is None else logprobs(tokens),
            "finish_reason": finish_reason(done.answer.stats),
        }
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(done), **extras(done, looks)}

    def chunk(
        self,
        delta: Json,
        *,
        tokens: Sequence[TokenLogprob] | None = None,
        finish: str | None = None,
        with_usage: bool = False,
    ) -> Json:
        """A part of a streamed answer."""
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": None if tokens is None else logprobs(tokens),
            "finish_reason": finish,
        }
        return self._chunk([choice], with_usage)

    def progress(self, moved: Moved, *, with_usage: bool = False) -> Json:
        step = {"stage": moved.stage, "done": moved.done, "total": moved.total}
        return {**self._chunk([], with_usage), "prompt_progress": step}

    def usage_chunk(self, done: Answered) -> Json:
        return {**self._chunk([], False), "usage": usage(done)}

    def _chunk(self, choices: list[Json], with_usage: bool) -> Json:
        """with_usage: every chunk says that its usage comes later, as OpenAI's do."""
        said: Json = {"usage": None} if with_usage else {}
        return {**self._head("chat.completion.chunk"), "choices": choices, **said}

    def _head(self, kind: str) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "system_fingerprint": None}


def finish_reason(stats: Stats) -> str:
    return _FINISH.get(stats.stop_reason, "stop")


def extras(done: Answered, looks: object = None) -> Json:
    """What stands beside OpenAI's fields. looks: what was kept of each frame, where it was asked."""
    said: Json = {"timings": timings(done), "warnings": list(done.warnings), "toy": done.answer.toy}
    return said if looks is None else {**said, "looks": looks}


def usage(done: Answered) -> Json:
    stats = done.answer.stats
    n_prompt = stats.n_reused + stats.n_prompt
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": stats.n_generated,
        "total_tokens": n_prompt + stats.n_generated,
        "prompt_tokens_details": {
            "cached_tokens": stats.n_reused,
            "visual_tokens_full": stats.n_reused_visual_full + stats.n_visual_full,
            "visual_tokens": stats.n_reused_visual + stats.n_visual,
        },
    }


def timings(done: Answered) -> Json:
    """llama-server's names, then milliseconds by stage."""
    stats = done.answer.stats
    return {
        "cache_n": stats.n_reused,
        "prompt_n": stats.n_prompt,
        "prompt_ms": _round(stats.prefill_ms),
        "prompt_per_second": _round(stats.prefill_tps),
        "predicted_n": stats.n_generated,
        "predicted_ms": _round(stats.decode_ms),
        "predicted_per_second": _round(stats.decode_tps),
        **{f"{stage}_ms": _round(getattr(stats, f"{stage}_ms")) for stage in STAGES},
        "ttft_ms": _round(stats.ttft_ms),
        "queue_ms": _round(done.queue_ms),
    }


def timings_so_far(said: Said) -> Json:
    per_second = (said.n - 1) / (said.ms / 1000) if said.n > 1 and said.ms > 0 else 0.0
    return {"predicted_n": said.n, "predicted_ms": _round(said.ms), "predicted_per_second": _round(per_second)}


def logprobs(tokens: Sequence[TokenLogprob]) -> Json:
    content = [
        {**_alternative(token), "top_logprobs": [_alternative(other) for other in token.top]} for token in tokens
    ]
    return {"content": content, "refusal": None}


def _alternative(token: TokenLogprob) -> Json:
    # OpenAI's floor: JSON has no minus infinity
    text = token.data.decode("utf-8", "replace")
    return {"token": text, "bytes": list(token.data), "logprob": max(token.logprob, -9999.0)}


def _round(value: float) -> float:
    return round(value, 3)


def encoded(data: object) -> bytes:
    """JSON without spaces, as every answer of ours."""
    return json_text(data, separators=(",", ":")).encode()


def event(data: object) -> bytes:
    """A server-sent event."""
    return b"data: " + encoded(data) + b"\n\n"
