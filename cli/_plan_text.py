"""A plan and a calibration as text for people, on stdout. Knows their numbers; the numbers are aim_local.lab.plan's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _out
from ._option_names import in_options
from ._table import print_table
from ._ttft import choice_line

if TYPE_CHECKING:
    from aim_local.lab.plan import Forecast
    from aim_local.lab.plan.calibration import Calibration

_SHOWN_TIMES = 8


def plain_plan(made: Forecast) -> dict[str, Any]:
    """For --json: what it says is in the words of the command line, too."""
    found = made.to_dict()
    changes = [{**suggestion, "change": in_options(suggestion["change"])} for suggestion in found["suggestions"]]
    lines = {name: in_options(found[name]) for name in ("verdict", "advice")}
    return {**found, **lines, "suggestions": changes, "warnings": [in_options(line) for line in found["warnings"]]}


def show_plan(made: Forecast) -> None:
    _show_counts(made)
    _out.line()
    _show_stages(made)
    _out.line()
    _show_memory(made)
    _out.line()
    _show_time(made)


def _show_counts(made: Forecast) -> None:
    from aim_local.lab.plan.report import runs

    sizes = made.outcome.sizes
    for facts in made.to_dict()["media"]:
        _out.line(_media_line(facts))
    reduced = f", {sizes.n_visual} after merging" if sizes.n_visual != sizes.n_visual_full else ""
    _out.line(f"prompt      {sizes.n_text} text tokens, {sizes.n_visual_full} visual tokens{reduced}")
    layers = ", ".join(f"{value} x {n}" for value, n in runs(sizes.rows))
    _out.line(f"per layer   {layers} (tokens x layers); ranked after layers {_layers(sizes.scored)}")
    _out.line(f"context     {made.outcome.room.n_ctx} tokens")


def _media_line(facts: dict[str, object]) -> str:
    source = Path(str(facts["source"])).name
    size = f"{facts['width']}x{facts['height']}"
    times = facts.get("timestamps")
    if not isinstance(times, list):
        return f"{source}   picture, {size}"
    shown = [("?" if t is None else f"{t:.2f}") for t in times]
    if len(shown) > _SHOWN_TIMES:
        shown = [*shown[: _SHOWN_TIMES - 2], "...", shown[-1]]
    whole = "" if facts["duration"] is None else f" of {facts['duration']:.1f} s"
    return f"{source}   {size}{whole}, {facts['frames']} frames at {' '.join(shown)} s"


def _layers(scored: list[int]) -> str:
    return ", ".join(map(str, scored)) if scored else "none"


def _show_stages(made: Forecast) -> None:
    sizes, seconds = made.outcome.sizes, made.seconds
    work = {
        "decode_video": f"{sizes.n_frames} frames",
        "vision": f"{sizes.n_tiles} tiles, {_flop(sizes.flops['vision'])}",
        "merge": _flop(sizes.flops["merge"]),
        "prefill": f"{_flop(sizes.flops['prefill'])}, {sizes.flops['prefill'] / sizes.flops['full']:.1%} of unreduced",
        "importance": f"{len(sizes.scored)} layers, {_flop(sizes.flops['importance'])}" if sizes.scored else "-",
    }
    names = ("decode_video", "preprocess", "vision", "merge", "prefill", "importance", "other")
    rows = [(name, work.get(name, "-"), _time(seconds.get(name))) for name in names]
    print_table([("STAGE", "WORK", "TIME"), *rows, ("first token", "", _time(made.first_token_s))], right=(2,))
    if "decode" in seconds:
        _out.line(f"then {1 / seconds['decode']:.1f} tokens/s" if seconds["decode"] > 0 else "then: no time measured")


def _flop(n: float) -> str:
    for scale, unit in ((1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP")):
        if n >= scale:
            return f"{n / scale:.2f} {unit}"
    return f"{n:.0f} FLOP" if n else "-"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _show_memory(made: Forecast) -> None:
    from aim_local.lab.plan.report import gigabytes

    parts = made.outcome.memory.parts
    rows = [(name, gigabytes(n)) for name, n in parts.items() if n]
    print_table([("MEMORY", "BYTES"), *rows], right=(1,))
    held = made.outcome.room.held_bytes
    if held:
        _out.line(f"a conversation holds {gigabytes(held)} more, to rank these visual tokens again for later questions")
    _out.line(in_options(made.verdict))
    if made.advice:
        _out.line(in_options(made.advice))


def _show_time(made: Forecast) -> None:
    if made.ttft:
        _out.line("decoding runs beside the tower, so the stages may add up to more than the time to the first token")
        _out.line(choice_line(made.ttft))
        return
    found, reason = made.choice.calibration, made.choice.reason
    if found is None:
        _out.line(f"no estimate of time: {reason}")
        return
    _out.line(_quality(found))
    if made.choice.scaled:
        _out.line("that is another model: its rates are carried over by work, which is rough")
    if reason:
        _out.line(reason)


def _quality(found: Calibration) -> str:
    age = f"{found.age_days:.0f} days old" if found.age_days >= 1 else "made today"
    busy = (
        f"; the machine was busy then (runs of one setting differed by {found.median_spread:.0%}): "
        "calibrate again when it is calm"
    )
    return (
        f"times: calibration of {found.model}, {age}; on {len(found.proof)} other settings its median error was "
        f"{found.median_error:.1%}{busy if found.was_busy else ''}"
    )


def show_calibration(made: Calibration) -> None:
    from aim_local.lab.plan.calibration import total

    rows = [
        (
            t.name,
            "fitted" if t.fitted else "proof",
            _time(total(t.measured)),
            _time(total(t.predicted)),
            f"{t.error:.1%}",
        )
        for t in made.trials
    ]
    print_table([("SETTING", "", "MEASURED", "PREDICTED", "ERROR"), *rows], right=(2, 3, 4))
    _out.line(_quality(made))
