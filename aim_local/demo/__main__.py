"""`python -m aim_local.demo`, which `make demo` runs: what this project is, shown with the bundled toy in a minute.

The way in: arguments, exit codes, and the page of what was kept, which comes from a room above. The rest is show.py's.
"""

from __future__ import annotations

import sys

from .. import interrupts

TYPE_CHECKING = False  # as in aim_local/__init__.py
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..llm import VisionLLM
    from .sides import Case, Side


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where every answer is right, 1 where one is wrong or nothing can be shown, 130 after Ctrl-C."""
    import argparse
    from pathlib import Path

    from ..errors import AimError
    from ..visible import visible

    parser = argparse.ArgumentParser(prog="python -m aim_local.demo", description="What aim-local is, in a minute.")
    parser.add_argument("--out", type=Path, default=Path("aim-local-demo"), help="folder for the page (%(default)s)")
    parser.add_argument("--no-browser", action="store_true", help="open no browser, print the page's path only")
    asked = parser.parse_args(arguments)
    try:
        interrupts.listen()
        from .show import run  # takes its time, in which Ctrl-C may come

        return run(asked.out, write_page, may_open=not asked.no_browser)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return interrupts.ending()[1]
    except AimError as e:
        print(f"error: {visible(str(e))}", file=sys.stderr)
    except OSError as e:
        reason = f"{e.filename or asked.out}: {e.strerror or e}"
        print(f"error: {visible(reason)}; name another folder for the page with --out", file=sys.stderr)
    return 1


def write_page(llm: VisionLLM, case: Case, side: Side, out: Path) -> Path:
    """The page of which visual tokens a side kept, made of the very answer that was shown."""
    from ..lab.explain import Explanation, write_files

    if side.answer is None:
        raise AssertionError("the page is made of an answer")
    found = Explanation(llm.name, case.question, (str(case.clip),), side.tokens, "", side.answer)
    return write_files(found, {"html": out / "explain.html"})["html"]


if __name__ == "__main__":
    interrupts.run(main)
