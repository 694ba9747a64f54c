"""What a chat template writes where media go, as the head of a mmproj has it: a text that stands for nothing else.

Where it stands in a rendered prompt, visual tokens are put (prompt.py). Most are special tokens of the language model;
vocabularies that the authors' own LLaVA releases bring know none, so any name in brackets will do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from ..store.gguf_header import GgufHeader
from .head import damaged

KEYS = ("aim.image_token", "aim.video_token")
_IN_BRACKETS = re.compile(r"<[^<>\s]{1,60}>|\[[^\[\]\s]{1,60}\]")


def check_marks(header: GgufHeader, specials: Callable[[], Collection[str]]) -> None:
    """Raises ModelError for one that is an ordinary text. specials: names of the language model's special tokens."""
    for key in KEYS:
        mark = header.metadata.get(key)
        is_name = mark is None or (_IN_BRACKETS.fullmatch(mark) is not None and mark.isprintable())
        if not is_name and mark not in specials():
            needed = "it has to be a special token of the language model, or a name in brackets such as '<image>'"
            raise damaged(header, key, needed)
