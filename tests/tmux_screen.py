"""A program on a real terminal: tmux shows what a person would see, in columns and lines."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

DEADLINE = 120.0  # seconds; only to end a hang


class Screen:
    """A tmux session of its own server; `folder` is the working directory and where the server's socket is."""

    def __init__(self, command: list[str], folder: Path, width: int, height: int = 60) -> None:
        self._tmux = ["tmux", "-f", os.devnull, "-S", str(folder / "tmux")]
        env = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        size = ["-x", str(width), "-y", str(height)]
        # the last line keeps the screen when the program has ended
        program = f'stty -echo; {shlex.join(command)}; echo "(left with $?)"; cat'
        subprocess.run(
            [*self._tmux, "new-session", "-d", *size, "-c", str(folder), program], env=env, check=True, timeout=DEADLINE
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self._run("kill-server")

    def _run(self, *words: str) -> str:
        done = subprocess.run([*self._tmux, *words], capture_output=True, text=True, timeout=DEADLINE)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def type(self, text: str, *keys: str) -> None:
        """Characters as they are, then keys by tmux's names: Enter, Tab, C-u."""
        if text:
            self._run("send-keys", "-l", "--", text)
        if keys:
            self._run("send-keys", *keys)

    def resize(self, width: int) -> None:
        self._run("resize-window", "-x", str(width))

    @property
    def lines(self) -> list[str]:
        """What is on the screen, without the empty lines at its end."""
        return self._run("capture-pane", "-p").rstrip("\n").split("\n")

    def wait_for(self, *texts: str) -> list[str]:
        """The screen that has all the texts, wherever their lines break; they may not come from what was typed."""
        end = time.monotonic() + DEADLINE
        while True:
            lines = self.lines
            shown = "".join("".join(lines).split())
            if all("".join(text.split()) in shown for text in texts):
                return lines
            assert time.monotonic() < end, f"{texts} did not come, but\n" + "\n".join(lines)
            time.sleep(0.02)  # tmux has no event for it
