"""Content parts of a request become media, safely.

The way of a part: its form (parts.py) -> what its URL means (references.py) -> bytes of the request (inline.py), a file
of the server (media_folder.py), an address (addresses.py) or an upload (uploads.py) -> a file whose head was checked
(heads.py), or pictures made one clip (picture_clip.py) -> `Found`. docs/server-media.md has the rules for users.

Knows the order of these steps, and what a request's files take. Decoding is the media layer's, the rest of a request
app.py's.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from json import dumps
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...errors import MediaError
from ...media import FrameSampling
from ..failures import RequestError
from ..limits import Limits
from . import addresses, media_folder
from .addresses import Network, fetch
from .fetching import Patience
from .heads import Head, check_head, media_failure, without_path
from .inline import save_inline
from .landing import Landing, disk_failure
from .media_folder import MediaFolder
from .part_sampling import part_sampling, picture_rate
from .parts import Item, Part, check_n_pictures, read_part
from .picture_clip import Picture, clip_array, clip_film, n_clip_bytes, size_warnings
from .references import Address, FileName, Inline, InlineFrames, Reference, UploadId, read_inline, read_reference
from .uploads import Uploads
from .words import OPTIONS, beyond, display_name, shown, size

_PICTURES_HELD = 2  # times the most pixels of one
_UNNAMED = "the file"  # of bytes that came without a name


@dataclass(frozen=True, eq=False)
class Found:
    """One media item of a request, as long as its scope is open.

    media:    a file, or a clip uint8 [T, H, W, 3] made of pictures
    key:      64 hex digits: of its bytes, and of all else that decides what the model sees but the sampling: equal
              keys, equal media
    name:     what a person would call it; no path of the server is in it
    sampling: where the part says how; a clip of pictures is used whole. None: the request's holds
    warnings: what was done to it that a user may not expect
    """

    media: Path | NDArray[np.uint8]
    key: str
    name: str
    sampling: FrameSampling | None
    warnings: tuple[str, ...] = ()

    def without_path(self, message: str) -> str:
        """A message of the media layer, with the item's name instead of its path."""
        return without_path(message, self.media, self.name) if isinstance(self.media, Path) else message


@dataclass(frozen=True)
class _File:
    path: Path
    name: str
    digest: str


def _never() -> bool:
    return False


class Sources:
    """Where media of requests may come from. Many threads may ask.

    media_path: folder of the server whose files requests may name; None: none. allow_http: addresses are fetched.
    network: what is reached by addresses, for tests. Raises UsageError where media_path is no folder.
    """

    def __init__(
        self,
        limits: Limits,
        uploads: Uploads,
        *,
        media_path: Path | None = None,
        allow_http: bool = False,
        network: Network | None = None,
    ) -> None:
        self.limits, self.uploads = limits, uploads
        self.folder = MediaFolder(media_path) if media_path is not None else None
        self.network = (network or Network()) if allow_http else None

    def request(self, owner: str = "") -> Scope:
        """Of one request: `with sources.request() as scope: scope.find(...)`; its files go at the end of the block.

        owner: whose uploads it may name.
        """
        return Scope(self, owner)


