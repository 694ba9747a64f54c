"""What a content part says of its sampling, checked: frames, fps, start, end, pick, and the rate of a list of pictures.

Knows numbers. Which values of them make sense together, FrameSampling knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...errors import UsageError
from ...media import FrameSampling
from ..failures import RequestError
from ..limits import Limits
from .words import beyond, value_text

FPS = (0.001, 1000.0)  # of a list of pictures


def picture_rate(asked: Mapping[str, object]) -> float | None:
    """Pictures a second of a list of pictures, None where it has no times. Raises RequestError."""
    if others := sorted(set(asked) - {"fps"}):
        raise RequestError(
            400, f"a list of pictures is used whole: leave out {others[0]}, or pictures", param=f".{others[0]}"
        )
    if "fps" not in asked:
        return None
    fps, (low, high) = asked["fps"], FPS
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not low <= fps <= high:
        message = f"fps is {value_text(fps)}; of a list of pictures it is a number from {low:g} to {high:g}"
        raise RequestError(400, message, param=".fps")
    return float(fps)


def part_sampling(asked: Mapping[str, object], base: FrameSampling | None, limits: Limits) -> FrameSampling | None:
    """The part's own values, the others from `base`; None where the part says nothing. Raises RequestError."""
    if not asked:
        return None
    numbers = {key: _number(key, asked[key]) for key in asked if key != "pick"}
    values: dict[str, Any] = {"n_frames" if key == "frames" else key: n for key, n in numbers.items()}
    if "pick" in asked:
        values["pick"] = asked["pick"]
    n_frames = values.get("n_frames")
    if n_frames == -1:
        values["n_frames"] = limits.n_frames
    elif n_frames is not None and n_frames > limits.n_frames:
        raise beyond("n_frames", f"{n_frames:,} frames are asked for", f"{limits.n_frames} are", ".frames")
    try:
        return replace(base or FrameSampling(), **values)
    except UsageError as e:
        raise RequestError(400, str(e), param=f".{next(iter(asked))}") from e


def _number(key: str, value: object) -> int | float:
    """A finite number; `frames` is a whole one. What range it may have, FrameSampling knows."""
    is_fine = isinstance(value, int if key == "frames" else int | float) and not isinstance(value, bool)
    if not is_fine or not isinstance(value, int | float) or not -(10.0**15) < value < 10.0**15:
        kind = "a whole number, or -1 for as many as are allowed" if key == "frames" else "a number"
        raise RequestError(400, f"{key} is {value_text(value)}; give {kind}", param=f".{key}")
    return value
