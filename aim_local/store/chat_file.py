"""A conversation with its KV cache as one file: to go on after a restart without showing the media again.

Layout: magic, format version, length of the header, sha256 of all that follows; the header (JSON: model, options,
messages, what the cache holds item by item); the KV state as llama.cpp wrote it, and behind it, where visual tokens are
pruned, the rows to rank them again. Knows the file and the plain data in it, of which chat_header.py says what there
can be; which contexts are made from it is chat.py's business.

Anybody may have written a file, so it is believed step by step: its lengths before anything is read, its header before
its state is, its checksum before the state goes to llama.cpp. It names a model, but no file is opened for that.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from ..config import LoadConfig, VisualTokenConfig
from ..errors import AimError, UsageError
from ..paths import Name, home_path_of
from ..visible import json_text
from .chat_header import MAX_HEADER, check_header
from .digests import known_digest
from .files import replaced
from .names import ModelPaths
from .plain_json import parsed_object
from .schema import SchemaError
from .transcript import TranscriptError

SUFFIX = ".aimchat"
VERSION = 2  # 1 has no rows to rank visual tokens again; read as well
_MAGIC = b"AIMCHAT\n"
_HEAD = struct.Struct("<8sIQ32s")
_CHUNK, _ASIDE = 1 << 20, 1 << 30  # read at once; most bytes that are read to say why something is wrong
_LISTS = 5 << 20  # in a header: each token has one, of 14 bytes at least
_QUOTED_OR_LIST = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{]')
_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16


class ChatFileError(AimError):
    """A saved conversation that cannot be read, or belongs to another model."""


@dataclass(frozen=True)
class SavedChat:
    """header: plain data (see `Chat.save`); state: the KV cache, b"" for a conversation without one."""

    header: dict[str, Any]
    state: bytearray


def check_suffix(path: Name) -> Path:
    """`path`, if it ends in .aimchat. Raises UsageError."""
    path = home_path_of(path, "the saved conversation")
    if path.suffix.lower() != SUFFIX:
        raise UsageError(f"{path}: a conversation that can go on ends in {SUFFIX}; name it {path.stem}{SUFFIX}")
    return path


def write_chat(path: Path, header: Mapping[str, Any], state: bytearray) -> None:
    """Whole or not at all. Raises TranscriptError."""
    text = json_text({**header, "n_state": len(state)}).encode()
    digest = hashlib.sha256(text)
    digest.update(state)
    try:
        with replaced(path) as partial, open(partial, "wb") as file:
            file.writelines([_HEAD.pack(_MAGIC, VERSION, len(text), digest.digest()), text, state])
    except OSError as e:
        raise TranscriptError(f"{path}: cannot be written ({e.strerror or e}); name another file") from e


def read_header(path: Name) -> dict[str, Any]:
    """What a file says of itself, as chat_header.py lets it through; its KV cache is not read.

    Raises ChatFileError, UsageError.
    """
    path = check_suffix(path)
    with _opened(path) as file:
        return _read_header(path, file)[0]


def read_chat(path: Name) -> SavedChat:
    """A whole, undamaged file. Raises ChatFileError, UsageError."""
    path = check_suffix(path)
    with _opened(path) as file:
        header, text, wanted = _read_header(path, file)
        begin = file.tell()
        if _digest(file, text) != wanted:
            raise _damaged(path)
        try:
            state = bytearray(header["n_state"])
        except MemoryError as e:
            n_mib = header["n_state"] / 2**20
            raise ChatFileError(f"{path}: its KV cache takes {n_mib:.0f} MiB, there is not so much memory") from e
        file.seek(begin)
        if file.readinto(state) != len(state):
            raise _damaged(path)
    return SavedChat(header, state)


def raise_damaged(path: Name) -> None:
    """Where what a file says is wrong: raises ChatFileError if that is since it does not fit its checksum.

    A file of more than 1 GiB is not read for that.
    """
    path = check_suffix(path)
    with _opened(path) as file:
        if os.fstat(file.fileno()).st_size <= _ASIDE:
            text, wanted = _read_text(path, file)
            if _digest(file, text) != wanted:
                raise _damaged(path)


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    """Raises ChatFileError, also while it is read."""
    try:
        if path.exists() and not path.is_file():  # a pipe would wait for a writer
            raise ChatFileError(f"{path}: is no file; name one that /save NAME{SUFFIX} wrote")
        with path.open("rb") as file:
            yield file
    except OSError as e:
        raise _unreadable(path, e) from e


def _digest(file: BufferedReader, text: bytes) -> bytes:
    """sha256 of the header and all that follows it in the file."""
    digest = hashlib.sha256(text)
    while part := file.read(_CHUNK):
        digest.update(part)
    return digest.digest()


def _read_text(path: Path, file: BufferedReader) -> tuple[bytes, bytes]:
    """The header as it stands there, and the sha256 of it and the state."""
    head = file.read(_HEAD.size)
    if head[: len(_MAGIC)] != _MAGIC:
        raise ChatFileError(f"{path}: is no saved conversation; name a file that /save NAME{SUFFIX} wrote")
    if len(head) < _HEAD.size:
        raise ChatFileError(f"{path}: is cut short after {len(head)} bytes; copy it again")
    _, version, n_header, wanted = _HEAD.unpack(head)
    if not 1 <= version <= VERSION:
        raise ChatFileError(f"{path}: has format {version}, this version reads {VERSION}; update aim-local")
    if n_header > MAX_HEADER:
        raise _damaged(path)
    text = file.read(n_header)
    if len(text) < n_header:
        raise ChatFileError(
            f"{path}: is cut short, {n_header - len(text)} bytes of its header are missing; copy it again"
        )
    return text, wanted


def _read_header(path: Path, file: BufferedReader) -> tuple[dict[str, Any], bytes, bytes]:
    """The header, checked, as it stands there, and the sha256 of it and the state."""
    text, wanted = _read_text(path, file)
    n_here = os.fstat(file.fileno()).st_size - file.tell()
    if _n_lists(text) > _LISTS:  # few bytes each, and a hundred times as much memory
        raise _damaged(path)
    try:
        header = parsed_object(text)
        n_state = header["n_state"]
        if type(n_state) is int and n_state > n_here:
            raise ChatFileError(f"{path}: is cut short, {n_state - n_here} bytes are missing; copy it again")
        if n_state != n_here:
            raise _damaged(path)
    except (ValueError, KeyError) as e:
        raise _damaged(path) from e
    try:
        check_header(header)
    except SchemaError as e:
        raise_damaged(path)
        raise ChatFileError(
            f"{path}: its header says what cannot be: {e}; save the conversation again, or update aim-local if a later "
            "version wrote it"
        ) from e
    return header, text, wanted


def _n_lists(text: bytes) -> int:
    """How many lists and objects JSON has; brackets in its texts are none."""
    n = text.count(b"[") + text.count(b"{")
    return n if n <= _LISTS else sum(found[0] in b"[{" for found in _QUOTED_OR_LIST.finditer(text))


def _damaged(path: Path) -> ChatFileError:
    return ChatFileError(f"{path}: is damaged, its contents do not fit its checksum; copy it again")


def _unreadable(path: Path, e: OSError) -> ChatFileError:
    return ChatFileError(f"{path}: cannot be read ({e.strerror or e}); check the name and its permissions")


# --- parts of the header ----------------------------------------------------------------------------------------------


def fingerprint(*parts: Path) -> str:
    """Of a model's file, or of all parts of one that is split: sha256 of all their bytes."""
    digests = [known_digest(part) for part in parts]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def sampled_fingerprint(path: Path) -> str:
    """As earlier versions wrote it: sha256 (hex) of a file's size and 64 samples of 64 KiB, spread evenly."""
    n_bytes = path.stat().st_size
    digest = hashlib.sha256(str(n_bytes).encode())
    with path.open("rb") as file:
        for i in range(_SAMPLES):
            file.seek(max(0, n_bytes - _SAMPLE_BYTES) * i // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def tokens_to_dict(tokens: VisualTokenConfig | None) -> dict[str, Any] | None:
    """Raises UsageError where a callable ranks."""
    if tokens is None:
        return None
    if callable(tokens.importance):
        raise UsageError("a conversation ranked by a Python callable cannot be saved to go on; save it as .md or .json")
    return asdict(tokens)


def tokens_from_dict(data: dict[str, Any] | None) -> VisualTokenConfig | None:
    if data is None:
        return None
    layers = data["prune_layers"]
    return VisualTokenConfig(**{**data, "prune_layers": tuple(layers) if isinstance(layers, list) else layers})


def identity(paths: ModelPaths, architecture: str, config: LoadConfig) -> dict[str, Any]:
    """The model and how its cache is kept. name and path are for messages and for finding it, fingerprints decide."""
    model = [path for path in paths.files if path != paths.mmproj]
    return {
        "name": paths.name,
        "architecture": architecture,
        "path": str(paths.model.absolute()),
        "mmproj": str(paths.mmproj.absolute()) if paths.mmproj else None,
        "fingerprints": [fingerprint(*model), *([fingerprint(paths.mmproj)] if paths.mmproj else [])],
        "type_k": config.type_k,
        "type_v": config.type_v,
        "flash_attn": config.flash_attn,
        "frame_tokens": config.frame_tokens,
    }


def check_identity(path: Path, saved: dict[str, Any], own: dict[str, Any], *, shows_media: bool) -> None:
    """Raises ChatFileError where the cache of `saved` is none of `own`'s."""
    if saved["fingerprints"] != own["fingerprints"]:  # an earlier version may have written it
        sampled = [sampled_fingerprint(Path(own[key])) for key in ("path", "mmproj") if own[key]]
        own = own if saved["fingerprints"] != sampled else {**own, "fingerprints": sampled}
    if saved["fingerprints"] != own["fingerprints"]:
        raise ChatFileError(f"{path}: {_other_model(saved, own)}")
    kept, here = (_cache_types(facts) for facts in (saved, own))
    if kept != here:
        raise ChatFileError(
            f"{path}: its KV cache was made with {kept}, the model was loaded with {here}; load it with the former"
        )

    if shows_media and "frame_tokens" in saved and saved["frame_tokens"] != own["frame_tokens"]:
        limits = [f"frame_tokens={n}" if n else "no frame_tokens" for n in (saved["frame_tokens"], own["frame_tokens"])]
        raise ChatFileError(
            f"{path}: its media were encoded with {limits[0]}, the model was loaded with {limits[1]}; "
            "load it with the former, or start a new conversation and attach them again"
        )


def _other_model(saved: dict[str, Any], own: dict[str, Any]) -> str:
    """Which file is another one; of the vision tower alone where the language model is the same."""
    if saved["fingerprints"][:1] != own["fingerprints"][:1]:
        return (
            f"was saved with {saved['name']} ({saved['path']}), the model here is {own['name']} ({own['path']}); "
            "load the model it was saved with"
        )
    if not saved["mmproj"]:
        return f"was saved with {own['name']} without a vision tower, here it has {own['mmproj']}; load it without one"
    if not own["mmproj"]:
        return (
            f"was saved with the vision tower {saved['mmproj']}, the model here ({own['name']}) has none; "
            "name that one with mmproj=FILE"
        )
    if saved["mmproj"] == own["mmproj"]:
        return (
            f"was saved with another vision tower than {own['mmproj']}, which has changed since; put back the file "
            "that it was saved with"
        )
    return (
        f"was saved with the vision tower {saved['mmproj']}, the one here is {own['mmproj']}, whose contents differ; "
        "name the former with mmproj=FILE"
    )


def _cache_types(facts: dict[str, Any]) -> str:
    return f"type_k={facts['type_k']} type_v={facts['type_v']} flash_attn={facts['flash_attn']}"
