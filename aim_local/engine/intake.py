"""A media item on its way into a prompt: found in the store, else decoded in a thread while it is encoded.

Decoding and fitting run ahead by a few frames, so they cost no time of their own where the encoder is the slower one.
Who calls `encode` has the model's turn; everything else needs none. What the rows become is encode.py's business.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from ..arguments import declared
from ..media import FrameSampling, Image, MediaShape, Video
from ..media.canvas import Keep
from ..media.given import Given, MediaItem, take
from ..media.reader import READING, Opened, digest_item, open_item
from ..models.base import Frame, Tower
from ..models.reuse import Seen, Shared
from ..store.encoded import Key
from .kept import described, fits, video_of
from .model import Model
from .tile_rows import ItemRows

AHEAD = 4  # frames that wait for the encoder
_WAIT = 0.05  # seconds between two looks at a wish to stop

Source = Given


@dataclass(frozen=True, eq=False)
class Sampled:
    """A media item with a sampling of its own, in the place of its path or array."""

    source: Source
    sampling: FrameSampling

    def __post_init__(self) -> None:
        declared("sampling", self.sampling, FrameSampling)


class _Dropped(Exception):
    """Ends the decoder's thread: nobody wants its frames any more."""


class _Decoder:
    """One item decoded in a thread. Frames come through a bounded queue, then the item, or what went wrong."""

    def __init__(self, opened: Opened, fit: Callable[[Frame], Frame] | None) -> None:
        self._opened, self._fit = opened, fit
        self._frames: queue.Queue[tuple[int, Frame] | None] = queue.Queue(AHEAD)
        self._dropped = threading.Event()
        self._found: Video | Image | BaseException | None = None
        self.fit_ms, self._waited_ms, self._forgotten = 0.0, 0.0, 0.0
        self._start, self._ended = time.perf_counter(), 0.0
        self._thread = threading.Thread(target=self._run, name="aim-local decoder", daemon=True)
        self._thread.start()

    def next(self, wait: float) -> tuple[int, Frame] | None:
        """The next frame, None after the last one. Raises queue.Empty where none came in `wait` seconds."""
        return self._frames.get(timeout=wait) if wait else self._frames.get_nowait()

    @property
    def waits(self) -> bool:
        """Whether `next` has something to give."""
        return not self._frames.empty()

    def result(self) -> Video | Image:
        """After the last frame. Raises what ended the decoder."""
        self._thread.join()
        if isinstance(self._found, BaseException):
            raise self._found
        assert self._found is not None, "asked after the last frame"
        return self._found

    def forget_times(self) -> None:
        """What is counted from now on is for a question."""
        self.fit_ms, self._forgotten = 0.0, self._busy_ms()

    @property
    def ms(self) -> float:
        """Opening and decoding, without fitting and without waiting for the encoder."""
        return max(0.0, self._busy_ms() - self._forgotten - self.fit_ms)

    def _busy_ms(self) -> float:
        return ((self._ended or time.perf_counter()) - self._start) * 1000 - self._waited_ms

    def close(self) -> None:
        self._dropped.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._found = self._opened.read(Keep(fit=self._timed if self._fit else None), None, self._put)
        except BaseException as e:  # told in the thread that asks for the result
            self._found = e
        self._ended = time.perf_counter()
        try:
            self._push(None)
        except _Dropped:
            return

    def _timed(self, frame: Frame) -> Frame:
        assert self._fit, "given to a reader only where there is one"
        start = time.perf_counter()
        fitted = self._fit(frame)
        self.fit_ms += (time.perf_counter() - start) * 1000
        return fitted

    def _put(self, row: int, pixels: Frame) -> None:
        self._push((row, pixels))

    def _push(self, found: tuple[int, Frame] | None) -> None:
        start, ended = time.perf_counter(), self._ended
        while not self._dropped.is_set():
            try:
                self._frames.put(found, timeout=_WAIT)
                break
            except queue.Full:
                continue
        else:
            raise _Dropped
        if not ended:
            self._waited_ms += (time.perf_counter() - start) * 1000


