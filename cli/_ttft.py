"""`--ttft`: frames and visual tokens chosen for a wanted time, told before the run, and beside what was measured after.

Knows lines and the order of a command; choosing is aim_local.lab.plan's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _log

if TYPE_CHECKING:
    from aim_local import Chat, Stats, VisionLLM, VisualTokenConfig
    from aim_local.lab.plan.ttft import TtftChoice

MEASURING = "measuring how fast this machine runs the model, for --ttft: some seconds, once"
_LEAST = 0.001  # seconds; what is left for a clip where another has taken it all
_SHOWN = ("decode_video", "vision", "prefill")
_NAMES = {"decode_video": "video"}


def check(seconds: float, n_media: int) -> None:
    """Before a model is loaded. Raises UsageError."""
    from aim_local.lab.plan.rungs import check_ttft

    check_ttft(seconds, n_media)


class Target:
    """A wanted time for one model. given: the tokens that were asked for, None leaves them open."""

    def __init__(self, llm: VisionLLM, seconds: float, given: VisualTokenConfig | None, *, quiet: bool) -> None:
        from aim_local.lab.plan.ttft import Pacer, find_pace, make_pace

        self.llm, self.seconds, self.given, self.quiet = llm, seconds, given, quiet
        pace = find_pace(llm.model)
        if pace is None:
            if not quiet:
                _log.say(MEASURING)
            pace = make_pace(llm)
        self._pacer = Pacer(llm.model, pace)

    def choose(
        self, question: str, files: Sequence[Path], options: dict[str, Any], conversation: Chat | None
    ) -> TtftChoice:
        """For one question, from now on; what is chosen goes into the options, or the conversation that is taken up.

        Raises MediaError, UsageError.
        """
        from aim_local.lab.plan import Request

        if conversation:
            choice = self.attach(conversation, files, ())
            conversation.sampling = choice.sampling
            return choice
        n_answer = options["generate"].max_tokens
        asked = Request(question, files, options["tokens"], options["sampling"], options["system"], n_answer)
        choice = self._pacer.choose(asked, self.seconds)
        options |= {"tokens": choice.tokens, "sampling": choice.sampling}
        self.tell(choice)
        return choice

    def attach(self, chat: Chat, paths: Sequence[Path], before: Sequence[TtftChoice]) -> TtftChoice:
        """For files that go with the next question of a conversation. before: what was chosen for it already.

        The first files settle which visual tokens the conversation keeps.
        """
        from aim_local.lab.plan import Request

        is_open = not chat.shows_media and not before
        left = max(_LEAST, self.seconds - sum(choice.predicted_s for choice in before))
        asked = Request(
            media=paths, tokens=self.given if is_open else chat.settled_tokens, sampling=chat.sampling,
            system=chat.system, n_answer=chat.options.max_tokens,
        )  # fmt: skip
        choice = self._pacer.choose(asked, left, choosing_counts=False)  # the user types meanwhile
        if is_open and choice.tokens is not None:
            chat.use_tokens(choice.tokens)
        self.tell(choice)
        return choice

    def tell(self, choice: TtftChoice) -> None:
        if not self.quiet:
            _log.say(choice_line(choice))

    def after(self, choices: Sequence[TtftChoice], stats: Stats, *, shown: bool) -> None:
        """What was predicted and what was measured, where numbers are shown; and whether the pace still holds."""
        from aim_local.lab.plan.ttft import review

        if not choices:
            return
        if shown:
            _log.say(outcome_line(choices, stats))
        if len(choices) == 1 and review(self.llm.model, choices[0], stats) and not self.quiet:
            _log.say("that is far off: the machine's pace will be measured anew with the next --ttft")


def choice_line(choice: TtftChoice) -> str:
    """What was chosen, and what it should take."""
    parts = [f"{choice.n_frames} frame{'s' if choice.n_frames != 1 else ''}" if choice.n_frames else ""]
    parts += [choice.setting and f"--tokens {choice.setting}", "from the cache" if choice.estimate.n_stored else ""]
    what = ", ".join(part for part in parts if part)
    stages = ", ".join(
        f"{_NAMES.get(stage, stage)} {seconds(choice.estimate.stages[stage])}"
        for stage in _SHOWN
        if choice.estimate.stages[stage] >= 0.1 * choice.estimate.total
    )
    predicted = f"predicted {seconds(choice.predicted_s)}{f' ({stages})' if stages else ''}"
    if choice.met:
        return f"ttft {seconds(choice.wanted_s)}: {what}; {predicted}"
    return f"warning: ttft {seconds(choice.wanted_s)} cannot be met; taken is the fastest there is: {what}; {predicted}"


def outcome_line(choices: Sequence[TtftChoice], stats: Stats) -> str:
    predicted = sum(choice.predicted_s for choice in choices)
    measured = sum(choice.spent_s for choice in choices) + stats.ttft_ms / 1000
    off = measured / predicted - 1
    wanted = seconds(choices[0].wanted_s)
    return f"ttft: wanted {wanted}, predicted {seconds(predicted)}, measured {seconds(measured)} ({off:+.0%})"


def seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 1 else f"{value * 1000:.0f} ms"
