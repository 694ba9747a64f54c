"""`aim-local run`: a file of questions over many clips, by several workers, taken up where it stopped."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aim_local.errors import AimError, SuiteError, UsageError

from . import _hub, _log, _out
from . import _options as opt
from ._interrupt import INTERRUPTIONS

if TYPE_CHECKING:
    from aim_local.batch.job import Settings
    from aim_local.batch.questions import Asked
    from aim_local.batch.run import Summary, Workers
    from aim_local.store import ModelPaths

_QUESTIONS_HELP = 'A JSONL file: a line {"video": "clip.mp4", "question": "..."} for each question (docs/run.md).'
_OUT_HELP = "A line for each question, in their order. Times go to FILE.stats beside it."
_WORKERS_HELP = "Processes on this machine; each loads the model, and they divide the cores."
_SKIP_HELP = "Go on without lines that cannot be asked; each is an error in the answers."
_AGAIN_HELP = "Ask again what ended in an error in an earlier run."
_SHOWN = 20  # bad lines that are told


def run(
    *,
    questions: Annotated[Path, typer.Argument(help=_QUESTIONS_HELP, metavar="QUESTIONS.jsonl", show_default=False)],
    model: opt.ModelArg = None,
    out: Annotated[Path, opt.file(_OUT_HELP, "ANSWERS.jsonl", "--out")],
    workers: Annotated[int, opt.whole(_WORKERS_HELP)] = 1,
    cluster: opt.Cluster = None,
    skip_bad: Annotated[bool, opt.flag(_SKIP_HELP, "--skip-bad")] = False,
    retry_errors: Annotated[bool, opt.flag(_AGAIN_HELP, "--retry-errors")] = False,
    mmproj: opt.Mmproj = None,
    frames: opt.FrameOptions,
    tokens: opt.TokenOptions,
    load: opt.LoadOptions,
    answer: opt.AnswerOptions,
    output: opt.OutputOptions,
) -> None:
    """Answer a file of questions about many clips.

    Answers are kept in --out as they come: the same command again goes on where an interrupted one stopped. A clip
    that fails is a line with "error"; the others go on, and the exit code is 1.
    """
    # 1. everything that can be wrong without the model
    if workers < 1:
        raise UsageError(f"--workers is {workers}; give 1 or more")
    if cluster is not None and workers != 1:
        raise UsageError("--workers is for this machine; drop it with --cluster, whose workers are there already")
    settings = _settings(frames, tokens, load, answer)
    asked = _read(questions, skip_bad=skip_bad, here=cluster is None)
    _hub.ready(model, **load.asking(output))
    from aim_local import store

    paths = store.resolve(model, mmproj)

    # 2. the answers
    from aim_local.batch.run import run as run_batch

    from ._run_progress import RunProgress

    with RunProgress(output.quiet) as watch, ExitStack() as stack:
        try:
            if cluster is not None:
                asked, who = _on_cluster(cluster, questions, asked, paths, settings, stack, skip_bad=skip_bad)
            else:
                who = _here(paths, settings, workers)
            summary = run_batch(asked, out, paths, settings, who, again=retry_errors, watch=watch)
        except INTERRUPTIONS:
            watch.stop()
            _log.say(f"what is answered is kept in {out}; the same command goes on from there")
            raise

    # 3. how it ended
    _show(summary, output)


def _settings(
    frames: opt.FrameOptions, tokens: opt.TokenOptions, load: opt.LoadOptions, answer: opt.AnswerOptions
) -> Settings:
    """Raises UsageError."""
    from aim_local.batch.job import Settings

    frames.sampling()
    config = tokens.config()
    pick = None if frames.picking == "auto" else frames.picking  # as where nothing is said
    return Settings(
        tokens=config, weigh_if_possible=tokens.may_weigh_alike(config), frames=frames.frames, fps=frames.fps,
        start=frames.start, end=frames.end, pick=pick, system=answer.system,
        generate=answer.generate_config(), load=load.load_config(),
    )  # fmt: skip


def _read(path: Path, *, skip_bad: bool, here: bool) -> Asked:
    """here: the clips are on this machine. Raises SuiteError after a line for each one that cannot be asked."""
    from aim_local.batch.questions import check_clips, read_questions

    asked = read_questions(path)
    return _without_bad(path, check_clips(asked) if here else asked, skip_bad)


def _without_bad(path: Path, asked: Asked, skip_bad: bool) -> Asked:
    """Raises SuiteError where lines cannot be asked and --skip-bad was not given."""
    from aim_local.batch.questions import BadQuestionsError, refuse_bad

    if skip_bad:
        return asked
    try:
        refuse_bad(path, asked)
    except BadQuestionsError as e:
        for line in e.lines[:_SHOWN]:
            _log.say(line)
        if len(e.lines) > _SHOWN:
            _log.say(f"... and {len(e.lines) - _SHOWN} more")
        raise SuiteError(f"{e}: --skip-bad") from e
    return asked


def _here(paths: ModelPaths, settings: Settings, n: int) -> Workers:
    from aim_local.batch.job import job_of
    from aim_local.batch.local import LocalWorkers

    return LocalWorkers(job_of(paths, settings, share=n), n)


def _on_cluster(
    address: str, path: Path, asked: Asked, paths: ModelPaths, settings: Settings, stack: ExitStack, *, skip_bad: bool
) -> tuple[Asked, Workers]:
    """The questions whose clips all workers can read, and the workers. Raises ClusterError, SuiteError."""
    from aim_local.batch.cluster import Cluster, ClusterWorkers
    from aim_local.batch.job import job_of
    from aim_local.batch.run import model_digest

    cluster = stack.enter_context(Cluster(address))
    asked = _without_bad(path, cluster.check_clips(asked), skip_bad)
    return asked, ClusterWorkers(cluster, job_of(paths, settings), model_digest(paths))


def _show(summary: Summary, output: opt.OutputOptions) -> None:
    """Raises AimError where a question ended in an error."""
    if output.json:
        _out.json(summary.to_dict())
    elif not output.quiet:
        earlier = f" ({summary.n_earlier} of them before)" if summary.n_earlier else ""
        _log.say(f"{summary.n_answered} of {summary.n_questions} answered{earlier}: {summary.out}")
    if summary.n_errors:
        raise AimError(
            f"{summary.n_errors} of {summary.n_questions} questions ended in an error, see {summary.out}; "
            "--retry-errors asks them again"
        )
