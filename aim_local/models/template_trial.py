"""Whether conversations can be written with a chat template: tried with every form that a chat uses."""

from __future__ import annotations

from ..errors import ModelError
from .prompt import ChatTemplate, MediaKind, Message

_SYSTEM, _QUESTION = Message("system", "Be brief."), Message("user", "What is it?")
_ANSWER = Message("assistant", "A cat.")


def _shown(kind: MediaKind, index: int = 0) -> Message:
    return Message("user", "What is it?", [(index, kind)])


_QUESTIONS = {
    "a picture": [_shown("image")],
    "a video": [_shown("video")],
}
_MORE = {
    "a system prompt": [_SYSTEM, _QUESTION],
    "a second question": [_QUESTION, _ANSWER, _QUESTION],
    "a second video": [_shown("video"), _ANSWER, _shown("video", 1)],
    "several pictures": [Message("user", "Which?", [(0, "image"), (1, "image")])],
}


def try_template(template: ChatTemplate) -> tuple[str, ...]:
    """A line for each form of conversation that cannot be had.

    Raises ModelError where a question cannot, neither alone nor with a picture or a video.
    """
    first = _failure(template, [_QUESTION])
    media = [_failure(template, messages) for messages in _QUESTIONS.values()]
    if first or all(media):
        raise ModelError(first or media[0])
    lines = list[str]()
    for name, messages in (_QUESTIONS | _MORE).items():
        why = _failure(template, messages)
        if why and not (name == "a second video" and media[1]):
            lines.append(f"conversations with {name} cannot be had: {why}")
    return tuple(lines)


def _failure(template: ChatTemplate, messages: list[Message]) -> str:
    """Why it cannot be written; "" where it can. A chat needs the text without the beginning of an answer too."""
    try:
        template.render(messages)
        template.render(messages, answer_next=False)
    except ModelError as e:
        return str(e)
    return ""
