"""How fast a model runs here, measured in seconds of time when it is first wanted, and kept in a file.

Beside `plan --calibrate` (calibration.py), which takes minutes and proves itself: this one is what `--ttft` needs. A
pace holds for everything that its facts say; with any other fact it is not used, and measured anew. Knows numbers and
the file; measuring is pacing.py's business.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ... import store
from ...engine.model import Model
from ...errors import AimError
from ...store.files import replaced
from ...store.names import make_folder
from ...store.plain_json import read_object, record_of
from .features import conditions, model_shape, this_machine

FORMAT = 1
Rates = dict[str, dict[str, float]]
# of a model's options: what says nothing about speed, or is counted apart
_OTHER_OPTIONS = ("n_ctx", "cache_media", "reuse_frames", "max_pixels")
_OTHER_FACTS = ("mmproj", "reuse")
_MACHINE = ("processor", "physical_cores", "aim_local", "llama_cpp_python", "patch")


@dataclass(frozen=True)
class Pace:
    """rates: by stage, seconds per unit of a feature (features.py).

    beside: how much of the shorter of decoding and encoding, which run at once, is added to the longer: 0 to 1.
    stored_s: seconds per byte of an entry of the store that is read, or written.
    """

    rates: Rates
    beside: float
    stored_s: float
    date: str

    def together(self, decoding: float, encoding: float) -> float:
        """Seconds of both at once."""
        return max(decoding, encoding) + self.beside * min(decoding, encoding)


def pace_facts(model: Model) -> dict[str, Any]:
    """All that a pace depends on, as plain values: model, machine, libraries, options; whatever options there are."""
    vision = model.vision_facts if model.tower else {}
    config = {k: v for k, v in asdict(model.config).items() if k not in _OTHER_OPTIONS}
    machine = this_machine()
    facts = {
        "shape": model_shape(model),
        "conditions": {**conditions(model), **config},
        "machine": {key: machine[key] for key in _MACHINE},
        "vision": {k: v for k, v in vision.items() if k not in _OTHER_FACTS},
    }
    plain: dict[str, Any] = json.loads(json.dumps(facts))  # as it comes out of a file
    return plain


def folder() -> Path:
    return store.state_folder() / "paces"


def _path(facts: Mapping[str, Any]) -> Path:
    """Of a model with its options, so that one that no longer holds is replaced."""
    key = json.dumps([facts["shape"], facts["conditions"]], sort_keys=True)
    return folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def load_pace(facts: Mapping[str, Any]) -> Pace | None:
    """The pace that holds for these facts. None where there is none, where it is of other facts, or damaged."""
    try:
        data = read_object(_path(facts))
        if data["format"] != FORMAT or data["facts"] != facts:
            return None
        pace = record_of(Pace, data["pace"])
        numbers = [pace.beside, pace.stored_s, *(rate for stage in pace.rates.values() for rate in stage.values())]
        return pace if all(math.isfinite(number) and number >= 0 for number in numbers) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def save_pace(facts: Mapping[str, Any], pace: Pace) -> Path:
    """Writes it, in place of an older one of the same model and options. Raises AimError."""
    path = _path(facts)
    try:
        make_folder(path.parent)
        with replaced(path) as partial:
            partial.write_text(json.dumps({"format": FORMAT, "facts": facts, "pace": asdict(pace)}, indent=1), "utf-8")
    except OSError as e:
        raise AimError(f"{path}: the pace cannot be kept ({e.strerror}); check the disk and permissions") from e
    return path


def forget_pace(facts: Mapping[str, Any]) -> None:
    """It will be measured anew."""
    with suppress(OSError):
        _path(facts).unlink(missing_ok=True)
