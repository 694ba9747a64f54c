"""README.md and docs/: the modules and files that they name are there, and their Python imports what there is."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "patches/README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_that_a_page_runs_are_there(page: Path) -> None:
    for module in re.findall(r"python -m (aim_local[\w.]*\w)", page.read_text(encoding="utf-8")):
        assert importlib.util.find_spec(module) is not None, module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_of_a_page_imports_what_is_there(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        for node in ast.walk(ast.parse(textwrap.dedent(block))):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


def test_the_table_of_families_is_the_registries() -> None:
    """`python -m aim_local.cli._families` makes it; every family of the converter is in it, once."""
    pytest.importorskip("torch")
    from aim_local.cli._families import table
    from aim_local.convert.families import FAMILIES as OURS
    from aim_local.convert.families import UPSTREAM
    from aim_local.models.registry import FAMILIES

    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert page.split("<!-- families -->\n")[1].split("<!-- /families -->")[0] == table()
    named = [name for family in FAMILIES for card in family.cards for name in card.converters]
    assert sorted(named) == sorted(family.name for family in (*OURS, *UPSTREAM))
