"""Whether what was fetched is a pair: the heads of the files, which names and checksums say nothing of."""

from __future__ import annotations

from dataclasses import replace

from ..errors import HubError, ModelError
from ..store.gguf_files import CLIP
from ..store.gguf_header import GgufHeader, read_header
from ..store.pulled import Origin


def checked_pair(origin: Origin) -> Origin:
    """The origin of a fetched pair, with model and mmproj exchanged where the repository has their names exchanged.

    Raises HubError where the files are not one language model and one vision tower.
    """
    heads = {name: _head(origin, name) for name in origin.files}
    is_tower = {name: head.architecture == CLIP for name, head in heads.items()}
    for name in (origin.model, origin.mmproj):
        if not heads[name].architecture:
            raise _wrong(origin, f"{name} has no general.architecture")
    if is_tower[origin.model] == is_tower[origin.mmproj]:
        what = "vision towers (mmproj)" if is_tower[origin.model] else "language models"
        raise _wrong(origin, f"{origin.model} and {origin.mmproj} are both {what}; one of each is needed")
    if not is_tower[origin.model]:
        return origin
    if len(origin.files) > 2:
        raise _wrong(origin, f"{origin.model} is a vision tower (mmproj) and {origin.mmproj} a language model")
    return replace(origin, model=origin.mmproj, mmproj=origin.model)


def _head(origin: Origin, name: str) -> GgufHeader:
    path = origin.file(name)
    try:
        head = read_header(path)
    except ModelError as e:
        what = str(e).removeprefix(f"{path}: ").partition("; ")[0]
        raise _wrong(origin, f"{name} {what}") from e
    missing = head.missing_bytes()
    if missing:
        raise _wrong(origin, f"{name} lacks {missing} bytes of its weights")
    return head


def _wrong(origin: Origin, why: str) -> HubError:
    return HubError(
        f"{origin.repo} holds no usable model: {why}; take another repository or quantisation (what came stays in "
        f"{origin.cache})"
    )
