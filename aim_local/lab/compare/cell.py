"""One cell in a process of its own: gets a job, loads the model once, answers, appends a line per item.

Started by process.py as `python -m aim_local.lab.compare.cell`. Says what is done or why it cannot go on; ends with its
parent. Which items are left, and what the results mean, is the runner's business.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...batch.files import append_line
from ...child import Message, Parent, reason_of
from ...config import GenerateConfig
from ...errors import AimError, ModelError
from ...settings import parse_setting
from ...store.files import replaced
from .job import Job, Task, task_from
from .records import ItemResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ...llm import VisionLLM
    from ...results import Scored


def main() -> int:
    parent = Parent()
    inbox = parent.inbox()
    job = Job.from_dict(next(inbox))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        if job.options.memory_limit:
            limit_memory(job.options.memory_limit)
        run(job, _tasks(job, inbox), parent)
    except BaseException as e:
        parent.say(event="failed", reason=reason_of(e))
        traceback.print_exc()
        return 1
    return 0


def limit_memory(n_bytes: int) -> None:
    """Raises AimError where the system has no such limit."""
    try:
        import resource
    except ImportError as e:
        raise AimError("a memory limit is not available on this system; drop memory_limit") from e
    resource.setrlimit(resource.RLIMIT_AS, (n_bytes, n_bytes))


def _tasks(job: Job, inbox: Iterator[Message]) -> Iterator[Task]:
    """The job's own, then those that come."""
    yield from job.tasks
    if job.stays:
        yield from (task_from(message["task"]) for message in inbox)


def run(job: Job, tasks: Iterable[Task], parent: Parent) -> None:
    """Answers every task; each line is on the disk before it is announced."""
    from ... import store
    from ...engine.model import Model
    from ...engine.plan import check_tokens
    from ...llm import VisionLLM
    from ...native.log import echo_native_log

    echo_native_log(errors_only=True)  # the last words of a process that dies
    paths = store.ModelPaths(job.name, job.model, job.mmproj)
    with VisionLLM(Model.open(paths, job.options.load)) as llm, open(job.results, "ab") as file:
        check_tokens(llm.model, parse_setting(job.setting))
        for k, task in enumerate(tasks):
            try:
                result = answer(llm, job, task, first=k == 0)
            except AimError as e:
                raise type(e)(f"item {task.item.id}: {e}") from e
            append_line(job.results, file.fileno(), result.to_dict())
            parent.say(event="item", row=result.to_dict() if job.stays else None)


def answer(llm: VisionLLM, job: Job, task: Task, *, first: bool) -> ItemResult:
    """The greedy answer of one task, what is scored of it, and how far it is from the reference."""
    from ..measure import peak_rss_bytes
    from .questions import is_right

    item, scored = task.item, ask(llm, job, task)
    given = scored.answer
    said = likeliest_letter(llm, scored.logits[0], task) if item.choices else given.text
    kld, top1 = _compare(job, task, scored) if job.role == "paired" else (None, None)
    if job.role == "reference":
        _write_logits(logits_path(job.logits, task.n), scored, job.options.kld_tokens)
    return ItemResult(
        id=item.id,
        text=given.text,
        tokens=given.tokens,
        scored=said,
        right=None if item.answer is None else is_right(item, said),
        kld=kld,
        top1=top1,
        stats=given.stats.to_dict(),
        first=first,
        peak_rss_bytes=peak_rss_bytes(),
    )


def ask(llm: VisionLLM, job: Job, task: Task) -> Scored:
    from ...media import FrameSampling
    from .questions import prompt_of

    item, options = task.item, job.options
    n_frames = options.n_frames or llm.default_frames or None
    sampling = None
    if n_frames:
        sampling = FrameSampling(n_frames=n_frames, start=item.start, end=item.end, pick=options.pick)
    scored = llm.score(
        prompt_of(item),
        item.media,
        None if job.role == "reference" else task.forced,
        tokens=parse_setting(job.setting),
        generate=GenerateConfig(max_tokens=options.max_tokens),
        n_own=max(0, options.kld_tokens - 1) if job.role == "reference" else None,
        sampling=sampling,
    )
    _check_finite(scored.logits)
    return scored


def _check_finite(logits: NDArray[np.float32]) -> None:
    import numpy as np

    if not np.isfinite(logits).all():
        raise ModelError("the next-token logits are not finite numbers; the weights are damaged, convert them again")


# --- choices --------------------------------------------------------------------------------------------------------


def likeliest_letter(llm: VisionLLM, logits: NDArray[np.float32], task: Task) -> str:
    """The choice whose letter has the most probability as the first token, with and without a space before it."""
    import numpy as np

    from .questions import letters

    tokens = letter_tokens(llm, letters(task.item))
    weights = {letter: np.logaddexp.reduce(logits[list(ids)].astype(np.float64)) for letter, ids in tokens.items()}
    return max(weights, key=lambda letter: float(weights[letter]))


def letter_tokens(llm: VisionLLM, choices: tuple[str, ...]) -> dict[str, set[int]]:
    """First tokens of each letter. Raises ModelError where two letters begin alike in this vocabulary."""
    found = {letter: _first_tokens(llm, letter) for letter in choices}
    if sum(len(ids) for ids in found.values()) != len(set().union(*found.values())):
        raise ModelError(f"the vocabulary has no tokens of their own for the letters {', '.join(choices)}")
    return found


def _first_tokens(llm: VisionLLM, letter: str) -> set[int]:
    forms = [llm.text.tokenize(form, start=False, special=False) for form in (letter, f" {letter}")]
    return {form[0] for form in forms if len(form) == 1} or {forms[0][0]}


# --- divergence -----------------------------------------------------------------------------------------------------


def logits_path(folder: Path, n: int) -> Path:
    return folder / f"{n}.npy"


def _write_logits(path: Path, scored: Scored, n_max: int) -> None:
    """One row per token of the answer, end of turn included: float32 [min(n_max, n), n_vocab]."""
    import numpy as np

    if n_max == 0:
        return
    own = scored.answer
    n_rows = len(own.tokens) + (own.stats.stop_reason == "eos")
    with replaced(path) as partial, open(partial, "wb") as file:
        np.save(file, scored.logits[: min(n_max, n_rows)])


def _compare(job: Job, task: Task, scored: Scored) -> tuple[list[float], list[bool]]:
    """KL divergence from the reference and top-1 agreement, row by row."""
    import numpy as np

    from .metrics import kl_divergence, top1_equal

    reference = np.load(logits_path(job.logits, task.n))
    here = scored.logits[: len(reference)]
    kld, top1 = kl_divergence(reference, here), top1_equal(reference, here)
    return [float(value) for value in kld], [bool(value) for value in top1]


if __name__ == "__main__":
    sys.exit(main())
