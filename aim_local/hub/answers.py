"""A hub's answers, each value read as what it must be: nothing of a server's is shown or made a path before that.

Knows what a safe file name, a commit, a checksum and a repository's name look like; which files are wanted is not its
matter (choose.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import HubError
from ..store.foreign_names import fault_of

PARTIAL = ".incomplete"  # the end of a blob's name while it is fetched
UNKNOWN = -1  # a size that the listing does not tell
TAKEN = (".gguf", ".safetensors", ".json", ".jinja", ".model", ".txt")  # endings of what a model can be made of
_CHECKSUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*")
_ETAG = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}")
_MOST = 2**63 - 1  # bytes: what a file system counts to


@dataclass(frozen=True)
class RepoFile:
    """A file of a repository. size: bytes, UNKNOWN where the listing does not tell.

    sha256: of large files, git_sha: of the others; "" where not known.
    """

    name: str
    size: int
    sha256: str = ""
    git_sha: str = ""


def repo_of(value: object, asked: str) -> str:
    """The hub's own spelling of OWNER/NAME. Raises HubError."""
    if not isinstance(value, str) or not _REPO.fullmatch(value) or ".." in value or len(value) > 200:
        raise _no_answer(asked, f"its id is {_shown(value)}, not OWNER/NAME")
    return value


def revision_of(value: object, repo: str) -> str:
    """A commit. Raises HubError."""
    if not is_commit(value):
        raise _no_answer(repo, f"its commit (sha) is {_shown(value)}, not 40 or 64 hex digits")
    return str(value)


def is_commit(value: object) -> bool:
    return isinstance(value, str) and _CHECKSUM.fullmatch(value) is not None


def file_of(repo: str, name: object, size: object, sha256: object, git_sha: object) -> RepoFile | None:
    """One entry of the listing; None for a file of an odd name that no model is made of. Raises HubError."""
    if not isinstance(name, str) or not name:
        raise _no_answer(repo, f"a file's name is {_shown(name)}")
    fault = fault_of(name)
    if fault:
        if not name.lower().endswith(TAKEN):
            return None
        raise HubError(
            f"{repo} lists a file named {_shown(name)}, which {fault}: nothing of it is taken; take another repository"
        )
    if size is not None and not is_size(size):
        raise _no_answer(repo, f"the size of {name} is {_shown(size)}, not a number of bytes")
    known = size if isinstance(size, int) and size >= 0 else UNKNOWN
    return RepoFile(name, known, _checksum(repo, name, sha256, 64), _checksum(repo, name, git_sha, 40))


def is_size(value: object) -> bool:
    """Whether it is a number of bytes that a file can have; less than 0 for "not told"."""
    return isinstance(value, int) and not isinstance(value, bool) and value <= _MOST


def is_blob_name(etag: object) -> bool:
    """Whether it can be a file's name in the cache: no way out of its folder, and not that of a part."""
    return isinstance(etag, str) and _ETAG.fullmatch(etag) is not None and not etag.endswith(PARTIAL)


def _checksum(repo: str, name: str, value: object, digits: int) -> str:
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or not _CHECKSUM.fullmatch(value) or len(value) != digits:
        raise _no_answer(repo, f"the checksum of {name} is {_shown(value)}, not {digits} hex digits")
    return value


def _shown(value: object) -> str:
    """For a message: in ASCII, so that no terminal obeys it, and short."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def _no_answer(repo: str, what: str) -> HubError:
    from huggingface_hub import constants

    return HubError(f"{constants.ENDPOINT} does not answer as a hub does, asked for {repo}: {what}; check HF_ENDPOINT")
