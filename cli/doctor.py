"""`aim-local doctor`: is this installation in order, and what to do where it is not."""

from __future__ import annotations

from typing import Annotated

import typer

from . import _out
from ._groups import Without
from ._options import OutputOptions


def doctor(*, output: Annotated[OutputOptions, Without("quiet")]) -> None:
    """Show what is installed, and what is wrong.

    Versions, libraries, devices; exit code 1 where something is wrong.
    """
    from aim_local.lab.doctor import examine

    report = examine()
    if output.json:
        _out.json(report.to_dict())
    else:
        for section, facts in report.sections.items():
            _out.line(f"{section}:")
            for name, value in facts.items():
                _out.line(f"  {name:<18} {value}")
        _out.line("problems:" if report.problems else "problems: none")
        for problem in report.problems:
            _out.line(f"  - {problem.what}; {problem.cure}")
    if report.problems:
        raise typer.Exit(1)
