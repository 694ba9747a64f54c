"""A family's tiny checkpoint twice: in transformers, and here from the pair that llama.cpp's converter makes of it.

    case = case_of("qwen3_vl", root)  # made once in a session
    with case.load() as llm: ...

Knows how a clip becomes a file, and how far two implementations are apart. What is compared is the tests' business.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from family_checkpoints import SPECS, Clip, Loaded, load_family, write_family
from family_upstream import Pair, upstreams_pair

from aim_local import FrameSampling, LoadConfig, VisionLLM

EXACT = {"vision_precision": "exact", "prefill_precision": "exact"}
F32 = LoadConfig(type_k="f32", type_v="f32", flash_attn=False, n_threads=1, cache_media=False, **EXACT)


@dataclass(frozen=True, eq=False)
class Case:
    name: str
    folder: Path
    pair: Pair
    loaded: Loaded

    def load(self, config: LoadConfig = F32) -> VisionLLM:
        return VisionLLM.load(self.pair.model, self.pair.mmproj, config)

    def video(self, clip: Clip) -> Path:
        """A file with the clip's frames, byte for byte, at its times. Other frames of its source are black."""
        n_source = clip.total or (clip.indices or range(len(clip.frames)))[-1] + 1
        source = np.zeros((n_source, *clip.frames.shape[1:]), np.uint8)
        source[list(clip.indices or range(len(clip.frames)))] = clip.frames
        path = self.folder / f"{abs(hash((source.tobytes(), source.shape, clip.fps)))}.mp4"
        if path.exists():
            return path
        return write_lossless(path, source, clip.fps)


def write_lossless(path: Path, frames: np.ndarray, fps: float) -> Path:
    """A file of these frames, uint8 [T, H, W, 3], each shown as long as the others."""
    rate = Fraction(fps).limit_denominator(1000)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264rgb", rate=rate, options={"qp": "0", "preset": "ultrafast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def sampling_of(clip: Clip) -> FrameSampling:
    """Takes the clip's frames out of its file."""
    return FrameSampling(n_frames=len(clip.frames))


@cache
def case_of(name: str, root: Path) -> Case:
    """The checkpoint `name`, converted below `root`."""
    folder = write_family(name, root / name / "hf").folder
    pair = upstreams_pair(name, folder, root / name, **limits(name))
    loaded = load_family(folder)
    resize_with_pillow(loaded)
    return Case(name, root / name, pair, loaded)


def resize_with_pillow(loaded: Loaded) -> None:
    """Pictures as transformers' Pillow processors resize them; torchvision is off by up to 2 of 255 there."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    found = loaded.processor.image_processor
    if type(found).__name__ == "Qwen2VLImageProcessor":
        loaded.processor.image_processor = Qwen2VLImageProcessorPil(**found.to_dict())


def limits(name: str) -> dict[str, int]:
    """Limits of pixels, which llama.cpp's converter leaves out."""
    sizes = {"vision": SPECS[name].images["size"], "video": (SPECS[name].videos or {}).get("size", {})}
    names = {"shortest_edge": "min_pixels", "longest_edge": "max_pixels"}
    return {f"aim.{kind}.{names[k]}": n for kind, size in sizes.items() for k, n in size.items()}


# --- comparing --------------------------------------------------------------------------------------------------------


def distance(got: np.ndarray, want: np.ndarray) -> float:
    """Largest difference over the largest value; what is behind the vocabulary of `want` is not looked at."""
    return float(np.abs(got[..., : want.shape[-1]] - want).max() / np.abs(want).max())
