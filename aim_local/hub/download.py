"""One file of a repository into the hub's cache: resumed where it stopped, and checked before it counts as there.

Knows the cache's layout (blobs/CHECKSUM, snapshots/COMMIT/NAME) and HTTP ranges. The library's own download neither
resumes in a later run nor compares checksums. A blob is called by the very checksum that it was compared with.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .. import store
from ..errors import HubError
from ..store.files import replaced
from ..store.names import make_folder
from .answers import PARTIAL, UNKNOWN, RepoFile, is_blob_name, is_commit, is_size
from .asking import asked, head_of, raise_refusal
from .failures import answered, has_status, translated, transport_error
from .listing import Listing

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

CHUNK = 1 << 20
TRIES = 3  # in a row that bring next to nothing
LEAST = 1 << 16  # bytes that a try must bring: else a server that gives one at a time is asked for years
PAUSE = 1.0  # seconds between them
Report = Callable[[int], None]  # bytes of this file that are here


def cached(listing: Listing, file: RepoFile) -> Path | None:
    """The file in the cache's snapshot, None where it is not there."""
    path = listing.cache.joinpath("snapshots", listing.revision, *file.name.split("/"))
    return path if path.is_file() else None


def partial_bytes(listing: Listing, file: RepoFile) -> int:
    """How much an earlier try left of a file that is not there."""
    left = _blob(listing, file.sha256 or file.git_sha)
    part = left.with_name(left.name + PARTIAL)
    return part.stat().st_size if part.is_file() else 0


def sized(listing: Listing, file: RepoFile) -> RepoFile:
    """The file with its size, which the hub is asked for where the listing does not tell it. Raises HubError."""
    if file.size != UNKNOWN:
        return file
    with translated(listing.repo, file.name):
        _, meta = _head(listing, file)
    if meta.size is None or meta.size < 0 or not is_size(meta.size):
        raise HubError(f"{file.name}: the hub does not tell its size; take another repository")
    return replace(file, size=meta.size)


def download(listing: Listing, file: RepoFile, report: Report) -> Path:
    """The file in the cache, whole and of the right checksum. Raises HubError."""
    from huggingface_hub.utils import WeakFileLock

    found = cached(listing, file)
    if found is None:
        with translated(listing.repo, file.name):
            url, meta = _head(listing, file)
            _check_same(meta.size, meta.commit_hash, listing, file)
            name = _checked_name(meta.etag or file.sha256 or file.git_sha, file)
            blob, total = _blob(listing, name), _Sum(file, name)
            lock = listing.cache.parent / ".locks" / listing.cache.name / f"{name}.lock"
            for folder in (blob.parent, lock.parent):
                make_folder(folder)
            with WeakFileLock(lock):  # another process may be at it: then it is there when this one's turn comes
                fetched = not _is_whole(blob, total)
                if fetched:
                    _fetch(url, blob, file.size, total, report)
                found = _entry(listing, file, blob, is_new=fetched)
            if fetched:  # `models rm` removes no other files
                store.note_fetched(found)
    else:
        _verify(listing, found, file)
    report(file.size)
    return found


def _head(listing: Listing, file: RepoFile) -> tuple[str, HfFileMetadata]:
    """Where the file is on the hub, and what the hub says of it. Raises HubError and what HTTP raises."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(listing.repo, file.name, revision=listing.revision, endpoint=constants.ENDPOINT)
    with answered():
        ask = partial(get_hf_file_metadata, timeout=constants.HF_HUB_ETAG_TIMEOUT, endpoint=constants.ENDPOINT)
        return url, head_of(partial(ask, url))


def name_branch(listing: Listing) -> None:
    """Lets refs/main name the commit, as the library does: what asks the cache without the hub looks there.

    Raises HubError.
    """
    ref = listing.cache / "refs" / "main"  # all that is listed is the newest of main
    with translated(listing.repo):
        if listing.revision and not (ref.is_file() and ref.read_text(encoding="utf-8") == listing.revision):
            make_folder(ref.parent)
            with replaced(ref) as partial:
                partial.write_text(listing.revision, encoding="utf-8")


def _blob(listing: Listing, checksum: str) -> Path:
    return listing.cache / "blobs" / checksum


def _check_same(size: int | None, commit: str | None, listing: Listing, file: RepoFile) -> None:
    """Raises HubError where the file's own answer is not about the file that was listed."""
    if size not in (None, file.size) or commit not in (None, listing.revision):
        how = f" ({file.size} bytes were announced, now {size} bytes)" if size not in (None, file.size) else ""
        raise HubError(f"{file.name} was changed on the hub meanwhile{how}; give the same command again")


