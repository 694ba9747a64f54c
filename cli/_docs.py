"""docs/cli.md from the commands themselves: `python -m aim_local.cli._docs > docs/cli.md`. A test compares the two."""

from __future__ import annotations

import inspect
from textwrap import indent
from typing import Any

import typer

from ._app import app

HEAD = """# Command line

Made by `python -m aim_local.cli._docs > docs/cli.md`; edit the help texts in `cli/`, not this file.

Exit codes: 0 done, 1 an error (one line on stderr), 2 bad usage, 130 interrupted (Ctrl-C), 143 or 129 ended by SIGTERM
or SIGHUP, in order: nothing half-written stays. Results go to stdout, all else to stderr. `AIM_LOCAL_HOME` names
another folder for models and history, `AIM_LOCAL_KERNELS` other CPU kernels.
"""


def markdown() -> str:
    group: Any = typer.main.get_command(app)
    return HEAD + "".join(_command(name, command) for name, command in group.commands.items())


def _command(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and "--help" not in p.opts]
    usage = " ".join(["aim-local", name, *map(_usage, arguments), "[OPTIONS]"])
    rows = [(f"`{_usage(p)}`", p.help) for p in arguments] + [(f"`{_option(p)}`", _help(p)) for p in options]
    table = "".join(f"| {_escape(left)} | {_escape(right)} |\n" for left, right in rows)
    return f"\n## {name}\n\n{_text(command.help)}\n\n    {usage}\n\n| | |\n|---|---|\n{table}"


def _text(help: str) -> str:
    """Paragraphs; one that keeps its lines (click's \\b) is a block of code."""
    parts = inspect.cleandoc(help).split("\n\n")
    return "\n\n".join(indent(part.removeprefix("\b\n"), "    ") if part.startswith("\b") else part for part in parts)


def _usage(argument: Any) -> str:
    shown = str(argument.metavar)
    if not argument.required and not shown.startswith("["):
        shown = f"[{shown}]"
    return shown if argument.nargs == 1 or shown.endswith("...") else f"{shown}..."


def _option(option: Any) -> str:
    names = ", ".join(sorted(option.opts, key=len))
    return names if option.is_flag else f"{names} {option.metavar}"


def _help(option: Any) -> str:
    shown = option.show_default and not option.is_flag and option.default is not None
    return f"{option.help} Default: {option.default}." if shown else str(option.help)


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(markdown(), end="")
