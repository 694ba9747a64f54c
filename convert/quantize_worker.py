"""The child process of quantize_text.py: one run of llama.cpp's quantiser, told as messages.

A process of its own because that call cannot be interrupted, and because a failed assertion in C++ ends the process.
Messages: {done, total, name} for each tensor, {said} for each line of errors. Its exit code is llama.cpp's status.
"""

import re
import sys

from aim_local.child import Parent, reason_of
from aim_local.errors import AimError

STEP = re.compile(r"\[\s*(\d+)/\s*(\d+)\]\s+(\S+)")


def main(src: str, dst: str, file_type: str, n_threads: str) -> int:
    parent = Parent()
    parent.end_with()
    try:
        from aim_local.native.quantize import LOG_ERROR, quantize_file  # here: it loads the library
    except AimError as e:  # not built, or not for this machine
        parent.say(said=reason_of(e))
        return 1

    def say(level: int, line: str) -> None:
        """Pass on progress and errors, drop the rest."""
        if step := STEP.search(line):
            parent.say(done=int(step[1]), total=int(step[2]), name=step[3])
        elif level == LOG_ERROR:
            parent.say(said=line.strip())

    return quantize_file(src, dst, int(file_type), int(n_threads), say)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
