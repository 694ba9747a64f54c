"""`aim-local chat`: one question answered, or a conversation."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from aim_local.errors import UsageError

from . import _log, _resume, _runtime, _ttft
from . import _options as opt
from ._question import ask_once, question_from

RESUME_HELP = (
    "Go on with a conversation that /save wrote as .aimchat: its model, where that is one of yours (name any other), "
    "its settings, its media as the model saw them. "
    "With -p, one more answer, which is not saved."
)
_RERANK_HELP = (
    "Rank the visual tokens of earlier turns again for each question, where any are pruned; off keeps those that the "
    "first question kept."
)
_PROMPT_HELP = "The question; one answer and exit. Default: a conversation."


def chat(
    context: typer.Context,
    *,
    media: opt.MediaOptions,
    prompt: Annotated[str | None, opt.text(_PROMPT_HELP, "TEXT", "--prompt", "-p")] = None,
    resume: Annotated[Path | None, opt.file(RESUME_HELP)] = None,
    mmproj: opt.Mmproj = None,
    frames: opt.FrameOptions,
    tokens: opt.TokenOptions,
    rerank: Annotated[opt.OnOff, opt.text(_RERANK_HELP, "on|off")] = opt.OnOff.ON,
    load: opt.LoadOptions,
    answer: opt.AnswerOptions,
    ttft: opt.Ttft = None,
    stats: Annotated[bool, opt.flag("One line of numbers after each answer.", "--stats")] = False,
    output: opt.OutputOptions,
) -> None:
    """Ask about a video or a picture.

    With -p, or a question piped in, one answer goes to stdout. Otherwise a conversation begins; /help lists its
    commands.

    \b
    aim-local chat clip.mp4                         talk about a clip
    aim-local chat MODEL a.mp4 b.png                another model, two files
    aim-local chat clip.mp4 -p "What happens?"      one answer and exit
    """
    # 1. everything that can be wrong without the model
    question = question_from(prompt, sys.stdin)
    if question is None and output.json:
        raise UsageError("a conversation has no JSON form; drop --json, or give the question with -p")
    model, files = media.given(load.max_pixels)
    frames.sampling()
    tokens.config()  # what it refuses is told before a model is loaded
    again = _resume.wants_rerank(context, rerank, is_single=question is not None and resume is None)
    if ttft is not None:
        _ttft.check(ttft, len(files) if question is not None else 1)
    name = None
    if resume is not None:
        name, model, mmproj, load = _resume.taken_up(context, resume, model, mmproj, load)
    config = load.load_config()
    generate = answer.generate_config(opt.REPL_TEMPERATURE if question is None else opt.ONE_SHOT_TEMPERATURE)

    # 2. the model, then the question or the conversation
    with _runtime.load(model, mmproj, config, **load.asking(output)) as llm, ExitStack() as stack:
        sampling = frames.sampling(llm.default_frames)
        reduction = tokens.for_model(llm.model)
        options: dict[str, Any] = {"tokens": reduction, "generate": generate, "sampling": sampling}
        options["system"], conversation = answer.system, None
        if resume is not None:
            conversation = stack.enter_context(llm.load_chat(resume, generate, sampling, rerank=again))
            if not output.quiet:
                _log.say(f"{resume}: {len(conversation.messages)} messages, {conversation.used} tokens in the context")
        elif question is None:
            conversation = stack.enter_context(llm.chat(**options, rerank=again is not False))
        target = _ttft.Target(llm, ttft, reduction, quiet=output.quiet) if ttft is not None else None
        if question is None:
            from . import _repl

            assert conversation is not None, "made or taken up"
            _repl.run(conversation, name or llm.name, files, stats=stats, quiet=output.quiet, target=target)
            return
        choice = target.choose(question, files, options, conversation) if target else None
        ask = conversation.ask if conversation else partial(llm.generate, **options)
        told = partial(target.after, [choice]) if target and choice else None
        ask_once(llm, ask, question, files, stats=stats, output=output, choice=choice, told=told)
