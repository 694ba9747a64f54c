"""A finding on the disk: the file that did it, and beside it what it did and the command that shows it again.

Names are made of the kind and a hash of the place, so that a finding seen twice is one pair of files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fuzz.outcome import ROOT, Outcome

_LONGEST = 400  # characters of a line of what was told


@dataclass(frozen=True)
class Finding:
    """number: of the mutant under `seed`; None where coverage guided it, so that the file alone has it."""

    target: str
    outcome: Outcome
    seed: int
    number: int | None

    @property
    def name(self) -> str:
        place = f"{self.outcome.kind} {self.outcome.place}"
        return f"{self.outcome.kind}-{hashlib.sha256(place.encode()).hexdigest()[:10]}"

    def save(self, folder: Path, data: bytes, suffix: str) -> Path:
        """Below folder/TARGET/, whole or not at all; the first of its name stays."""
        path = folder / self.target / f"{self.name}{suffix}"
        note = path.with_name(f"{path.name}.json")
        if note.exists():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        shown = path.resolve()
        shown = shown.relative_to(ROOT) if shown.is_relative_to(ROOT) else shown
        told = {
            "kind": self.outcome.kind,
            "place": self.outcome.place,
            "seed": self.seed,
            "number": self.number,
            "seconds": round(self.outcome.seconds, 2),
            "mib": round(self.outcome.mib),
            "again": f"PYTHONPATH=tests python -m fuzz --target {self.target} --replay {shlex.quote(str(shown))}",
            "told": [line[:_LONGEST] for line in without_folders(self.outcome.told).splitlines()],
        }
        part = note.with_name(f".{note.name}.part")
        part.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        os.replace(part, note)
        return path


def without_folders(text: str) -> str:
    """A report without those of the machine that wrote it."""
    for folder, short in ((ROOT, ""), (sys.prefix, ""), (sys.base_prefix, ""), (tempfile.gettempdir(), "TMP/")):
        text = text.replace(f"{folder}{os.sep}", short)
    return text


def noted(path: Path) -> bool:
    """Is it the note beside a finding's file?"""
    return path.suffix == ".json" and path.with_suffix("").exists()
