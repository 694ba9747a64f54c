"""`aim-local chat`: one question answered, or a conversation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aim_local.errors import UsageError

from . import _answer, _log, _runtime
from . import _options as opt
from ._turn import Turn

if TYPE_CHECKING:
    pass

TYPICAL_FRAMES = 32  # stands in for the model's own number while the options are checked, before it is loaded


def chat(
    model: opt.ModelArg = None,
    video: opt.Videos = None,
    image: opt.Images = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", "-p", help="The question; one answer and exit. Default: a conversation.", metavar="TEXT"
        ),
    ] = None,
    mmproj: opt.Mmproj = None,
    frames: opt.Frames = None,
    fps: opt.Fps = None,
    start: opt.Start = None,
    end: opt.End = None,
    tokens: opt.Tokens = None,
    keep: opt.Keep = None,
    prune: opt.Prune = None,
    importance: opt.Importance = None,
    ctx: opt.Ctx = None,
    threads: opt.Threads = None,
    gpu_layers: opt.GpuLayers = 0,
    type_k: opt.TypeK = "f16",
    type_v: opt.TypeV = "f16",
    flash_attn: opt.FlashAttnOption = opt.FlashAttn.AUTO,
    temp: opt.Temp = None,
    seed: opt.Seed = None,
    max_tokens: opt.MaxTokens = 512,
    system: opt.System = None,
    stats: Annotated[bool, typer.Option("--stats", help="One line of numbers after each answer.")] = False,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Ask about a video or a picture.

    With -p, or a question piped in, one answer goes to stdout. Otherwise a conversation begins; /help lists its
    commands.
    """
    # 1. everything that can be wrong without the model
    question = question_from(prompt, sys.stdin)
    if question is None and json:
        raise UsageError("a conversation has no JSON form; drop --json, or give the question with -p")
    media = [*(video or []), *(image or [])]
    check_media(video or [], image or [])
    opt.frame_sampling(frames, fps, start, end, TYPICAL_FRAMES)
    reduction = opt.visual_tokens(tokens, keep, prune, importance)
    config = opt.load_config(ctx, threads, gpu_layers, type_k, type_v, flash_attn)
    temperature = opt.REPL_TEMPERATURE if question is None else opt.ONE_SHOT_TEMPERATURE
    generate = opt.generate_config(max_tokens, temp, seed, temperature)

    # 2. the model, then the question or the conversation
    with _runtime.load(model, mmproj, config) as llm:
        sampling = opt.frame_sampling(frames, fps, start, end, llm.default_frames or TYPICAL_FRAMES)
        if question is not None:
            options = {"tokens": reduction, "generate": generate, "sampling": sampling, "system": system}
            ask_once(llm, question, media, options, json=json, stats=stats, quiet=quiet)
            return
        from . import _repl

        with llm.chat(tokens=reduction, system=system, generate=generate, sampling=sampling) as conversation:
            _repl.run(conversation, llm.name, media, stats=stats, quiet=quiet)


def question_from(prompt: str | None, stdin: Any) -> str | None:
    """The question, from -p or from a stdin that is no terminal; None for a conversation. Raises UsageError."""
    if prompt is None and stdin is not None and stdin.isatty():
        return None
    text = prompt if prompt is not None else stdin.read() if stdin is not None else ""
    if not text.strip():
        source = "-p" if prompt is not None else "stdin"
        raise UsageError(f"the question from {source} is empty; give one: -p 'What happens?'")
    return str(text.strip())


def check_media(videos: list[Path], images: list[Path]) -> None:
    """Files that cannot be what was said are told before the model takes its time to load. Raises MediaError."""
    if videos or images:
        from . import _media

        for path in videos:
            _media.check_video(path)
        for path in images:
            _media.check_image(path)


def ask_once(
    llm: Any,
    question: str,
    media: list[Path],
    options: dict[str, Any],
    *,
    json: bool,
    stats: bool,
    quiet: bool,
) -> None:
    with Turn(bars=not quiet, text=not json) as turn:
        answer = llm.generate(
            question,
            media,
            on_text=turn.on_text,
            progress=turn.progress,
            **options,
        )
    if json:
        _answer.print_answer_json(answer, question, llm.description(), media)
        if stats:
            _log.say(_answer.stats_line(answer.stats))
    else:
        _answer.print_notes(answer, stats, quiet)
    if answer.stats.stop_reason == "interrupted":
        raise KeyboardInterrupt
