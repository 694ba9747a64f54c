"""Models that can be had by a short name, and what a reference to a repository looks like. Asks no hub.

The table is data/known.json: name, repository, default quantisation, files of the pair (none: a checkpoint, which is
converted here), and bytes to download and of memory, both rounded estimates. What is fetched, and its exact size, is
what the repository holds when it is asked (hub/choose.py).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

# as in links, of any hub, and in what other runners take: a host in front of OWNER/NAME
_SITE = re.compile(r"^(?:https?://)?[\w-]+(?:\.[\w-]+)+(?::\d+)?/(?=[^/]+/[^/]+$)", re.IGNORECASE)
# the page of a repository's files, which a browser's address line shows; other branches are not pulled
_BRANCH = re.compile(r"^((?:https?://)?[\w-]+(?:\.[\w-]+)+(?::\d+)?/[^/]+/[^/:]+)/tree/main(?=:|$)", re.IGNORECASE)
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class KnownModel:
    """quant: what is taken where none is asked. files: language GGUF and mmproj, () for a checkpoint."""

    name: str
    repo: str
    quant: str
    files: tuple[str, ...]
    download: int
    memory: int


@dataclass(frozen=True)
class Reference:
    """A model on the hub. quant: as asked, "" where nothing was; known: its entry in the table, by name or repo.

    name: as it was typed, without the host and the quantisation.
    """

    repo: str
    quant: str
    known: KnownModel | None
    name: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        """As it was typed."""
        name = self.name or self.repo
        return f"{name}:{self.quant}" if self.quant else name


@cache
def known_models() -> tuple[KnownModel, ...]:
    import aim_local

    for folder in aim_local.__path__:  # an editable install has several
        path = Path(folder) / "data" / "known.json"
        if path.is_file():
            rows = json.loads(path.read_text(encoding="utf-8"))
            return tuple(KnownModel(**{**row, "files": tuple(row["files"])}) for row in rows)
    return ()


def find_known(name: str) -> KnownModel | None:
    """The entry of that name or of that repository."""
    wanted = name.lower()
    return next((known for known in known_models() if wanted in (known.name, known.repo.lower())), None)


def parse_reference(text: str) -> Reference | None:
    """What "a-known-name", "owner/repo" or either with ":Q8_0" means; None for what is neither."""
    link = _BRANCH.sub(r"\1", text.strip().rstrip("/"))
    name, _, quant = _SITE.sub("", link).partition(":")
    known = find_known(name)
    if known is not None:
        return Reference(known.repo, quant, known, name)
    if not _REPO.fullmatch(name) or ".." in name or name.lower().endswith(".gguf"):
        return None
    return Reference(name, quant, None, name)
