"""Draw, encode (H.264) and decode training clips, so that the model learns on frames an encoder has softened.

Writes SHARD.npy, uint8 [N, 16, side, side, 3]: all frames of the scenes with seeds first .. first + N - 1.
Every fifth clip is drawn at twice the side and resized with PIL's bicubic filter, as a runtime does with larger video.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from aim_local.demo.clips import read_clip, write_clip
from aim_local.demo.training.toys import TOYS, Toy
from aim_local.demo.world import N_FRAMES, make_scene


def resize(frames: np.ndarray, side: int) -> np.ndarray:
    """uint8 [T, H, W, 3] -> [T, side, side, 3], bicubic."""
    images = [Image.fromarray(f).resize((side, side), Image.Resampling.BICUBIC) for f in frames]
    return np.stack([np.asarray(i) for i in images])


def encoded(toy: Toy, seed: int, path: Path) -> np.ndarray:
    """Frames of one scene after a trip through an mp4 file: uint8 [16, side, side, 3]."""
    side = 2 * toy.side if seed % 5 == 0 else toy.side
    frames = read_clip(write_clip(make_scene(seed, toy.world), path, side=side), sampled=False)
    return frames if side == toy.side else resize(frames, toy.side)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shard", type=Path)
    parser.add_argument("--toy", choices=TOYS, default="bundled")
    parser.add_argument("--first", type=int, default=0, help="seed of the first clip")
    parser.add_argument("--n", type=int, default=1000)
    args = parser.parse_args()
    toy = TOYS[args.toy]
    pool = np.empty((args.n, N_FRAMES, toy.side, toy.side, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(args.n):
            pool[i] = encoded(toy, args.first + i, Path(folder) / "clip.mp4")
    partial = args.shard.with_suffix(".partial.npy")
    np.save(partial, pool)
    partial.replace(args.shard)


if __name__ == "__main__":
    main()
