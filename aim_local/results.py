"""What a run did and what it cost: answers, counts, milliseconds per stage, and which visual tokens were kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arguments import checked
from .drawing.sheet import layer_sheet
from .models.pieces import KeptTokens

# stages in the order they run; each has a field `<stage>_ms` in Stats
STAGES = ("decode_video", "preprocess", "vision", "merge", "prefill", "importance")


@dataclass(frozen=True, repr=False)
class Stats:
    """Counts and milliseconds of one prefill or answer. `prefill_ms` includes `importance_ms`.

    A video is decoded and fitted while it is encoded, so `decode_video_ms` and `preprocess_ms` are the work of a thread
    beside, and the stages may add up to more than `ttft_ms`.
    """

    n_frames: int = 0
    n_images: int = 0
    n_text: int = 0  # text tokens of the prompt
    n_visual_full: int = 0  # visual tokens before token merging
    n_visual: int = 0  # visual tokens that enter the LLM
    n_prompt: int = 0  # rows the first layer computes
    n_reused: int = 0  # tokens of the prompt that the conversation's context held already; the others are n_prompt
    n_reused_visual: int = 0  # visual tokens among them
    n_reused_visual_full: int = 0  # these before token merging
    n_ranked_again: int = 0  # visual tokens of earlier turns that were ranked again for this question
    n_ctx: int = 0  # cells of the context
    n_tiles_encoded: int = 0  # frames and tiles of pictures that went through the vision tower
    n_tiles_equal: int = 0  # that took the rows of one with equal pixels
    n_tiles_near: int = 0  # that took the rows of one they differ from by noise only (docs/encoding.md)
    n_tiles_cached: int = 0  # whose rows came from the store on disk
    n_tiles_ahead: int = 0  # of all these, those that were there before the question
    ahead_ms: float = 0.0  # of the vision tower, before the question
    decode_video_ms: float = 0.0
    preprocess_ms: float = 0.0
    vision_ms: float = 0.0
    merge_ms: float = 0.0
    prefill_ms: float = 0.0
    importance_ms: float = 0.0
    kv_bytes: int = 0
    held_bytes: int = 0  # rows that a conversation holds beside it, to rank earlier visual tokens again
    flops: float = 0.0  # prefill of the language model, as in docs/method.md
    flops_full: float = 0.0  # the same without merging and pruning; of the whole conversation where it is ranked again
    ttft_ms: float = 0.0  # from the call to the first token
    n_generated: int = 0
    decode_ms: float = 0.0
    vision_kernels: str = ""  # arithmetic and kernels of the tower: "int8 (amx)"; "" where nothing was encoded
    prefill_kernels: str = ""  # and of the language model's prefill
    stop_reason: str = ""  # "eos", "length", "stop", "interrupted", "cancelled"

    @property
    def decode_tps(self) -> float:
        """Tokens a second after the first token; 0 when fewer than two were generated."""
        return (self.n_generated - 1) / (self.decode_ms / 1000) if self.n_generated > 1 and self.decode_ms > 0 else 0.0

    @property
    def prefill_tps(self) -> float:
        return self.n_prompt / (self.prefill_ms / 1000) if self.prefill_ms > 0 else 0.0

    @property
    def flops_share(self) -> float:
        return self.flops / self.flops_full if self.flops_full else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and words for JSON, derived rates included."""
        rates = {"decode_tps": self.decode_tps, "prefill_tps": self.prefill_tps, "flops_share": self.flops_share}
        return {**asdict(self), **rates}

    def __repr__(self) -> str:
        """What was read, and how long it took; all of it is in the fields, and in `to_dict`."""
        return f"Stats({', '.join(_said(self))})"


@dataclass(frozen=True, eq=False, repr=False)
class Trace(KeptTokens):
    """Which visual tokens were kept, see KeptTokens; it can be drawn."""

    @checked
    def to_image(self, il: int) -> NDArray[np.uint8]:
        """Contact sheet of what entered layer il, uint8 RGB [H, W, 3]: kept patches bright, dropped ones veiled.

        Raises UsageError for a layer the model does not have, and where nothing was seen.
        """
        return layer_sheet(self, il)

    def __repr__(self) -> str:
        counts = [len(rows) for rows in self.kept]
        layers = f"{counts[0]} -> {counts[-1]} visual tokens over {len(counts)} layers" if counts else "nothing seen"
        return f"Trace({layers})"


@dataclass(frozen=True, repr=False)
class Prefill:
    """A prompt that went through the model. logits: float32 [n_vocab], for the next token."""

    logits: NDArray[np.float32]
    trace: Trace
    stats: Stats
    warnings: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Prefill({', '.join([f'logits [{len(self.logits)}]', *_said(self.stats), *_warned(self.warnings)])})"


@dataclass(frozen=True)
class TokenLogprob:
    """A token that was drawn, or could have been. data: its UTF-8 bytes, maybe part of a character.

    logprob: natural logarithm of its probability, of all tokens at temperature 1, before penalties and grammars.
    top: the likeliest tokens in its place, most likely first.
    """

    id: int
    data: bytes
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, repr=False)
class Answer:
    """text: what the model said. tokens: its ids, without the end-of-turn token.

    logprobs: of each token, where GenerateConfig.logprobs asks for them.
    warnings: what was asked and could not be done as asked. toy: the bundled toy model answered about media that are
    none of its own clips, so the answer means nothing; a warning says so once for each of them.
    """

    text: str
    tokens: list[int]
    stats: Stats
    trace: Trace
    warnings: list[str] = field(default_factory=list)
    toy: bool = False
    logprobs: list[TokenLogprob] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return f"Answer({', '.join([_short(self.text), *_said(self.stats), *_warned(self.warnings)])})"


@dataclass(frozen=True, repr=False)
class Scored:
    """Next-token logits along n given tokens, and what the model itself answered.

    logits: float32 [n + 1, n_vocab]; row i comes after the prompt and the first i tokens of `forced`.
    forced: the n tokens. answer: as from generate, with stats, trace and warnings; forcing is not in its times.
    """

    logits: NDArray[np.float32]
    forced: list[int]
    answer: Answer

    def __repr__(self) -> str:
        return f"Scored({len(self.forced)} tokens, logits {list(self.logits.shape)}, {self.answer!r})"


def _said(stats: Stats) -> list[str]:
    """A run in a few words."""
    counts = [f"{n} {what}{'s' if n != 1 else ''}" for n, what in (
        (stats.n_frames, "frame"), (stats.n_images, "image"), (stats.n_generated, "token"),
    ) if n]  # fmt: skip
    reduced = f"visual tokens {stats.n_visual_full} -> {stats.n_visual}" if stats.n_visual_full else ""
    ttft = f"TTFT {stats.ttft_ms:.0f} ms" if stats.ttft_ms else ""
    return [part for part in (*counts, reduced, ttft, stats.stop_reason) if part]


def _warned(warnings: list[str]) -> list[str]:
    return [f"{len(warnings)} warning{'s' if len(warnings) != 1 else ''}"] if warnings else []


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
