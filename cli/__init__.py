"""The command line: parse, call the library, print. `aim-local` runs `main`.

Modules that start with an underscore are shared; every other one is a command. Nothing heavy is imported here:
`aim-local --help` answers at once.
"""

from ._app import app, main

__all__ = ["app", "main"]
