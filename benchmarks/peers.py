"""The same vision tower here, in unpatched llama.cpp, in OpenVINO and in PyTorch: milliseconds a frame, in one run.

Every side is a process of its own with the same weights (random, of a real shape), the same frame and the same number
of threads. They take turns, round after round; what is said is the median with its least and largest, and the cosine of
each side's rows with our exact ones: it tells that they computed the same tower. OpenVINO runs in latency mode with an
f32 and a bf16 hint. Neither it nor PyTorch is a dependency: `pip install openvino torch transformers`; what is not
installed is left out, and said.

    python benchmarks/peers.py [--shape 0.5b] [--type f16] [--rounds 5] [--threads 2] [--stock FOLDER] [--only torch]
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import towers
from numpy.typing import NDArray

from aim_local.child import Child
from aim_local.errors import AimError
from aim_local.lab.bench.cache import random_model, synthetic_clip
from aim_local.lab.bench.shapes import parse_shape
from aim_local.lab.bench.stock_tower import write_stock_mmproj
from aim_local.lab.measure import Spread, machine, paired_ratio
from aim_local.media import FrameSampling, read_video
from aim_local.native.installed import bindings_folder

SIDE = Path(__file__).with_name("peer_side.py")
PACKAGES = {"torch": ("torch", "transformers"), "openvino": ("openvino", "torch", "transformers")}


@dataclass
class Peer:
    """A running side. ms: one for each round."""

    kind: str
    precision: str
    version: str
    child: Child
    rows: Path
    ms: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        words = {"ours": "aim-local", "stock": "llama.cpp, unpatched", "torch": "PyTorch", "openvino": "OpenVINO"}
        return " ".join(filter(None, (words[self.kind], self.version, self.precision)))

    def encode(self, tile: Path) -> float:
        return float(self.child.ask(tiles=str(tile), rows=str(self.rows))["ms"])


def wanted(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Kind and precision; ours, exact, is the first and always there."""
    precisions = towers.precisions()
    yield from (("ours", name) for name in precisions)
    others = [("stock", "")] if options.stock else []
    others += [(kind, name) for kind in ("openvino", "torch") for name in ("f32", "bf16")]
    for kind, name in others:
        missing = [package for package in PACKAGES.get(kind, ()) if not importlib.util.find_spec(package)]
        if missing:
            print(f"{kind} {name} is left out: {', '.join(missing)} not installed", file=sys.stderr)
        elif not options.only or kind in options.only:
            yield kind, name


def start(kind: str, precision: str, files: dict[str, Path], options: argparse.Namespace, stack: ExitStack) -> Peer:
    folder, env, modules = files["folder"], {"OMP_NUM_THREADS": str(options.threads)}, list[Path]()
    if kind == "stock":
        env |= {"LLAMA_CPP_LIB_PATH": str(options.stock), "MTMD_CPP_LIB": str(options.stock)}
        modules = [bindings_folder()]
    child = stack.enter_context(Child(f"{kind} {precision}".strip(), [str(SIDE)], env=env, modules=modules))
    mmproj = files["stock" if kind == "stock" else "mmproj"]
    said = child.ask(
        kind=kind, precision=precision, mmproj=str(mmproj), text=str(files["text"]), n_threads=options.threads
    )
    return Peer(kind, precision, said["version"], child, folder / f"{kind}-{precision}.npy")


def make_files(options: argparse.Namespace, folder: Path) -> dict[str, Path]:
    paths = random_model(parse_shape(options.shape), "q4_0", options.type, lambda line: print(line, file=sys.stderr))
    assert paths.mmproj is not None
    found = {"folder": folder, "mmproj": paths.mmproj, "text": paths.model}
    if options.stock:
        found["stock"] = folder / "stock.gguf"
        write_stock_mmproj(paths.mmproj, found["stock"])
    return found


def write_tile(files: dict[str, Path]) -> Path:
    """A frame of the synthetic clip, fitted to the tower."""
    (frame,) = read_video(synthetic_clip(8), FrameSampling(n_frames=1)).frames
    with towers.opened(files["mmproj"], files["text"], towers.load_config(towers.EXACT)) as tower:
        tile = tower.fit(frame)
    path = files["folder"] / "tile.npy"
    np.save(path, tile)
    return path


def cosine(rows: NDArray[np.float32], exact: NDArray[np.float32]) -> float:
    """Mean over rows."""
    a, b = rows.astype(np.float64), exact.astype(np.float64)
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean())


def table(peers: Sequence[Peer]) -> str:
    """Markdown. The ratio is taken inside each round, against the first."""
    lines = ["| tower | ms a frame | times faster | cosine with the first |", "|---|---|---|---|"]
    first = peers[0]
    exact = np.load(first.rows)
    for peer in peers:
        ms, ratio = Spread.of(peer.ms), paired_ratio(first.ms, peer.ms)
        near = cosine(np.load(peer.rows), exact)
        spread = f"{ms.median:.0f} ({ms.low:.0f}..{ms.high:.0f})"
        lines.append(
            f"| {peer.name} | {spread} | {ratio.median:.2f} ({ratio.low:.2f}..{ratio.high:.2f}) | {near:.6f} |"
        )
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="0.5b", help="as aim-local bench --shape; its vision tower is what runs")
    parser.add_argument("--type", default="f16", help="type of the mmproj's matrices")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count, after a warm-up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stock", type=Path, help="folder with unpatched libraries, as aim-local bench --stock")
    parser.add_argument("--only", nargs="+", choices=["stock", "openvino", "torch"], help="of the others, these alone")
    return parser.parse_args()


def run(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        files = make_files(options, Path(temporary))
        tile = write_tile(files)
        peers = [start(kind, precision, files, options, stack) for kind, precision in wanted(options)]
        for number in range(options.rounds + 1):
            for peer in peers:
                ms = peer.encode(tile)
                print(f"{f'round {number}' if number else 'warm-up'}: {peer.name}: {ms:.0f} ms", file=sys.stderr)
                if number:
                    peer.ms.append(ms)
        facts = machine()
        print(
            f"vision tower of {options.shape}, {options.type}; {facts['processor']}, {options.threads} threads, ",
            end="",
        )
        print(f"{facts['system']}; median (low..high) of {options.rounds} rounds\n\n{table(peers)}")


def main() -> None:
    try:
        run(arguments())
    except AimError as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main()
