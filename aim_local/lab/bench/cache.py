"""Random models and the synthetic clip in the user's cache folder: made once, whole or not at all, used again.

Knows where they live, how large they will be, and whether there is room. What is in them: shapes.py.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import AimError
from ...store.files import replaced
from ...store.names import HOME_VARIABLE, ModelPaths, cache_folder
from ...store.names import make_folder as make_own_folder
from .shapes import RandomShape, text_plan, vision_plan, write_text_gguf, write_vision_gguf

LAYOUT = 1  # of the files; another number makes them anew
CLIP_SIDE = (360, 640)  # height and width
CLIP_FPS = 30

Say = Callable[[str], None]


def bench_folder() -> Path:
    return cache_folder() / "bench"


def random_model(shape: RandomShape, text_type: str, vision_type: str | None, say: Say) -> ModelPaths:
    """The files of a random model, written where they are not there yet. vision_type None: no mmproj.

    say: gets a line with the size before anything is written. Raises AimError where there is no room.
    """
    name = f"random {shape.name} {text_type}"
    plan = text_plan(shape, text_type)
    text = _path("text", shape, text_type)
    _ensure(text, plan, say, lambda path: write_text_gguf(shape, path, text_type))
    if vision_type is None:
        return ModelPaths(name, text, None)
    mmproj = _path("mmproj", shape, vision_type)
    plan = vision_plan(shape, vision_type)
    _ensure(mmproj, plan, say, lambda path: write_vision_gguf(shape, path, vision_type))
    return ModelPaths(name, text, mmproj)


def _path(kind: str, shape: RandomShape, type_name: str) -> Path:
    """One file per kind, sizes and type; the text tower does not depend on the vision tower's sizes."""
    sizes = (shape.text_shape, shape.tied) if kind == "text" else shape.vision_shape
    image = shape.vision.image_size if kind == "mmproj" else 0
    digest = hashlib.sha256(repr((LAYOUT, kind, sizes, image, type_name.lower())).encode()).hexdigest()[:12]
    return bench_folder() / f"{kind}-{type_name.lower()}-{digest}.gguf"


def _ensure(path: Path, plan: list[Any], say: Say, write: Callable[[Path], None]) -> None:
    if path.is_file():
        return
    n_bytes = sum(tensor.n_bytes for tensor in plan)
    folder = make_folder(path.parent)
    free = shutil.disk_usage(folder).free
    if n_bytes > free * 0.95:
        raise AimError(
            f"{path} needs {n_bytes / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} GB left; make room or set "
            f"{HOME_VARIABLE} to a folder on another disk"
        )
    say(f"writing {n_bytes / 1e9:.2f} GB of random weights to {path} (used again; delete it when you like)")
    with replaced(path) as partial:
        write(partial)


def synthetic_clip(n_frames: int) -> Path:
    """An H.264 clip of at least n_frames frames, 640 x 360, in which something moves."""
    from ...demo import write_clip

    n = max(120, -(-2 * n_frames // 120) * 120)
    path = bench_folder() / f"clip-{n}-{LAYOUT}.mp4"
    if not path.is_file():
        make_folder(path.parent)
        write_clip(_moving(n), path, fps=CLIP_FPS)
    return path


def _moving(n: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 [n, h, w, 3]: a pattern that drifts, and a bright square that crosses it."""
    height, width = CLIP_SIDE
    y, x = np.mgrid[:height, :width]
    frames = np.empty((n, height, width, 3), np.uint8)
    for i in range(n):
        frames[i] = np.stack([(x + 3 * i) % 256, (y + 2 * i) % 256, (x * y // 97 + i) % 256], axis=-1)
        left, top = 5 * i % (width - 60), 3 * i % (height - 60)
        frames[i, top : top + 60, left : left + 60] = 255
    return frames


def make_folder(folder: Path) -> Path:
    try:
        make_own_folder(folder)
    except OSError as e:
        raise AimError(f"{folder} cannot be made ({e.strerror}); set {HOME_VARIABLE} to a folder you can write") from e
    return folder
