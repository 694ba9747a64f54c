"""Staged prefill natively: contexts whose layers keep fewer and fewer visual rows, and their prefill.

The C interface is patches/overlay/src/aim-llama.h; its prototypes stand above each binding. Counts come in as plain
integers, one per stage of layers: which share of the visual tokens a layer keeps is the planner's business, what a
prompt looks like is the runner's. Calls into the library release the GIL.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import POINTER, c_bool, c_char_p, c_double, c_float, c_int8, c_int32, c_int64, c_uint32, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AimError, ContextError, NativeError, UsageError
from . import callbacks
from .binding import bind, check_size, type_number
from .created import created
from .finite import finite_logits
from .kernels import compute_with
from .library import LLAMA, libllama, llama
from .outcome import ABORTED
from .owned import Owned, pointer_of
from .room import check_room, graph_bytes
from .stop import StopHook

Rows = NDArray[np.float32]
Indices = NDArray[np.int32]
# (il, importance float32 [n], n_keep) -> the indices to keep, in any order
Selector = Callable[[int, Rows, int], Sequence[int] | NDArray[Any]]

ROW_TOKEN, ROW_VISUAL, ROW_EMBD = 0, 1, 2
HOLDS = {"nothing": 0, "rows": 1, "queries": 2}  # of each row that leaves the first stage; "queries" holds rows as well
IMPORTANCES = {
    "pagerank": 0,
    "last_query": 1,
    "random": 2,
    "grid": 3,
    "pagerank_relative": 4,
    "question": 5,
    "question_value": 6,
}

_DECODE_ABORTED = 2  # of llama_decode, which has status numbers of its own

_select_callback = ctypes.CFUNCTYPE(c_int32, c_void_p, c_int32, POINTER(c_float), c_int32, c_int32, POINTER(c_int32))


class _PrefillParams(ctypes.Structure):
    """struct aim_prefill_params"""

    _fields_ = (
        ("n_rows", c_int32),
        ("n_held", c_int32),
        ("rows", POINTER(c_int8)),
        ("tokens", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("ids", POINTER(c_int32)),
        ("sizes", POINTER(c_int32)),
        ("n_stages", c_int32),
        ("n_keep", POINTER(c_int32)),
        ("importance", c_int32),
        ("n_query", c_int32),
        ("seed", c_uint32),
        ("select", _select_callback),
        ("select_data", c_void_p),
        ("n_bytes_scores", c_int64),
    )


class _StageInfo(ctypes.Structure):
    """struct aim_stage_info"""

    _fields_ = (
        ("il_begin", c_int32),
        ("il_end", c_int32),
        ("n_cells", c_int32),
        ("n_rows", c_int32),
        ("n_visual", c_int32),
        ("kv_bytes", c_int64),
        ("prefill_ms", c_double),
        ("importance_ms", c_double),
    )


_ints, _floats = POINTER(c_int32), POINTER(c_float)

# const char * aim_architectures(void)
_architectures = bind(libllama, "aim_architectures", [], c_char_p)
# bool aim_supported(const struct llama_model * model)
_supported = bind(libllama, "aim_supported", [c_void_p], c_bool)
# struct llama_context * aim_context_init(struct llama_model * model, struct llama_context_params params,
#         int32_t n_stages, const int32_t * il_begin, const int32_t * n_cells, int32_t hold)
_context_init = bind(
    libllama, "aim_context_init", [c_void_p, llama.llama_context_params, c_int32, _ints, _ints, c_int32], c_void_p
)
# int32_t aim_prefill(struct llama_context * ctx, const struct aim_prefill_params * params)
_prefill = bind(libllama, "aim_prefill", [c_void_p, POINTER(_PrefillParams)])
# int32_t aim_next_id(const struct llama_context * ctx)
_next_id = bind(libllama, "aim_next_id", [c_void_p])
# int32_t aim_n_stages(const struct llama_context * ctx)
_n_stages = bind(libllama, "aim_n_stages", [c_void_p])
# int32_t aim_get_stage(const struct llama_context * ctx, int32_t s, struct aim_stage_info * info)
_get_stage = bind(libllama, "aim_get_stage", [c_void_p, c_int32, POINTER(_StageInfo)])
# int32_t aim_get_kept(const struct llama_context * ctx, int32_t il, int32_t * kept, int32_t n_max)
_get_kept = bind(libllama, "aim_get_kept", [c_void_p, c_int32, _ints, c_int32])
# int32_t aim_get_importance(const struct llama_context * ctx, int32_t il, float * importance, int32_t n_max)
_get_importance = bind(libllama, "aim_get_importance", [c_void_p, c_int32, _floats, c_int32])
# int64_t aim_held_row_bytes(const struct llama_context * ctx)
_held_row_bytes = bind(libllama, "aim_held_row_bytes", [c_void_p], c_int64)
# int32_t aim_check_state(struct llama_context * ctx, int32_t n_pos, int32_t n_cells, int32_t n_visual)
_check_state = bind(libllama, "aim_check_state", [c_void_p, c_int32, c_int32, c_int32])
# int64_t aim_compute_bytes(const struct llama_context * ctx)
_compute_bytes = bind(libllama, "aim_compute_bytes", [c_void_p], c_int64)
# int64_t aim_score_bytes(int32_t n_rows, int32_t n_head, int32_t n_head_kv, int32_t n_embd_head)
_score_bytes = bind(libllama, "aim_score_bytes", [c_int32, c_int32, c_int32, c_int32], c_int64)
# const char * aim_score_kernels(void)
_score_kernels = bind(libllama, "aim_score_kernels", [], c_char_p)
# int32_t aim_score_with(const char * kernel, int32_t n_head, int32_t n_head_kv, int32_t n_embd_head, int32_t n_q,
#     int32_t n_k, float scale, const float * q, const float * k, const float * bias, float * scores)
_score_with = bind(libllama, "aim_score_with", [c_char_p, *[c_int32] * 5, c_float, *[_floats] * 4])

# int32_t aim_prefill_params_size(void)
check_size(libllama, "aim_prefill_params_size", _PrefillParams)
# int32_t aim_stage_info_size(void)
check_size(libllama, "aim_stage_info_size", _StageInfo)


def architectures() -> tuple[str, ...]:
    """Text architectures whose visual tokens can be pruned and weighed."""
    return tuple(LLAMA.text_of(_architectures()).split())


def unsupported_reason(model: int) -> str:
    """What of a llama_model cannot be pruned, naming the architectures that can; "" if it can."""
    return "" if _supported(model) else LLAMA.text().removeprefix("visual tokens cannot be pruned in ")


def compute_bytes(ctx: int) -> int:
    """Bytes of a llama_context's compute buffers over all backends; of a model without weights, what they would be."""
    return LLAMA.checked(_compute_bytes(ctx))


