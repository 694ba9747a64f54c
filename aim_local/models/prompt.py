"""From messages to prompt text with media marks, and from there to pieces.

A rendered prompt is a string in which media item k stands as `mark(k)`. Knows what templates are given and what has to
come back; tokens and pixels are elsewhere, and a template runs in a process of its own (template_process.py). What
people write makes no turns and no media: a special token's name in their text stands as `spelled(name)`, and becomes
the letters of it. Nor does a template make any by itself: each text and each item stands in its prompt once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import ModelError, UsageError
from ..media import MediaShape
from .template_process import Failed, template_process

RAW_MARKER = "<__media__>"
MediaKind = Literal["video", "image"]
_MARK = re.compile("\x00([0-9]+|=[^\x00]*)\x00")
_PLACE = re.compile("[\x00\x01][^\x00\x01]*[\x00\x01]?")  # all that looks like a place of a text, or like a mark
_MOST_CHARS, _MORE_CHARS = 1 << 17, 1 << 8  # that a template may write, and for each turn and item
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def mark(index: int) -> str:
    """What stands in a rendered prompt for media item `index`."""
    return f"\x00{index}\x00"


def spelled(name: str) -> str:
    """What stands in a rendered prompt for a special token's name that is meant as letters."""
    return f"\x00={name}\x00"


@dataclass(frozen=True)
class Letters:
    """Text that no special tokens are looked for in."""

    text: str


@dataclass
class Message:
    """One turn: role, text, and the media shown with it (indices into the conversation's media, and their kinds)."""

    role: str
    text: str
    media: list[tuple[int, MediaKind]] = field(default_factory=list)


def check_text(name: str, value: object) -> None:
    """Raises UsageError for a prompt or question that is no text, or none that UTF-8 can hold."""
    if not isinstance(value, str):
        raise UsageError(f"{name} is {value!r:.80}, {type(value).__name__}; give a str")
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise UsageError(f"{name} holds bytes that are not UTF-8, or half of a surrogate pair; give text in UTF-8")


def system_message(system: str | None) -> list[Message]:
    """The turn a conversation begins with, none without a system prompt."""
    return [Message("system", system)] if system else []


def references(shapes: Sequence[MediaShape], first: int = 0) -> list[tuple[int, MediaKind]]:
    """The media of a turn, numbered from `first` on."""
    return [(first + i, shape.kind) for i, shape in enumerate(shapes)]


