"""LLaVA-Video (Qwen2): LLaVA-OneVision's towers; a clip is laid out otherwise, and the prompt tells its frames' times.

Checkpoints: the authors' LlavaQwenForCausalLM (lmms-lab/LLaVA-Video-7B-Qwen2 and -72B-Qwen2) whose clips are not laid
out as LLaVA-OneVision's: a newline elsewhere than at the end of the clip, another pooling, or times in the prompt.
Tensors and the tower's graph are LLaVA-OneVision's, so clip.projector_type is too. Images are handled as there.

Keys of its own, beside LLaVA-OneVision's:

aim.family               "llava_video"
aim.video.newline        "grid": after each row of each frame; "one_token": after the last frame
aim.video.pool           "bilinear" or "average"
aim.video.pool_stride    patches per pooled token along a side, 2
aim.video.times          whether the prompt tells the times of the frames

What the runtime must do with a clip. Sources are in https://github.com/LLaVA-VL/LLaVA-NeXT: [arch]
llava/model/llava_arch.py, [doc] docs/LLaVA_Video_1003.md, [train] llava/train/train.py, [260] issue 260; and [eval]
lmms_eval/models/simple/llava_vid.py of https://github.com/EvolvingLMMs-Lab/lmms-eval.

1. Frames: numpy.linspace(0, n - 1, N, dtype=int) of the clip's n frames ([doc] load_video with force_sample=True; a
   clip of fewer frames repeats some there). N is aim.video.n_frames: 64 unless the checkpoint names a number ([doc]).
   A frame's time is its index / mean frame rate, the clip's length n / mean frame rate. Each frame is resized to the
   tower's square (bicubic) and normalised, as in LLaVA-OneVision.
2. Rows: tower, projector, then pooling of each frame's g x g rows ([arch] encode_images, get_2dPool; g = 27):
   bilinear: torch interpolate(size=(ceil(g / 2), ceil(g / 2)), mode="bilinear", align_corners=False), no antialiasing:
             14 x 14. The same as in LLaVA-OneVision.
   average:  torch avg_pool2d(2): means of 2 x 2 rows, the last row and column of an odd grid are dropped: 13 x 13.
3. Newlines ([arch] prepare_inputs_labels_for_multimodal, add_token_per_grid; their meaning: [260]). The newline is the
   tensor v.image_newline, one row, never pooled:
   grid:      frame by frame and row by row: the row's tokens, then a newline. 14 x (14 + 1) = 210 tokens a frame, 182
              with average pooling; a clip of 64 frames is 13,440. Nothing more follows the last frame.
   one_token: all frames' tokens, then one newline: 196 n + 1, as in LLaVA-OneVision.
   "frame" (after each frame) and "no_token" (none) exist in [arch]; no published checkpoint has them: refused here.
4. Prompt, with aim.video.times: directly behind the clip's rows comes the text "\\n" + sentence, and then what the chat
   template has there ("\\n" and the question). The sentence ([train], [eval]; one line, no space before "Please"):
       The video lasts for {length:.2f} seconds, and {N} frames are uniformly sampled from it. These frames are located
       at {times}.Please answer the following questions related to this video.
   {times} is ",".join(f"{t:.2f}s" for t in the frames' times): "0.00s,0.32s,0.64s". {N} is the number of frames shown.
   The text before the rows and the text behind them are tokenised apart (llava/mm_utils.py, tokenizer_image_token). The
   template is ChatML with the system line "You are a helpful assistant." (qwen_1_5). [doc] leaves out the first "\\n";
   [train] and [eval] have it. Frames given without times, as an array of pixels, get no sentence: there is no form of
   it for them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gguf

from ..checkpoint import Checkpoint
from ..errors import Unsupported
from .layouts import is_original
from .llava_onevision import MERGE, LlavaOnevision, read_model

N_FRAMES = 64
STRIDE = 2  # get_2dPool is called without another one
NEWLINES = ("grid", "one_token")
POOLS = ("bilinear", "average")


@dataclass(frozen=True)
class LlavaVideo(LlavaOnevision):
    """`newline`, `pool`, `times`: as the keys above."""

    name = "llava_video"
    title = "LLaVA-Video (Qwen2 with SigLIP)"

    newline: str
    pool: str
    times: bool

    @classmethod
    def recognises(cls, config: Mapping[str, Any]) -> bool:
        if not super().recognises(config) or not is_original(config):
            return False
        return newline_of(config) != "one_token" or pool_of(config) != "bilinear" or tells_times(config)

    @classmethod
    def read(cls, checkpoint: Checkpoint, tower: Checkpoint | None) -> "LlavaVideo":
        config = checkpoint.config
        check_layout(config)
        tiles = read_model(checkpoint, tower, cls.name, N_FRAMES)
        return cls(**vars(tiles), newline=newline_of(config), pool=pool_of(config), times=tells_times(config))

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        super().metadata(writer)
        writer.add_string("aim.family", self.name)
        writer.add_string("aim.video.newline", self.newline)
        writer.add_string("aim.video.pool", self.pool)
        writer.add_uint32("aim.video.pool_stride", STRIDE)
        writer.add_bool("aim.video.times", self.times)

    def notes(self) -> list[str]:
        return [] if self.times else ["the checkpoint was trained without times: prompts will not tell those of frames"]


def newline_of(config: Mapping[str, Any]) -> str:
    return str(config.get("mm_newline_position") or "one_token")  # the default of [arch]


def pool_of(config: Mapping[str, Any]) -> str:
    return str(config.get("mm_spatial_pool_mode") or "bilinear")  # the default of [train]


def tells_times(config: Mapping[str, Any]) -> bool:
    """As [train] stored it. LLaVA-Video-7B-Qwen2-Video-Only does not say; it has the grid layout, and tells times."""
    said = config.get("add_time_instruction")
    return newline_of(config) == "grid" if said is None else bool(said)


def check_layout(config: Mapping[str, Any]) -> None:
    """One line for each variant of the authors' code that is not converted."""
    allowed = {
        "mm_newline_position": (newline_of(config), NEWLINES),
        "mm_spatial_pool_mode": (pool_of(config), POOLS),
        "mm_spatial_pool_stride": (config.get("mm_spatial_pool_stride") or STRIDE, (STRIDE,)),
        "mm_patch_merge_type": (config.get("mm_patch_merge_type", MERGE), (MERGE,)),
        "add_faster_video": (bool(config.get("add_faster_video")), (False,)),
        "mm_use_im_start_end": (bool(config.get("mm_use_im_start_end")), (False,)),
    }
    for key, (found, known) in allowed.items():
        if found not in known:
            some, verb = " and ".join(repr(value) for value in known), "are" if len(known) > 1 else "is"
            raise Unsupported(f"LLaVA-Video with {key} {found!r} is not supported ({some} {verb})")
