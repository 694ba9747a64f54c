"""Options that several commands share, and the library's option objects made from them.

Knows names, help texts and how a time is written. The values are checked by the library's dataclasses.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import _log

if TYPE_CHECKING:
    from aim_local.config import GenerateConfig, LoadConfig, VisualTokenConfig
    from aim_local.media import FrameSampling

# [[hours:]minutes:]seconds; seconds after a colon are below 60, minutes after one too
_TIME = re.compile(r"(?:(?:(\d+):(?=[0-5]?\d:))?(\d+):(?=[0-5]?\d(?:\.|$)))?(\d+(?:\.\d*)?|\.\d+)", re.ASCII)
ONE_SHOT_TEMPERATURE = 0.0
REPL_TEMPERATURE = 0.2


class FlashAttn(StrEnum):
    AUTO = "auto"
    ON = "on"
    OFF = "off"


def parse_time(text: str | float) -> float:
    """Seconds from "75", "75.5", "1:15", "1:15.5" or "0:01:15". Raises BadParameter."""
    found = _TIME.fullmatch(str(text).strip())
    if not found:
        raise typer.BadParameter(f"{text!r} is no time; give seconds (75 or 75.5), mm:ss or mm:ss.sss (1:15.5)")
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds


def parse_whole(text: str | int) -> int:
    """A whole number. Raises BadParameter."""
    try:
        return int(str(text).strip())
    except ValueError as e:
        raise typer.BadParameter(f"{text!r} is no whole number; give one such as 8") from e


def parse_number(text: str | float) -> float:
    """A number. Raises BadParameter."""
    try:
        return float(str(text).strip())
    except ValueError as e:
        raise typer.BadParameter(f"{text!r} is no number; give one such as 0.5") from e


def _whole(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, metavar="N", parser=parse_whole)


def _number(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, metavar="X", parser=parse_number)


def _time(help: str) -> Any:
    return typer.Option(help=help, metavar="TIME", parser=parse_time)


def _text(help: str, metavar: str, *names: str) -> Any:
    return typer.Option(*names, help=help, metavar=metavar)


# --- what is loaded -------------------------------------------------------------------------------------------------

MODEL_HELP = "A name from `aim-local models`, a GGUF file, or a folder from `convert`. Default: the bundled model."

ModelArg = Annotated[str | None, typer.Argument(help=MODEL_HELP, metavar="MODEL", show_default=False)]
Mmproj = Annotated[Path | None, _text("The vision tower's GGUF, where it is not beside the model.", "FILE")]
Ctx = Annotated[int | None, _whole("Tokens the context holds. Default: as many as needed.", "--ctx")]
Threads = Annotated[int | None, _whole("CPU threads. Default: one per core.")]
GpuLayers = Annotated[int, _whole("Text layers on the GPU, -1 for all.")]
TypeK = Annotated[str, _text("Type of the cached keys: f32, f16, bf16, q8_0, q5_1 ... q4_0.", "TYPE", "--type-k")]
TypeV = Annotated[str, _text("Type of the cached values.", "TYPE", "--type-v")]
FlashAttnOption = Annotated[FlashAttn, _text("Flash attention.", "auto|on|off", "--flash-attn")]

# --- media ----------------------------------------------------------------------------------------------------------

Videos = Annotated[list[Path] | None, _text("A video; may be given several times.", "FILE", "--video")]
Images = Annotated[
    list[Path] | None, _text("A picture; may be given several times, after the videos.", "FILE", "--image")
]
Frames = Annotated[int | None, _whole("Frames taken from each video, evenly spread. Default: the model's own number.")]
Fps = Annotated[float | None, _number("Frames per second of video instead; --frames is then the most.")]
Start = Annotated[float | None, _time("Begin there: seconds or mm:ss.sss.")]
End = Annotated[float | None, _time("Stop there: seconds or mm:ss.sss.")]

# --- visual tokens ----------------------------------------------------------------------------------------------------

TOKENS_HELP = (
    "Visual tokens: off, paper (25 % after merging, pruned layer by layer), fast (half of that), budget=SHARE of full "
    "FLOPs, or merge-only, prune-only, late-drop. Default: paper for videos of large models, off for pictures."
)

Tokens = Annotated[str | None, _text(TOKENS_HELP, "SETTING")]
Keep = Annotated[float | None, _number("Share of visual tokens left by token merging, in (0, 1].")]
Prune = Annotated[
    str | None,
    _text("Layers: all visual tokens up to L1, none from L2 on; auto scales the paper's; late; off.", "L1,L2"),
]
Importance = Annotated[str | None, _text("What ranks visual tokens: pagerank, last_query, random, grid.", "HOW")]

# --- answers --------------------------------------------------------------------------------------------------------

TEMP_HELP = f"Temperature, 0 is greedy. Default: 0 for one question, {REPL_TEMPERATURE} in a conversation."

Temp = Annotated[float | None, _number(TEMP_HELP, "--temp")]
Seed = Annotated[int | None, _whole("Seed for sampling. Default: a new one every time.")]
MaxTokens = Annotated[int, _whole("Longest answer, in tokens.")]
System = Annotated[str | None, _text("System prompt.", "TEXT")]

# --- output ---------------------------------------------------------------------------------------------------------

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes, no warnings.")]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show tracebacks and llama.cpp's log.", callback=_log.set_debug, is_eager=True)
]

# --- the library's options ------------------------------------------------------------------------------------------


def load_config(
    ctx: int | None, threads: int | None, gpu_layers: int, type_k: str, type_v: str, flash_attn: FlashAttn
) -> LoadConfig:
    from aim_local.config import LoadConfig

    return LoadConfig(
        n_ctx=ctx,
        n_threads=threads,
        n_gpu_layers=gpu_layers,
        type_k=type_k.lower(),
        type_v=type_v.lower(),
        flash_attn="auto" if flash_attn == FlashAttn.AUTO else flash_attn == FlashAttn.ON,
    )


def generate_config(max_tokens: int, temp: float | None, seed: int | None, default_temp: float) -> GenerateConfig:
    from aim_local.config import GenerateConfig

    return GenerateConfig(max_tokens=max_tokens, temperature=default_temp if temp is None else temp, seed=seed)


def frame_sampling(
    frames: int | None, fps: float | None, start: float | None, end: float | None, default_frames: int
) -> FrameSampling | None:
    """None where nothing was asked. `default_frames` is also the most that fps alone takes: a film must fit memory."""
    if frames is None and fps is None and start is None and end is None:
        return None
    from aim_local.media import FrameSampling

    return FrameSampling(n_frames=default_frames if frames is None else frames, fps=fps, start=start, end=end)


def visual_tokens(
    tokens: str | None, keep: float | None, prune: str | None, importance: str | None
) -> VisualTokenConfig | None:
    """None where nothing was asked, for the library's default. The others change what --tokens names."""
    if tokens is None and keep is None and prune is None and importance is None:
        return None
    from dataclasses import replace

    from aim_local.settings import parse_setting

    config = parse_setting("paper" if tokens is None else tokens)
    if config.flops_share is not None and (keep is not None or prune is not None):
        raise typer.BadParameter("--tokens budget=... plans what --keep and --prune say; give one or the other")
    if keep is not None:
        config = replace(config, merge_retain=keep)
    if prune is not None:
        config = replace(config, prune_layers=parse_prune(prune))
    return replace(config, importance=importance) if importance is not None else config


def parse_prune(text: str) -> tuple[int, int] | Literal["auto", "late"] | None:
    """Layers from "14,22", or "auto" or "late", or None from "off". Raises BadParameter."""
    if text == "off":
        return None
    if text == "auto":
        return "auto"
    if text == "late":
        return "late"
    parts = text.split(",")
    if len(parts) != 2:
        raise typer.BadParameter(f"--prune {text!r} is no pair of layers; give L1,L2 such as 14,22, auto, late or off")
    return parse_whole(parts[0]), parse_whole(parts[1])
