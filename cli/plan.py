"""`aim-local plan`: what a prompt will count, take and cost on this machine, before a model is loaded."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from aim_local.errors import UsageError

from . import _hub, _log, _out, _runtime
from . import _options as opt
from ._groups import Without
from ._plan_text import plain_plan, show_calibration, show_plan
from ._ttft import MEASURING, check

if TYPE_CHECKING:
    from aim_local.config import LoadConfig
    from aim_local.engine.model import Model
    from aim_local.lab.plan.ttft import Pacer


def plan(
    *,
    media: opt.MediaOptions,
    prompt: Annotated[str | None, opt.words("The question. Default: a short one.", "--prompt", "-p")] = None,
    mmproj: opt.Mmproj = None,
    frames: opt.FrameOptions,
    tokens: opt.TokenOptions,
    load: Annotated[opt.LoadOptions, Without("vision_reuse", "no_cache", "rpc")] = opt.MEASURED,
    answer: Annotated[opt.AnswerOptions, Without("temp", "seed")],
    ttft: opt.Ttft = None,
    calibrate: Annotated[
        bool, opt.flag("Measure this model on this machine, for estimates of time.", "--calibrate")
    ] = False,
    output: opt.OutputOptions,
) -> None:
    """Tell a prompt's tokens, memory and time before it runs.

    And whether it fits. Takes what `chat` takes and reads the heads of files only. --calibrate runs the model for
    some minutes and stores how fast it is here.
    """
    config = load.load_config()
    model, files = media.given(config.max_pixels)
    if calibrate:
        if files or prompt is not None or ttft is not None:
            brings = "--calibrate brings its own clips; drop yours, -p and --ttft, then plan with them"
            raise UsageError(brings)
        _hub.ready(model, **load.asking(output))
        _calibrate(model, mmproj, config, output)
        return
    tokens.config()  # what it refuses is told before a model is loaded
    if ttft is not None:
        check(ttft, len(files))
    frames.sampling(), answer.generate_config()
    if prompt is not None and not prompt.strip():
        raise UsageError("the question from -p is empty; give one, or drop -p for a short stand-in")
    from aim_local import store

    _hub.ready(model, **load.asking(output))
    store.resolve(model, mmproj)  # an unknown name is told before the native libraries are loaded
    from aim_local.engine.model import open_model
    from aim_local.lab.plan import Request, make_plan
    from aim_local.lab.plan.report import make_ttft_plan
    from aim_local.lab.plan.request import PLACEHOLDER

    with closing(open_model(model, mmproj, config, weights=False)) as opened:
        sampling = frames.sampling(opened.default_frames)
        question = PLACEHOLDER if prompt is None else prompt.strip()
        request = Request(question, files, tokens.for_model(opened), sampling, answer.system, answer.max_tokens)
        if ttft is None:
            made = make_plan(opened, request)
        else:
            made = make_ttft_plan(opened, _pacer(opened, config, output).choose(request, ttft))
    if output.json:
        _out.json(plain_plan(made))
        return
    show_plan(made)
    if not output.quiet:
        _log.warn(made.warnings)


def _pacer(opened: Model, config: LoadConfig, output: opt.OutputOptions) -> Pacer:
    """For a model without its weights, which are loaded where it was not measured yet."""
    from aim_local.lab.plan.ttft import Pacer, find_pace, make_pace

    pace = find_pace(opened)
    if pace is None:
        if not output.quiet:
            _log.say(MEASURING)
        paths = opened.paths
        with _runtime.load(str(paths.model), paths.mmproj, config) as llm:
            pace = make_pace(llm)
    return Pacer(opened, pace)


def _calibrate(model: str | None, mmproj: Path | None, config: LoadConfig, output: opt.OutputOptions) -> None:
    from aim_local.lab.plan import calibration
    from aim_local.lab.plan.trials import calibrate

    def progress(name: str, done: int, total: int) -> None:
        if not output.quiet and done % 5 == 0:
            _log.say(f"calibrating: {done} of {total} runs")

    with _runtime.load(model, mmproj, config) as llm:
        made = calibrate(llm, progress)
    path = calibration.save(made)
    if output.json:
        _out.json({"path": str(path), **made.to_dict()})
        return
    show_calibration(made)
    _out.line(f"stored in {path}")
