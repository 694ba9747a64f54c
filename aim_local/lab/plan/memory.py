"""Memory a prompt will take, part by part, and the memory there is. Bytes.

Asked of the native libraries where they can tell without allocating (KV cache, compute buffers, importance scores); the
rest from sizes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from gguf import GGML_QUANT_SIZES

from ...engine.contexts import open_context
from ...engine.model import Model
from ...engine.plan import Plan
from ...media.outline import Outline
from ...models.base import Tower, TowerFacts
from ...models.thumbnails import SIDE as THUMBNAIL_SIDE
from ...native.staged import compute_bytes, score_bytes
from ...reduction.planner import held_row_bytes
from ...store.gguf_header import GgufHeader, read_whole
from .sizes import Sizes, clustered, facts_of, tower_facts

_F32 = 4


@dataclass(frozen=True)
class Room:
    """The context a prompt will get. kv_bytes: as Stats.kv_bytes will report; compute_bytes: llama.cpp's buffers.

    held_bytes: rows that a conversation, other than a single question, holds of the prompt to rank it again.
    """

    n_ctx: int
    kv_bytes: int
    compute_bytes: int
    held_bytes: int


def measure_room(model: Model, plan: Plan, n_text: int) -> Room:
    """Makes the context of a plan with room for n_text text tokens and asks it. Raises ContextError, NativeError.

    Without weights it takes no memory.
    """
    context = open_context(model, plan, n_text)
    try:
        held = plan.n * held_row_bytes(model.text.shape, plan.shares)
        return Room(context.n_ctx, context.kv_bytes(), compute_bytes(context.handle), held)
    finally:
        context.close()


@dataclass(frozen=True)
class Memory:
    """parts: name -> bytes, all of them in memory together at the worst moment. available: None where unknown."""

    parts: dict[str, int]
    available: int | None

    @property
    def needed(self) -> int:
        return sum(self.parts.values())

    @property
    def fits(self) -> bool | None:
        return None if self.available is None else self.needed <= self.available


def expect_memory(model: Model, sizes: Sizes, room: Room, outlines: Sequence[Outline]) -> Memory:
    facts, mmproj = tower_facts(model), mmproj_header(model)
    seen = facts_of(model, outlines)
    parts = {
        "language weights": tensor_bytes(model.text.header),
        "vision weights": tensor_bytes(mmproj) if mmproj else 0,
        "KV cache": room.kv_bytes,
        "compute buffers": room.compute_bytes,
        "vision buffers": max((_vision_bytes(model, f) for f in seen), default=0) if sizes.n_tiles else 0,
        "frames": sum(_pixel_bytes(model.tower, f, o) for f, o in zip(seen, outlines, strict=False) if model.tower),
        "decoding": max((outline.n_decoder_bytes for outline in outlines), default=0),
        "clustering": _clustering_bytes(sizes) if facts else 0,
        "visual tokens": _row_bytes(model, sizes),
        "importance scores": _scoring_bytes(model, sizes),
        "logits": 3 * _F32 * model.text.n_vocab,  # the context's, our copy, the sampler's candidates
        "program": program_bytes(),
    }
    return Memory(parts, available_bytes())


def mmproj_header(model: Model) -> GgufHeader | None:
    """Of the vision tower's file; None for a text-only model."""
    facts = tower_facts(model)
    if facts and facts.header:
        return facts.header
    return read_whole(model.paths.mmproj) if model.paths.mmproj else None


def tensor_bytes(header: GgufHeader) -> int:
    """Weights of a file. Repacked for the CPU or mapped, they are in memory once; the file's pages can be dropped."""
    return sum(_size(tensor.type, tensor.shape) for tensor in header.tensors)


