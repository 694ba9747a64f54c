"""Options that several commands share, in groups (_groups.py), and the library's option objects made from them.

Knows names, defaults and help texts. How a value is written is in _values.py; what it may be is checked by the
library's dataclasses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aim_local import settings
from aim_local.config import (
    IMPORTANCE,
    KV_TYPES,
    MAX_PIXELS,
    MERGE_BY,
    VISION_PRECISIONS,
    WEIGH,
    GenerateConfig,
    LoadConfig,
    VisualTokenConfig,
)
from aim_local.errors import UsageError

from . import _log
from ._completing import complete_files, complete_media, complete_models, complete_words
from ._values import parse_duration, parse_file, parse_number, parse_time, parse_whole, parse_words
from ._words import Given, sort_words

if TYPE_CHECKING:
    from aim_local.engine.model import Model
    from aim_local.media import FrameSampling

ONE_SHOT_TEMPERATURE = 0.0
REPL_TEMPERATURE = 0.2
TYPICAL_FRAMES = 32  # stands in for the model's own number where it has none, and until it is loaded


class Reuse(StrEnum):
    NEAR = "near"
    EQUAL = "equal"


class FlashAttn(StrEnum):
    AUTO = "auto"
    ON = "on"
    OFF = "off"


class Pick(StrEnum):
    AUTO = "auto"
    TIME = "time"
    INDEX = "index"


class OnOff(StrEnum):
    ON = "on"
    OFF = "off"


def whole(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, metavar="N", parser=parse_whole)


def number(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, metavar="X", parser=parse_number)


def time(help: str) -> Any:
    return typer.Option(help=help, metavar="TIME", parser=parse_time)


def duration(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, metavar="TIME", parser=parse_duration)


def text(help: str, metavar: str, *names: str, show_default: bool = True) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, show_default=show_default)


def words(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, metavar="TEXT", parser=parse_words)


def media_file(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, metavar="FILE", parser=parse_file, autocompletion=complete_media)


def file(help: str, metavar: str = "FILE", *names: str) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, parser=parse_file, autocompletion=complete_files)


def flag(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help)


def span(names: Sequence[str], n: int) -> str:
    """The first n names and the last: "f16, bf16 ... q4_0"."""
    return f"{', '.join(names[:n])} ... {names[-1]}"


# --- what is loaded ---------------------------------------------------------------------------------------------------

MODEL_HELP = (
    "A name from `aim-local models` or `models --known`, OWNER/NAME[:QUANT] of a repository on the hub, a GGUF file, "
    "or a folder from `convert`. Default: the bundled model."
)

ModelArg = Annotated[
    str | None,
    typer.Argument(help=MODEL_HELP, metavar="MODEL", show_default=False, autocompletion=complete_models),
]
Mmproj = Annotated[Path | None, file("The vision tower's GGUF, where it is not beside the model.")]
_CLUSTER_HELP = "Scheduler of a Dask cluster whose workers compute, such as tcp://10.0.0.5:8786 (docs/scale.md)."
Cluster = Annotated[str | None, text(_CLUSTER_HELP, "ADDRESS")]
Threads = Annotated[int | None, whole("CPU threads. Default: one per core.")]


_FRAME_TOKENS_HELP = (
    "Most visual tokens of a frame before merging, for models that see frames of any size (docs/models.md)."
)
_GPU_HELP = (
    "Text layers on the GPU, with the vision tower: -1 for all, 0 for none. Default: all where a GPU is there "
    "(an integrated one only if asked)."
)
_PIXELS_HELP = (
    "Most pixels of a picture or of a clip's frame; what is decoded one after the other is bounded by multiples of it "
    "(docs/media-limits.md)."
)
_YES_HELP = "Download without asking, where MODEL is on the hub and not here yet."
_NO_CACHE_HELP = "Neither take encoded clips from the disk nor keep them there (see `aim-local cache`)."
_REUSE_HELP = (
    "Frames that are not encoded again: near, those that differ from an encoded one by noise only, or just equal ones."
)


_RPC_HELP = (
    "Machines that run `aim-local rpc-server`: text layers are computed there, the last --gpu-layers of them, or all "
    "(docs/scale.md)."
)


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded."""

    ctx: Annotated[
        int | None, whole("Tokens the context holds, rounded up to 256. Default: as many as needed.", "--ctx")
    ] = None
    threads: Threads = None
    gpu_layers: Annotated[int | None, whole(_GPU_HELP)] = None
    rpc: Annotated[str | None, text(_RPC_HELP, "HOST:PORT,...", "--rpc")] = None
    type_k: Annotated[str, text(f"Type of the cached keys: {span(KV_TYPES, 5)}.", "TYPE", "--type-k")] = "f16"
    type_v: Annotated[str, text("Type of the cached values.", "TYPE", "--type-v")] = "f16"
    flash_attn: Annotated[FlashAttn, text("Flash attention.", "auto|on|off", "--flash-attn")] = FlashAttn.AUTO
    vision_precision: Annotated[
        str, text(f"Arithmetic of the vision tower: {', '.join(VISION_PRECISIONS)}.", "PRECISION")
    ] = "auto"
    prefill_precision: Annotated[
        str, text("Arithmetic of the language model's prefill: auto or exact.", "PRECISION")
    ] = "auto"
    vision_merge: Annotated[
        float, number("Share of the patches that the vision tower computes to its end; 1: all.", "--vision-merge")
    ] = 1.0
    vision_merge_depth: Annotated[
        float, number("Share of the tower's layers that compute all patches.", "--vision-merge-depth")
    ] = 0.5
    frame_tokens: Annotated[int | None, whole(_FRAME_TOKENS_HELP)] = None
    vision_reuse: Annotated[Reuse, text(_REUSE_HELP, "near|equal", "--vision-reuse")] = Reuse.NEAR
    max_pixels: Annotated[int, whole(_PIXELS_HELP, "--max-pixels")] = MAX_PIXELS
    no_cache: Annotated[bool, flag(_NO_CACHE_HELP, "--no-cache")] = False
    yes: Annotated[bool, flag(_YES_HELP, "--yes")] = False

    def asking(self, output: OutputOptions) -> dict[str, bool]:
        """What a command says and asks on its way to a model: keywords of `_runtime.load` and `_hub.ready`."""
        return {"yes": self.yes, "quiet": output.quiet}

    def load_config(self) -> LoadConfig:
        """Raises UsageError."""
        return LoadConfig(
            n_ctx=self.ctx,
            n_threads=self.threads,
            n_gpu_layers=self.gpu_layers,
            rpc=[] if self.rpc is None else [address.strip() for address in self.rpc.split(",")],
            type_k=self.type_k.lower(),
            type_v=self.type_v.lower(),
            reuse_frames=self.vision_reuse.value,
            max_pixels=self.max_pixels,
            cache_media=not self.no_cache,
            flash_attn="auto" if self.flash_attn == FlashAttn.AUTO else self.flash_attn == FlashAttn.ON,
            vision_precision=self.vision_precision.lower(),
            prefill_precision=self.prefill_precision.lower(),
            vision_merge=self.vision_merge,
            vision_merge_depth=self.vision_merge_depth,
            frame_tokens=self.frame_tokens,
        )


