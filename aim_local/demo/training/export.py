"""Turn a training state into a checkpoint folder that transformers' `from_pretrained` reads.

The folder holds the weights (F16), the tokenizer with its chat template and the processor's settings. The auxiliary
heads are left behind.
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoTokenizer

from aim_local.demo.training.model import build
from aim_local.demo.training.toys import TOYS, Toy
from aim_local.demo.world import N_SAMPLED

HALF = [0.5, 0.5, 0.5]


def settings(family: str, toy: Toy) -> dict[str, dict[str, object]]:
    """Processor files: frames to side x side, bicubic, mean and deviation 0.5.

    family: how transformers' class names begin. Plain JSON, since its own classes for processors need torchvision.
    """
    pixels: dict[str, object] = {
        "do_resize": True, "size": {"height": toy.side, "width": toy.side}, "resample": 3, "do_convert_rgb": True,
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": HALF, "image_std": HALF,
        "processor_class": f"{family}Processor",
    }  # fmt: skip
    image = {
        "image_processor_type": f"{family}ImageProcessor",
        "do_pad": False,
        "image_grid_pinpoints": [[toy.side, toy.side]],
    }
    return {
        "preprocessor_config.json": pixels | image,
        "video_preprocessor_config.json": pixels
        | {"video_processor_type": f"{family}VideoProcessor", "num_frames": N_SAMPLED},
        "processor_config.json": {
            "processor_class": f"{family}Processor", "image_token": "<image>", "video_token": "<video>",
            "num_image_tokens": toy.grid**2, "vision_feature_select_strategy": "full",
            "vision_aspect_ratio": "anyres_max_9",
        },
    }  # fmt: skip


def export(toy: Toy, state: Path, tokenizer_folder: Path, out: Path) -> None:
    """Write the checkpoint folder `out`."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    model = build(tokenizer, toy)
    model.load_state_dict(torch.load(state, weights_only=True)["model"])
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    for name, content in settings(type(model).__name__.removesuffix("ForConditionalGeneration"), toy).items():
        (out / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--toy", choices=TOYS, default="bundled")
    args = parser.parse_args()
    export(TOYS[args.toy], args.state, args.tokenizer, args.out)


if __name__ == "__main__":
    main()
