"""The typer application: its commands, and the one place where errors become a line and an exit code.

Exit codes: 0 done, 1 our error, 2 bad usage, 130 interrupted, 143 terminated (SIGTERM), 129 SIGHUP. Knows nothing of
what the commands do.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from aim_local import interrupts

from . import (
    _log,
    _out,
    _signals,
    bench,
    cache,
    chat,
    compare,
    completion,
    convert,
    doctor,
    explain,
    models,
    plan,
    pull,
    quantize,
    rpc_server,
    run,
    serve,
    watch,
)
from ._groups import flat
from ._interrupt import INTERRUPTIONS, is_interruption


class AimGroup(TyperGroup):
    """A command group that ends every failure the same way: one line on stderr, an exit code, no traceback."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        code = self._guarded(list(sys.argv[1:] if args is None else args), prog_name or completion.PROGRAM, **extra)
        if standalone_mode:
            sys.exit(code)
        return code

    def _main_shell_completion(self, ctx_args: Any, prog_name: str, complete_var: str | None = None) -> None:
        """Answers a shell that asks what can stand next (completion.py), whatever the program is called as."""
        if os.environ.get(completion.VARIABLE):
            from typer._completion_classes import completion_init

            completion_init()
        super()._main_shell_completion(ctx_args, completion.PROGRAM, completion.VARIABLE)

    def _guarded(self, args: list[str], name: str, **extra: Any) -> int:
        """As `main` of typer, which makes a silent 130 of what interrupts it before the command begins or behind it."""
        _log.reset()
        try:
            self._main_shell_completion(extra, name)
            try:
                with self.make_context(name, args, **extra) as ctx:
                    code = self.invoke(ctx)
            except typer.Exit as e:  # --help, for one
                code = e.exit_code
            if sys.stdout is not None:  # closed by the caller (>&-)
                sys.stdout.flush()
            return code if isinstance(code, int) else 0
        except BaseException as e:
            return report(e, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """A clip in the place of a command is told what to do with it."""
        from ._media import has_media_suffix

        word = args[0]
        if word not in self.commands and not word.startswith("-") and has_media_suffix(word):
            from aim_local.errors import UsageError
            from aim_local.visible import shell_word

            raise UsageError(f"{word!r} is no command; to ask about a clip: `aim-local chat {shell_word(word)}`")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        from aim_local.native.openmp import check_environment
        from aim_local.native.room import check_start

        try:
            check_start()
            check_environment()
            return super().invoke(ctx)
        except BrokenPipeError as e:  # typer would make other exit codes of these
            return report(e)
        except INTERRUPTIONS as e:
            return report(e)


def report(e: BaseException, args: Sequence[str] = ()) -> int:
    """Tell the user what went wrong; returns the exit code. args: the command line."""
    if isinstance(e, SystemExit) and not isinstance(e.__context__, BrokenPipeError):
        return e.code if isinstance(e.code, int) else int(e.code is not None)
    if isinstance(e, BrokenPipeError | SystemExit):  # typer turns the first into the second while it prints help
        close_stdout()
        return 0
    if is_interruption(e):
        words, code = interrupts.ending()
        _log.say(words)
        return code
    if isinstance(e, OSError):
        close_stdout()  # it may be what failed, and would fail again at exit
    if _log.debug:
        _log.trace(e)
    message, code = describe(e)
    _log.error(f"{message}{file_hint(args)}" if code == 2 else message)
    return code


def describe(e: BaseException) -> tuple[str, int]:
    """(one line, exit code) for an exception."""
    from aim_local.errors import AimError, is_out_of_files, is_out_of_memory

    if is_out_of_files(e):
        return _no_more_files(), 1
    if isinstance(e, AimError):
        return str(e), e.exit_code
    # typer's own errors; older typers take them from click, newer ones carry a copy: told by what they offer
    if hasattr(e, "format_message") and hasattr(e, "exit_code"):
        return f"{_usage(e)}{help_hint(e)}", int(e.exit_code)
    if is_out_of_memory(e):
        return f"not enough memory{_limit()}; use a smaller --ctx, fewer frames or a more strongly quantised model", 1
    if isinstance(e, UnicodeError):
        return _unwritable(e), 1
    if isinstance(e, OSError) and e.errno == errno.ENAMETOOLONG:
        name = str(e.filename or "what was given")
        return f"{name if len(name) <= 80 else f'{name[:60]}...'}: the name is too long; give a shorter one", 2
    if isinstance(e, OSError) and e.strerror:
        return f"{e.filename or 'writing the output'}: {e.strerror}; check the disk and permissions", 1
    text = " ".join(str(e).split())
    hint = "" if _log.debug else "; run again with --debug for details"
    return f"internal error: {type(e).__name__}{': ' + text if text else ''}{hint}", 1


def _limit() -> str:
    """That there is a limit which can be raised, where there is one."""
    from aim_local.native.room import address_room

    return "" if address_room() is None else " is allowed to this process (ulimit -v, -d)"


def _no_more_files() -> str:
    from aim_local.native.room import open_files

    n = open_files()
    may = "" if n is None else f": this process may have {n} (ulimit -n)"
    return f"too many files are open{may}; raise the limit, as with `ulimit -n 256`, or close other programs"


def _unwritable(e: UnicodeError) -> str:
    """For a text that an encoding cannot hold, or bytes that are none of it, where nobody has told so before."""
    encoding, what = getattr(e, "encoding", "?"), getattr(e, "object", "")
    shown = f"{what!r:.80}" if isinstance(what, str | bytes) else "a text"
    return (
        f"{shown} cannot be written or read as {encoding}; rename the file, write the text in UTF-8, or set "
        "PYTHONUTF8=1 where the system's own encoding is another"
    )


def _usage(e: Any) -> str:
    return str(e.format_message()).strip().rstrip(".").replace(": Value error, ", ": ")


def help_hint(e: Any) -> str:
    ctx = getattr(e, "ctx", None)
    return f"; see `{ctx.command_path} --help`" if ctx is not None else ""


def file_hint(args: Sequence[str]) -> str:
    """For a file that is named as an option."""
    named = [arg for arg in args if arg.startswith("-") and "." in arg and os.path.isfile(arg)]
    return f"; write ./{named[0]} for the file" if named else ""


def close_stdout() -> None:
    """The reader has gone: what Python still holds goes nowhere, else it complains while shutting down."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # stdout may have no file (a test), or be closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    cls=AimGroup,
    name="aim-local",
    no_args_is_help=False,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        _out.own(f"aim-local {version('aim-local')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Ask questions about videos and pictures, on this machine.

    \b
    aim-local chat clip.mp4                         talk about a clip
    aim-local chat MODEL clip.mp4 -p "What happens?"
    aim-local models --known                        which models can be had
    """
    if ctx.invoked_subcommand is None:
        _out.own(ctx.get_help())


for _command in (
    chat.chat,
    watch.watch,
    serve.serve,
    explain.explain,
    run.run,
    compare.compare,
    convert.convert,
    quantize.quantize,
    pull.pull,
    models.models,
    cache.cache,
    plan.plan,
    doctor.doctor,
    bench.bench,
    rpc_server.rpc_server,
    completion.completion,
):
    app.command()(flat(_command))


def execute() -> int:
    """The command line of this process; its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an answer may hold what a terminal's encoding does not
    from aim_local.native import aborts  # here: shell completion has no need of it

    aborts.exit_with(1)
    group: Any = typer.main.get_command(app)
    try:
        interrupts.listen()
        _signals.listen()
        code: int = group.main(prog_name=completion.PROGRAM, standalone_mode=False)
    except KeyboardInterrupt as e:  # before the command began, or behind its end
        return report(e)
    return code
