"""Draw, encode (H.264) and decode training clips, so that the model learns on frames an encoder has softened.

Writes SHARD.npy, uint8 [N, 8, 112, 112, 3]: the sampled frames of the scenes with seeds first .. first + N - 1.
Every fifth clip is drawn at 224 and resized with PIL's bicubic filter, as a runtime does with larger video.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from aim_local.demo.clips import read_clip, write_clip
from aim_local.demo.world import N_SAMPLED, SIDE, make_scene


def resize(frames: np.ndarray) -> np.ndarray:
    """uint8 [T, H, W, 3] -> [T, SIDE, SIDE, 3], bicubic."""
    images = [Image.fromarray(f).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for f in frames]
    return np.stack([np.asarray(i) for i in images])


def encoded(seed: int, path: Path) -> np.ndarray:
    """Sampled frames of one scene after a trip through an mp4 file: uint8 [8, SIDE, SIDE, 3]."""
    side = 2 * SIDE if seed % 5 == 0 else SIDE
    frames = read_clip(write_clip(make_scene(seed), path, side=side))
    return frames if side == SIDE else resize(frames)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shard", type=Path)
    parser.add_argument("--first", type=int, default=0, help="seed of the first clip")
    parser.add_argument("--n", type=int, default=1000)
    args = parser.parse_args()
    pool = np.empty((args.n, N_SAMPLED, SIDE, SIDE, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(args.n):
            pool[i] = encoded(args.first + i, Path(folder) / "clip.mp4")
    partial = args.shard.with_suffix(".partial.npy")
    np.save(partial, pool)
    partial.replace(args.shard)


if __name__ == "__main__":
    main()
