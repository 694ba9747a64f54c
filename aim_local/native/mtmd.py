"""A loaded mmproj natively, and pictures through mtmd's own tokenizer: what llama.cpp's tools do with them.

Towers that we run tile by tile go through visual.py on the same context.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError, NativeError
from . import kernels, log, visual
from .created import created
from .finite import finite_rows
from .library import llama, mtmd
from .llama import FLASH_ATTN, LlamaModel
from .owned import Owned, pointer_of
from .room import VISION_GRAPH, check_room, file_bytes
from .stop import StopHook

MARKER = "<__media__>"
_TEXT, _IMAGE = 0, 1  # enum mtmd_input_chunk_type

Pixels = NDArray[np.uint8]
Rows = NDArray[np.float32]


class MtmdContext:
    """Vision tower and projector beside a loaded language model. Raises ModelError. `close()` frees it.

    vision_precision: see LoadConfig; `precision` is what it became.
    merging: vision_merge and vision_merge_depth of LoadConfig.
    """

    def __init__(
        self,
        path: Path,
        model: LlamaModel,
        *,
        n_threads: int,
        use_gpu: bool,
        flash_attn: str | bool,
        vision_precision: str,
        merging: tuple[float, float],
    ) -> None:
        params = mtmd.mtmd_context_params_default()
        params.use_gpu = use_gpu
        params.print_timings = False
        params.warmup = False
        params.flash_attn_type = FLASH_ATTN[flash_attn]
        params.n_threads = n_threads

        def load() -> Any:
            kernels.load_with(vision_precision)
            visual.load_merging(*merging)
            return mtmd.mtmd_init_from_file(os.fsencode(path), model.handle, params)

        check_room(file_bytes([path]) + VISION_GRAPH)
        ctx = created(load, mtmd.mtmd_free)
        if not ctx:
            raise ModelError(f"{path}: does not load: {log.last_error()}")
        self.owned = Owned("the vision tower", ctx, mtmd.mtmd_free, owner=model.owned, holder=self)
        if not mtmd.mtmd_support_vision(ctx):
            self.close()
            raise ModelError(f"{path}: has no vision tower; take the model's vision mmproj")
        if merging[0] < 1 and not visual.merges(ctx):
            self.close()
            raise ModelError(f"{path}: this vision tower cannot merge inside; leave vision_merge at 1")
        self.path = path
        self.stop: StopHook = model.stop
        self.stop.attach_vision(ctx)
        self.precision = kernels.precision_of(ctx)
        self.uses_mrope = bool(mtmd.mtmd_decode_use_mrope(ctx))

    @property
    def handle(self) -> Any:
        """Raises ClosedError."""
        return self.owned.pointer

    def close(self) -> None:
        self.owned.close()


@dataclass(frozen=True)
class TextChunk:
    """Tokens that mtmd puts around pictures."""

    tokens: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ImageChunk:
    """Rows of one or more pictures, alive as long as its Chunks.

    n_rows: visual tokens. decodes_itself: only mtmd knows its positions or its mask.
    """

    n_rows: int
    decodes_itself: bool
    handle: Any


class Chunks:
    """mtmd's chunks of some pictures, as it tokenises them. Owns their memory."""

    def __init__(self, context: MtmdContext, pictures: Sequence[Pixels], *, is_video: bool) -> None:
        """pictures: uint8 [H, W, 3] each. is_video: neighbours may become one chunk. Raises ModelError, NativeError."""
        chunks = mtmd.mtmd_input_chunks_init()
        self._context = context
        self._owned = Owned("the pictures' chunks", chunks, mtmd.mtmd_input_chunks_free, holder=self)
        try:
            self._tokenize(pictures, is_video)
            self.chunks = [self._chunk(i) for i in range(mtmd.mtmd_input_chunks_size(chunks))]
        except BaseException:
            self.close()
            raise

    def _tokenize(self, pictures: Sequence[Pixels], is_video: bool) -> None:
        with ExitStack() as stack:
            bitmaps = []
            for picture in pictures:
                pixels = np.ascontiguousarray(picture)
                data = pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
                bitmap = mtmd.mtmd_bitmap_init(pixels.shape[1], pixels.shape[0], data)
                stack.callback(mtmd.mtmd_bitmap_free, bitmap)
                mtmd.mtmd_bitmap_set_mergeable(bitmap, is_video)
                bitmaps.append(bitmap)
            text = (MARKER * len(bitmaps)).encode()
            request = mtmd.mtmd_input_text(text, len(text), False, True)
            array = (mtmd.mtmd_bitmap_p_ctypes * max(1, len(bitmaps)))(*bitmaps)
            log.clear()
            context = self._context.handle
            status = mtmd.mtmd_tokenize(context, self._owned.pointer, ctypes.byref(request), array, len(bitmaps))
        if status != 0:
            raise NativeError(f"mtmd could not tokenise the pictures ({status}): {log.last_error()}")

    def _chunk(self, i: int) -> TextChunk | ImageChunk:
        chunk = mtmd.mtmd_input_chunks_get(self._owned.pointer, i)
        kind = mtmd.mtmd_input_chunk_get_type(chunk)
        if kind == _TEXT:
            n = ctypes.c_size_t()
            tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(n))
            return TextChunk(tuple(tokens[: n.value]))
        if kind != _IMAGE:
            raise ModelError("this mmproj makes audio tokens, which are not supported; use a vision model")
        own = Owned("the picture's chunk", chunk, lambda _: None, owner=self._owned)
        alone = self._context.uses_mrope or bool(mtmd.mtmd_decode_use_non_causal(self._context.handle, chunk))
        return ImageChunk(int(mtmd.mtmd_input_chunk_get_n_tokens(chunk)), alone, own)

    def close(self) -> None:
        self._owned.close()


def encode_chunk(context: MtmdContext, chunk: ImageChunk, n_embd: int) -> Rows:
    """Visual rows of a chunk, float32 [n_rows, n_embd]. Raises NativeError."""
    check_room()
    log.clear()
    if mtmd.mtmd_encode_chunk(context.handle, pointer_of(chunk.handle)) != 0:
        context.stop.reraise()
        raise NativeError(f"mtmd could not encode a picture: {log.last_error()}")
    pointer = mtmd.mtmd_get_output_embd(context.handle)
    return finite_rows(np.ctypeslib.as_array(pointer, shape=(chunk.n_rows, n_embd)).copy(), context.path)


def decode_chunk(
    context: MtmdContext, llama_context: Any, chunk: ImageChunk, rows: Rows, position: int, n_batch: int
) -> int:
    """Appends encoded rows as mtmd does (M-RoPE, masks that are not causal); returns the next position."""
    after = llama.llama_pos(0)
    data = np.ascontiguousarray(rows, dtype=np.float32)
    pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    check_room()
    log.clear()
    status = mtmd.mtmd_helper_decode_image_chunk(
        context.handle, llama_context, pointer_of(chunk.handle), pointer, position, 0, n_batch, ctypes.byref(after),
        mtmd.mtmd_helper_post_decode_callback(), None,
    )  # fmt: skip
    if status != 0:
        context.stop.reraise()
        context.stop.check_done()
        raise NativeError(f"mtmd could not decode a media chunk ({status}): {log.last_error()}")
    return int(after.value)
