"""docs/method.md: the code it names is there, and it has the figures that the planner reproduces."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from test_planner import FIGURES

ROOT = Path(__file__).parent.parent
METHOD = (ROOT / "docs/method.md").read_text(encoding="utf-8")


def section(title: str) -> list[list[str]]:
    """Cells of the first table below a heading, without its head."""
    lines = METHOD.split(f"## {title}\n")[1].splitlines()
    rows = [line for line in lines[: next(i for i, x in enumerate(lines) if x[:3] == "## ")] if line[:1] == "|"]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_doc_names_native_code_that_exists() -> None:
    overlay = ROOT / "patches/overlay"
    sources = "".join(path.read_text(encoding="utf-8") for path in overlay.rglob("*.[ch]*"))
    for cell in [row[2] for row in section("Formulas")]:
        for name in re.findall(r"`([^`]+)`", cell):
            exists = (overlay / name).is_file() if "/" in name else re.search(rf"\b{name.split('::')[-1]}\b", sources)
            assert exists, name


def test_doc_names_python_code_that_exists() -> None:
    named = re.findall(r"`((?:native|reduction|models|engine)\.\w+)\.([\w.]+)", METHOD)
    assert len(named) > 10
    for module, name in named:
        found = importlib.import_module(f"aim_local.{module}")
        for part in name.split("."):
            found = getattr(found, part)


def test_doc_has_the_figures() -> None:
    shown = [(float(row[4]), None if row[5] == "-" else float(row[5])) for row in section("FLOPs")]
    assert sorted(map(str, shown)) == sorted(str((tflop, ms)) for _, _, tflop, ms in FIGURES.values())
