"""Visual tokens natively: tiles through the vision tower, pooling, anyres assembly, token merging.

The C interface is patches/overlay/tools/mtmd/aim-mtmd.h; its prototypes stand above each binding. Everything here takes
and returns numpy arrays: pixels are uint8 RGB, rows float32 [n, n_embd] with one row per visual token. Pixels are made
by preprocess.py; what a whole prompt looks like is runner business. Calls into the library release the GIL.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, c_char_p, c_double, c_float, c_int32, c_uint8, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from .binding import bind, check_size
from .finite import finite_rows
from .library import MTMD, libmtmd
from .outcome import ABORTED, UNSUPPORTED
from .owned import Owned, pointer_of
from .room import check_room
from .stop import StopHook

Pixels = NDArray[np.uint8]
Rows = NDArray[np.float32]
Indices = NDArray[np.int32]


_LAYOUT = ("side", "patches", "best_h", "best_w", "tile_rows", "tile_cols", "crop_y", "crop_x",
           "crop_h", "crop_w", "grid_h", "grid_w", "n_tiles", "n_tokens")  # fmt: skip


class _Layout(ctypes.Structure):
    """struct aim_anyres_layout"""

    _fields_ = tuple((name, c_int32) for name in _LAYOUT)


class _Tile(ctypes.Structure):
    """struct aim_tile"""

    _fields_ = (("rgb", POINTER(c_uint8)), ("width", c_int32), ("height", c_int32), ("n_frames", c_int32))


_floats, _bytes, _ints, _layout = POINTER(c_float), POINTER(c_uint8), POINTER(c_int32), POINTER(_Layout)

# const char * aim_mtmd_projector(mtmd_context * ctx)
_projector = bind(libmtmd, "aim_mtmd_projector", [c_void_p], c_char_p)
# int32_t aim_mtmd_has_tiles(mtmd_context * ctx)
_has_tiles = bind(libmtmd, "aim_mtmd_has_tiles", [c_void_p])
# int32_t aim_mtmd_set_merging(double retain, double depth)
_set_merging = bind(libmtmd, "aim_mtmd_set_merging", [c_double, c_double])
# int32_t aim_mtmd_merges(mtmd_context * ctx)
_merges = bind(libmtmd, "aim_mtmd_merges", [c_void_p])
# int32_t aim_mtmd_tile_side(mtmd_context * ctx)
_tile_side = bind(libmtmd, "aim_mtmd_tile_side", [c_void_p])
# int32_t aim_mtmd_patches_per_side(mtmd_context * ctx)
_patches_per_side = bind(libmtmd, "aim_mtmd_patches_per_side", [c_void_p])
# int32_t aim_mtmd_n_embd(mtmd_context * ctx)
_n_embd = bind(libmtmd, "aim_mtmd_n_embd", [c_void_p])
# int32_t aim_mtmd_class_position_last(mtmd_context * ctx)
_class_position_last = bind(libmtmd, "aim_mtmd_class_position_last", [c_void_p])
# int32_t aim_mtmd_newline(mtmd_context * ctx, float * out)
_newline = bind(libmtmd, "aim_mtmd_newline", [c_void_p, _floats])
# int32_t aim_mtmd_n_rows(mtmd_context * ctx, const struct aim_tile * tile)
_n_rows = bind(libmtmd, "aim_mtmd_n_rows", [c_void_p, POINTER(_Tile)])
# int32_t aim_mtmd_encode(mtmd_context * ctx, const struct aim_tile * tile, int32_t n_threads, float * out)
_encode = bind(libmtmd, "aim_mtmd_encode", [c_void_p, POINTER(_Tile), c_int32, _floats])
# int32_t aim_mtmd_n_features(mtmd_context * ctx)
_n_features = bind(libmtmd, "aim_mtmd_n_features", [c_void_p])
# int32_t aim_mtmd_has_keys(mtmd_context * ctx)
_has_keys = bind(libmtmd, "aim_mtmd_has_keys", [c_void_p])
# int32_t aim_mtmd_encode_features(mtmd_context * ctx, const struct aim_tile * tile, int32_t with_keys,
#                                  int32_t n_threads, float * out)
_encode_features = bind(libmtmd, "aim_mtmd_encode_features", [c_void_p, POINTER(_Tile), c_int32, c_int32, _floats])
# int32_t aim_mtmd_project(mtmd_context * ctx, const float * rows, int32_t n, int32_t n_threads, float * out)
_project = bind(libmtmd, "aim_mtmd_project", [c_void_p, _floats, c_int32, c_int32, _floats])
# int32_t aim_pool_side(int32_t side)
_pool_side = bind(libmtmd, "aim_pool_side", [c_int32])
# int32_t aim_pool_rows(const float * rows, int32_t side, int32_t n_embd, float * out)
_pool_rows = bind(libmtmd, "aim_pool_rows", [_floats, c_int32, c_int32, _floats])
# int32_t aim_anyres_plan(int32_t image_h, int32_t image_w, int32_t side_px, int32_t patches_per_side,
#                         const int32_t * pinpoints, int32_t n_pinpoints, int32_t max_tiles,
#                         struct aim_anyres_layout * out)
_anyres_plan = bind(libmtmd, "aim_anyres_plan", [c_int32, c_int32, c_int32, c_int32, _ints, c_int32, c_int32, _layout])
# int32_t aim_anyres_count(const struct aim_anyres_layout * layout, double retain)
_anyres_count = bind(libmtmd, "aim_anyres_count", [_layout, c_double])
# int32_t aim_anyres_pack(const struct aim_anyres_layout * layout, const float * tile_rows, int32_t n_embd,
#                         const float * newline, int32_t method, double retain, int32_t n_threads, float * out_rows,
#                         int32_t * out_slot, int32_t * out_owner)
_anyres_pack = bind(
    libmtmd, "aim_anyres_pack", [_layout, _floats, c_int32, _floats, c_int32, c_double, c_int32, _floats, _ints, _ints]
)
# int32_t aim_merge_count(int32_t n, double retain)
_merge_count = bind(libmtmd, "aim_merge_count", [c_int32, c_double])
# int32_t aim_merge_rows(const float * rows, int32_t n, int32_t n_embd, double retain, int32_t n_threads,
#                        float * out_rows, int32_t * out_slot, int32_t * out_owner)
_merge_rows = bind(libmtmd, "aim_merge_rows", [_floats, c_int32, c_int32, c_double, c_int32, _floats, _ints, _ints])
# int32_t aim_merge_by_keys(const float * rows, const float * keys, int32_t n, int32_t n_embd, int32_t n_key,
#                           double retain, int32_t n_threads, float * out_rows, int32_t * out_slot, int32_t * out_owner)
_merge_by_keys = bind(
    libmtmd,
    "aim_merge_by_keys",
    [_floats, _floats, c_int32, c_int32, c_int32, c_double, c_int32, _floats, _ints, _ints],
)
# int32_t aim_ward_rows(const float * rows, const float * weight, int32_t n, int32_t n_embd, int32_t n_keep,
#                       int32_t n_threads, float * out_rows, int32_t * out_slot, int32_t * out_medoid,
#                       int32_t * out_owner)
_ward_rows = bind(
    libmtmd, "aim_ward_rows", [_floats, _floats, c_int32, c_int32, c_int32, c_int32, _floats, _ints, _ints, _ints]
)
# int32_t aim_ward_use_kernel(const char * name)
_ward_use_kernel = bind(libmtmd, "aim_ward_use_kernel", [c_char_p])

# int32_t aim_tile_size(void)
check_size(libmtmd, "aim_tile_size", _Tile)
# int32_t aim_anyres_layout_size(void)
check_size(libmtmd, "aim_anyres_layout_size", _Layout)


def _float_ptr(array: Rows, *shape: int | None) -> Any:
    """Pointer to a C-contiguous float32 array of this shape; None stands for any length."""
    fits = array.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
    if array.dtype != np.float32 or not array.flags.c_contiguous or not fits:
        want = "x".join("n" if n is None else str(n) for n in shape)
        raise ValueError(f"rows are {array.dtype} {array.shape}, needed is C-contiguous float32 {want}")
    return array.ctypes.data_as(_floats)


def _int_ptr(array: Indices) -> Any:
    return array.ctypes.data_as(_ints)


# --- merging inside the tower ----------------------------------------------------------------------------------------


def load_merging(retain: float, depth: float) -> None:
    """Merging inside the next tower that this thread loads (LoadConfig.vision_merge, vision_merge_depth)."""
    MTMD.checked(_set_merging(retain, depth))


def merges(context: Any) -> bool:
    """Whether this tower does what load_merging() says."""
    return bool(_merges(_pointer(context)) == 1)


# --- tiles through the vision tower ----------------------------------------------------------------------------------


class TileEncoder:
    """The vision tower and projector of a loaded mmproj, one tile at a time: what one run of it sees.

    `context` is a mtmd_context, which runs one tile at a time; as a bare pointer it must outlive the encoder.
    stop: what ends it from outside, already attached to the context; what it raises comes out of encode().
    """

    def __init__(self, context: Any, n_threads: int = 0, stop: StopHook | None = None) -> None:
        if not self.supports(context):
            raise ModelError(f"projector {projector(context)} takes whole pictures; use mtmd_tokenize instead")
        self._given: Owned | Any = context
        self.n_threads, self._stop = n_threads, stop  # 0: all cores
        self.side = MTMD.checked(_tile_side(self._context))  # pixels, of towers that take squares
        self.patches_per_side = MTMD.checked(_patches_per_side(self._context))
        self.n_embd = MTMD.checked(_n_embd(self._context))

    @property
    def _context(self) -> Any:
        """Raises ClosedError."""
        return _pointer(self._given)

    @staticmethod
    def supports(context: Any) -> bool:
        """Whether this mmproj takes tiles. Any other goes through mtmd_tokenize."""
        return bool(_has_tiles(_pointer(context)) == 1)  # an error, no vision tower, is a no as well

    def encode(self, tile: Pixels) -> Rows:
        """uint8 [height, width, 3], or [2, height, width, 3] for two frames as one -> rows [n, n_embd], raster order.

        Raises ValueError for another type, UsageError for a size that the tower does not take.
        """
        return self._encoded(tile, self.n_embd, _encode)

    @property
    def has_keys(self) -> bool:
        """Whether the mmproj has the keys of the layer behind those that are run."""
        return bool(_has_keys(self._context) == 1)

    def features(self, tile: Pixels, *, keys: bool = False) -> Rows:
        """uint8 [side, side, 3] -> what the projector would read, [patches_per_side^2, n_features].

        keys: [.., 2 * n_features], each row's features and then its keys, K of the layer behind those that are run.
        """
        width = MTMD.checked(_n_features(self._context)) * (2 if keys else 1)
        return self._encoded(tile, width, _encode_features, int(keys))

    def project(self, features: Rows) -> Rows:
        """[n, n_features] -> [n, n_embd]: the projector alone."""
        n = len(features)
        rows = np.empty((n, self.n_embd), np.float32)
        given = _float_ptr(features, n, MTMD.checked(_n_features(self._context)))
        self._done(_project(self._context, given, n, self.n_threads, rows.ctypes.data_as(_floats)))
        return finite_rows(rows)

    def _encoded(self, tile: Pixels, width: int, run: Any, *how: int) -> Rows:
        """Rows [n, width] of what a function of the library makes of a tile."""
        if tile.dtype != np.uint8 or tile.ndim not in (3, 4) or tile.shape[-1] != 3:
            raise ValueError(f"the tile is {tile.dtype} {tile.shape}, the vision tower takes uint8 [height, width, 3]")
        tile = np.ascontiguousarray(tile)
        height, wide = tile.shape[-3:-1]
        pixels = _Tile(tile.ctypes.data_as(_bytes), wide, height, len(tile) if tile.ndim == 4 else 1)
        rows = np.empty((MTMD.checked(_n_rows(self._context, ctypes.byref(pixels))), width), np.float32)
        check_room()
        self._done(run(self._context, ctypes.byref(pixels), *how, self.n_threads, rows.ctypes.data_as(_floats)))
        return finite_rows(rows)

    def _done(self, status: int) -> None:
        if status == ABORTED and self._stop:
            self._stop.reraise()
        MTMD.checked(status)

    def newline(self) -> Rows | None:
        """The newline embedding, [n_embd]; None where the mmproj has none."""
        out = np.empty(self.n_embd, np.float32)
        status = _newline(self._context, out.ctypes.data_as(_floats))
        return None if status == UNSUPPORTED else (MTMD.checked(status), finite_rows(out))[1]


def put_class_position_last(context: Any) -> None:
    """The first row of the position table moves to its end, where some graphs have the class embedding.

    llama.cpp leaves it, and gives every patch its neighbour's position. Once for a context.
    """
    MTMD.checked(_class_position_last(_pointer(context)))


def projector(context: Any) -> str:
    """clip.projector_type of the loaded mmproj; ModelError without a vision tower."""
    name = _projector(_pointer(context))
    if name is None:
        raise MTMD.error()
    return str(name.decode())


def _pointer(context: Any) -> Any:
    return ctypes.cast(pointer_of(context), c_void_p)


# --- video frames ----------------------------------------------------------------------------------------------------


def pool_side(side: int) -> int:
    """Patches per side of a pooled frame: ceil(side / 2)."""
    return MTMD.checked(_pool_side(side))


def pool_rows(rows: Rows, side: int) -> Rows:
    """[side^2, n_embd] -> [pool_side^2, n_embd]: bilinear, align_corners False, no antialiasing."""
    n_embd = rows.shape[-1]
    pointer = _float_ptr(rows, side * side, n_embd)
    out = np.empty((pool_side(side) ** 2, n_embd), np.float32)
    MTMD.checked(_pool_rows(pointer, side, n_embd, out.ctypes.data_as(_floats)))
    return out


# --- token merging ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Merged:
    """Visual tokens after merging. Input rows of several frames count through: frame * rows of a frame + slot."""

    rows: Rows  # [n_out, n_embd]
    slots: Indices  # [n_out] input row that an output row stands for, -1 for a newline
    owners: Indices  # [n_in] output row that each input row was averaged into

    @property
    def sizes(self) -> Indices:
        """int32 [n_out]: how many input rows were averaged into each; 1 for a newline, which is itself."""
        return np.maximum(np.bincount(self.owners, minlength=len(self.rows)), 1).astype(np.int32)


def merge_count(n: int, retain: float) -> int:
    """Rows left of n: max(1, floor(n * retain + 1e-9)); 0 of 0. `retain` in (0, 1]."""
    return MTMD.checked(_merge_count(n, retain))


def merge_rows(rows: Rows, retain: float, n_threads: int = 0) -> Merged:
    """Bipartite soft matching (AIM, arXiv 2412.03248 section 3.1) on the rows of one frame or image. Order is kept."""
    n, n_embd = rows.shape
    pointer = _float_ptr(rows, n, n_embd)
    n_out = merge_count(n, retain)
    out = Merged(np.empty((n_out, n_embd), np.float32), np.empty(n_out, np.int32), np.empty(n, np.int32))
    arguments = (out.rows.ctypes.data_as(_floats), _int_ptr(out.slots), _int_ptr(out.owners))
    MTMD.checked(_merge_rows(pointer, n, n_embd, retain, n_threads, *arguments))
    return out


def merge_by_keys(rows: Rows, keys: Rows, retain: float, n_threads: int = 0) -> Merged:
    """As merge_rows, but keys [n, n_key] say how similar two rows are; they are averaged as the rows are."""
    n, n_embd = rows.shape
    pointers = _float_ptr(rows, n, n_embd), _float_ptr(keys, n, None)
    n_out = merge_count(n, retain)
    out = Merged(np.empty((n_out, n_embd), np.float32), np.empty(n_out, np.int32), np.empty(n, np.int32))
    arguments = (out.rows.ctypes.data_as(_floats), _int_ptr(out.slots), _int_ptr(out.owners))
    MTMD.checked(_merge_by_keys(*pointers, n, n_embd, keys.shape[1], retain, n_threads, *arguments))
    return out


def ward_rows(
    rows: Rows, n_keep: int, weights: Rows | None = None, *, medoids: bool = False, n_threads: int = 0
) -> Merged:
    """n_keep clusters of rows by Ward's criterion, as their plain means, in the order of their slots.

    weights: float32 [n], how many patches each row stands for already; None: one each, and so `sizes` counts rows.
    medoids: a cluster's slot is the row nearest to its mean instead of its lowest; the lowest of equal ones.
    Raises UsageError for counts that cannot be, weights not above 0, and rows that are not finite.
    """
    n, n_embd = rows.shape
    pointer, heavy = _float_ptr(rows, n, n_embd), None if weights is None else _float_ptr(weights, n)
    means, owners = np.empty((max(n_keep, 0), n_embd), np.float32), np.empty(n, np.int32)
    slots, nearest = np.empty(max(n_keep, 0), np.int32), np.empty(max(n_keep, 0), np.int32)
    out = (means.ctypes.data_as(_floats), _int_ptr(slots), _int_ptr(nearest) if medoids else None, _int_ptr(owners))
    MTMD.checked(_ward_rows(pointer, heavy, n, n_embd, n_keep, n_threads, *out))
    if not medoids:
        return Merged(means, slots, owners)
    order = np.argsort(nearest)
    place = np.argsort(order).astype(np.int32)
    return Merged(means[order], nearest[order], place[owners])


def use_ward_kernel(name: str | None) -> None:
    """For tests: "avx512", "avx2" or "plain" products instead of this CPU's fastest (None). Raises UsageError."""
    MTMD.checked(_ward_use_kernel(None if name is None else name.encode()))


