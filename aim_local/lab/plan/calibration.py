"""How fast this machine runs a model: rates fitted to measured runs, their proof on other runs, kept in a file.

A stage's seconds are a sum of features of the run (FLOPs, rows, bytes, passes; plan/features.py) times a rate each,
none of them negative. Knows fitting, files and what makes a file stale. Measuring is plan/trials.py's business.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import store
from ...errors import AimError
from ...store.files import replaced
from ...store.names import make_folder
from ...store.plain_json import fits, read_object, record_of

FORMAT = 1
BUSY = 0.5  # spread of the rounds from which on the machine was too busy to be measured
_REWEIGHTINGS, _SMALL_ERROR = 30, 0.005
_SAME_MACHINE = ("processor", "physical_cores")
_SAME_VERSION = ("aim_local", "llama_cpp_python", "patch")

Features = Mapping[str, Mapping[str, float]]  # stage -> feature -> amount
Seconds = dict[str, float]  # by stage
_KINDS: dict[str, Any] = {
    "model": str, "date": str, "shape": dict[str, Any], "conditions": dict[str, Any], "machine": dict[str, Any],
    "rates": dict[str, dict[str, float]],
}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One setting that was run. fitted: the rates know it; others are the proof. measured: medians of n rounds.

    spread: of the rounds' times to the first token, (largest - least) / median.
    """

    name: str
    fitted: bool
    n: int
    spread: float
    measured: Seconds
    predicted: Seconds = field(default_factory=dict)

    @property
    def error(self) -> float:
        """How far the predicted time to the first token is off, as a share of the measured."""
        measured = total(self.measured)
        return abs(total(self.predicted) - measured) / measured


@dataclass(frozen=True)
class Calibration:
    """rates: seconds per unit of a feature. shape: what model it is of. conditions: threads, ubatch and the like."""

    model: str
    date: str
    shape: dict[str, Any]
    conditions: dict[str, Any]
    machine: dict[str, Any]
    rates: dict[str, dict[str, float]]
    trials: tuple[Trial, ...]
    format: int = FORMAT

    @property
    def proof(self) -> list[Trial]:
        return [trial for trial in self.trials if not trial.fitted]

    @property
    def median_error(self) -> float:
        return statistics.median(trial.error for trial in self.proof)

    @property
    def median_spread(self) -> float:
        return statistics.median(trial.spread for trial in self.trials)

    @property
    def was_busy(self) -> bool:
        """Whether the runs differed so much that the rates say more about other work than about this."""
        return self.median_spread > BUSY

    @property
    def age_days(self) -> float:
        return (datetime.now(UTC) - datetime.fromisoformat(self.date)).total_seconds() / 86400

    def predict(self, features: Features) -> Seconds:
        return predict(self.rates, features)

    def stale_reason(self, machine: Mapping[str, Any], conditions: Mapping[str, Any]) -> str:
        """Why it says nothing about runs here and now, "" if it does."""
        for keys, where, now in (
            (_SAME_MACHINE, self.machine, machine),
            (_SAME_VERSION, self.machine, machine),
            (tuple(conditions), self.conditions, conditions),
        ):
            for key in keys:
                if where.get(key) != now.get(key):
                    return f"it was made with {key} {where.get(key)!r}, here it is {now.get(key)!r}"
        return ""

    def to_dict(self) -> dict[str, Any]:
        trials = [{**asdict(trial), "error": trial.error} for trial in self.trials]
        return {
            **asdict(self),
            "trials": trials,
            "median_error": self.median_error,
            "median_spread": self.median_spread,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        """Raises KeyError, TypeError or ValueError for anything but what to_dict wrote."""
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r}, known is {FORMAT}")
        trials = tuple(record_of(Trial, {k: v for k, v in trial.items() if k != "error"}) for trial in data["trials"])
        for name, kind in _KINDS.items():
            if not fits(data[name], kind):
                raise ValueError(f"{name} is {data[name]!r:.60}")
        found = cls(**{name: data[name] for name in _KINDS}, trials=trials)
        if not found.proof:
            raise ValueError("no trials beside those it was fitted to")
        if not fits(data["shape"].get("n_params"), int) or data["shape"]["n_params"] < 1:
            raise ValueError(f"n_params is {data['shape'].get('n_params')!r:.60}")
        if not all(trial.measured and total(trial.measured) > 0 for trial in trials):
            raise ValueError("a trial took no time")
        _ = found.age_days
        return found


def total(seconds: Mapping[str, float]) -> float:
    """Seconds to the first token: every stage but the decoding of later tokens."""
    return sum(value for stage, value in seconds.items() if stage != "decode")


def predict(rates: Mapping[str, Mapping[str, float]], features: Features) -> Seconds:
    return {
        stage: sum(rates.get(stage, {}).get(name, 0.0) * amount for name, amount in amounts.items())
        for stage, amounts in features.items()
    }


# --- fitting ---------------------------------------------------------------------------------------------------------