MEASURED = LoadOptions(no_cache=True)  # what is measured or explained is computed here and now


# --- media ------------------------------------------------------------------------------------------------------------

_WORDS_HELP = f"{MODEL_HELP} Any other file is a video or picture that the question is about; several, in any order."
_VIDEO_HELP = "A video or a picture, found out by its content; may be given several times."
_IMAGE_HELP = "The same, after those of --video."
Frames = Annotated[int | None, whole("Frames taken from each video, evenly spread. Default: the model's own number.")]
_PICK_HELP = (
    "What --frames are spread over evenly: index (frame numbers, as the models' authors do), time, or auto: time where "
    "the clip's frame rate varies much."
)
Picking = Annotated[Pick, text(_PICK_HELP, "auto|time|index", "--pick")]
Words = Annotated[
    list[str] | None,
    typer.Argument(help=_WORDS_HELP, metavar="MODEL|CLIP", show_default=False, autocompletion=complete_words),
]


@dataclass(frozen=True)
class MediaOptions:
    """Which model, and what the question is about."""

    words: Words = None
    video: Annotated[list[Path] | None, media_file(_VIDEO_HELP, "--video")] = None
    image: Annotated[list[Path] | None, media_file(_IMAGE_HELP, "--image")] = None

    @property
    def is_any(self) -> bool:
        """Whether anything was given."""
        return bool(self.words or self.video or self.image)

    def given(self, max_pixels: int) -> Given:
        """The model and all files: those without an option first, then --video, then --image.

        What cannot be read is told before a model takes its time to load. Raises MediaError, UsageError.
        """
        found, files = sort_words(self.words or [], max_pixels), list[Path]()
        if self.video or self.image:
            from ._media import check_media

            files += [check_media(path, "video", max_pixels) for path in self.video or ()]
            files += [check_media(path, "image", max_pixels) for path in self.image or ()]
        return Given(found.model, [*found.files, *files])


@dataclass(frozen=True)
class FrameOptions:
    """Which frames of a video."""

    frames: Frames = None
    fps: Annotated[float | None, number("Frames per second of video instead; --frames is then the most.")] = None
    start: Annotated[float | None, time("Begin there: seconds or mm:ss.sss.")] = None
    end: Annotated[float | None, time("Stop there: seconds or mm:ss.sss.")] = None
    pick: Picking = Pick.AUTO

    @property
    def picking(self) -> Literal["auto", "time", "index"]:
        """The library's word for `pick`."""
        return self.pick.value

    def sampling(self, default_frames: int | None = None) -> FrameSampling | None:
        """None where nothing was asked. Raises UsageError.

        default_frames: the model's own number; also the most that fps alone takes: a film must fit memory.
        """
        if self == FrameOptions():
            return None
        from aim_local.media import FrameSampling

        n_frames = (default_frames or TYPICAL_FRAMES) if self.frames is None else self.frames
        return FrameSampling(n_frames=n_frames, fps=self.fps, start=self.start, end=self.end, pick=self.picking)


