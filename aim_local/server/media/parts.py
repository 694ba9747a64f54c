"""The forms of a content part that carries media, as clients send them: what it holds, and how it is to be sampled.

Knows JSON only. What a URL means is references.py's, and what is behind it sources.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..failures import RequestError
from ..limits import Limits
from .words import beyond, shown, value_text

# type of a part -> fields that may hold its media
_FORMS = {
    "image_url": ("image_url",),
    "input_image": ("image_url", "input_image"),
    "image": ("image",),
    "video_url": ("video_url",),
    "input_video": ("input_video", "video_url"),
    "video": ("video",),
    "file": ("file",),
    "input_file": (),
}
MEDIA_TYPES = frozenset(_FORMS)
_FLAT = frozenset({"input_image", "input_video", "input_file"})  # those of which the media may stand beside the type
Holds = Literal["url", "bytes", "upload"]
_SOURCES: dict[str, Holds] = {
    "url": "url", "file_url": "url", "data": "bytes", "file_data": "bytes", "file_id": "upload",
}  # fmt: skip
_SAMPLING = ("frames", "fps", "start", "end", "pick")
# fields that clients send and that change nothing: a hint of the format (files are known by their content), OpenAI's
# detail (what a picture costs is up to visual_tokens), ids and cache hints of others
_HARMLESS = frozenset({"format", "mime_type", "filename", "detail", "uuid", "id", "name", "cache_control"})


@dataclass(frozen=True, repr=False)
class Item:
    """One file of a part, as text. where: its field in the part, such as ".video_url.url"."""

    text: str
    holds: Holds
    where: str


@dataclass(frozen=True, repr=False)
class Part:
    """items: one, or the pictures of a clip (is_clip). sampling: the fields that the part gives, values unchecked.

    filename: "" where none was given.
    """

    items: tuple[Item, ...]
    is_clip: bool
    sampling: Mapping[str, object] = field(default_factory=dict)
    filename: str = ""


@dataclass(frozen=True, repr=False)
class _Media:
    """What holds a part's media: the field `key` at `at`, its value, and the fields beside it in `holder`."""

    key: str
    at: str
    value: object
    holder: str = ""
    beside: Mapping[str, object] = field(default_factory=dict)


def read_part(part: Mapping[str, object], limits: Limits) -> Part:
    """Raises RequestError, whose `param` begins at the part, such as ".video_url"."""
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in _FORMS:
        raise _refused(f"type is {value_text(kind)}; a part is text or one of {', '.join(_FORMS)}", ".type")
    names = [name for name in _FORMS[kind] if part.get(name) is not None]
    outer = {k: v for k, v in part.items() if k not in ("type", *names) and v is not None}
    if not names and kind in _FLAT:
        media, outer = _in_object(outer, ""), {}
    elif len(names) == 1:
        media = _media_of(part[names[0]], f".{names[0]}")
    else:
        allowed = " or ".join(_FORMS[kind])
        raise _refused(f"a part of type {kind} needs one field {allowed}", f".{_FORMS[kind][0]}")
    inside, outside = _sampling(media.beside, media.holder), _sampling(outer, "")
    if both := sorted(set(inside) & set(outside)):
        raise _refused(f"{both[0]} is given twice; give it once", f".{both[0]}")
    filename = _text(media.beside.get("filename", ""), ".filename")
    if media.key == "frames":
        return _clip(media.value, inside | outside, media.at, filename, limits)
    item = Item(_text(media.value, media.at), _SOURCES[media.key], media.at)
    return Part((item,), False, inside | outside, filename)


def _media_of(value: object, at: str) -> _Media:
    if isinstance(value, str):
        return _Media("url", at, value)
    if isinstance(value, list):
        return _Media("frames", at, value)
    if isinstance(value, Mapping):
        return _in_object({k: v for k, v in value.items() if v is not None}, at)
    raise _refused(f"is {value_text(value)}; give a URL, a list of URLs, or an object with url, data or file_id", at)


def _in_object(fields: Mapping[str, object], at: str) -> _Media:
    # a number of frames is sampling
    found = [key for key in fields if key in _SOURCES or (key == "frames" and isinstance(fields[key], list))]
    if len(found) != 1:
        came = " and ".join(found) if found else "none"
        raise _refused(f"has {came} of url, data, file_id, file_data, frames (a list); give one", at or ".type")
    (key,) = found
    return _Media(key, f"{at}.{key}", fields[key], at, {k: v for k, v in fields.items() if k != key})


def _sampling(fields: Mapping[str, object], at: str) -> dict[str, object]:
    """The fields that say how to sample. Any other has to be a harmless one."""
    for key in fields:
        if key not in _SAMPLING and key not in _HARMLESS:
            raise _refused(f"unknown field {shown(key)}; beside its media a part may have {', '.join(_SAMPLING)}", at)
    return {key: value for key, value in fields.items() if key in _SAMPLING}


def _clip(entries: object, sampling: Mapping[str, object], at: str, filename: str, limits: Limits) -> Part:
    assert isinstance(entries, list), "asked of a list"
    if not entries:
        raise _refused("an empty list; a clip of pictures has at least one", at)
    check_n_pictures(len(entries), limits, at)
    items = tuple(_entry(entry, f"{at}[{i}]") for i, entry in enumerate(entries))
    return Part(items, True, sampling, filename)


def check_n_pictures(n: int, limits: Limits, at: str = "") -> None:
    """Raises RequestError where a clip has too many pictures."""
    if n > limits.n_frames:
        raise beyond("n_frames", f"a clip of {n:,} pictures", f"{limits.n_frames} are", at)


def _entry(entry: object, at: str) -> Item:
    if isinstance(entry, str):
        return Item(entry, "url", at)
    found = {key: value for key, value in entry.items() if value is not None} if isinstance(entry, Mapping) else {}
    if len(found) != 1 or not set(found) <= set(_SOURCES):
        raise _refused(f"is {value_text(entry)}; a picture of a clip is a URL, or an object with one url or data", at)
    ((key, value),) = found.items()
    return Item(_text(value, f"{at}.{key}"), _SOURCES[key], f"{at}.{key}")


def _text(value: object, at: str) -> str:
    if not isinstance(value, str):
        raise _refused(f"is {value_text(value)}; give text", at)
    return value


def _refused(message: str, at: str) -> RequestError:
    return RequestError(400, message, param=at, code="bad_part")
