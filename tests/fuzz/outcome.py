"""What reading one file came to: an answer, one clear line, or a finding with its place in the code.

Findings of the same kind at the same place are one finding.
"""

from __future__ import annotations

import re
import time
import traceback
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
ANSWER, REFUSED = "answer", "refused"  # passes
KINDS = ("signal", "traceback", "hang", "memory", "wrong", "line", "report")  # findings; the last: of a sanitizer
MAX_LINE = 1000  # characters of an error
LAST_LINES = 12
IN_A_DUMP = re.compile(r'File "([^"]+)", line \d+ in (\S+)')  # as faulthandler writes a frame
OURS = ("aim_local/", "cli/", "convert/")


@dataclass(frozen=True)
class Outcome:
    """kind: a pass or one of KINDS. place: of a finding. told: the error's line, or the last lines of a report."""

    kind: str
    place: str = ""
    told: str = ""
    seconds: float = 0.0
    mib: float = 0.0  # that the process grew by

    @property
    def passed(self) -> bool:
        return self.kind in (ANSWER, REFUSED)


def outcome_of(read: Callable[[Path], None], path: Path) -> Outcome:
    """Of a call in this process: whatever it raises, it does not get further."""
    from aim_local.errors import AimError

    begin = time.perf_counter()
    try:
        read(path)
    except AimError as error:
        line = str(error)
        fault = fault_of_line(line)
        kind, place, told = ("line", f"{fault}, {place_of(error)}", repr(line)) if fault else (REFUSED, "", line)
    except BaseException as error:  # SystemExit and KeyboardInterrupt are findings, too
        last = frames_of(error.__traceback__)[-1]
        wrong = isinstance(error, AssertionError) and last.startswith("tests/")
        kind, place = "wrong" if wrong else "traceback", f"{type(error).__name__}, {place_of(error)}"
        told = "".join(traceback.format_exception(error)).strip()
        told = "\n".join(told.splitlines()[-LAST_LINES:])
    else:
        kind, place, told = ANSWER, "", ""
    return Outcome(kind, place, told, time.perf_counter() - begin)


def fault_of_line(line: str) -> str:
    """Why an error is not one clear line; "" where it is."""
    if not line.strip():
        return "empty"
    if len(line) > MAX_LINE:
        return f"over {MAX_LINE} characters"
    if len(line.splitlines()) > 1:
        return "several lines"
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in "\u202d\u202e" for c in line):
        return "control characters"
    return ""


def place_of(error: BaseException) -> str:
    """The last function of ours, and the last of all where that is another's; of a stated cause, too."""
    own = place(frames_of(error.__traceback__))
    return f"{own} from {place_of(error.__cause__)}" if isinstance(error, AssertionError) and error.__cause__ else own


def place(frames: list[str]) -> str:
    """frames: the last one last."""
    own = [frame for frame in frames if frame.startswith(OURS)]
    ends = [own[-1], frames[-1]] if own else frames[-1:]
    return " > ".join(dict.fromkeys(ends))


def frames_of(end: TracebackType | None) -> list[str]:
    found = [frame_name(f.f_code.co_filename, f.f_code.co_name) for f, _ in traceback.walk_tb(end)]
    return found or ["nowhere"]


def frame_name(file: str, function: str) -> str:
    path = Path(file)
    resolved = path.resolve()
    if resolved.is_relative_to(ROOT) and ".venv" not in resolved.parts:
        return f"{resolved.relative_to(ROOT).as_posix()}:{function}"
    return f"{path.parent.name}/{path.name}:{function}"


def place_in_log(log: str) -> str:
    """Of a process that ended: the line of who ended it, and the function that it was in, from faulthandler's dump."""
    lines = [line.strip() for line in log.splitlines()]
    told = [line for line in lines if re.search(r"GGML_ASSERT|ERROR: \w+Sanitizer|runtime error:|what\(\):", line)]
    dump = (
        log[log.rfind("most recent call first") :]
        if "Current thread" not in log
        else log[log.rfind("Current thread") :]
    )
    frames = [frame_name(file, function) for file, function in IN_A_DUMP.findall(dump)]
    where = place(frames[::-1]) if frames else "nowhere"
    said = re.sub(r"0x[0-9a-f]+|==\d+==", "", told[0]) if told else ""
    return ", ".join(part for part in (said, where) if part)
