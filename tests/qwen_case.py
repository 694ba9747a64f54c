"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL in both worlds, converted once in a run; questions that go through both.

    case = open_qwen("qwen3_vl", tmp_path_factory)  # a family_case.Case
    ASKED["qwen3_vl"]["5 frames"].inputs(case)

Knows how clips become files whose frames have their times. What is compared is the tests' business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_case import F32, Case, use_pil, write_lossless
from family_checkpoints import SPECS, Clip, Loaded, clip, load_family, message, picture, write_family
from family_upstream import write_pairs
from shared_folder import made_once

from aim_local import FrameSampling, LoadConfig, VisionLLM

QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
UNITS = {"qwen2_vl": 28, "qwen2_5_vl": 28, "qwen3_vl": 32}  # pixels of a visual token's side
QUESTION = "How many shapes are there?"


def write_all(root: Path) -> None:
    folders = {family: write_family(family, root / family / "hf").folder for family in QWEN}
    write_pairs(folders, root, {family: limits(family) for family in QWEN})


@cache
def loaded_of(folder: Path) -> Loaded:
    loaded = load_family(folder)
    use_pil(loaded)
    return loaded


def limits(family: str) -> dict[str, int]:
    """Limits of pixels, which llama.cpp's converter leaves out."""
    sizes = {"vision": SPECS[family].images["size"], "video": (SPECS[family].videos or {})["size"]}
    names = {"shortest_edge": "min_pixels", "longest_edge": "max_pixels"}
    return {f"aim.{kind}.{names[k]}": n for kind, size in sizes.items() for k, n in size.items()}


def converted(family: str, folders: pytest.TempPathFactory) -> Path:
    """In it hf, the checkpoint, and model.gguf and mmproj.gguf; made once in a run."""
    return made_once(folders, "qwen", write_all) / family


def open_qwen(family: str, folders: pytest.TempPathFactory, **config: Any) -> Case:
    """config: of the runtime, beside float32."""
    made = converted(family, folders)
    llm = VisionLLM.load(made / "model.gguf", made / "mmproj.gguf", LoadConfig(**F32 | config))
    return Case(family, folders.mktemp(family), loaded_of(made / "hf"), llm)


@pytest.fixture(scope="module", params=QWEN)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    found = open_qwen(request.param, tmp_path_factory)
    with found.llm:
        yield found


# --- questions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Asked:
    """A question and its media, pictures and clips, in the order of the prompt."""

    media: Sequence[Any] = ()
    text: str = QUESTION

    @property
    def sampling(self) -> FrameSampling | None:
        """Takes the frames of the clip out of its file."""
        n = [len(item.frames) for item in self.media if isinstance(item, Clip)]
        return FrameSampling(n_frames=n[0]) if n else None

    def message(self) -> dict[str, Any]:
        kinds = [("video",) if isinstance(item, Clip) else ("image",) for item in self.media]
        return message("user", *kinds, self.text)

    def inputs(self, case: Case) -> dict[str, Any]:
        return inputs_of(case, [self.message()], self.media)

    def items(self, case: Case) -> list[Any]:
        """What the runtime is given."""
        return [file_of(case, item) if isinstance(item, Clip) else np.asarray(item) for item in self.media]


def inputs_of(case: Case, messages: Sequence[Any], media: Sequence[Any]) -> dict[str, Any]:
    """What transformers' model is called with."""
    pictures, clips = ([m for m in media if isinstance(m, Clip) is is_clip] for is_clip in (False, True))
    return case.loaded.inputs(messages, pictures, [twice(c) if len(c.frames) == 1 else c for c in clips])


def twice(c: Clip) -> Clip:
    """One frame as a pair of equal ones at the same time, which it is; Qwen3-VL's processor refuses a single one."""
    return Clip(np.repeat(c.frames, 2, axis=0), c.fps, (0, 0), 1)


def file_of(case: Case, c: Clip) -> Path:
    """A file with the clip's frames, byte for byte, at its times. Other frames of its source are black."""
    indices = list(c.indices or range(len(c.frames)))
    source = np.zeros((c.total or indices[-1] + 1, *c.frames.shape[1:]), np.uint8)
    source[indices] = c.frames
    path = case.folder / f"{abs(hash((source.tobytes(), source.shape, c.fps)))}.mkv"
    return path if path.exists() else write_lossless(path, Clip(source, c.fps))


def asked(unit: int) -> dict[str, Asked]:
    """unit: pixels of a visual token's side. Most frames need no resizing: torchvision's is off by up to 2 of 255.

    0.25 and 0.5 frames a second: Qwen2.5-VL's last ids in time are far behind those of rows and columns.
    """
    frames = 4 * unit, 3 * unit
    return {
        "text": Asked(),
        "picture": Asked([picture(100, 160)]),
        "tall picture": Asked([picture(231, 97, 1)]),
        "two pictures": Asked([picture(100, 160, 1), picture(150, 90, 2)]),
        "1 frame": Asked([clip(1, *frames)]),
        "2 frames": Asked([clip(2, *frames, fps=1.0)]),
        "5 frames": Asked([clip(5, *frames, fps=0.5)]),
        "8 frames": Asked([clip(8, *frames, fps=0.25)]),
        "8 resized frames": Asked([clip(8, 60, 90, fps=2.0)]),
        "picked frames": Asked([clip(5, *frames, fps=2.0, indices=(0, 3, 6, 9, 12), total=13)]),
        "picture and video": Asked([picture(80, 120, 3), clip(5, *frames, fps=0.5)]),
        "video and picture": Asked([clip(5, *frames, fps=0.5), picture(80, 120, 3)]),
    }


ASKED = {name: asked(unit) for name, unit in UNITS.items()}


def distance(got: np.ndarray, want: np.ndarray) -> float:
    """Largest difference over the largest value; what is behind the vocabulary of `want` is not looked at."""
    return float(np.abs(got[..., : want.shape[-1]] - want).max() / np.abs(want).max())
