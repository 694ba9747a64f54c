"""The command line: parse, call the library, print. `aim-local` runs `main`.

Modules that start with an underscore are shared; every other one is a command. Nothing is imported here but what a
Ctrl-C needs that comes while the rest is imported. Nothing heavy is imported there: `aim-local --help` answers at once.
"""

from __future__ import annotations

import os

from aim_local import interrupts

TYPE_CHECKING = False  # typing's own takes longer to import than all else before a Ctrl-C is minded
if TYPE_CHECKING:
    from typing import Any

    from ._app import app as app

__all__ = ["app", "main"]


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ._app import app

    return app


def main() -> None:
    """Entry point of `aim-local`."""
    _keep_streams()
    interrupts.run(_execute)


def _keep_streams() -> None:
    """Streams that the caller has closed lead nowhere: a file opened in their place would get what libraries write."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _execute() -> int:
    try:
        from ._app import execute

        return execute()
    except (MemoryError, ImportError, OSError, SystemError) as e:
        from aim_local.errors import is_out_of_files, is_out_of_memory

        if is_out_of_files(e):
            os.write(2, b"error: too many files are open; raise the limit, as with `ulimit -n 256`\n")
            return 1
        if not is_out_of_memory(e):
            raise
        os.write(2, b"error: not enough memory to start; raise what this process may have (ulimit -v)\n")
        return 1
