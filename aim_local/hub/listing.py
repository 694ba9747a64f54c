"""What a repository holds: asked of the hub, or, offline, what its cache has of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import HubError
from ..store.plain_json import parsed_object
from .answers import RepoFile, file_of, is_commit, repo_of, revision_of
from .asking import whole_answer
from .failures import answered, translated


@dataclass(frozen=True)
class Listing:
    """All files of one revision (a commit). cache: the repository's folder in the hub's cache."""

    repo: str
    revision: str
    files: tuple[RepoFile, ...]
    cache: Path
    offline: bool = False


def cache_root() -> Path:
    """The hub's cache: HF_HUB_CACHE, HF_HOME or the library's default."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser().absolute()


def list_repo(repo: str) -> Listing:
    """The newest revision. Raises HubError."""
    from huggingface_hub import constants
    from huggingface_hub.utils import validate_repo_id

    with translated(repo), answered():
        validate_repo_id(repo)  # the name becomes a folder's
    if constants.HF_HUB_OFFLINE:
        return _cached(repo)
    with translated(repo), answered():
        info = parsed_object(whole_answer(f"{constants.ENDPOINT}/api/models/{repo}?blobs=true"))
        entries = [_told(entry) for entry in info.get("siblings") or ()]
    # the hub's own spelling of the name, which the cache's folder carries
    name, revision = repo_of(info.get("id"), repo), revision_of(info.get("sha"), repo)
    files = [file_of(name, *entry) for entry in entries]
    return Listing(name, revision, tuple(file for file in files if file is not None), _folder(name))


def _told(entry: dict[str, Any]) -> tuple[object, object, object, object]:
    """Name, size, sha256 and git's sum that the hub tells of a file. Raises what another value raises."""
    return entry["rfilename"], entry.get("size"), (entry.get("lfs") or {}).get("sha256"), entry.get("blobId")


def _folder(repo: str) -> Path:
    return cache_root() / f"models--{repo.replace('/', '--')}"


def _cached(repo: str) -> Listing:
    """What the cache has, for HF_HUB_OFFLINE."""
    folder = _folder(repo)
    ref = folder / "refs" / "main"
    revision = ref.read_text(encoding="utf-8").strip() if ref.is_file() else ""
    snapshot = folder / "snapshots" / revision
    if not is_commit(revision) or not snapshot.is_dir():
        raise HubError(
            f"{repo} is not in the hub's cache ({cache_root()}) and HF_HUB_OFFLINE is set; unset it, or name a model "
            "that is here (`aim-local models`)"
        )
    files = [
        RepoFile(path.relative_to(snapshot).as_posix(), path.stat().st_size, **_sums(path))
        for path in sorted(snapshot.rglob("*"))
        if path.is_file()
    ]
    return Listing(repo, revision, tuple(files), folder, offline=True)


def _sums(path: Path) -> dict[str, str]:
    """The cache names a blob by its checksum."""
    name = path.resolve().name
    return {"sha256": name if len(name) == 64 else "", "git_sha": name if len(name) == 40 else ""}