class Intake:
    """One media item. `open`, then `decoded` and `encode` in turns until there are no more frames, then `media`.

    once: its rows serve one prompt (tile_rows.py). `close()` ends its thread. What is no file is read at once; an
    iterator leaves warnings.
    """

    def __init__(
        self, model: Model, source: Source, sampling: FrameSampling | None, shared: Shared, *, once: bool = False
    ) -> None:
        self.model, self._once = model, once
        self._sampling, self._shared = sampling or FrameSampling(n_frames=model.default_frames), shared
        self.source, self.warnings = take(source, self._sampling)
        self._lock = threading.Lock()
        self._shape: MediaShape | None = None
        self._opened: Opened | None = None
        self._decoder: _Decoder | None = None
        self._frame: tuple[int, Frame] | None = None  # decoded, not encoded yet
        self._ended = False  # the decoder gave its last frame
        self._stat: tuple[int, ...] | None = None
        self._open_ms = 0.0
        self.media: Video | Image | None = None
        self.rows = ItemRows(None)
        self.n_done = 0  # frames

    @classmethod
    def ready(cls, model: Model, video: Video, rows: ItemRows) -> Intake:
        """Of frames that are here, fitted to the tower, and `rows` of them; nothing of it is put into the store."""
        found = cls(model, video.source, None, Shared())
        found._shape, found.media, found.rows = video.shape, video, rows
        return found

    # --- opening ---------------------------------------------------------------------------------------------------

    def open(self, check: Callable[[], None]) -> MediaShape:
        """What the item is, as far as its head tells. Any thread may call; the first one does the work.

        Raises MediaError, UsageError, and what `check` raises while another thread is at it.
        """
        while not self._lock.acquire(timeout=_WAIT):
            check()
        try:
            if self._shape is None:
                start = time.perf_counter()
                self._shape = self._open()
                self._open_ms = (time.perf_counter() - start) * 1000
            return self._shape
        finally:
            self._lock.release()

    def _open(self) -> MediaShape:
        tower, store = self._tower, self.model.encoded_store
        self._stat = _stat(self.source)
        digest = digest_item(self.source)
        key = entry_key(self.model, self.source, self._sampling, digest) if store else None
        entry = store.find(key) if store and key else None
        self.media = video_of(entry, self.source, digest, self._row_shapes) if entry else None
        if self.media:
            shape = self.media.shape
        else:
            self._opened = open_item(
                self.source, self._sampling, digest=digest, max_pixels=self.model.config.max_pixels
            )
            shape = self._opened.shape
        near_px = tower.patch_px if self.model.config.reuse_frames == "near" else 0
        seen = Seen(shape.kind, self._shared, near_px)
        usable = entry is not None and fits(entry, self.media, shape, self.model.text.n_embd)
        keeper = store.begin(key) if store and key and not usable else None
        self.rows = ItemRows(seen, entry.rows if entry and usable else (), keeper, once=self._once)
        return shape

    @property
    def _tower(self) -> Tower:
        assert self.model.tower is not None, "checked before media are read"
        return self.model.tower

    def _row_shapes(self, shape: MediaShape) -> list[tuple[int, int]]:
        """(rows, width) of every tile."""
        return [(n, self.model.text.n_embd) for n in self._tower.rows_of_tiles(shape)]

    @property
    def _is_fitted(self) -> bool:
        """Whether frames are kept as the tower sees them."""
        return self._shape is not None and self._tower.fit_for(self._shape) is not None

    # --- decoding and encoding -------------------------------------------------------------------------------------

    @property
    def n_frames(self) -> int:
        """Frames that are to come; 0 while that is not known."""
        return self._shape.n_frames if self._shape else 0

    @property
    def n_tiles(self) -> int:
        return self._tower.n_tiles(self._shape) if self._shape else 0

    @property
    def is_ready(self) -> bool:
        """Whether `decoded` would not have to wait for the decoder."""
        return self.media is not None or self._frame is not None or self._ended or self._started().waits

    @property
    def ms(self) -> dict[str, float]:
        """By stage, of the decoder's thread, which works while others do."""
        decoder = self._decoder
        decode, fit = (decoder.ms, decoder.fit_ms) if decoder else (0.0, 0.0)
        return {"decode_video": self._open_ms + decode, "preprocess": fit}

    def decoded(self, check: Callable[[], None]) -> bool:
        """Waits for the next frame; False after the last one, when `media` is here.

        Raises MediaError where the file cannot be decoded, and what `check` raises.
        """
        if self._frame is not None:
            return True
        if self.media is not None:
            return False
        decoder = self._started()
        while not self._ended:
            check()
            try:
                self._frame = decoder.next(_WAIT)
            except queue.Empty:
                continue
            if self._frame is not None:
                return True
            self._ended = True
        self._finish(decoder.result())  # what ended it early is told to everybody who asks
        return False

    def encode(self) -> None:
        """Encodes the frame that was decoded, where the tower takes frames one by one. In the model's turn."""
        assert self._frame is not None, "decoded before"
        number, pixels = self._frame
        encode = self._tower.frame_rows
        if encode:
            self.rows(number, pixels, partial(encode, pixels))
        self._frame = None
        self.n_done += 1

    def _started(self) -> _Decoder:
        with self._lock:
            if self._decoder is None:
                assert self._opened is not None, "opened before"
                self._decoder = _Decoder(self._opened, self._tower.fit_for(self._opened.shape))
            return self._decoder

    def _finish(self, media: Video | Image) -> None:
        """The decoder has come to its end."""
        assert self._shape is not None, "opened before"
        if media.shape.n_frames != self._shape.n_frames and self._tower.frame_rows:
            planned = {index: i for i, index in enumerate(self._shape.indices)}
            self.rows.number_as([planned[index] for index in media.shape.indices])
        self.media = media

    def begin_question(self) -> None:
        """What was done so far was done before the question."""
        self.rows.begin_question()
        self._open_ms = 0.0
        if self._decoder:
            self._decoder.forget_times()

    def keep(self) -> str:
        """Puts the encoded item into the store. Returns why that cannot be, "" where all is well."""
        changed = _stat(self.source) != self._stat  # while it was read: nobody knows what was decoded
        if changed or (isinstance(self.media, Video) and not self.media.is_sound):  # perhaps for want of memory alone
            self.rows.close()
        return self.rows.keep(*described(self.media, whole=self._is_fitted)) if self.media else ""

    def close(self) -> None:
        """Ends the decoder's thread; an entry of the store that is not finished goes. Idempotent."""
        if self._decoder:
            self._decoder.close()
        self.rows.close()


class Prepared(ABC):
    """An item that was begun before its question, to be given in the place of its path: ahead.py, rolling.py."""

    @abstractmethod
    def taken_by(self, model: Model) -> Intake:
        """For a question, in the model's turn. Raises UsageError for one to another model."""


def entry_key(model: Model, source: MediaItem, sampling: FrameSampling, digest: str) -> Key:
    """What an item's rows are kept under in the store. digest: of the item."""
    # frames: of an array all
    frames = None if isinstance(source, np.ndarray) else asdict(sampling)
    return Key({"media": digest, "sampling": frames, "reading": READING, **model.vision_facts})


def _stat(source: MediaItem) -> tuple[int, ...] | None:
    if isinstance(source, np.ndarray):
        return None
    try:
        found = os.stat(source)
    except OSError:
        return None  # told where the file is opened
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
