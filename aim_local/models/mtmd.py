"""Any mmproj that llama.cpp runs and we do not: tokenised, encoded and, where needed, decoded by mtmd itself.

Each frame of a video is one picture. Begin and end tokens around media are mtmd's. Token merging works where visual
tokens are plain rows at consecutive positions; M-RoPE and non-causal media are decoded by mtmd, unmerged.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError, NativeError, UsageError
from ..media import Image, Video
from ..native import log as _logs
from ..native.library import mtmd
from ..native.visual import merge_count, merge_rows
from ..results import TokenGroup
from .pieces import MediaPiece, Piece, TextPiece, VisualBlock
from .prompt import split_marks

MARKER = "<__media__>"
_TEXT, _IMAGE = 0, 1  # enum mtmd_input_chunk_type


def media_pictures(item: Video | Image) -> list[NDArray[np.uint8]]:
    """uint8 [H, W, 3] pictures of a media item."""
    return list(item.frames) if isinstance(item, Video) else [item.pixels]


class ChunkList:
    """Owns mtmd's chunks of one prompt."""

    def __init__(self) -> None:
        self.handle = mtmd.mtmd_input_chunks_init()

    def __del__(self) -> None:
        mtmd.mtmd_input_chunks_free(self.handle)


class ForeignTower:
    """Plans and encodes prompts through mtmd_tokenize and mtmd_encode_chunk. Borrows the mtmd context."""

    def __init__(self, context: Any, n_embd: int) -> None:
        self.context, self.n_embd = context, n_embd
        self.uses_mrope = bool(mtmd.mtmd_decode_use_mrope(context))

    def plan(self, rendered: str, media: Sequence[Video | Image], retain: float) -> tuple[list[Piece], ChunkList]:
        """Pieces of a rendered prompt; the ChunkList must live as long as they do."""
        text, order = "", []
        for piece in split_marks(rendered):
            if isinstance(piece, int):
                pictures = media_pictures(media[piece])
                text += MARKER * len(pictures)
                order += [(piece, picture, len(pictures) > 1) for picture in pictures]
            else:
                text += piece.replace(MARKER, "")
        chunks = ChunkList()
        self._tokenize(text, [(picture, video) for _, picture, video in order], chunks)
        return self._pieces(chunks, [index for index, _, _ in order], retain), chunks

    def _tokenize(self, text: str, pictures: list[tuple[NDArray[np.uint8], bool]], chunks: ChunkList) -> None:
        with ExitStack() as stack:
            bitmaps = []
            for i, (picture, video) in enumerate(pictures):
                pixels = np.ascontiguousarray(picture)
                data = pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
                bitmap = mtmd.mtmd_bitmap_init(pixels.shape[1], pixels.shape[0], data)
                stack.callback(mtmd.mtmd_bitmap_free, bitmap)
                mtmd.mtmd_bitmap_set_mergeable(bitmap, video)
                mtmd.mtmd_bitmap_set_id(bitmap, str(i).encode())
                bitmaps.append(bitmap)
            encoded = text.encode()
            request = mtmd.mtmd_input_text(encoded, len(encoded), True, True)
            array = (mtmd.mtmd_bitmap_p_ctypes * max(1, len(bitmaps)))(*bitmaps)
            _logs.clear()
            result = mtmd.mtmd_tokenize(self.context, chunks.handle, ctypes.byref(request), array, len(bitmaps))
        if result != 0:
            raise NativeError(f"mtmd could not tokenise the prompt ({result}): {_logs.last_error()}")

    def _pieces(self, chunks: ChunkList, media_of_picture: list[int], retain: float) -> list[Piece]:
        pieces: list[Piece] = []
        n_seen = 0  # a picture may become several chunks, and several pictures one
        for i in range(mtmd.mtmd_input_chunks_size(chunks.handle)):
            chunk = mtmd.mtmd_input_chunks_get(chunks.handle, i)
            kind = mtmd.mtmd_input_chunk_get_type(chunk)
            if kind == _TEXT:
                n = ctypes.c_size_t()
                tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(n))
                pieces.append(TextPiece(list(tokens[: n.value])))
            elif kind == _IMAGE:
                name = mtmd.mtmd_input_chunk_get_id(chunk)
                n_seen = int(name) if name else n_seen
                n_rows = int(mtmd.mtmd_input_chunk_get_n_tokens(chunk))
                n_kept = n_rows if self._is_mtmds(chunk, retain) else merge_count(n_rows, retain)
                pieces.append(MediaPiece(media_of_picture[n_seen], n_kept, n_rows, chunk))
            else:
                raise ModelError("this mmproj makes audio tokens, which are not supported; use a vision model")
        return pieces

    def _is_mtmds(self, chunk: Any, retain: float) -> bool:
        """Whether only mtmd can decode a chunk. Raises UsageError when its tokens should be merged all the same."""
        own = self.uses_mrope or bool(mtmd.mtmd_decode_use_non_causal(self.context, chunk))
        if own and retain < 1:
            raise UsageError(
                "token merging is not available for this vision tower (M-RoPE or non-causal visual tokens); "
                "set merge_retain=1.0"
            )
        return own

    def encode(self, piece: MediaPiece, chunks: ChunkList, retain: float) -> VisualBlock:
        """Runs the vision tower on one chunk."""
        _logs.clear()
        if mtmd.mtmd_encode_chunk(self.context, piece.chunk) != 0:
            raise NativeError(f"mtmd could not encode a picture: {_logs.last_error()}")
        pointer = mtmd.mtmd_get_output_embd(self.context)
        rows = np.ctypeslib.as_array(pointer, shape=(piece.n_full, self.n_embd)).copy()
        if self._is_mtmds(piece.chunk, retain):
            groups = [TokenGroup(piece.media, 0, slot) for slot in range(piece.n)]
            return VisualBlock(rows, groups, piece.chunk, chunks)
        merged = merge_rows(rows, retain)
        return VisualBlock(merged.rows, [TokenGroup(piece.media, 0, int(slot)) for slot in merged.slots])