def check_state(ctx: int, n_pos: int, n_cells: int, n_visual: int) -> None:
    """After any llama_context took a state from outside: it holds n_cells rows at positions below n_pos.

    n_visual of them are visual. Raises NativeError where that is not so, and empties it.
    """
    try:
        LLAMA.checked(_check_state(ctx, n_pos, n_cells, n_visual))
    except AimError as e:
        raise NativeError(f"the saved KV cache is not what the conversation says of it: {e}") from e


def score_bytes(n: int, n_head: int, n_head_kv: int, d_head: int) -> int:
    """Bytes that ranking n rows takes on the CPU, beside their queries and the cached keys: linear in n."""
    return LLAMA.checked(_score_bytes(n, n_head, n_head_kv, d_head))


def score_kernels() -> list[str]:
    """Names of the CPU's scoring kernels, best first; the first one is what a prefill takes."""
    return LLAMA.text_of(_score_kernels()).split()


def score_with(kernel: str, q: Rows, k: Rows, scale: float, bias: Rows | None = None) -> Rows:
    """Pagerank scores [n_q] of the last rows, from float32 queries [n_q, n_head, d] and keys [n_k, n_head_kv, d].

    scale: of the products, softmax temperature included. bias: float32 [n_k], added to each key's products before they
    are scaled. Raises ModelError for a kernel this CPU lacks, UsageError.
    """
    (n_q, n_head, d), (n_k, n_head_kv, _) = q.shape, k.shape
    if bias is not None and bias.shape != (n_k,):
        raise UsageError(f"bias has shape {bias.shape}, needed is {(n_k,)}")
    scores = np.empty(n_q, np.float32)
    arrays = [None if a is None else np.ascontiguousarray(a, np.float32) for a in (q, k, bias)]
    data = [None if a is None else a.ctypes.data_as(_floats) for a in arrays]
    shape = (n_head, n_head_kv, d, n_q, n_k)
    LLAMA.checked(_score_with(kernel.encode(), *shape, scale, *data, scores.ctypes.data_as(_floats)))
    return scores