def _checked_name(etag: str, file: RepoFile) -> str:
    """A blob's name in the cache: its checksum, where one is known. Raises HubError where two answers do not agree."""
    if not is_blob_name(etag):
        raise HubError(f"{file.name}: the hub names no checksum for it; give the same command again later")
    known = {64: file.sha256, 40: "" if file.sha256 else file.git_sha}.get(len(etag))
    if known and etag != known:
        raise HubError(f"{file.name} was changed on the hub meanwhile; give the same command again")
    return file.sha256 or (etag if is_commit(etag) else file.git_sha) or etag


class _Sum:
    """A file's checksum, fed as it comes: sha256 of large files, git's of the others. name: its blob's."""

    def __init__(self, file: RepoFile, name: str) -> None:
        self.file = file
        self.wanted = name if is_commit(name) else ""
        self.restart()

    def restart(self) -> None:
        self.hash = hashlib.sha256() if len(self.wanted) == 64 else hashlib.sha1(usedforsecurity=False)
        if len(self.wanted) == 40:
            self.hash.update(f"blob {self.file.size}\0".encode())

    def read(self, path: Path) -> None:
        with path.open("rb") as data:
            while chunk := data.read(CHUNK):
                self.hash.update(chunk)

    @property
    def is_right(self) -> bool:
        return not self.wanted or self.hash.hexdigest() == self.wanted

    def fits(self, path: Path) -> bool:
        """Whether what lies there is the file. Asked once, before anything else is read."""
        if path.stat().st_size != self.file.size:
            return False
        if self.wanted:
            self.read(path)
        return self.is_right


def _fetch(url: str, blob: Path, size: int, total: _Sum, report: Report) -> None:
    """The blob, by way of a file beside it that a later run goes on with. Raises HubError and what HTTP raises."""
    part = blob.with_name(blob.name + PARTIAL)
    total.restart()
    if part.is_file():
        if part.stat().st_size > size:
            part.unlink()
        else:
            total.read(part)
    try:
        with part.open("ab") as out:
            _fill(url, out, size, total, report)
    finally:
        if size and part.is_file() and not part.stat().st_size:  # nothing to go on with
            part.unlink()
    if not total.is_right:
        part.unlink()
        raise _wrong(total.file)
    os.replace(part, blob)


def _fill(url: str, out: BinaryIO, size: int, total: _Sum, report: Report) -> None:
    """Asks until all is there. Only what is more than there ever was counts as brought."""
    tries, most = 0, out.tell()
    while out.tell() != size:
        try:
            _stream(url, out, size, total, report)
        except transport_error() as e:
            if has_status(e) or (tries + 1 >= TRIES and out.tell() < most + LEAST):
                raise
            time.sleep(PAUSE)
        tries, most = 0 if out.tell() >= most + LEAST else tries + 1, max(most, out.tell())
        if tries >= TRIES and out.tell() != size:
            raise HubError(f"{total.file.name}: {out.tell()} of {size} bytes came; give the same command again")


def _stream(url: str, out: BinaryIO, size: int, total: _Sum, report: Report) -> None:
    """The rest of the file behind what `out` has, or all of it anew. What else comes is not written."""
    begin = out.tell()
    with asked(url, {"Range": f"bytes={begin}-"} if begin else {}) as response:
        if begin and response.status_code == 416:  # it has no such rest: what is here is not of this file
            _empty(out, total)
            return
        raise_refusal(response)
        told = _check_answer(response.status_code, response.headers, begin, size, total.file)
        if response.status_code == 200 and begin:  # the server gives all of it
            _empty(out, total)
        # as it comes: with a size given, what is shorter is held back, and lost when the line breaks
        for chunk in response.iter_bytes():
            if out.tell() + len(chunk) > size:
                _empty(out, total)
                raise HubError(
                    f"{total.file.name}: more came than the {size} bytes that were announced; it was deleted. Check "
                    "the network and HF_ENDPOINT, then give the same command again"
                )
            out.write(chunk)
            total.hash.update(chunk)
            report(out.tell())
    if not told and out.tell() < size:  # it ended by itself: not this file
        came = out.tell()
        _empty(out, total)
        raise _another(total.file, f"{came} bytes instead of {size}")


