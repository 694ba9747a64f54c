"""A prompt step by step through the engine's public functions, for tests that look between the steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from aim_local import VisionLLM, VisualTokenConfig
from aim_local.engine.contexts import Context, open_context
from aim_local.engine.encode import Encoded, encode_media
from aim_local.engine.plan import Plan, context_size, plan_prompt
from aim_local.engine.prefill import prefill
from aim_local.engine.read import Reading, read_media
from aim_local.engine.watch import Watch
from aim_local.models.prompt import Message, mark_raw, references


def read_and_plan(
    llm: VisionLLM, prompt: str, media: Sequence[Any], tokens: VisualTokenConfig | None, *, raw: bool = False
) -> tuple[Reading, Plan]:
    """A question put through the chat template, or a raw prompt with markers."""
    reading = read_media(llm.model, media, None, Watch())
    shapes = [item.shape for item in reading.items]
    rendered = mark_raw(prompt, len(shapes)) if raw else llm.render([Message("user", prompt, list(references(shapes)))])
    return reading, plan_prompt(llm.model, rendered, shapes, tokens)


def encoded(llm: VisionLLM, prompt: str, media: Sequence[Any], tokens: VisualTokenConfig) -> Encoded:
    """Visual tokens of a raw prompt's media."""
    reading, plan = read_and_plan(llm, prompt, media, tokens, raw=True)
    return encode_media(llm.model, plan, dict(enumerate(reading.items)), Watch())


@contextmanager
def prefilled(
    llm: VisionLLM, question: str, media: Sequence[Any], tokens: VisualTokenConfig | None, n_answer: int
) -> Iterator[Context]:
    """A context that holds a question, with room for n_answer tokens more."""
    reading, plan = read_and_plan(llm, question, media, tokens)
    context = open_context(llm.model, plan, context_size(llm.model, plan, n_answer) - plan.n_visual)
    try:
        prefill(llm.model, plan, dict(enumerate(reading.items)), context, Watch(), reading)
        yield context
    finally:
        context.close()


def decoded(
    llm: VisionLLM, question: str, media: Sequence[Any], tokens: VisualTokenConfig, given: list[int]
) -> np.ndarray:
    """float32 [len(given) + 1, n_vocab]: logits of a plain prefill, then one decode at a time."""
    with prefilled(llm, question, media, tokens, 16) as context:
        rows = [context.logits()]
        for token in given:
            context.decode_tokens([token], logits=True)
            rows.append(context.logits())
    return np.stack(rows)
