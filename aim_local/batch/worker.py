"""A worker in a process of its own: loads a model once and answers questions until its parent is gone.

Started by process.py as `python -m aim_local.batch.worker`. Which questions, and where lines go, is its parent's
business.
"""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..child import Message, Parent, reason_of
from ..config import LoadConfig
from ..errors import ModelError
from .job import Job, question_from


def main() -> int:
    parent = Parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    inbox = parent.inbox()
    try:
        _work(Job.from_dict(next(inbox)), inbox, parent)
    except BaseException as e:
        parent.say(failed=reason_of(e))
        traceback.print_exc()
        return 1
    return 0


def _work(job: Job, inbox: Iterator[Message], parent: Parent) -> None:
    """Answers every question that comes. Raises what keeps the model from being loaded."""
    from .. import store
    from ..engine.model import Model
    from ..engine.plan import check_tokens
    from ..llm import VisionLLM
    from ..native.log import echo_native_log
    from .answer import answer, tokens_for

    echo_native_log(errors_only=True)  # the last words of a process that dies
    paths = store.ModelPaths(job.name, Path(job.model), Path(job.mmproj) if job.mmproj else None)
    with VisionLLM(Model.open(paths, divided(job))) as llm:
        if not llm.has_vision:
            raise ModelError(
                f"{job.name} takes text only; name a model with a vision tower, or its file with mmproj=FILE"
            )
        tokens = tokens_for(llm, job.settings)
        if tokens is not None:
            check_tokens(llm.model, tokens)
        parent.say(ready=True, notes=llm.notes)
        for message in inbox:
            start = time.perf_counter()
            line, facts = answer(llm, job.settings, question_from(message["question"]))
            parent.say(line=line, facts={**facts, "seconds": time.perf_counter() - start})


def divided(job: Job) -> LoadConfig:
    """How the model is loaded: where no threads were asked, with this worker's share of the cores."""
    from ..models.threads import physical_cores, thread_count
    from ..store.gguf_header import read_header

    load = job.settings.load
    if load.n_threads is not None or job.share == 1:
        return load
    head = read_header(Path(job.model))
    width = head.metadata.get(f"{head.architecture}.embedding_length")
    alone = thread_count(None, width) if isinstance(width, int) else physical_cores()
    return replace(load, n_threads=max(1, min(alone, physical_cores() // job.share)))


if __name__ == "__main__":
    sys.exit(main())
