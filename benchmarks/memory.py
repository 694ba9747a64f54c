"""Peak memory of many frames on a large model, and of decoding large sources.

model: a random model of a real shape is loaded with its file mapped, and --frames frames are prefilled with the paper's
setting. Said are the resident memory after loading, apart what is the process's own and what are mapped pages of the
file, and the peaks of loading and of the whole run, against weights + 1.5 GB. Weights are the size of the files. By
default the vision tower has one layer of its 26, because it takes seconds a frame; what it hands on is as much as the
whole tower's. Linux only.

sources: an H.264 clip of each size is made in another process, then read as a chat with a 384-pixel tower reads it.
Said is how much the peak is above what was resident before. It must not grow with the number of frames.

    python benchmarks/memory.py model [--shape 7b,vlayers=1] [--frames 192]
    python benchmarks/memory.py sources [--sizes 1920x1080 3840x2160 7680x4320] [--frames 4 16]
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from aim_local import LoadConfig, VisualTokenConfig
from aim_local.errors import AimError
from aim_local.lab.bench.cache import random_model, synthetic_clip
from aim_local.lab.bench.session import Session
from aim_local.lab.bench.shapes import parse_shape
from aim_local.lab.measure import machine, peak_rss_bytes, reset_peak_rss
from aim_local.media import FrameSampling, read_video

GB, MIB = 1e9, 2**20
ROOM = 1.5 * GB  # above the weights
SIDE = 384  # of the tower whose frames are kept


@dataclass(frozen=True)
class Resident:
    """Bytes in memory now: own is the process's, mapped are pages of files."""

    own: int
    mapped: int

    @property
    def all(self) -> int:
        return self.own + self.mapped

    @classmethod
    def now(cls) -> Resident:
        """Raises AimError where the system does not tell."""
        try:
            text = Path("/proc/self/status").read_text()
        except OSError as e:
            raise AimError("what is resident is told by Linux alone") from e
        found = {name: int(kib) * 1024 for name, kib in re.findall(r"^(Rss\w+):\s+(\d+) kB", text, re.MULTILINE)}
        return cls(found["RssAnon"] + found["RssShmem"], found["RssFile"])


# --- a model ---------------------------------------------------------------------------------------------------------


def measure_model(options: argparse.Namespace) -> str:
    shape = parse_shape(options.shape)
    paths = random_model(shape, options.type, "f16", lambda line: print(line, file=sys.stderr))
    weights = sum(path.stat().st_size for path in (paths.model, paths.mmproj) if path)
    clip = synthetic_clip(options.frames)
    base = Resident.now()
    reset_peak_rss()
    with Session(paths, LoadConfig(n_threads=options.threads), video=clip) as session:
        loaded, loading_peak = Resident.now(), peak_rss_bytes()
        measured = session.run(options.frames, VisualTokenConfig.paper(), n_decode=2)
        after = Resident.now()
    run_peak = measured.peak_rss or 0
    peak = max(loading_peak, run_peak)
    verdict = "within" if peak <= weights + ROOM else "ABOVE"
    lines = [
        f"{options.shape}, {options.type}, {options.frames} frames, paper: {measured.n_visual} visual tokens of "
        f"{measured.n_visual_full}; {machine()['processor']}",
        f"weights             {weights / GB:6.2f} GB",
        f"before loading      {base.all / GB:6.2f} GB",
        f"loaded              {loaded.all / GB:6.2f} GB: own {loaded.own / GB:.2f}, mapped {loaded.mapped / GB:.2f}",
        f"after the run       {after.all / GB:6.2f} GB: own {after.own / GB:.2f}, mapped {after.mapped / GB:.2f}",
        f"peak of loading     {loading_peak / GB:6.2f} GB",
        f"peak of the run     {run_peak / GB:6.2f} GB, of it KV cache {measured.kv_bytes / GB:.2f}",
        f"peak above weights  {(peak - weights) / GB:6.2f} GB, {verdict} the allowed {ROOM / GB:.1f}",
    ]
    return "\n".join(lines)


# --- sources ---------------------------------------------------------------------------------------------------------


def write_clip(path: Path, width: int, height: int, n_frames: int) -> None:
    """H.264, 25 frames a second; something moves in it."""
    import av

    rng = np.random.default_rng(0)
    tile = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(n_frames):
            frame = av.VideoFrame.from_ndarray(np.roll(tile, 16 * i, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def fit(frame: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def measure_source(path: Path, n_frames: int) -> int:
    """Bytes above what was resident before, at the most."""
    before = Resident.now().all
    reset_peak_rss()
    video = read_video(path, FrameSampling(n_frames=n_frames), fit=fit)
    assert video.frames.shape == (n_frames, SIDE, SIDE, 3), video.frames.shape
    return peak_rss_bytes() - before


def measure_sources(options: argparse.Namespace) -> str:
    """A Markdown table. Every figure comes from a process of its own."""
    lines = [f"| source | one frame, RGB | {' | '.join(f'{n} frames kept' for n in options.frames)} |"]
    lines.append("|---" * (2 + len(options.frames)) + "|")
    here = [sys.executable, str(Path(__file__).resolve())]
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            width, height = (int(side) for side in size.split("x"))
            path = Path(folder) / f"{size}.mp4"
            subprocess.run([*here, "write-one", str(path), size, str(2 * max(options.frames))], check=True)
            peaks = [
                int(subprocess.run([*here, "read-one", str(path), str(n)], check=True, capture_output=True).stdout)
                for n in options.frames
            ]
            path.unlink()
            told = " | ".join(f"{peak / MIB:.0f} MiB" for peak in peaks)
            lines.append(f"| {size} | {width * height * 3 / MIB:.0f} MiB | {told} |")
    return "\n".join([f"{machine()['processor']}, {os.cpu_count()} threads\n", *lines])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    model = commands.add_parser("model", help="many frames on a large model")
    model.add_argument("--shape", default="7b,vlayers=1")
    model.add_argument("--type", default="q4_0")
    model.add_argument("--frames", type=int, default=192)
    model.add_argument("--threads", type=int)
    sources = commands.add_parser("sources", help="decoding large clips")
    sources.add_argument("--sizes", nargs="+", default=["1920x1080", "3840x2160", "7680x4320"])
    sources.add_argument("--frames", type=int, nargs="+", default=[4, 16])
    write = commands.add_parser("write-one", help="used by sources")
    write.add_argument("path", type=Path)
    write.add_argument("size")
    write.add_argument("n", type=int)
    read = commands.add_parser("read-one", help="used by sources")
    read.add_argument("path", type=Path)
    read.add_argument("n", type=int)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    try:
        if options.command == "write-one":
            write_clip(options.path, *(int(side) for side in options.size.split("x")), options.n)
        elif options.command == "read-one":
            print(measure_source(options.path, options.n))
        else:
            print(measure_model(options) if options.command == "model" else measure_sources(options))
    except AimError as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main()
