"""`aim-local doctor`: is this installation in order, and what to do where it is not."""

from __future__ import annotations

from typing import Annotated

import typer

from ._groups import Without
from ._options import OutputOptions
from ._table import print_json


def doctor(*, output: Annotated[OutputOptions, Without("quiet")]) -> None:
    """Show what is installed, and what is wrong.

    Versions, libraries, devices; exit code 1 where something is wrong.
    """
    from aim_local.lab.doctor import examine

    report = examine()
    if output.json:
        print_json(report.to_dict())
    else:
        for section, facts in report.sections.items():
            print(f"{section}:")
            for name, value in facts.items():
                print(f"  {name:<18} {value}")
        print("problems:" if report.problems else "problems: none")
        for problem in report.problems:
            print(f"  - {problem.what}; {problem.cure}")
    if report.problems:
        raise typer.Exit(1)