class Scope:
    """The media of one request. Of one thread at a time."""

    def __init__(self, sources: Sources, owner: str = "") -> None:
        self._owner = owner
        self._sources, self._limits, self._uploads = sources, sources.limits, sources.uploads
        self._stack = ExitStack()
        self._folder: Path | None = None
        self._n_items = self._n_files = self._n_pixels = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """What was made for the request goes. Idempotent."""
        self._stack.close()

    def find(
        self,
        part: Mapping[str, object],
        where: str,
        should_stop: Callable[[], bool] = _never,
        sampling: FrameSampling | None = None,
    ) -> Found:
        """The media of a content part. Blocks for as long as it takes to decode, fetch or read it.

        where: the part's place in the request, for `RequestError.param`. sampling: the request's, or the model's
        default: what the part does not say of its sampling is taken from it. Raises RequestError and nothing else.
        """

        def check() -> None:
            if should_stop():
                raise RequestError(499, "the client has gone", code="client_closed")

        with _About(where):
            self._n_items += 1
            if self._n_items > self._limits.n_media:
                came = f"{self._n_items} videos and pictures in one request"
                raise beyond("n_media", came, f"{self._limits.n_media} are")
            form = read_part(part, self._limits)
            patience = Patience.of(self._limits.fetch_s, check)
            pictures = self._pictures_of(form)
            if pictures is None:
                return self._single(form, patience, sampling)
            return self._clip(pictures, form, patience)

    # --- one file ---------------------------------------------------------------------------------------------------

    def _single(self, form: Part, patience: Patience, sampling: FrameSampling | None) -> Found:
        (item,) = form.items
        chosen = part_sampling(form.sampling, sampling, self._limits)
        with _About(item.where):
            file = self._file(_reference(item), form.filename, patience)
            head = check_head(file.path, file.name, self._limits)
            self._count_pixels(head)
        if head.kind == "picture" and form.sampling:
            asked = next(iter(form.sampling))
            raise RequestError(400, f"{file.name}: a still picture has no {asked}; drop it", param=f".{asked}")
        return Found(file.path, _key("file", file.digest), file.name, chosen)

    def _count_pixels(self, head: Head) -> None:
        """All pictures of a request are in memory at the same time. Raises RequestError."""
        self._n_pixels += head.n_pixels
        most = _PICTURES_HELD * self._limits.n_pixels
        if self._n_pixels > most:
            came = f"pictures of {self._n_pixels:,} pixels together in one request"
            raise beyond("n_pixels", came, f"{most:,} are")

    def _file(self, reference: Reference, filename: str, patience: Patience) -> _File:
        """A file that holds what a reference means, in place until the scope is closed."""
        match reference:
            case Inline():
                inline = reference

                def save(landing: Landing) -> str:
                    save_inline(inline, landing, patience.check)
                    return display_name(filename, _UNNAMED)

                return self._landed(save)
            case Address(url):
                network = self._sources.network
                if network is None:
                    raise RequestError(403, f"{shown(url)} {addresses.OFF}", code="http_off")
                return self._landed(lambda landing: fetch(url, landing, network, patience))
            case FileName(path):
                if self._sources.folder is None:
                    raise RequestError(403, f"{shown(path)} {media_folder.OFF}", code="media_path_off")
                opened = self._stack.enter_context(self._sources.folder.opened(path, patience.check))
                return _File(opened.path, opened.name, opened.digest)
            case UploadId(id):
                upload = self._stack.enter_context(self._uploads.held(id, self._owner))
                return _File(upload.path, upload.name, upload.digest)
        raise AssertionError("pictures of a clip are taken apart before")

    def _landed(self, save: Callable[[Landing], str]) -> _File:
        """A file of the request's own. save: writes it, and returns its name."""
        with Landing(self._new_path(), self._limits, self._uploads.room, self._no_room) as landing:
            name = save(landing)
            landed = landing.finish()
        self._stack.callback(self._uploads.room.give, landed.n_bytes)
        return _File(landed.path, name, landed.digest)

    def _new_path(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="request-", dir=self._uploads.scratch))
            self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        self._n_files += 1
        return self._folder / str(self._n_files)

    def _no_room(self, n_bytes: int) -> RequestError:
        message = f"no room for {size(n_bytes)} now: other requests and uploads hold {size(self._limits.files_bytes)}"
        hint = f"ask again later, delete uploads, or start the server with a larger {OPTIONS['files_bytes']}"
        return RequestError(503, f"{message}; {hint}", code="no_room", headers={"Retry-After": "5"})

    # --- pictures as one clip ---------------------------------------------------------------------------------------

    def _pictures_of(self, form: Part) -> list[tuple[Reference, str]] | None:
        """The pictures of a clip and where they stand; None where the part is one file."""
        pictures: list[tuple[Reference, str]] = []
        for item in form.items:
            with _About(item.where):
                found = _reference(item)
                if isinstance(found, InlineFrames):
                    if form.is_clip:
                        raise RequestError(400, "is a clip in a list of pictures; give its pictures one by one")
                    check_n_pictures(found.n, self._limits)
                    return [(frame, item.where) for frame in found.split()]
            pictures.append((found, item.where))
        return pictures if form.is_clip else None

    def _clip(self, references: Sequence[tuple[Reference, str]], form: Part, patience: Patience) -> Found:
        fps = picture_rate(form.sampling)
        pictures = []
        for i, (reference, where) in enumerate(references):
            with _About(where):
                pictures.append(self._picture(reference, i, patience))
        try:
            return self._made(pictures, fps, display_name(form.filename, f"{len(pictures)} pictures"), patience)
        except MediaError as e:
            raise _named(e, pictures) from e

    def _picture(self, reference: Reference, i: int, patience: Patience) -> Picture:
        file = self._file(reference, f"picture {i + 1}", patience)
        head = check_head(file.path, file.name, self._limits)
        if head.kind != "picture":
            came = "an animated picture" if head.kind == "animation" else "a video"
            raise RequestError(400, f"{file.name}: is {came}; a list holds still pictures: send it by itself")
        return Picture(file.path, file.name, file.digest, self._limits.n_pixels)

    def _made(self, pictures: Sequence[Picture], fps: float | None, name: str, patience: Patience) -> Found:
        n_bytes = n_clip_bytes(pictures)
        if n_bytes > self._limits.file_bytes:
            came = f"{len(pictures)} pictures of the first one's size make a clip of {size(n_bytes)}"
            raise beyond("file_bytes", came, f"{size(self._limits.file_bytes)} are")
        if not self._uploads.room.take(n_bytes):
            raise self._no_room(n_bytes)
        self._stack.callback(self._uploads.room.give, n_bytes)
        path = self._new_path()
        if fps is None:
            media: Path | NDArray[np.uint8] = clip_array(pictures, path.parent, patience.check)
        else:
            media = clip_film(pictures, fps, path, patience.check)
        key = _key("pictures", fps, *(picture.digest for picture in pictures))
        return Found(media, key, name, FrameSampling(n_frames=len(pictures)), size_warnings(pictures))


class _About:
    """Puts in front of a refusal's `param` where in the request it is; all other errors become refusals."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        if isinstance(e, RequestError):
            e.param = self._where + e.param
        elif isinstance(e, OSError):
            raise _at(disk_failure(e), self._where) from e
        elif isinstance(e, MemoryError):
            raise RequestError(503, "not enough memory for this now; send less, or later", param=self._where) from e


def _at(e: RequestError, where: str) -> RequestError:
    e.param = where
    return e


def _reference(item: Item) -> Reference:
    match item.holds:
        case "url":
            return read_reference(item.text)
        case "bytes":
            return read_inline(item.text)
    return UploadId(item.text)


def _key(*facts: object) -> str:
    return sha256(dumps(facts).encode()).hexdigest()


def _named(e: MediaError, pictures: Sequence[Picture]) -> RequestError:
    about = next((picture for picture in pictures if str(picture.path) in str(e)), pictures[0])
    return media_failure(e, about.path, about.name)
