"""A model file is tried out once in a process of its own before this one loads it.

The rules in models/ say what is wrong with a head in the words of its keys. Whatever else a file holds that ends a
process, or hangs it, ends a child here, and becomes one line. What was found right is remembered (store/seen.py).
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Sequence
from functools import cache

from ..child import Child
from ..errors import ModelError, NativeError
from ..store.gguf_header import GgufHeader
from ..store.seen import Look
from .installed import library_files

LIMIT_S = 60.0  # for a head; the largest take less than 2 s
_MOST_THREADS = 4  # that read weights: memory is slower than they are
_BYTES_PER_S = 20e6  # of weights, from the slowest disk
_CURE = "the file is damaged, or of a kind that this version does not know: download or convert it again"
# in front of llama.cpp's reasons: its own functions, and how the child ended that gave up
_CALLERS = re.compile(
    r"^(?:killed by SIGABRT: error: (?=llama\.cpp)|\w+: +|error loading [\w ]+: +|failed to load model '[^']*': +)+"
)
# what upstream takes for granted, in words
_REASONS = {
    "id_to_token.size() == token_to_id.size()": "two tokens of its vocabulary have the same text",
    "model vocab missing newline token": "its tokenizer.ggml.model does not fit its vocabulary, which has no newline",
    "unordered_map::at": "its tokenizer.ggml.model does not fit its vocabulary, which lacks bytes",
}


def rehearse(
    headers: Sequence[GgufHeader], kind: str, *, weights: bool, first: Callable[[], None] | None = None
) -> None:
    """headers: of a model's files, the first one first. kind: "text" or "vision". Raises ModelError for a bad file.

    weights: whether they are looked through, too, for what is no finite number. first: what else a head that nobody
    saw yet is looked at for, which raises ModelError.
    """
    path = headers[0].path
    try:
        look = Look.at(headers, _libraries())
    except OSError as e:
        raise ModelError(f"{path}: cannot be read ({e.strerror}); check its permissions") from e
    if first and not look.knows_head:
        first()
    files = [os.fspath(header.path) for header in headers]
    steps = [] if look.knows_head else [(kind, files[0])]
    if weights and not look.knows_weights:
        steps += [("weights", file) for file in files]
    if not steps:
        return
    try:
        wrong = _try(steps, LIMIT_S + sum(header.n_bytes for header in headers) / _BYTES_PER_S)
    except OSError as e:
        raise NativeError(f"{path}: no process can be started to try it out in ({e}); free memory or processes") from e
    if wrong:
        words = next((words for part, words in _REASONS.items() if part in wrong), _plain(wrong))
        raise ModelError(f"{path} does not load: {words}; {_CURE}")
    look.note(weights=weights or look.knows_weights)


def _plain(wrong: str) -> str:
    """A reason of llama.cpp's, which may quote the file, without what a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in _CALLERS.sub("", wrong))


def _try(steps: list[tuple[str, str]], limit_s: float) -> str:
    """What is wrong, "" for nothing."""
    with Child("the rehearsal of a model file", ["-m", "aim_local.native.rehearsal_child"]) as child:
        late = threading.Event()

        def end() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(limit_s, end)
        timer.start()
        try:
            child.send(steps=steps, n_threads=min(_MOST_THREADS, os.cpu_count() or 1))
            said = child.receive()
        finally:
            timer.cancel()
        if said is None:
            return f"it takes over {limit_s:.0f} s to load" if late.is_set() else child.death()
    if "wrong" not in said:
        raise NativeError(f"a model file cannot be tried out: {said}; reinstall aim-local")
    return str(said["wrong"])


@cache
def _libraries() -> str:
    """Changes with our libraries."""
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in library_files()]
    return hashlib.sha256(repr(stats).encode()).hexdigest()