class ChatTemplate:
    """A model's chat template. Media come first in a turn, as the model was trained.

    source: Jinja text, None for ChatML. bos, eos: texts of those tokens. adds_bos: whether the tokenizer puts the first
    in front by itself. image_token, video_token: what a structured
    template writes for a media item. structured: False for templates of other runners' models, whose media begin and
    end tokens the vision tower adds by itself.
    """

    def __init__(
        self,
        source: str | None,
        *,
        bos: str,
        eos: str,
        image_token: str,
        video_token: str,
        adds_bos: bool = True,
        structured: bool = True,
    ) -> None:
        self._source = _CHATML if source is None else source
        self._bos, self._eos, self._adds_bos = bos, eos, adds_bos
        self._tokens: dict[str, str] = {"image": image_token, "video": video_token}
        self._structured = structured and source is not None

    def render(
        self,
        messages: Sequence[Message],
        *,
        answer_next: bool = True,
        specials: Callable[[str], Sequence[str]] = lambda _: (),
    ) -> str:
        """The prompt text with marks, without a BOS that the tokenizer adds. Raises ModelError.

        specials: the names of special tokens that stand in a text.
        """
        forms = [*[self._structured_parts][: self._structured], self._marked_text, self._marked_part]
        n = sum(1 + len(m.media) for m in messages)
        given = [self._arguments(messages, content, answer_next) for content in forms]
        reasons = list[str]()
        texts = template_process().texts(self._source, given, _MOST_CHARS + n * _MORE_CHARS)
        for content, text in zip(forms, texts, strict=True):
            found = text if isinstance(text, Failed) else self._with_marks(text, messages, content)
            if isinstance(found, str):
                return _with_texts(found, [m.text for m in messages], specials)
            reasons.append(found.why)
        raise ModelError(
            f"the model's chat template cannot be used here: {reasons[0]}; convert the model "
            "again, or leave its template out (raw=True)"
        )

    # three forms of a turn's content; \x01i\x01 stands for the text of turn i

    def _structured_parts(self, i: int, m: Message) -> Any:
        return [*({"type": self._part_type(kind)} for _, kind in m.media), {"type": "text", "text": f"\x01{i}\x01"}]

    def _marked_text(self, i: int, m: Message) -> Any:
        marks = "".join(mark(index) for index, _ in m.media)
        return f"{marks}\n\x01{i}\x01" if marks else f"\x01{i}\x01"

    def _marked_part(self, i: int, m: Message) -> Any:
        return [{"type": "text", "text": self._marked_text(i, m)}]

    def _arguments(
        self, messages: Sequence[Message], content: Callable[[int, Message], Any], answer_next: bool
    ) -> dict[str, Any]:
        return {
            "messages": [{"role": m.role, "content": content(i, m)} for i, m in enumerate(messages)],
            "add_generation_prompt": answer_next,
            "bos_token": self._bos,
            "eos_token": self._eos,
        }

    def _with_marks(
        self, out: str, messages: Sequence[Message], content: Callable[[int, Message], Any]
    ) -> str | Failed:
        """What a template wrote for a form of content, with the marks of its media; Failed where it lost a part."""
        out = out.removeprefix(self._bos) if self._adds_bos else out
        texts = [f"\x01{i}\x01" for i in range(len(messages))]
        if content == self._structured_parts:
            why = _misplaced(out, texts) or _reordered(out, messages)
            if why:
                return Failed(why)
            out = self._place_marks(out, messages)
        elif self._structured and any(token and token in out for token in self._tokens.values()):
            return Failed("it writes a media item's token where there is none")
        why = _misplaced(out, [*texts, *(mark(index) for m in messages for index, _ in m.media)])
        return Failed(why) if why else out

    def _part_type(self, kind: MediaKind) -> str:
        return kind if self._tokens[kind] else "image"

    def _place_marks(self, out: str, messages: Sequence[Message]) -> str:
        """Replaces each image or video token by the mark of the next media item of that kind."""
        queues: dict[str, list[int]] = {"image": [], "video": []}
        for m in messages:
            for index, kind in m.media:
                queues[self._part_type(kind)].append(index)
        for part, queue in queues.items():
            token = self._tokens[part]
            found = out.count(token) if token else 0
            if found != len(queue):
                raise ModelError(
                    f"the chat template wrote {found} {token!r} for {len(queue)} media items; it does not take "
                    f"{part}s: convert the model again, or give the prompt as it is (raw=True, with {RAW_MARKER})"
                )
            if queue:
                out = _marked(out, token, queue)
        return out


def _marked(out: str, token: str, queue: Sequence[int]) -> str:
    """Each token replaced by the mark of the next item of `queue`."""
    marks = map(mark, queue)
    return re.sub(re.escape(token), lambda _: next(marks), out)


def _misplaced(out: str, places: Sequence[str]) -> str:
    """Why not each place of a text and each mark stands there once, and no other; "" where they do."""
    found, wanted = Counter(_PLACE.findall(out)), Counter(places)
    if wanted - found:
        return "it drops what it is given"
    return "it writes more texts or media than it is given" if found - wanted else ""


def _reordered(out: str, messages: Sequence[Message]) -> str:
    """Why the media of one turn would stand in another; "" where they do not."""
    shown = [i for i in map(int, re.findall("\x01([0-9]+)\x01", out)) if messages[i].media]
    return "it changes the order of turns that show media" if shown != sorted(shown) else ""


def _with_texts(rendered: str, texts: Sequence[str], specials: Callable[[str], Sequence[str]]) -> str:
    """Puts each turn's text into its place. In one go: a text that looks like a place is none."""

    def text(place: re.Match[str]) -> str:
        plain = texts[int(place[1])].replace("\x00", "")
        names = sorted(specials(plain), key=len, reverse=True)
        return re.sub("|".join(map(re.escape, names)), lambda name: spelled(name[0]), plain) if names else plain

    return re.sub("\x01(\\d+)\x01", text, rendered)


def mark_raw(prompt: str, n_media: int) -> str:
    """A raw prompt with its `<__media__>` markers numbered. Raises UsageError when their number is not n_media."""
    parts = prompt.replace("\x00", "").split(RAW_MARKER)
    if len(parts) - 1 != n_media:
        raise UsageError(
            f"the raw prompt has {len(parts) - 1} {RAW_MARKER} markers for {n_media} media items; give one each"
        )
    out = parts[0]
    for index, part in enumerate(parts[1:]):
        out += mark(index) + part
    return out


def split_marks(rendered: str) -> list[str | int | Letters]:
    """Text pieces, media indices and spelled names in order; empty pieces are left out."""
    pieces: list[str | int | Letters] = []
    for i, part in enumerate(_MARK.split(rendered)):
        if i % 2:
            pieces.append(Letters(part[1:]) if part.startswith("=") else int(part))
        elif part:
            pieces.append(part)
    return pieces
