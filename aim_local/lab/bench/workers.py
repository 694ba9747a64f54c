"""Measuring in processes of their own (child.py). Run as a module this is our side's worker.

Both sides of a pair with the unpatched library are workers, so that neither is at an advantage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from ...child import Child, Message, Parent
from ...config import LoadConfig
from ...native.binding import type_number
from ...native.installed import bindings_folder
from ...reduction.planner import TextShape
from ...settings import parse_setting
from ...store.names import ModelPaths
from .session import Measured, Session

# --- our side -------------------------------------------------------------------------------------------------------


class OurWorker(Child):
    """A Session in a process of its own, its language model alone. Facts of the model are known once it is made."""

    def __init__(self, paths: ModelPaths, config: LoadConfig) -> None:
        super().__init__("our side", ["-m", __name__])
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


class _OurSide:
    """What the worker does: the first message opens the session, the others measure."""

    def __init__(self) -> None:
        self._session: Session | None = None

    def answer(self, request: Message) -> Message:
        if self._session is None:
            self._session = open_session(request)
            return facts(self._session)
        return measure(self._session, request)


def open_session(request: Message) -> Session:
    files = request["paths"]
    paths = ModelPaths(files["name"], Path(files["model"]), Path(files["mmproj"]) if files["mmproj"] else None)
    return Session(paths, LoadConfig(**request["config"]), skip_vision=True)


def facts(session: Session) -> Message:
    """What the other side needs to do the same."""
    return {
        "n_threads": session.text.n_threads,
        "kv_bytes_per_cell": session.text.kv_bytes_per_cell(),
        "shape": asdict(session.text.shape),
    }


def measure(session: Session, request: Message) -> Message:
    n_frames, tokens = request["n_frames"], parse_setting(request["setting"])
    if request["what"] == "count":
        return asdict(session.count(n_frames, tokens))
    if request["what"] == "run_tokens":
        return asdict(session.run_tokens(n_frames, request["n_decode"]))
    return asdict(session.run(n_frames, tokens, request["n_decode"]))


# --- the unpatched side ---------------------------------------------------------------------------------------------


class StockWorker(Child):
    """stock_side.py with the libraries in `folder`. `ours` tells its facts, so that both use the same threads."""

    def __init__(self, folder: Path, paths: ModelPaths, config: LoadConfig, ours: OurWorker) -> None:
        env = {"LLAMA_CPP_LIB_PATH": str(folder), "MTMD_CPP_LIB": str(folder)}
        side = ["-m", f"{__package__}.stock_side"]
        super().__init__("the unpatched library", side, env=env, modules=[bindings_folder()])
        self._kv_bytes_per_cell = ours.facts["kv_bytes_per_cell"]
        try:
            hello = self.ask(
                model=str(paths.model),
                n_threads=ours.facts["n_threads"],
                n_gpu_layers=999 if config.n_gpu_layers < 0 else config.n_gpu_layers,
                type_k=type_number(config.type_k),
                type_v=type_number(config.type_v),
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
    Parent().serve(_OurSide().answer)
