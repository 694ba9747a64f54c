"""Options of the public API: frozen dataclasses, validated when they are made. Knows numbers and names, no models."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from .arguments import one_of, real, settle, several, take_flag, take_real, take_whole, whole_of
from .errors import UsageError

if TYPE_CHECKING:  # the help texts of the command line take names from here, and must not wait for numpy
    import numpy as np
    from numpy.typing import NDArray

    # gets (il, importance float32 [n], n_keep) and returns the n_keep indices to keep, each in [0, n)
    ImportanceCallback = Callable[[int, NDArray[np.float32], int], Sequence[int] | NDArray[Any]]

KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
IMPORTANCE = ("pagerank", "pagerank_relative", "last_query", "question", "question_value", "random", "grid")
BY_QUESTION = ("question", "question_value")  # of these, by attention of all rows of the question
MERGE_BY = ("similarity", "average", "ward", "random", "grid", "keys")
WEIGH = ("equal", "size")
VISION_PRECISIONS = ("auto", "exact", "bf16", "int8")
PREFILL_PRECISIONS = ("auto", "exact")
REUSE = ("near", "equal")
MAX_LOGPROBS = 20  # as OpenAI's
MAX_RPC = 16  # llama_max_devices(): servers and GPUs of one model
MAX_PIXELS = 2**28  # of a picture or frame: a phone's 200 million and a margin
MAX_THREADS = 512  # ggml.h: GGML_MAX_N_THREADS; with 100,000 it crashes
MERGE_PAPER = 0.25  # AIM section 4: share of visual tokens kept by token merging for video
MERGE_AUTHORS = 0.4375  # of a picture of the authors' image model: 252 of 576
PRUNE_AUTHORS = (13, 21)  # of its 32 layers
MERGE_WARD = 0.1  # Ward's clusters say as much with a third of the rows (docs/method.md)
MERGE_AUTO = 0.16  # in all layers as many FLOPs and KV cells as the paper's setting: 0.25 times 18.5 of 28 layers


_BUDGET = "it is the share of full FLOPs, above 0 and at most 1"
_COUNT = "give a whole number above 0"
_SEED = f"give a whole number from 0 to {2**32 - 2}, or None"
_WORDS = {  # of LoadConfig
    "type_k": KV_TYPES,
    "type_v": KV_TYPES,
    "vision_precision": VISION_PRECISIONS,
    "prefill_precision": PREFILL_PRECISIONS,
    "reuse_frames": REUSE,
}


@dataclass(frozen=True)
class LoadConfig:
    """How a model is loaded and how its contexts are made.

    n_ctx: tokens a context holds; None sizes it to the prompt plus room for the answer (within the model's limit).
    n_ubatch: tokens computed together. n_threads: None takes the physical cores (one for a tiny model).
    n_gpu_layers: text layers on the GPU, -1 for all; unless it is 0, the vision tower is there too. None: all where
    there is a GPU (no integrated one, native/devices.py), else 0. Where layers were asked for and there is no GPU, the
    CPU computes all, and every answer (of a conversation the first) has a warning.
    type_k, type_v: KV cache types. flash_attn: "auto", True or False.
    vision_precision: how the vision tower's products are computed on a CPU. "exact": by llama.cpp's kernels. "bf16":
    with 16 bits, "int8": with 8 (native/kernels.py says how). "auto": what this CPU is fast with.
    prefill_precision: the same for the language model's prefill, whose weights stay as they are. "exact": llama.cpp's
    kernels only. "auto": products of 16 bits where they are faster.
    vision_merge: share of the patches that the vision tower still computes behind the layer at the share
    vision_merge_depth of its depth; the others are merged into them by Ward's criterion, and every patch gets its
    cluster's row at the end (docs/encoding.md). 1 is off.
    frame_tokens: most visual tokens of a frame (of frames that are encoded in pairs: of a pair) before token merging,
    for towers that see frames of any size, which then see smaller ones. None: the model's own limit.
    reuse_frames: frames that are not encoded again: "equal" ones, or also those that are "near" the last encoded one,
    no patch differing by more than noise (docs/encoding.md).
    max_pixels: most pixels of a picture, or of a frame of a clip. What has to be decoded one after the other is bounded
    by multiples of it (media/budget.py).
    cache_media: keep what is encoded on disk, and take it from there the next time (`aim-local cache`).
    rpc: "HOST:PORT" of machines that run `aim-local rpc-server`: the language model's layers are there, in the order of
    the servers and by their memory (docs/scale.md). n_gpu_layers then counts the last layers, which are on the servers;
    None is all of them. The token embedding and the vision tower stay here.
    """

    n_ctx: int | None = None
    n_ubatch: int = 512
    n_threads: int | None = None
    n_gpu_layers: int | None = None
    type_k: str = "f16"
    type_v: str = "f16"
    flash_attn: Literal["auto"] | bool = "auto"
    vision_precision: str = "auto"
    prefill_precision: str = "auto"
    vision_merge: float = 1.0
    vision_merge_depth: float = 0.5
    frame_tokens: int | None = None
    reuse_frames: str = "near"
    max_pixels: int = MAX_PIXELS
    cache_media: bool = True
    rpc: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("n_ctx", "n_threads", "frame_tokens"):
            take_whole(self, name, _COUNT, 1, optional=True)
        for name in ("n_ubatch", "max_pixels"):
            take_whole(self, name, _COUNT, 1)
        if self.n_threads is not None and self.n_threads > MAX_THREADS:
            raise UsageError(f"n_threads is {self.n_threads}; give at most {MAX_THREADS}, best one per core")
        take_whole(self, "n_gpu_layers", "give -1 (all) or a whole number from 0", -1, optional=True)
        for name, allowed in _WORDS.items():
            one_of(name, getattr(self, name), allowed)
        if not isinstance(self.flash_attn, str):
            take_flag(self, "flash_attn")
        elif self.flash_attn != "auto":
            raise UsageError(f'flash_attn is {self.flash_attn!r:.80}; allowed are "auto", True, False')
        take_flag(self, "cache_media")
        self._check_merging()
        self._check_rpc()
        if self.flash_attn is False and self.type_v not in ("f32", "f16", "bf16"):
            raise UsageError(f"type_v {self.type_v} needs flash attention; give flash_attn=True or type_v=f16")

    def _check_merging(self) -> None:
        take_real(self, "vision_merge", "it is the share of patches retained, above 0 and at most 1", _is_share)
        rule = "it is a share of the tower's layers, between 0 and 1"
        take_real(self, "vision_merge_depth", rule, lambda depth: 0 < depth < 1)

    def _check_rpc(self) -> None:
        rule = f'give a list of at most {MAX_RPC} "HOST:PORT"'
        addresses = several("rpc", self.rpc, rule)
        if len(addresses) > MAX_RPC:
            raise UsageError(f"rpc has {len(addresses)} addresses; {rule}")
        for address in addresses:
            check_address(address)
            if addresses.count(address) > 1:
                raise UsageError(f"rpc has {address} twice; name each server once")
        if addresses and self.n_gpu_layers == 0:
            raise UsageError("n_gpu_layers is 0, so the RPC servers have nothing to compute; leave one of them out")
        settle(self, "rpc", addresses)  # from JSON it is a list

    @property
    def n_layers_away(self) -> int | None:
        """Last text layers that leave this machine's CPU, for a GPU or the servers of `rpc`; -1: all.

        None: all of them where there is a GPU.
        """
        return -1 if self.rpc and self.n_gpu_layers is None else self.n_gpu_layers


def _is_share(number: float) -> bool:
    return 0 < number <= 1


def check_address(address: str) -> None:
    """Raises UsageError unless it is HOST:PORT of an RPC server."""
    found = re.fullmatch(r"([\w.-]+):(\d+)", address) if isinstance(address, str) else None
    if found and 1 <= int(found[2]) <= 65535:
        return
    why = "give HOST:PORT with a port from 1 to 65535, such as 10.0.0.2:50052"
    if isinstance(address, str) and address.count(":") > 1:
        why = "llama.cpp's RPC speaks IPv4 alone: give the server's IPv4 address, or its name, and the port"
    raise UsageError(f"rpc is {address!r:.80}; {why}")


@dataclass(frozen=True)
class VisualTokenConfig:
    """Which visual tokens are kept; every ratio is the share retained, in (0, 1].

    merge_retain: share left by token merging before the LLM (1.0 is off; AIM section 3.1).
    merge_by: "similarity" (AIM) or "ward" (clusters by Ward's criterion). To compare with: "average" over squares of
    the grid, and "random" and "grid", which keep some rows as they are and drop the others. "keys": pictures
    as AIM's authors have it, merged before the projector where keys of the vision tower's last layer are similar, for
    families whose files have these keys (docs/models.md).
    merge_window: frames of a video that are clustered together, for "ward" only; pictures are merged one by one.
    prune_layers: "auto" scales the paper's (14, 22) of 28 layers to the model's depth, (l1, l2) are 0-based layers,
    "late" keeps all up to the paper's l2 and none from there on, which needs no ranking, None is off (AIM section 3.2).
    retention: explicit share per layer, instead of prune_layers.
    importance: how visual tokens are ranked, or a callable `(il, importance, n_keep) -> indices`. "pagerank" (AIM),
    "pagerank_relative" (over what an even walk gives), "last_query" (FastV), "question" (attention of all rows of the
    question), "question_value" (times the length of values), "random", "grid"; docs/method.md has the formulas.
    seed: for importance="random" and merge_by="random".
    weigh: what a merged row counts in attention: "equal", as every other row, or "size", as the patches it stands for:
    log(size) is added to its attention logits, in every layer and in the ranking (ToMe, arXiv 2210.09461 section 3).
    flops_share: a wanted share of the full prompt's FLOPs instead; merge_retain and prune_layers are then planned per
    prompt (planner.resolve_budget).
    """

    merge_retain: float = MERGE_PAPER
    prune_layers: Literal["auto", "late"] | tuple[int, int] | None = "auto"
    retention: Sequence[float] | None = None
    importance: str | ImportanceCallback = "pagerank"
    seed: int = 0
    flops_share: float | None = None
    merge_by: str = "similarity"
    merge_window: int = 1
    weigh: str = "equal"

    def __post_init__(self) -> None:
        retained = "it is the share retained, above 0 and at most 1"
        take_real(self, "merge_retain", retained, _is_share)
        if self.flops_share is not None:
            settle(self, "flops_share", real("budget", self.flops_share, _BUDGET, _is_share))
        one_of("merge_by", self.merge_by, MERGE_BY)
        take_whole(self, "seed", f"give a whole number from 0 to {2**32 - 1}", 0, 2**32 - 1)
        self._check_window()
        one_of("weigh", self.weigh, WEIGH)
        if not callable(self.importance):
            one_of("importance", self.importance, IMPORTANCE, " or a callable")
        self._check_layers()
        self._check_retention()

    def _check_window(self) -> None:
        take_whole(self, "merge_window", _COUNT, 1)
        if self.merge_window > 1 and self.merge_by != "ward":
            raise UsageError(
                f"merge_window is {self.merge_window} with merge_by {self.merge_by!r}; only 'ward' merges "
                "several frames together: take it, or a window of 1"
            )

    def _check_layers(self) -> None:
        given = self.prune_layers
        if given is None or (isinstance(given, str) and given in ("auto", "late")):
            return
        layers = [whole_of(il) for il in given] if isinstance(given, tuple) else []
        if len(layers) != 2 or layers[0] is None or layers[1] is None:
            raise UsageError(f'prune_layers is {given!r:.80}; give (l1, l2), "auto", "late" or None')
        settle(self, "prune_layers", (layers[0], layers[1]))
        if not 0 <= layers[0] < layers[1]:
            raise UsageError(f"prune_layers is {self.prune_layers}; l1 must be at least 0 and below l2")

    def _check_retention(self) -> None:
        if self.retention is None:
            return
        rule = "give a share for each layer, from 0 to 1, or None"
        given = several("retention", self.retention, rule)
        shares = tuple(real("a share of retention", share, rule, lambda share: 0 <= share <= 1) for share in given)
        if any(later > earlier for earlier, later in pairwise(shares)):
            raise UsageError("retention rises from one layer to the next; a pruned token cannot come back")
        settle(self, "retention", shares)

    @property
    def prunes(self) -> bool:
        """Whether any layer of a deep enough model would see fewer visual tokens than enter the first."""
        if self.flops_share is not None:
            return self.flops_share < 1
        if self.retention is not None:
            return any(share < 1 for share in self.retention)
        return self.prune_layers is not None

    @classmethod
    def off(cls) -> VisualTokenConfig:
        """No merging, no pruning: what llama.cpp computes."""
        return cls(merge_retain=1.0, prune_layers=None)

    @classmethod
    def paper(cls) -> VisualTokenConfig:
        """The paper's video setting: 25 % after merging, then the schedule (14, 22) of 28 layers, scaled."""
        return cls()

    @classmethod
    def fast(cls) -> VisualTokenConfig:
        """Half of the paper's visual tokens: 12.5 % after merging, then the same schedule."""
        return cls(merge_retain=MERGE_PAPER / 2)

    @classmethod
    def auto(cls) -> VisualTokenConfig:
        """What is done to videos when nothing is asked: 16 % by Ward's clustering, counted by size, nothing pruned.

        It takes the paper's FLOPs and loses less (docs/reduction.md).
        """
        return cls(merge_by="ward", merge_retain=MERGE_AUTO, weigh="size", prune_layers=None)

    @classmethod
    def ward(cls) -> VisualTokenConfig:
        """10 % by Ward's clustering, then the paper's schedule."""
        return cls(merge_by="ward", merge_retain=MERGE_WARD)

    @classmethod
    def authors(cls) -> VisualTokenConfig:
        """What AIM's authors do to a picture: 252 of 576 by keys, then pruned from layer 13 to 21 of their 32."""
        return cls(merge_by="keys", merge_retain=MERGE_AUTHORS, prune_layers=PRUNE_AUTHORS)

    @classmethod
    def late_drop(cls) -> VisualTokenConfig:
        """25 % after merging, all of it up to the paper's l2, nothing from there on: no ranking."""
        return cls(prune_layers="late")

    @classmethod
    def budget(cls, share_of_full_flops: float) -> VisualTokenConfig:
        """The largest setting whose prefill costs at most this share of the full prompt's FLOPs."""
        return cls(flops_share=real("budget", share_of_full_flops, _BUDGET, _is_share))


@dataclass(frozen=True)
class GenerateConfig:
    """How an answer is sampled. temperature 0 is greedy; seed None draws one.

    top_k, top_p, min_p: which tokens a draw is from; 0, 1 and 0 are all. frequency_penalty, presence_penalty: taken
    from the logits of tokens that the answer has already, for each time and once (as OpenAI has them).
    logprobs: None, or how many of the likeliest tokens Answer.logprobs names beside each drawn one.
    json_schema: the answer is JSON that this schema allows, {} any object; grammar: it is what this GBNF allows.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    seed: int | None = None
    top_k: int = 40
    top_p: float = 0.95
    stop: tuple[str, ...] = ()
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logprobs: int | None = None
    json_schema: Mapping[str, Any] | None = None
    grammar: str = ""

    def __post_init__(self) -> None:
        take_whole(self, "max_tokens", _COUNT, 1)
        take_real(self, "temperature", "give a number from 0 (greedy) to 5", lambda number: 0 <= number <= 5)
        take_whole(self, "seed", _SEED, 0, 2**32 - 2, optional=True)
        take_whole(self, "top_k", "give 0 (off) or a whole number above", 0, 2**31 - 1)
        take_real(self, "top_p", "give a number above 0 and at most 1", _is_share)
        take_real(self, "min_p", "give a number from 0 (off) to 1", lambda number: 0 <= number <= 1)
        for name in ("frequency_penalty", "presence_penalty"):
            take_real(self, name, "give a number from -2 to 2, 0 is off", lambda number: -2 <= number <= 2)
        rule = f"give a whole number from 0 to {MAX_LOGPROBS}, or None"
        take_whole(self, "logprobs", rule, 0, MAX_LOGPROBS, optional=True)
        rule = "give a tuple of texts, none of them empty: stop=('END',)"
        settle(self, "stop", several("stop", self.stop, rule))
        if not all(isinstance(text, str) and text for text in self.stop):
            raise UsageError(f"stop is {self.stop!r:.80}; {rule}")
        if not isinstance(self.grammar, str):
            raise UsageError(f"grammar is {type(self.grammar).__name__}; give GBNF as a str")
        for name, given in (("stop", "".join(self.stop)), ("grammar", self.grammar)):
            if any("\ud800" <= c <= "\udfff" for c in given):
                raise UsageError(f"{name} holds half of a surrogate pair; give text in UTF-8")
        if self.json_schema is not None and not isinstance(self.json_schema, Mapping):
            raise UsageError(f"json_schema is {self.json_schema!r:.80}; give a dict, {{}} for any object, or None")
        if self.grammar and self.json_schema is not None:
            raise UsageError("a grammar and a JSON schema both say what the answer may be; give one")
