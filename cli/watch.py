"""`aim-local watch`: questions about a camera, a stream or a file that grows, while it goes on."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from aim_local.errors import UsageError

from . import _options as opt
from . import _runtime
from ._groups import Without
from ._question import question_from

_SOURCE_HELP = (
    "camera, camera:1 or /dev/video0; an address: rtsp://, udp://, rtp://, tcp://, http(s)://, rtmp://; or a file that "
    "is being written (MPEG-TS, MKV, fragmented MP4)."
)
_PROMPT_HELP = "The question. Default: a conversation, whose questions are about the window as it is then."
_EVERY_HELP = "With -p: an answer every so often, one line each. Default: one, when the window is full."
_FPS_HELP = "Frames taken each second. Default: 1."
_WINDOW_HELP = "How long the window is that is asked about, such as 30s. Default: --frames at --fps."
_FRAMES_HELP = "Frames in the window. Default: the model's own number, or what --window takes."
_GIVE_UP_HELP = "End when the source was away, or the file did not grow, for so long. Default: it is waited for."


def watch(
    *,
    source: Annotated[str, typer.Argument(help=_SOURCE_HELP, metavar="SOURCE", show_default=False)],
    model: opt.ModelArg = None,
    prompt: Annotated[str | None, opt.text(_PROMPT_HELP, "TEXT", "--prompt", "-p")] = None,
    every: Annotated[float | None, opt.duration(_EVERY_HELP, "--every")] = None,
    fps: Annotated[float | None, opt.number(_FPS_HELP, "--fps")] = None,
    window: Annotated[float | None, opt.duration(_WINDOW_HELP, "--window")] = None,
    frames: Annotated[int | None, opt.whole(_FRAMES_HELP, "--frames")] = None,
    give_up: Annotated[float | None, opt.duration(_GIVE_UP_HELP, "--give-up")] = None,
    mmproj: opt.Mmproj = None,
    tokens: Annotated[opt.TokenOptions, Without("window")],
    load: Annotated[opt.LoadOptions, Without("no_cache")],
    answer: opt.AnswerOptions,
    stats: Annotated[bool, opt.flag("One line of numbers after each answer.", "--stats")] = False,
    json: Annotated[bool, opt.flag("With -p: one JSON object a line for each answer.", "--json")] = False,
    output: Annotated[opt.OutputOptions, Without("json")],
) -> None:
    """Ask what a camera, a stream or a growing file shows now.

    The last frames are encoded as they come, so an answer waits for the prompt alone. A source that goes away is
    waited for. Ctrl-C ends it.
    """
    # 1. everything that can be wrong without the model
    question = None if prompt is None else question_from(prompt, None)
    if question is None and (every is not None or json):
        raise UsageError("--every and --json need a question; give it with -p")
    if every is not None and every <= 0:
        raise UsageError(f"--every is {every:g} s; it must be above 0")
    from aim_local.live import WindowSize, parse_source
    from aim_local.live.watching import LiveVideo

    from . import _live

    watched = parse_source(source)
    WindowSize.of(fps, window, frames)
    tokens.config()
    config = load.load_config()
    generate = answer.generate_config(opt.REPL_TEMPERATURE if question is None else opt.ONE_SHOT_TEMPERATURE)

    # 2. the model, the source, then the questions
    with _live.Stopping() as stopping, _runtime.load(model, mmproj, config, **load.asking(output)) as llm:
        stopping.check()
        size = WindowSize.of(fps, window, frames, default=llm.default_frames or 1)
        options: dict[str, Any] = {"tokens": tokens.for_model(llm.model), "generate": generate, "system": answer.system}
        asker = _live.Asker(llm, options, _live.Shown(watched.name, json, stats, output.quiet), stopping)
        notices = _live.Notices(output.quiet)
        with LiveVideo(llm, watched, size, give_up=give_up, say=notices.say) as live:
            if question is None:
                _live.converse(live, asker, notices, quiet=output.quiet)
            else:
                _live.lines(live, asker, question, every)
