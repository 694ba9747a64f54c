"""Measuring in processes of their own: lines of JSON to and from a worker. Run as a module it is our side's worker.

Both sides of a pair with the unpatched library are workers, so that neither is at an advantage.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ...config import LoadConfig
from ...errors import AimError, NativeError
from ...reduction.planner import TextShape
from ...settings import parse_setting
from ...store.names import ModelPaths
from .session import Measured, Session


class Worker:
    """A process that answers each line of JSON with one. Own it: `close()` or `with`."""

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the worker)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=env, text=True
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Raises NativeError for what the worker could not do, or when it died."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise NativeError(f"{self.name} died with exit code {self._process.wait()}: {self._last_line()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise NativeError(f"{self.name}: {answer['error']}")
        return answer

    def _last_line(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing; there may not be enough memory"

    def close(self) -> None:
        """Ends the process; one that is at work is not waited for."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


# --- our side -------------------------------------------------------------------------------------------------------


class OurWorker(Worker):
    """A Session in a process of its own, its language model alone. Facts of the model are known once it is made."""

    def __init__(self, paths: ModelPaths, config: LoadConfig) -> None:
        super().__init__("our side", [sys.executable, "-m", "aim_local.lab.bench.workers"])
        try:
            files = {"name": paths.name, "model": str(paths.model), "mmproj": str(paths.mmproj or "")}
            self.facts = self.ask(paths=files, config=asdict(config))
        except BaseException:
            self.close()
            raise

    @property
    def shape(self) -> TextShape:
        return TextShape(**self.facts["shape"])

    def count(self, n_frames: int, setting: str) -> dict[str, int]:
        return self.ask(what="count", n_frames=n_frames, setting=setting)

    def run(self, n_frames: int, setting: str, n_decode: int, as_tokens: bool) -> Measured:
        """as_tokens: text tokens in the place of visual rows."""
        what = "run_tokens" if as_tokens else "run"
        return Measured(**self.ask(what=what, n_frames=n_frames, setting=setting, n_decode=n_decode))


def answer(session: Session, request: dict[str, Any]) -> dict[str, Any]:
    n_frames, tokens = request["n_frames"], parse_setting(request["setting"])
    if request["what"] == "count":
        return asdict(session.count(n_frames, tokens))
    if request["what"] == "run_tokens":
        return asdict(session.run_tokens(n_frames, request["n_decode"]))
    return asdict(session.run(n_frames, tokens, request["n_decode"]))


def open_session(request: dict[str, Any]) -> Session:
    files = request["paths"]
    paths = ModelPaths(files["name"], Path(files["model"]), Path(files["mmproj"]) if files["mmproj"] else None)
    return Session(paths, LoadConfig(**request["config"]), skip_vision=True)


def facts(session: Session) -> dict[str, Any]:
    """What the other side needs to do the same."""
    return {
        "n_threads": session.n_threads,
        "kv_bytes_per_cell": session.text.kv_bytes_per_cell(),
        "shape": asdict(session.text.shape),
    }


def main() -> None:
    session: Session | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if session is None:
                session = open_session(request)
                found = facts(session)
            else:
                found = answer(session, request)
        except (AimError, MemoryError) as e:
            found = {"error": str(e) or "not enough memory"}
        print(json.dumps(found), flush=True)


# --- the unpatched side ---------------------------------------------------------------------------------------------


class StockWorker(Worker):
    """stock_side.py with the libraries in `folder`. `ours` tells its facts, so that both use the same threads."""

    def __init__(self, folder: Path, paths: ModelPaths, config: LoadConfig, ours: OurWorker) -> None:
        from ...native.staged import KV_TYPES

        script = str(Path(__file__).with_name("stock_side.py"))
        env = {**os.environ, "LLAMA_CPP_LIB_PATH": str(folder), "MTMD_CPP_LIB": str(folder)}
        super().__init__("the unpatched library", [sys.executable, "-P", script], env)
        self._kv_bytes_per_cell = ours.facts["kv_bytes_per_cell"]
        try:
            hello = self.ask(
                model=str(paths.model),
                n_threads=ours.facts["n_threads"],
                n_gpu_layers=999 if config.n_gpu_layers < 0 else config.n_gpu_layers,
                type_k=KV_TYPES[config.type_k],
                type_v=KV_TYPES[config.type_v],
            )
        except BaseException:
            self.close()
            raise
        self.is_patched = bool(hello["patched"])

    def run(self, n_frames: int, counts: Mapping[str, int], flops: float, decode_at: list[int], n: int) -> Measured:
        """All tokens of an unreduced prompt. flops: of that prompt; decode_at: lengths to decode at as well."""
        n_full = counts["n_visual_full"]
        n_prompt = counts["n_text"] + n_full
        found = self.ask(n=n_prompt, decode_at=decode_at, n_decode=n)
        kv_bytes = found["n_ctx"] * self._kv_bytes_per_cell
        rss, ms = found["peak_rss"], found["ms"]
        return Measured(n_frames, counts["n_text"], n_full, n_full, n_prompt, kv_bytes, rss, flops, ms)


if __name__ == "__main__":
    main()
