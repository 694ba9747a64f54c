"""The content of a message: a text, or a list of texts, pictures and clips.

Knows which parts there are and which of them are media. What a media part holds is read by parts.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..failures import RequestError
from ..media.parts import MEDIA_TYPES

TEXT_TYPES = ("text", "input_text")


@dataclass(frozen=True)
class MediaPart:
    """where: its path in the request, such as "messages[0].content[1]". content: as it came."""

    where: str
    content: Mapping[str, object]


def read_content(content: object, where: str) -> tuple[str, tuple[MediaPart, ...]]:
    """The text (that of several parts in lines) and the media of a message. Raises RequestError."""
    if isinstance(content, str):
        return content, ()
    if not isinstance(content, list):
        raise RequestError(400, f"{where} is neither a text nor a list of parts", param=where)
    texts, media = list[str](), list[MediaPart]()
    for i, part in enumerate(content):
        place = f"{where}[{i}]"
        if not isinstance(part, dict):
            raise RequestError(400, f'{place} is not an object; give one such as {{"type": "text", ...}}', param=place)
        said = part.get("type")
        kind = said if isinstance(said, str) else ""
        if kind in TEXT_TYPES:
            texts.append(_text(part, place))
        elif kind in MEDIA_TYPES:
            media.append(MediaPart(place, part))
        else:
            known = ", ".join((TEXT_TYPES[0], *sorted(MEDIA_TYPES)))
            raise RequestError(400, f"{place}.type is not known here; give one of {known}", param=f"{place}.type")
    return "\n".join(texts), tuple(media)


def _text(part: Mapping[str, object], place: str) -> str:
    text = part.get("text")
    if not isinstance(text, str):
        raise RequestError(400, f"{place}.text is not a text", param=f"{place}.text")
    for key in part.keys() - {"type", "text"}:
        if part[key] is not None:
            raise RequestError(400, f"{place}.{key} is not known here; leave it out", param=f"{place}.{key}")
    return text


def _object(kind: str, key: str, value: dict[str, object], note: str) -> dict[str, object]:
    return {
        "type": "object",
        "description": note,
        "required": ["type", key],
        "properties": {"type": {"const": kind}, key: value},
    }


_URL: dict[str, object] = {
    "description": "data: URL, base64, the id of an uploaded file; where the service allows it, file:// or http(s).",
    "anyOf": [
        {"type": "string"},
        {"type": "object", "required": ["url"], "properties": {"url": {"type": "string"}}},
    ],
}
_TEXT = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"enum": list(TEXT_TYPES)}, "text": {"type": "string"}},
    "additionalProperties": {"type": "null"},
}
CONTENT_SCHEMA: dict[str, object] = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "array",
            "items": {
                "anyOf": [
                    _TEXT,
                    _object("image_url", "image_url", _URL, "A picture."),
                    _object("input_image", "image_url", _URL, "A picture."),
                    _object(
                        "video_url", "video_url", _URL, "A clip; frames, fps, start, end, pick may stand beside it."
                    ),
                    _object("input_video", "input_video", {"type": "object"}, "A clip: data, url, file_id or frames."),
                    _object(
                        "video",
                        "video",
                        {"type": "array", "items": {"type": "string"}, "minItems": 1},
                        "Pictures as one clip.",
                    ),
                    _object("file", "file", {"type": "object"}, "An uploaded file: file_id, or file_data."),
                ]
            },
        },
    ]
}
