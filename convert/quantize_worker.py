"""The child process of quantize_text.py: one run of llama.cpp's quantiser, its progress as lines on stdout.

A process of its own because that call cannot be interrupted, and because a failed assertion in C++ ends the process.
"""

import re
import sys

from aim_local.errors import AimError

PROGRESS = "@"
STEP = re.compile(r"\[\s*(\d+)/\s*(\d+)\]\s+(\S+)")


def main(src: str, dst: str, file_type: str, n_threads: str) -> int:
    try:
        from aim_local.native.quantize import LOG_ERROR, quantize_file  # here: quantize_text.py needs no library
    except AimError as e:  # not built, or not for this machine
        print(e)
        return 1

    def say(level: int, line: str) -> None:
        """Pass on progress and errors, drop the rest."""
        if step := STEP.search(line):
            print(PROGRESS, *step.groups(), flush=True)
        elif level == LOG_ERROR:
            print(line.strip(), flush=True)

    return quantize_file(src, dst, int(file_type), int(n_threads), say)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
