"""What a target is: a reader of files, small valid files for it, and a way to damage one.

A file in targets/ has

- `SUFFIXES`: of its files;
- `seeds(folder)`: writes small valid files of our own making there and returns their paths.
  Those kept in corpus/NAME/ are added;
- `mutate(data, rng)`: one damage that knows the format (a type, a length, a value, a name), from its arguments alone;
- `read(path)`: what a user does with such a file, as deep as it goes. `AimError` passes where it is one clear line.
  Any other exception, a signal, more than 20 s, too much memory and a failed `assert` (an answer that is silently wrong
  or not finite) are findings;
- `MEMORY_MIB`, where one read may need more or less than DEFAULT_MEMORY_MIB;
- `SHORT`, where the suite's short run should try more or fewer mutants than DEFAULT_SHORT.

Which mutant has which number is decided here, so that a number is enough to make it again.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzz import sanitizer

HERE = Path(__file__).resolve().parent
CORPUS, FINDINGS, TARGETS = HERE / "corpus", HERE / "findings", HERE / "targets"
DEFAULT_MEMORY_MIB, DEFAULT_SHORT = 512, 25
DAMAGES = (1, 1, 1, 2, 3)  # how many a mutant has, drawn from these


@dataclass(frozen=True)
class Target:
    name: str
    suffixes: tuple[str, ...]
    seeds: Callable[[Path], list[Path]]
    mutate: Callable[[bytes, random.Random], bytes]
    read: Callable[[Path], None]
    memory_mib: int
    short: int

    def all_seeds(self, folder: Path) -> list[Path]:
        """Made in `folder`, and kept in the corpus."""
        folder.mkdir(parents=True, exist_ok=True)
        return [*self.seeds(folder), *files_in(CORPUS / self.name, self.suffixes)]

    def mutant(self, files: Sequence[Path], seed: int, number: int) -> tuple[bytes, str]:
        """Its bytes and its suffix."""
        rng = random.Random(f"{self.name} {seed} {number}")
        source = rng.choice(files)
        data = source.read_bytes()
        for _ in range(rng.choice(DAMAGES)):
            data = self.mutate(data, rng)
        return data, suffix_of(source, self.suffixes)


def load(name: str) -> Target:
    module = importlib.import_module(f"fuzz.targets.{name}")
    return Target(
        name,
        tuple(module.SUFFIXES),
        module.seeds,
        module.mutate,
        module.read,
        round(getattr(module, "MEMORY_MIB", DEFAULT_MEMORY_MIB) * sanitizer.SLOWER),
        getattr(module, "SHORT", DEFAULT_SHORT),
    )


def names() -> list[str]:
    """Of all targets."""
    return sorted(path.stem for path in TARGETS.glob("*.py") if not path.stem.startswith("_"))


def files_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name.endswith(suffixes))


def suffix_of(path: Path, suffixes: tuple[str, ...]) -> str:
    """With the dot in front, whether or not the target's has it."""
    found = max((s for s in suffixes if path.name.endswith(s)), key=len, default=path.suffix)
    return f".{found.removeprefix('.')}"
