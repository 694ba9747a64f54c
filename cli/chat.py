"""`aim-local chat`: one question answered, or a conversation."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from aim_local.errors import UsageError

from . import _answer, _log, _resume, _runtime
from . import _options as opt
from ._turn import Turn

TYPICAL_FRAMES = 32  # stands in for the model's own number while the options are checked, before it is loaded


def chat(
    context: typer.Context,
    model: opt.ModelArg = None,
    video: opt.Videos = None,
    image: opt.Images = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", "-p", help="The question; one answer and exit. Default: a conversation.", metavar="TEXT"
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on with a conversation that /save wrote as .aimchat: its model, its settings, its media as the "
            "model saw them. With -p, one more answer, which is not saved.",
            metavar="FILE",
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
    if resume is not None:
        saved = _resume.saved_model(context, resume)
        model, mmproj = _resume.model_files(saved, model, mmproj)
        type_k, type_v, flash_attn = _resume.cache_types(context, saved, type_k, type_v, flash_attn)
    config = opt.load_config(ctx, threads, gpu_layers, type_k, type_v, flash_attn)
    temperature = opt.REPL_TEMPERATURE if question is None else opt.ONE_SHOT_TEMPERATURE
    generate = opt.generate_config(max_tokens, temp, seed, temperature)

    # 2. the model, then the question or the conversation
    with _runtime.load(model, mmproj, config) as llm, ExitStack() as stack:
        own_frames = any(value is not None for value in (frames, fps, start, end))
        sampling = opt.frame_sampling(frames, fps, start, end, llm.default_frames or TYPICAL_FRAMES)
        options: dict[str, Any] = {"tokens": reduction, "generate": generate, "sampling": sampling, "system": system}
        if resume is not None:
            conversation = stack.enter_context(llm.load_chat(resume, generate, sampling if own_frames else None))
            if not quiet:
                _log.say(f"{resume}: {len(conversation.messages)} messages, {conversation.used} tokens in the context")
        elif question is None:
            conversation = stack.enter_context(llm.chat(**options))
        if question is None:
            from . import _repl

            _repl.run(conversation, llm.name, media, stats=stats, quiet=quiet)
            return
        ask = conversation.ask if resume is not None else partial(llm.generate, **options)
        ask_once(llm, ask, question, media, json=json, stats=stats, quiet=quiet)


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
    ask: Callable[..., Any],
    question: str,
    media: list[Path],
    *,
    json: bool,
    stats: bool,
    quiet: bool,
) -> None:
    with Turn(bars=not quiet, text=not json) as turn:
        answer = ask(question, media, on_text=turn.on_text, progress=turn.progress)
    if json:
        _answer.print_answer_json(answer, question, llm.description(), media)
        if stats:
            _log.say(_answer.stats_line(answer.stats))
    else:
        _answer.print_notes(answer, stats, quiet)
    if answer.stats.stop_reason == "interrupted":
        raise KeyboardInterrupt