@dataclass(frozen=True)
class StagePlan:
    """Stages of layers. il_begin[s]: first layer, n_cells[s]: KV cells of each layer of the stage (visual and text)."""

    il_begin: tuple[int, ...]
    n_cells: tuple[int, ...]


@dataclass(frozen=True)
class StageInfo:
    """A stage of layers [il_begin, il_end) after a prefill. Times in ms."""

    il_begin: int
    il_end: int
    n_cells: int
    n_rows: int
    n_visual: int
    kv_bytes: int
    prefill_ms: float
    importance_ms: float


class StagedContext:
    """A llama_context with a staged KV cache, sequence 0. Owns the native context: use `with` or close().

    model: a loaded llama_model; where it is given as an address alone, it has to outlive this. stop: what ends its
    calls from outside; whatever it raises comes out of them. precision: of a prefill, see kernels.compute_with. hold: a
    name of HOLDS, what a later prefill needs to rank earlier rows again: "rows" where the first stage's last layer does
    not rank by "pagerank" or "pagerank_relative", else "queries". Errors: ModelError for an architecture that cannot be
    staged, UsageError for a plan that cannot be, NativeError for what llama.cpp refuses.
    """

    def __init__(
        self,
        model: Owned | int,
        plan: StagePlan,
        *,
        n_ubatch: int = 512,
        n_batch: int = 2048,
        n_threads: int = 2,
        type_k: str = "f16",
        type_v: str = "f16",
        flash_attn: bool | None = None,
        n_outputs: int = 1,
        hold: str = "nothing",
        stop: StopHook | None = None,
        precision: str = "exact",
    ) -> None:
        n_stages = len(plan.il_begin)
        if len(plan.n_cells) != n_stages:
            raise UsageError(f"{n_stages} stages have {len(plan.n_cells)} cell counts; give one each")
        params = llama.llama_context_default_params()
        params.n_batch, params.n_ubatch = max(n_batch, n_ubatch), n_ubatch
        params.n_threads = params.n_threads_batch = n_threads
        params.type_k, params.type_v = type_number(type_k), type_number(type_v)
        params.flash_attn_type = -1 if flash_attn is None else int(flash_attn)
        params.n_outputs_max = n_outputs  # logits rows of one llama_decode; 0 would reserve them for a whole n_batch
        params.no_perf = False
        begins, cells = (c_int32 * n_stages)(*plan.il_begin), (c_int32 * n_stages)(*plan.n_cells)
        address = pointer_of(model)
        if not _supported(address):  # a model that was freed, too: it has no layers to count
            raise LLAMA.error()
        check_room(graph_bytes(llama.llama_model_n_layer(address)))
        ctx = created(lambda: _context_init(address, params, n_stages, begins, cells, HOLDS[hold]), llama.llama_free)
        if not ctx:
            if stop:
                stop.check_done()
            raise LLAMA.error()
        owner = model if isinstance(model, Owned) else None
        self.owned = Owned("the conversation's context", ctx, llama.llama_free, owner=owner, holder=self)
        self.plan, self._stop = plan, stop
        if stop:
            stop.attach_context(ctx)
        compute_with(ctx, precision)
        self.n_vocab: int = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(address))
        self.n_embd: int = llama.llama_model_n_embd_inp(address)  # of a row that comes in
        self.n_layer: int = llama.llama_model_n_layer(address)

    @property
    def ctx(self) -> int:
        """The llama_context. Raises ClosedError."""
        address: int = self.owned.pointer
        return address

    def close(self) -> None:
        self.owned.close()

    def __enter__(self) -> StagedContext:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def memory(self) -> Any:
        return llama.llama_get_memory(self.ctx)

    @property
    def n_past(self) -> int:
        """Positions in use: the next row is at this one."""
        return int(llama.llama_memory_seq_pos_max(self.memory, 0)) + 1

    def prefill(
        self,
        rows: Sequence[int] | NDArray[Any],
        tokens: Sequence[int] | NDArray[Any],
        embd: Rows | None,
        n_keep: Sequence[int],
        *,
        importance: str = "pagerank",
        seed: int = 0,
        select: Selector | None = None,
        n_bytes_scores: int = 0,
        n_held: int = 0,
        sizes: Sequence[int] | Indices | None = None,
        n_query: int = 0,
        rotary: Indices | None = None,
    ) -> Rows:
        """Appends rows and returns the next-token logits, float32 [n_vocab].

        rows: ROW_* per row [n]; tokens: ids [n], read where the row is a token; embd: float32 [n of other rows, n_embd]
        in order; n_keep: visual rows that enter each stage; n_bytes_scores: above 0 ggml's own ops rank, on the CPU as
        on a device, with so much memory for one head's scores. n_held: the first n_held of the rows are in the context
        already, all that it has, and are ranked again with the new ones, as one prefill of all n would do it; of them
        only the kind is read, and embd has none. kept() and importance() then count over all rows.

        sizes: patches that each row stands for [n], read where a new row is visual; log(size) is added to its column of
        the attention logits from now on, in every layer and in the scores; None: one each. n_query: rows of the
        question, for the rankings that go by it: the last ones, new tokens all of them; 0: all new tokens at the end.
        rotary: int32 [n, 3], time, row and column of each row, read of new ones, for models whose rows have several
        rotary ids (M-RoPE); None: each row goes on behind the one before it.

        An exception in `select` or in the stop hook comes out. Whatever fails, the context stays as it was:
        ContextError if any stage has too few cells, UsageError, ModelError where rows are not held, NativeError.
        """
        if importance not in IMPORTANCES:
            raise UsageError(f"importance {importance!r} is unknown; there are {', '.join(IMPORTANCES)} or a callable")
        kinds, ids, floats = self._checked_rows(rows, tokens, embd, n_held)
        patches = None if sizes is None else np.ascontiguousarray(sizes, np.int32)
        if patches is not None and patches.shape != kinds.shape:
            raise UsageError(f"sizes has shape {patches.shape}, rows {kinds.shape}; give one for each row")
        turned = None if rotary is None else np.ascontiguousarray(rotary, np.int32)
        if turned is not None and turned.shape != (len(kinds), 3):
            raise UsageError(f"rotary has shape {turned.shape}, needed is {(len(kinds), 3)}")
        params = _PrefillParams(
            n_rows=len(kinds),
            n_held=n_held,
            rows=kinds.ctypes.data_as(POINTER(c_int8)),
            tokens=ids.ctypes.data_as(_ints),
            embd=None if floats is None else floats.ctypes.data_as(_floats),
            ids=None if turned is None else turned.ctypes.data_as(_ints),
            sizes=None if patches is None else patches.ctypes.data_as(_ints),
            n_stages=len(n_keep),
            n_keep=(c_int32 * len(n_keep))(*n_keep),
            importance=IMPORTANCES[importance],
            n_query=n_query,
            seed=seed,
            select=_native_selector(select) if select else _select_callback(),
            n_bytes_scores=n_bytes_scores,
        )
        status = _prefill(self.ctx, ctypes.byref(params))
        callbacks.reraise()
        self._raise_stopped(status == ABORTED)
        self._check_done()
        LLAMA.checked(status)
        return self.logits()

    def _checked_rows(
        self, rows: Sequence[int] | NDArray[Any], tokens: Sequence[int] | NDArray[Any], embd: Rows | None, n_held: int
    ) -> tuple[NDArray[np.int8], Indices, Rows | None]:
        """Kinds and token ids [n] and embeddings [n of other new rows, n_embd], as C reads them. Raises UsageError.

        And NativeError where there is no room to go on.
        """
        check_room()
        kinds = np.ascontiguousarray(rows, np.int8)
        ids = np.ascontiguousarray(tokens, np.int32)
        floats = None if embd is None else np.ascontiguousarray(embd, np.float32)
        n_others = int(np.isin(kinds[max(0, n_held) :], (ROW_VISUAL, ROW_EMBD)).sum())
        if kinds.ndim != 1 or ids.shape != kinds.shape:
            raise UsageError(f"rows has shape {kinds.shape}, tokens {ids.shape}; both are [n]")
        if n_others and (floats is None or floats.shape != (n_others, self.n_embd)):
            found = None if floats is None else floats.shape
            raise UsageError(f"embd has shape {found}, needed is {(n_others, self.n_embd)}")
        return kinds, ids, floats

    def _raise_stopped(self, aborted: bool) -> None:
        """Raises what the stop hook raised inside an aborted call."""
        if aborted and self._stop:
            self._stop.reraise()

    def _check_done(self) -> None:
        if self._stop:
            self._stop.check_done()

    def logits(self) -> Rows:
        """Next-token logits after the last prefill or decode, float32 [n_vocab]. Raises ModelError for NaN."""
        row = llama.llama_get_logits_ith(self.ctx, -1)  # waits for them
        return finite_logits(np.ctypeslib.as_array(row, (self.n_vocab,)).copy(), stop=self._stop)

    def decode(self, token: int) -> Rows:
        """Runs one token through all layers and returns the next-token logits, float32 [n_vocab]."""
        ids = (c_int32 * 1)(token)  # a name: the batch holds its address only
        status = llama.llama_decode(self.ctx, llama.llama_batch_get_one(ids, 1))
        if status == 1:
            raise ContextError("the context is full: no free KV cell for another token")
        self._raise_stopped(status == _DECODE_ABORTED)
        self._check_done()
        if status != 0:
            raise NativeError(f"llama_decode failed with status {status}")
        return self.logits()

    @property
    def next_id(self) -> int:
        """The rotary id that text gets behind the last row; for models whose rows have one, the next position."""
        return LLAMA.checked(_next_id(self.ctx))

    @property
    def held_row_bytes(self) -> int:
        """Bytes held of each row to rank it again; 0 where none are held, or not those of all rows."""
        return LLAMA.checked(_held_row_bytes(self.ctx))

    def clear(self) -> None:
        llama.llama_memory_clear(self.memory, True)

    def truncate(self, n_past: int) -> None:
        """Forgets everything from position n_past on."""
        llama.llama_memory_seq_rm(self.memory, 0, n_past, -1)

    def state(self) -> bytearray:
        """The KV cache and its positions."""
        data = bytearray(llama.llama_state_get_size(self.ctx))
        del data[llama.llama_state_get_data(self.ctx, (ctypes.c_uint8 * len(data)).from_buffer(data), len(data)) :]
        self._check_done()
        return data

    def restore(self, state: bytearray) -> None:
        """Takes a state of a context with the same stages; if it does not fit: NativeError, and an empty context."""
        data = (ctypes.c_uint8 * len(state)).from_buffer(state)
        n_set = llama.llama_state_set_data(self.ctx, data, len(state))
        self._check_done()
        if n_set != len(state):
            raise NativeError(
                "the saved state does not fit this context: other layers, stages or KV types, or too few cells"
            )

    def stages(self) -> list[StageInfo]:
        infos = []
        for s in range(LLAMA.checked(_n_stages(self.ctx))):
            info = _StageInfo()
            LLAMA.checked(_get_stage(self.ctx, s, ctypes.byref(info)))
            infos.append(StageInfo(*(getattr(info, name) for name, _ in _StageInfo._fields_)))
        return infos

    def kept(self, il: int) -> Indices:
        """The visual rows of the last prefill that entered layer il, sorted."""
        n = LLAMA.checked(_get_kept(self.ctx, il, None, 0))
        out = np.zeros(n, np.int32)
        _get_kept(self.ctx, il, out.ctypes.data_as(_ints), n)
        return out

    def importance(self, il: int) -> Rows | None:
        """One score per row of kept(il), None where layer il was not scored."""
        n = LLAMA.checked(_get_importance(self.ctx, il, None, 0))
        if n == 0:
            return None
        out = np.zeros(n, np.float32)
        _get_importance(self.ctx, il, out.ctypes.data_as(_floats), n)
        return out


def _indices(found: object) -> NDArray[Any]:
    """What an importance callable returned. Raises UsageError for what is no array."""
    try:
        indices = np.asarray(found)
    except (TypeError, ValueError):  # a list of lists of several lengths
        indices = np.asarray(None)
    if indices.dtype == object:
        raise UsageError(f"the importance callable returned {found!r:.80}; needed are indices [n_keep]")
    return indices


def _native_selector(select: Selector) -> Any:
    """`select` as the C callback; what it raises is `callbacks.reraise`'s."""

    def call(_: int | None, il: int, scores: Any, n: int, n_keep: int, out: Any) -> int:
        kept = _indices(select(il, np.ctypeslib.as_array(scores, (n,)).copy(), n_keep))
        if kept.ndim != 1 or (kept.size and not np.issubdtype(kept.dtype, np.integer)):
            found = f"{kept.dtype} of shape {kept.shape}"
            raise UsageError(f"the importance callable returned {found}; needed are indices [n_keep]")
        np.ctypeslib.as_array(out, (n,))[: min(n, kept.size)] = kept[:n]
        return int(kept.size)

    return callbacks.as_callback(_select_callback, call, failed=-1)