def _size(kind: int, shape: Iterable[int]) -> int:
    block, size = GGML_QUANT_SIZES.get(kind, (1, 0))
    return int(prod(shape) // block * size)


def _vision_bytes(model: Model, facts: TowerFacts) -> int:
    """One tile's graph: the widest moment is the feed-forward block, or one layer's scores without flash attention."""
    shape = facts.vision
    wide = shape.n_patch * (2 * shape.n_ff + 4 * shape.n_embd)
    scores = 0 if model.config.flash_attn is True else 2 * shape.n_head * shape.n_patch**2
    return _F32 * (wide + scores)


def _pixel_bytes(tower: Tower, facts: TowerFacts, outline: Outline) -> int:
    """Of a video every frame as the tower keeps it; of a picture its own size, fitted to the tiles, and the tiles.

    And what is kept to be drawn: a thumbnail for each frame, of a picture one for each of its two views. What the
    decoder takes is counted apart (Outline.n_decoder_bytes).
    """
    frame, source = 3 * facts.height * facts.width, 3 * outline.height * outline.width
    thumbnail = 3 * min(THUMBNAIL_SIDE, max(facts.height, facts.width)) ** 2
    if outline.shape.kind == "video":
        return outline.n_pictures * ((frame if tower.fit_for(outline.shape) else source) + thumbnail)
    return source + 2 * tower.n_tiles(outline.shape) * frame + 2 * thumbnail


def _clustering_bytes(sizes: Sizes) -> int:
    """Ward's: the distances of all rows that are clustered together, in doubles."""
    return 8 * clustered(sizes) ** 2


def _row_bytes(model: Model, sizes: Sizes) -> int:
    """Visual rows as the tower gives them, joined; where tokens are pruned or weighed, hidden states of all rows."""
    visual = 2 * sizes.n_visual
    is_staged = len(sizes.stages) > 1 or (sizes.n_visual > 0 and sizes.tokens.weigh == "size")
    hidden = sizes.n_prompt if is_staged else 0
    return _F32 * model.text.n_embd * (visual + hidden)


def _scoring_bytes(model: Model, sizes: Sizes) -> int:
    """Of the layer with the most rows: the ranking itself, queries, results of all heads.

    Where some rows rank by their attention: keys twice, queries twice, one head's scores twice and their mask of half
    floats.
    """
    if not sizes.scored:
        return 0
    shape = model.text.shape
    n = max(sizes.n_text + sizes.counts[il] for il in sizes.scored)
    d = shape.n_embd_kv // shape.n_head_kv
    if sizes.n_query is not None:
        q = sizes.n_query
        floats = n * (2 * shape.n_embd_kv + shape.n_head) + 2 * q * shape.n_head * d + 2 * n * q
        return _F32 * floats + 2 * n * q
    return score_bytes(n, shape.n_head, shape.n_head_kv, d) + _F32 * n * shape.n_head * (d + 1)


# --- the memory there is ---------------------------------------------------------------------------------------------


def program_bytes() -> int:
    """Resident memory of this process: Python and the libraries, which a run needs as well. 0 where unknown."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0


def available_bytes() -> int | None:
    """Memory that can be had now: what the system says, or less where a container may use less. None if unknown."""
    limits = [limit for limit in (_mem_available(), *_cgroup_rooms()) if limit is not None]
    if limits:
        return min(limits)
    from ..doctor import memory_bytes

    return memory_bytes()


def _mem_available() -> int | None:
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _cgroup_rooms() -> list[int]:
    """Room in each control group this process is in: the limit less what is used and cannot be dropped."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    rooms = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            rooms += [_room(folder, "memory.max", "memory.current") for folder in _parents("/sys/fs/cgroup", path)]
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            rooms += [_room(folder, *names) for folder in _parents("/sys/fs/cgroup/memory", path)]
    return [room for room in rooms if room is not None]


def _parents(root: str, path: str) -> list[Path]:
    """The group's folder and those above it: each has its own limit."""
    folder = Path(root + path)
    return [folder, *(p for p in folder.parents if str(p).startswith(root))]


def _room(folder: Path, limit: str, used: str) -> int | None:
    try:
        most, now = int((folder / limit).read_text()), int((folder / used).read_text())
        cached = re.search(r"^(?:total_)?inactive_file (\d+)", (folder / "memory.stat").read_text(), re.MULTILINE)
    except (OSError, ValueError):  # no such group in sight, or "max"
        return None
    return max(0, most - now + (int(cached[1]) if cached else 0))
