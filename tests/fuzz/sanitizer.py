"""Reports of the address, undefined-behaviour and thread sanitizers: where they are written, and what they say.

`make sanitize` preloads a sanitizer. Reports go to files, so that one of a child's child counts as well: a rehearsed
model file that ends its process is one clear line for the user, and a fault of memory all the same.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

RUNNING = "san.so" in os.environ.get("LD_PRELOAD", "")
SLOWER = 6.0 if RUNNING else 1.0  # than without: for deadlines, and for memory
LEAKS = "libasan" in os.environ.get("LD_PRELOAD", "")  # can be asked for
LOG = next((part[9:] for part in os.environ.get("ASAN_OPTIONS", "").split(":") if part.startswith("log_path=")), "")
OPTIONS = ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS")
SAID = re.compile(r"(?:ERROR|WARNING): \w+Sanitizer: (.*?)(?: on | at | \(| in |$)|runtime error: (.*)", re.MULTILINE)
_FRAME = re.compile(r"^\s+#\d+ (?:0x[0-9a-f]+ in )?(.+?) (?:/\S*/)?([\w.+-]+\.(?:c|cpp|h|hpp)):\d+", re.MULTILINE)
_MOST = 400  # lines that are kept of one


def environment(folder: Path) -> dict[str, str]:
    """Of a process whose reports, and its children's, shall lie in `folder`; nothing where no sanitizer is loaded."""
    if not RUNNING:
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    return {name: f"{os.environ.get(name, '')}:log_path={folder}/report".lstrip(":") for name in OPTIONS}


def taken(folder: Path) -> str:
    """The reports that lie there, which are removed; "" for none."""
    if not RUNNING:
        return ""
    texts = []
    for path in sorted(folder.glob("report.*")):
        texts.append(path.read_text(errors="replace").strip())
        path.unlink()
    texts = [named(text, Path(os.environ.get("AIM_LOCAL_LIB", "."))) for text in texts]
    return "\n".join("\n".join(texts).splitlines()[:_MOST])


def named(report: str, libraries: Path) -> str:
    """With functions and lines where GCC's thread sanitizer has none: of libraries that were loaded after its start."""

    def frame(match: re.Match[str]) -> str:
        library, at = match.groups()
        if not (libraries / library).is_file() or not shutil.which("addr2line"):
            return match[0]
        command = ["addr2line", "-Cfe", str(libraries / library), at]
        function, line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[:2]
        return f"{function} {line} ({library}+{at})"

    return re.sub(r"<null> <null> \(([\w.-]+)\+(0x[0-9a-f]+)\)", frame, report)


def place(report: str) -> str:
    """What it is, and in which functions: the first one, and the first of our own sources."""
    said = SAID.search(report)
    what = re.sub(r"0x[0-9a-f]+|\d{4,}", "", next(filter(None, said.groups()), "")) if said else "a report"
    frames = [f"{file}:{function.partition('(')[0]}" for function, file in _FRAME.findall(report)]
    libraries = [name for name in re.findall(r"\(([^\s()]+)\+0x[0-9a-f]+\)", report) if "san.so" not in name]
    first = frames[:1] or libraries[:1]
    own = [frame for frame in frames if frame.startswith("aim-")][:1]
    return ", ".join(dict.fromkeys([what.strip(), *first, *own]))