def _empty(out: BinaryIO, total: _Sum) -> None:
    out.seek(0)
    out.truncate()
    total.restart()


def _check_answer(status: int, headers: Mapping[str, str], begin: int, size: int, file: RepoFile) -> bool:
    """Whether the answer tells its length. Raises HubError where it is not the file's bytes from `begin`.

    A network's login page answers everything: with its own length, and with 200 whatever was asked.
    """
    length, coded = headers.get("Content-Length"), headers.get("Content-Encoding", "identity")
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    rest = size
    if status == 206:
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("Content-Range", "").strip())
        if found is None or int(found[1]) != begin or found[3] not in (str(size), "*"):
            raise _another(file, f"a range that was not asked ({ascii(headers.get('Content-Range', ''))[:60]})")
        rest = size - begin
    elif status != 200:
        raise _another(file, f"status {status}")
    if kind in ("text/html", "application/xhtml+xml"):
        raise _another(file, "a web page")
    if not begin and (length is None or coded != "identity"):  # the length told is not that of what will be written
        return False
    if coded != "identity":
        raise _another(file, f"the encoding {ascii(coded)[:60]}")
    if length != str(rest):
        raise _another(file, f"{ascii(length)[:60] if length else 'an unknown number of'} bytes instead of {rest}")
    return True


def _another(file: RepoFile, came: str) -> HubError:
    from huggingface_hub import constants

    return HubError(
        f"{file.name}: {constants.ENDPOINT} answered with {came}, not with the file. A network's login page or a proxy "
        "may be in between: check the network and HF_ENDPOINT, then give the same command again"
    )


def _is_whole(blob: Path, total: _Sum) -> bool:
    """Whether it is there, and is what its name says; else it is taken away. Raises HubError."""
    if not blob.is_file():
        return False
    if total.fits(blob):
        return True
    _check_lied(blob, total.file)
    blob.unlink()
    return False


def _check_lied(blob: Path, file: RepoFile) -> None:
    """Raises HubError where the blob is what its name says: then what the hub says of it is not so.

    Another revision may have it, and a file that is right is not taken away for one that cannot be.
    """
    n_bytes = blob.stat().st_size
    if n_bytes != file.size and is_commit(blob.name) and _Sum(replace(file, size=n_bytes), blob.name).fits(blob):
        raise HubError(
            f"{file.name}: the hub announces {file.size} bytes for it, what has its checksum has {n_bytes}; check "
            "HF_ENDPOINT, or take another repository"
        )


def _entry(listing: Listing, file: RepoFile, blob: Path, *, is_new: bool) -> Path:
    """The file in the snapshot, made here: a link to the blob, as the library makes them; else the blob itself.

    is_new: nothing else can have the blob. Raises OSError, HubError.
    """
    path = listing.cache.joinpath("snapshots", listing.revision, *file.name.split("/"))
    make_folder(path.parent)
    if not path.parent.resolve().is_relative_to(listing.cache.resolve()):
        raise HubError(f"{path.parent} leads out of the hub's cache; remove it, then give the same command again")
    if path.is_symlink() and path.resolve() == blob.resolve():  # another process's, which may be reading it
        return path
    if path.is_dir() and not path.is_symlink():  # of another listing: a commit has not both of one name
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    try:
        path.symlink_to(os.path.relpath(blob, path.parent))
    except (OSError, NotImplementedError):  # Windows, where links are not for everybody; some file systems
        if is_new:
            os.replace(blob, path)
        else:
            with replaced(path) as partial:
                shutil.copyfile(blob, partial)
    return path


def _verify(listing: Listing, path: Path, file: RepoFile) -> None:
    """Raises HubError, and takes the file away, where it is not what the hub says."""
    if not _Sum(file, file.sha256 or file.git_sha).fits(path):
        cache, blob = listing.cache.resolve(), path.resolve()
        if not path.parent.resolve().is_relative_to(cache) or not blob.is_relative_to(cache):
            raise HubError(
                f"{path} is not what the hub announced, and leads out of the hub's cache to {blob}: it was left as it "
                "is; remove it from the cache, then give the same command again"
            )
        if blob.name in (file.sha256, file.git_sha):
            _check_lied(blob, file)
        path.unlink()
        blob.unlink(missing_ok=True)
        raise _wrong(file)


def _wrong(file: RepoFile) -> HubError:
    return HubError(
        f"{file.name}: what came is not what the hub announced (checksum); it was deleted, give the same command again"
    )
