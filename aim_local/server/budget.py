"""What a budget of FLOPs comes to in a conversation: it is planned with the first turn that shows media, and then kept.

So a request is answered in one way, whether the conversation before it is known here or not, and a conversation does
not run out of its budget as its text grows. Knows plans; computes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..config import VisualTokenConfig
from ..engine.model import Model
from ..engine.plan import plan_prompt
from ..media import FrameSampling, outline_media
from ..models.prompt import Message, references, system_message
from .media.sources import Found
from .requests.asked import Asked


def settled(model: Model, asked: Asked, found: Sequence[Sequence[Found]]) -> VisualTokenConfig | None:
    """The setting of visual tokens without a budget, where one can be planned: what it comes to.

    found: the media of each turn. Raises MediaError, ModelError, UsageError.
    """
    tokens = asked.tokens
    first = next((i for i, items in enumerate(found) if items), None)
    if tokens is None or tokens.flops_share is None or first is None:
        return tokens
    default, most = FrameSampling(model.default_frames), model.config.max_pixels
    shapes = [
        outline_media(item.media, item.sampling or asked.sampling or default, most).shape for item in found[first]
    ]
    turns = [Message(turn.role, turn.text) for turn in asked.turns[:first]]
    last = Message("user", asked.turns[first].text, references(shapes))
    rendered = model.render([*system_message(asked.system), *turns, last])
    return plan_prompt(model, rendered, shapes, tokens).tokens
