"""The words behind a command, `aim-local chat [MODEL] [CLIP]...`: which is the model and which are media.

Found out by what they are, in any order: a name in the store or on the hub, a GGUF file or a model's folder is a model;
any other file is a clip or a picture. Knows names and first bytes; opens no model and no clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from aim_local.errors import MediaError, UsageError

from . import _media

_GGUF = b"GGUF"


class Given(NamedTuple):
    """model: as it was typed, None for the bundled one. files: media, in their order."""

    model: str | None
    files: list[Path]


def sort_words(words: Sequence[str], max_pixels: int) -> Given:
    """Which word is the model, and which are media. Raises UsageError, MediaError."""
    models: list[str] = []
    files: list[Path] = []
    for word in words:
        if _is_media(word):
            files.append(_media.check_media(_media.path_of(word), max_pixels=max_pixels))
        else:
            models.append(word)
    if len(models) > 1:
        names = " and ".join(repr(name) for name in models)
        raise UsageError(
            f"{names} would both be models, for no file has such a name; give one model, clips that exist here "
            f"({Path.cwd()}), and the question with -p"
        )
    return Given(models[0] if models else None, files)


def _is_media(word: str) -> bool:
    """Whether the word means a video or picture. Raises UsageError for what is neither or both, MediaError."""
    if not word.strip():
        raise UsageError("an empty word is neither a model nor a clip; leave it out, or name one")
    if _media.is_url(word):
        return _refuse_media_url(word)
    path = _media.path_of(word)
    if path.is_dir():
        return _refuse_clips(path, word)
    if path.is_file():
        if path.suffix.lower() == ".gguf" or _begins(path) == _GGUF:
            return False
        if _is_name(word):
            raise UsageError(f"{word!r} is a model and a file here; write ./{word} for the file, or rename it")
        return True
    if _is_name(word):
        return False
    if _media.has_media_suffix(word):
        _media.check_media(path)  # says that it is not there
    if word.endswith("?") or any(c.isspace() for c in word):
        raise UsageError(f"{word!r} is neither a file here nor a model; a question goes with -p")
    return False


def _refuse_media_url(word: str) -> bool:
    """False for the page of a model on the hub. Raises UsageError for any other URL."""
    from aim_local.store.known import parse_reference

    if _media.has_media_suffix(word.partition("?")[0]) or parse_reference(word) is None:
        raise UsageError(_media.url_refusal(word))
    return False


def _refuse_clips(folder: Path, word: str) -> bool:
    """False for a folder, which is a model's. Raises MediaError where it holds clips and nothing of a model."""
    if _is_name(word):
        return False
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    models = [name for name in names if name.lower().endswith((".gguf", ".json", ".safetensors"))]
    clips = [name for name in names if _media.has_media_suffix(name)]
    if clips and not models:
        raise MediaError(f"{word}: is a folder with no model in it; name the clips: {folder / clips[0]}")
    if not models and _media.has_media_suffix(word):
        raise MediaError(f"{word}: is a folder, although it is named as a clip; name a video or picture")
    return False


def _is_name(word: str) -> bool:
    """Whether it is the name of a model that is here, or of one that can be pulled by a short name."""
    from aim_local import store
    from aim_local.store.known import find_known

    return word == store.BUNDLED or store.exact_name(word) is not None or find_known(word.partition(":")[0]) is not None


def _begins(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError:
        return b""  # told where it is read
