"""Measuring in processes of their own (child.py). Run as a module this is our side's worker.

Both sides of a pair with the unpatched library are workers, so that neither is at an advantage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ...child import Child, Message, Parent
from ...config import LoadConfig
from ...media.types import Pick
from ...native.binding import type_number
from ...native.installed import bindings_folder
from ...reduction.planner import TextShape
from ...settings import parse_setting
from ...store.names import ModelPaths
from .session import Measured, Session
from .stock_tower import stock_mmproj

# --- our side -------------------------------------------------------------------------------------------------------


class OurWorker(Child):
    """A Session in a process of its own. Facts of the model are known once it is made.

    video: None measures the language model alone. folder: for the files that go from one side to the other.
    """

    def __init__(self, paths: ModelPaths, config: LoadConfig, video: Path | None, folder: Path, pick: Pick) -> None:
        super().__init__("our side", ["-m", __name__])
        self._folder, self.has_vision = folder, video is not None
        try:
            files = {"name": paths.name, "model": str(paths.model), "mmproj": str(paths.mmproj or "")}
            self.facts = self.ask(
                paths=files, config=asdict(config), video=str(video or ""), folder=str(folder), pick=pick
            )
        except BaseException:
            self.close()
            raise

    @property
    def shape(self) -> TextShape:
        return TextShape(**self.facts["shape"])

    def count(self, n_frames: int, setting: str) -> dict[str, int]:
        return self.ask(what="count", n_frames=n_frames, setting=setting)

    def read(self, n_frames: int) -> tuple[Path, dict[str, float]]:
        """A file with the clip's frames as the tower takes them, and what reading them took."""
        tiles = self._folder / "tiles.npy"
        return tiles, self.ask(what="read", n_frames=n_frames, tiles=str(tiles))

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
            return facts(self._session, request)
        return measure(self._session, request)


def open_session(request: Message) -> Session:
    files = request["paths"]
    paths = ModelPaths(files["name"], Path(files["model"]), Path(files["mmproj"]) if files["mmproj"] else None)
    video = Path(request["video"]) if request["video"] else None
    return Session(paths, LoadConfig(**request["config"]), video=video, skip_vision=video is None, pick=request["pick"])


def facts(session: Session, request: Message) -> Message:
    """What the other side needs to do the same. mmproj: the same weights for its tower, "" without vision."""
    model, path = session.model, session.model.paths.mmproj
    return {
        "mmproj": str(stock_mmproj(model.tower, path, Path(request["folder"]))) if session.video and path else "",
        "n_threads": session.text.n_threads,
        "n_gpu_layers": session.text.config.n_gpu_layers,
        "kv_bytes_per_cell": session.text.kv_bytes_per_cell(),
        "shape": asdict(session.text.shape),
    }


def measure(session: Session, request: Message) -> Message:
    n_frames = request["n_frames"]
    if request["what"] == "read":
        tiles, ms = session.read(n_frames)
        np.save(request["tiles"], tiles)
        return ms
    tokens = parse_setting(request["setting"])
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
        self._ours, self._kv_bytes_per_cell = ours, ours.facts["kv_bytes_per_cell"]
        n_layers = ours.facts["n_gpu_layers"]
        try:
            hello = self.ask(
                model=str(paths.model),
                mmproj=ours.facts["mmproj"],
                n_threads=ours.facts["n_threads"],
                n_gpu_layers=999 if n_layers < 0 else n_layers,
                type_k=type_number(config.type_k),
                type_v=type_number(config.type_v),
            )
        except BaseException:
            self.close()
            raise
        self.is_patched = bool(hello["patched"])

    def run(self, n_frames: int, counts: Mapping[str, int], flops: float, decode_at: list[int], n: int) -> Measured:
        """All tokens of an unreduced prompt. flops: of that prompt; decode_at: lengths to decode at as well.

        Frames are read by our side, as llama.cpp reads none from a file; the first token's time is the stages' sum.
        """
        n_full = counts["n_visual_full"]
        n_prompt = counts["n_text"] + n_full
        tiles, read = self._ours.read(n_frames) if self._ours.has_vision else ("", {})
        found = self.ask(n=n_prompt, decode_at=decode_at, n_decode=n, tiles=str(tiles))
        ms = {**read, **found["ms"]}
        if tiles:
            ms["first_token"] = sum(read.values()) + ms["vision"] + ms["prefill"]
        kv_bytes, rss = found["n_ctx"] * self._kv_bytes_per_cell, found["peak_rss"]
        return Measured(n_frames, counts["n_text"], n_full, n_full, n_prompt, kv_bytes, rss, flops, ms)


if __name__ == "__main__":
    Parent().serve(_OurSide().answer)
