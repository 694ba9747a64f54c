"""What the header of a saved conversation may say: a table of types and bounds, and how its values go together.

A file comes from anybody. Nothing of its header is believed, and no memory is taken for what it claims, before all of
it has been checked here. What only the model can tell, as how many layers it has, is checked by chat_cache.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from ..config import IMPORTANCE, KV_TYPES, MERGE_BY, WEIGH
from .schema import (
    SchemaError,
    anything,
    either,
    listed,
    number,
    one_of,
    optional,
    record,
    sha256,
    text,
    tuple_of,
    whole,
)

MAX_HEADER = 64 << 20  # bytes; a million tokens of text take half of it
_MAX_CELLS, _MAX_LAYERS, _MAX_MEDIA, _MAX_FRAMES, _MAX_SIDE = 1 << 24, 4096, 4096, 1 << 16, 1 << 20
_MAX_INT, _TEXT = 2**31 - 1, text(1 << 26)
_PATH, _NAME = text(4096, names_a_file=True), text(1024, names_a_file=True)
_COUNT, _SHARE, _SECONDS = whole(0, _MAX_CELLS), number(0, 1), number(0, 1e9)

_TOKENS = record(  # VisualTokenConfig
    {
        "merge_retain": _SHARE,
        "prune_layers": either(one_of(None, "auto", "late"), tuple_of(*[whole(0, _MAX_LAYERS)] * 2)),
        "retention": optional(listed(_SHARE, _MAX_LAYERS)),
        "importance": one_of(*IMPORTANCE),
        "seed": whole(0, 2**32 - 1),
        "flops_share": optional(_SHARE),
    },
    {"merge_by": one_of(*MERGE_BY), "merge_window": whole(1, _MAX_FRAMES), "weigh": one_of(*WEIGH)},
)
_GENERATE = record(  # GenerateConfig, which knows the bounds of its numbers
    {
        "max_tokens": whole(1, _MAX_INT),
        "temperature": number(0, 5),
        "seed": optional(whole(0, 2**32 - 2)),
        "top_k": whole(0, _MAX_INT),
        "top_p": _SHARE,
        "stop": listed(text(1 << 16), 1024),
    },
    {
        "min_p": _SHARE,
        "frequency_penalty": number(-2, 2),
        "presence_penalty": number(-2, 2),
        "logprobs": optional(whole(0, 20)),
        "json_schema": optional(anything),  # grammar.py reads it when a question is asked
        "grammar": text(1 << 20),
    },
)
_SAMPLING = record(  # FrameSampling
    {
        "n_frames": optional(whole(1, _MAX_INT)),
        "fps": optional(number(0, 1e6)),
        "start": optional(_SECONDS),
        "end": optional(_SECONDS),
    },
    {"pick": one_of("auto", "time", "index")},
)
_SIDES = [whole(1, _MAX_SIDE), whole(1, _MAX_SIDE), whole(3, 3)]
_MEDIA = record(  # MediaShape.to_dict
    {
        "source": _PATH,
        "digest": sha256(),
        "shape": either(tuple_of(*_SIDES), tuple_of(whole(1, _MAX_FRAMES), *_SIDES)),
    },
    {"timestamps": listed(optional(_SECONDS), _MAX_FRAMES), "duration": optional(_SECONDS)},
)
_MODEL = record(
    {
        "name": _NAME,
        "architecture": text(256),
        "path": _PATH,
        "mmproj": optional(_PATH),
        "fingerprints": listed(sha256("sha256:"), 2, least=1),
        "type_k": one_of(*KV_TYPES),
        "type_v": one_of(*KV_TYPES),
        "flash_attn": one_of("auto", True, False),
    },
    {"frame_tokens": optional(whole(1, _MAX_INT))},
)
_MESSAGE = record(
    {
        "role": one_of("system", "user", "assistant"),
        "text": _TEXT,
        "media": listed(tuple_of(whole(0, _MAX_MEDIA), one_of("image", "video")), _MAX_MEDIA),
    }
)
_CACHE = record(  # Cache.to_dict
    {
        "shares": listed(_SHARE, _MAX_LAYERS, least=1),
        "n_ctx": whole(1, _MAX_CELLS),
        "rooms": optional(tuple_of(_COUNT, _COUNT)),
        "items": listed(either(tuple_of(whole(0, _MAX_MEDIA), whole(1, _MAX_CELLS)), whole(0, _MAX_INT)), _MAX_CELLS),
        "marks": listed(tuple_of(_COUNT, _COUNT, _COUNT), _MAX_CELLS + 1, least=1),
    }
)
_HEADER = record(
    {
        "model": _MODEL,
        "system": optional(_TEXT),
        "tokens": optional(_TOKENS),
        "planned": optional(_TOKENS),
        "generate": _GENERATE,
        "sampling": optional(_SAMPLING),
        "messages": listed(_MESSAGE, 1 << 20),
        "media": listed(_MEDIA, _MAX_MEDIA),
        "cache": optional(_CACHE),
        "n_state": whole(0, 1 << 50),
    },
    {"rerank": one_of(True, False)},
)


def check_header(header: Mapping[str, Any]) -> None:
    """Raises SchemaError for a header that no version of ours wrote."""
    _HEADER(header, "")
    _check_model(header["model"])
    _check_media(header["messages"], header["media"])
    if header["cache"] is None:
        if header["n_state"]:
            raise SchemaError(f"there is a KV cache of {header['n_state']} bytes, and nothing says what it holds")
    else:
        _check_cache(header["cache"], len(header["media"]), len(header["messages"]))
        if not header["n_state"]:
            raise SchemaError("the KV cache is missing")


def _check_model(model: Mapping[str, Any]) -> None:
    files = 1 if model["mmproj"] is None else 2
    if len(model["fingerprints"]) != files:
        raise SchemaError(f"model has {len(model['fingerprints'])} fingerprints for {files} files")


def _check_media(messages: Sequence[Mapping[str, Any]], media: Sequence[Mapping[str, Any]]) -> None:
    """Each media item is shown once, in order, and is of the kind that its message says."""
    kinds = ["video" if len(item["shape"]) == 4 else "image" for item in media]
    shown = [reference for message in messages for reference in message["media"]]
    if shown != [[i, kind] for i, kind in enumerate(kinds)]:
        raise SchemaError(f"the messages show {len(shown)} media, which are not the {len(media)} of the conversation")
    for i, item in enumerate(media):
        times = item.get("timestamps", [])
        n_times = len(times)
        wanted = item["shape"][0] if kinds[i] == "video" else 0
        if n_times not in (0, wanted):
            raise SchemaError(f"media[{i}] has {n_times} times for {wanted} frames")


def _check_cache(cache: Mapping[str, Any], n_media: int, n_messages: int) -> None:
    shares, items, marks = cache["shares"], cache["items"], cache["marks"]
    if any(later > earlier for earlier, later in pairwise(shares)):
        raise SchemaError("cache.shares rise from one layer to the next")
    if len(marks) != len(items) + 1 or marks[0] != [0, 0, 0]:
        raise SchemaError(f"cache has {len(marks)} marks for {len(items)} tokens and media, and begins at {marks[0]}")
    if n_messages > 2 * len(items) + 2:
        raise SchemaError(f"there are {n_messages} messages in {len(items)} tokens")
    shown = list[int]()  # in the prompt's order, which may have pictures before clips
    for i, item in enumerate(items):
        media, n_visual = item if isinstance(item, list) else (None, 0)
        if media is not None and shown[-1:] != [media]:
            if not 0 <= media < n_media or media in shown:
                raise SchemaError(f"cache.items[{i}] is of media {media}, of {n_media}, behind media {shown}")
            shown.append(media)
        n_cells, moved = n_visual or 1, marks[i + 1][0] - marks[i][0]
        is_far = moved < 1 or (media is None and moved > 1)  # media of M-RoPE take more or fewer positions than cells
        if is_far or marks[i + 1][1:] != [marks[i][1] + n_cells, marks[i][2] + n_visual]:
            raise SchemaError(f"cache.marks[{i + 1}] is {marks[i + 1]}, which is not {n_cells} tokens after {marks[i]}")
    _check_room(cache, marks[-1])


def _check_room(cache: Mapping[str, Any], last: Sequence[int]) -> None:
    _, n_cells, n_visual = last
    n_ctx, rooms = cache["n_ctx"], cache["rooms"]
    if n_cells > n_ctx:
        raise SchemaError(f"the cache holds {n_cells} tokens in a context of {n_ctx}")
    if rooms is not None and (sum(rooms) != n_ctx or n_cells - n_visual > rooms[0] or n_visual > rooms[1]):
        raise SchemaError(f"the cache holds {n_cells} tokens, {n_visual} visual, in rooms of {rooms} of {n_ctx}")