def fit(features: Sequence[Features], measured: Sequence[Seconds]) -> dict[str, dict[str, float]]:
    """Rates of every stage, the sum of absolute relative errors least: one disturbed setting does not bend them."""
    return {stage: _fit_stage(stage, features, measured) for stage in features[0]}


def _fit_stage(stage: str, features: Sequence[Features], measured: Sequence[Seconds]) -> dict[str, float]:
    names = list(features[0][stage])
    pairs = [(f[stage], m[stage]) for f, m in zip(features, measured, strict=True) if m.get(stage, 0.0) > 0]
    if not pairs:
        return dict.fromkeys(names, 0.0)
    rows = np.array([[f[name] / seconds for name in names] for f, seconds in pairs])
    rates = _least_absolute(rows, np.ones(len(rows)))
    return {name: float(rate) for name, rate in zip(names, rates, strict=True)}


def _least_absolute(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """The x >= 0 with the least sum of |a x - b|, nearly: least squares, reweighted by what is left of each row."""
    x = nonnegative_least_squares(a, b)
    for _ in range(_REWEIGHTINGS):
        weights = 1 / np.sqrt(np.maximum(np.abs(a @ x - b), _SMALL_ERROR))
        x = nonnegative_least_squares(a * weights[:, None], b * weights)
    return x


def nonnegative_least_squares(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """The x >= 0 with the least |a x - b|, by Lawson and Hanson's active sets. a: [n, m], b: [n] -> [m]."""
    scale = np.sqrt((a**2).sum(axis=0))
    scale[scale == 0] = 1.0
    a = a / scale
    x, active = np.zeros(a.shape[1]), np.zeros(a.shape[1], bool)
    for _ in range(3 * a.shape[1] + 3):
        gain = a.T @ (b - a @ x)
        gain[active] = -np.inf
        best = int(np.argmax(gain))
        if gain[best] <= 1e-10:
            break
        active[best] = True
        x = _settle(a, b, x, active)
    return np.asarray(x / scale)


def _settle(
    a: NDArray[np.float64], b: NDArray[np.float64], x: NDArray[np.float64], active: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Least squares over the active columns; those that would turn negative leave, the first to reach zero first."""
    while active.any():
        best = np.zeros_like(x)
        best[active] = np.linalg.lstsq(a[:, active], b, rcond=None)[0]
        below = active & (best <= 0)
        if not below.any():
            return best
        step = np.min(x[below] / np.maximum(x[below] - best[below], 1e-300))
        x = x + step * (best - x)
        active &= x > 1e-15
        x[~active] = 0.0
    return np.zeros_like(x)


# --- files -----------------------------------------------------------------------------------------------------------


def folder() -> Path:
    return store.state_folder() / "calibrations"


def save(calibration: Calibration) -> Path:
    """Writes it, in place of an older one of the same model and conditions. Raises AimError."""
    key = json.dumps([calibration.shape, calibration.conditions], sort_keys=True)
    path = folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    try:
        make_folder(path.parent)
        with replaced(path) as partial:
            partial.write_text(json.dumps(calibration.to_dict(), indent=1), encoding="utf-8")
    except OSError as e:
        raise AimError(
            f"{path}: the calibration cannot be written ({e.strerror}); check the disk and permissions"
        ) from e
    return path


def load_all() -> tuple[list[Calibration], list[str]]:
    """Every calibration, the newest first, and a line for each file that cannot be read."""
    found, broken = [], []
    for path in sorted(folder().glob("*.json")):
        try:
            found.append(Calibration.from_dict(read_object(path)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            broken.append(f"{path} is no calibration ({type(e).__name__}: {e}); delete it and calibrate again")
    return sorted(found, key=lambda c: c.date, reverse=True), broken


@dataclass(frozen=True)
class Choice:
    """What there is for a model. scaled: it is of another model, its rates are carried over. reason: why none."""

    calibration: Calibration | None
    scaled: bool = False
    reason: str = ""
    notes: tuple[str, ...] = ()


def choose(shape: Mapping[str, Any], conditions: Mapping[str, Any], machine: Mapping[str, Any], remedy: str) -> Choice:
    """The calibration to use for a model: its own, else the nearest in size, else none with the reason."""
    found, broken = load_all()
    notes = tuple(broken)
    own = [c for c in found if c.shape == shape]
    good = [c for c in found if not c.stale_reason(machine, conditions)]
    for calibration in own:
        if calibration in good:
            return Choice(calibration, notes=notes)
    stale = f"the calibration of {own[0].date[:10]} is stale: {own[0].stale_reason(machine, conditions)}" if own else ""
    if good:
        near = min(good, key=lambda c: abs(math.log(c.shape["n_params"] / shape["n_params"])))
        return Choice(near, scaled=True, reason=stale, notes=notes)
    others = "" if own or not found else f"{found[0].model}'s: {found[0].stale_reason(machine, conditions)}"
    why = stale or (f"no calibration holds here ({others})" if others else "this machine has no calibration yet")
    return Choice(None, reason=f"{why}; {remedy}", notes=notes)