# --- images of any resolution ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AnyresPlan:
    """How one image becomes tiles and tokens: [base view | tile grid, one newline after each grid row].

    All counts are patches, except `side` and `best_*`, which are pixels. Fields as in struct aim_anyres_layout.
    """

    side: int
    patches: int
    best_h: int
    best_w: int
    tile_rows: int
    tile_cols: int
    crop_y: int
    crop_x: int
    crop_h: int
    crop_w: int
    grid_h: int
    grid_w: int
    n_tiles: int  # base view and grid
    n_tokens: int  # with newlines, nothing merged

    @classmethod
    def of(
        cls, height: int, width: int, side: int, patches: int, pinpoints: Sequence[tuple[int, int]], max_tiles: int = 9
    ) -> AnyresPlan:
        """Plan for an image of height x width pixels. `pinpoints`: (height, width) pairs; the first wins a tie."""
        flat = np.array(pinpoints, np.int32).reshape(-1)
        layout = _Layout()
        n = len(pinpoints)
        MTMD.checked(_anyres_plan(height, width, side, patches, _int_ptr(flat), n, max_tiles, ctypes.byref(layout)))
        return cls(*(getattr(layout, name) for name in _LAYOUT))

    @property
    def n_slots(self) -> int:
        """Slots before merging, newlines not counted: base view, then grid."""
        return self.patches**2 + self.grid_h * self.grid_w

    def count(self, retain: float = 1.0) -> int:
        """Tokens when base view and grid are merged apart to this share."""
        return MTMD.checked(_anyres_count(ctypes.byref(self._layout()), retain))

    def _layout(self) -> _Layout:
        return _Layout(*(getattr(self, name) for name in _LAYOUT))


def anyres_pack(
    plan: AnyresPlan, tile_rows: Rows, newline: Rows, retain: float = 1.0, n_threads: int = 0, *, ward: bool = False
) -> Merged:
    """Rows of all tiles [n_tiles, patches^2, n_embd], base view first -> the image's tokens.

    ward: base view and grid merged by Ward's clustering (`ward_rows`) instead of `merge_rows`.
    Slots: base view 0 .. patches^2 - 1, then the grid in raster order; -1 for newlines, which are never merged and
    stand behind the last survivor of their grid row.
    """
    n_embd = newline.shape[-1]
    tiles, end = _float_ptr(tile_rows, plan.n_tiles, plan.patches**2, n_embd), _float_ptr(newline, n_embd)
    n_out = plan.count(retain)
    out = Merged(np.empty((n_out, n_embd), np.float32), np.empty(n_out, np.int32), np.empty(plan.n_slots, np.int32))
    arguments = (out.rows.ctypes.data_as(_floats), _int_ptr(out.slots), _int_ptr(out.owners))
    layout = ctypes.byref(plan._layout())
    MTMD.checked(_anyres_pack(layout, tiles, n_embd, end, int(ward), retain, n_threads, *arguments))
    return out