# --- visual tokens ----------------------------------------------------------------------------------------------------

_TOKENS_HELP = (
    "Visual tokens: off, auto (16 % by Ward's clustering, counted by size), paper (25 % after merging, pruned layer by "
    "layer), fast (half of that), ward (10 % by Ward's clustering, pruned), authors (as the method's authors treat a "
    "picture, with one family alone: docs/reduction.md), budget=SHARE of full FLOPs, or merge-only, prune-only, "
    "late-drop. Default: auto for videos of models with 64 or more visual tokens a frame, else off."
)
_WINDOW_HELP = "Frames of a video that are merged together, with ward only. Default: 1."
_PRUNE_HELP = "Layers: all visual tokens up to L1, none from L2 on; auto scales the paper's; late; off."


@dataclass(frozen=True)
class TokenOptions:
    """Which visual tokens are kept."""

    tokens: Annotated[str | None, text(_TOKENS_HELP, "SETTING")] = None
    keep: Annotated[float | None, number("Share of visual tokens left by token merging, in (0, 1].")] = None
    merge: Annotated[str | None, text(f"What merges visual tokens: {', '.join(MERGE_BY)}.", "HOW")] = None
    window: Annotated[int | None, whole(_WINDOW_HELP)] = None
    prune: Annotated[str | None, text(_PRUNE_HELP, "L1,L2")] = None
    importance: Annotated[str | None, text(f"What ranks visual tokens: {', '.join(IMPORTANCE)}.", "HOW")] = None
    weigh: Annotated[
        str | None,
        text("What a merged visual token counts in attention: equal, or its size in patches.", "|".join(WEIGH)),
    ] = None

    def config(self) -> VisualTokenConfig | None:
        """None where nothing was asked, for the library's default. The others change what --tokens names.

        Without --tokens they change the default, or the paper's setting where they say how to prune, which the default
        does not. Raises UsageError.
        """
        names = ("keep", "merge", "window", "prune", "importance", "weigh")
        changes = {name: getattr(self, name) for name in names}
        asked = {key: str(value) for key, value in changes.items() if value is not None}
        if self.tokens is None and not asked:
            return None
        default = "paper" if {"prune", "importance"} & asked.keys() else "auto"
        found = settings.refine(settings.parse_setting(default if self.tokens is None else self.tokens), asked, "--")
        _check_effect(found, asked)
        return found

    def may_weigh_alike(self, found: VisualTokenConfig | None) -> bool:
        """Whether rows of `found` may count alike where a model cannot weigh them: nobody asked for weights."""
        return found is not None and found.weigh != "equal" and self.tokens is None and self.weigh is None

    def for_model(self, model: Model) -> VisualTokenConfig | None:
        """`config()` on this model: a change of the default falls back as the default does, see `default_tokens`."""
        found = self.config()
        if found is None or not self.may_weigh_alike(found):
            return found
        from aim_local.engine.plan import weighed_where_possible

        return weighed_where_possible(model, found)


def _check_effect(found: VisualTokenConfig, asked: Mapping[str, str]) -> None:
    """Raises UsageError for an option that would change nothing."""
    if "importance" in asked and not found.prunes:
        raise UsageError("--importance: nothing is pruned, so nothing is ranked; give --prune auto too, or drop it")
    if found.merge_retain == 1 and found.flops_share is None:
        for name in {"merge", "window", "weigh"} & asked.keys():
            raise UsageError(f"--{name}: all visual tokens are kept, nothing is merged; give --keep, or drop it")


_TTFT_HELP = (
    "Choose frames and visual tokens for a first token after this time, such as 10s; --frames is then the most, "
    "--tokens is kept. Measures this machine once, for some seconds."
)
Ttft = Annotated[float | None, duration(_TTFT_HELP, "--ttft")]

# --- answers ----------------------------------------------------------------------------------------------------------

_TEMP_HELP = f"Temperature, 0 is greedy. Default: 0 for one question, {REPL_TEMPERATURE} in a conversation."
MaxTokens = Annotated[int, whole("Longest answer, in tokens.")]


@dataclass(frozen=True)
class AnswerOptions:
    """How an answer is made."""

    temp: Annotated[float | None, number(_TEMP_HELP, "--temp")] = None
    seed: Annotated[int | None, whole("Seed for sampling. Default: a new one every time.")] = None
    max_tokens: MaxTokens = 512
    system: Annotated[str | None, words("System prompt.")] = None

    def generate_config(self, default_temperature: float = ONE_SHOT_TEMPERATURE) -> GenerateConfig:
        """Raises UsageError."""
        temperature = default_temperature if self.temp is None else self.temp
        return GenerateConfig(max_tokens=self.max_tokens, temperature=temperature, seed=self.seed)


# --- output -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OutputOptions:
    """What is printed. --debug takes effect while the options are read."""

    json: Annotated[bool, flag("Print one JSON object and nothing else.", "--json")] = False
    quiet: Annotated[bool, flag("No progress, no notes, no warnings.", "--quiet", "-q")] = False
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show tracebacks and llama.cpp's log.", callback=_log.set_debug, is_eager=True),
    ] = False
