"""`aim-local completion`: the script that lets a shell complete commands, options, models and media files."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from . import _out
from ._groups import Without
from ._options import OutputOptions

PROGRAM = "aim-local"
VARIABLE = "_AIM_LOCAL_COMPLETE"


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(help="bash, zsh or fish.", metavar="SHELL")],
    *,
    output: Annotated[OutputOptions, Without("quiet")],
) -> None:
    """Print the script that lets a shell complete words.

    Commands, options, models, media files and folders.

    \b
    bash   eval "$(aim-local completion bash)"      in ~/.bashrc
    zsh    eval "$(aim-local completion zsh)"       in ~/.zshrc, after compinit
    fish   aim-local completion fish | source       in ~/.config/fish/config.fish
    """
    script = completion_script(shell)
    if output.json:
        _out.json({"shell": shell.value, "script": script})
    else:
        _out.own(script)


def completion_script(shell: Shell) -> str:
    """typer's; in bash readline is told that these are files: it quotes blanks, and puts the slash behind a folder."""
    from typer._completion_shared import get_completion_script

    script = get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell.value)
    script = script.replace("complete -o default -F", "complete -o default -o filenames -F")
    return script.replace("    return 0", '    COMPREPLY=( "${COMPREPLY[@]%/}" )\n    return 0')
