"""Score a checkpoint folder on the held-out clips: drawn, written as mp4, decoded, asked, answered greedily.

Runs transformers' own classes end to end; only the frame preparation is done here (frames of the toy's side need just a
scale and a shift, larger ones are resized with PIL's bicubic filter first). Prints JSON with the share of right
answers and the majority baseline by family.
"""

import argparse
import json
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer

from aim_local.demo.clips import held_out, is_right, read_clip, write_clip
from aim_local.demo.training.make_pool import resize
from aim_local.demo.training.toys import TOYS, Toy
from aim_local.demo.world import N_FRAMES, N_SAMPLED, Frames, sampled_frames


class Answerer:
    """A checkpoint that answers one question about one clip."""

    def __init__(self, folder: Path, n_visual: int) -> None:
        self.n_visual = n_visual
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()

    def prompt(self, question: str) -> torch.Tensor:
        """Token ids [1, n], the video token repeated once per visual row."""
        content = [{"type": "video"}, {"type": "text", "text": question}]
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        return self.tokenizer(text.replace("<video>", "<video>" * self.n_visual), return_tensors="pt")["input_ids"]

    @torch.no_grad()
    def answer(self, frames: Frames, question: str) -> str:
        """Greedy answer to a question about frames uint8 [T, side, side, 3]."""
        ids = self.prompt(question)
        pixels = (torch.from_numpy(frames).float() / 255 - 0.5) / 0.5
        out = self.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values_videos=pixels.permute(0, 3, 1, 2)[None],
            max_new_tokens=8, do_sample=False,
        )  # fmt: skip
        return self.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def score(toy: Toy, folder: Path, n: int, seed: int, side: int, n_frames: int) -> dict[str, dict[str, float]]:
    """Share right and majority baseline, by family and over "all", on n held-out clips."""
    answerer, picked = Answerer(folder, n_frames * toy.pooled**2 + 1), sampled_frames(N_FRAMES, n_frames)
    right: dict[str, list[bool]] = defaultdict(list)
    wanted: dict[str, Counter[str]] = defaultdict(Counter)
    with tempfile.TemporaryDirectory() as scratch:
        for clip in held_out(n, seed, toy.world):
            path = write_clip(clip, Path(scratch) / "clip.mp4", side=side)
            frames = read_clip(path, sampled=False)[picked]
            frames = frames if side == toy.side else resize(frames, toy.side)
            right[clip.family].append(is_right(answerer.answer(frames, clip.question), clip.answer))
            wanted[clip.family][clip.answer] += 1
    most = {f: wanted[f].most_common(1)[0][1] for f in right}
    table = {f: {"right": sum(right[f]) / len(right[f]), "majority": most[f] / len(right[f])} for f in right}
    table["all"] = {"right": sum(map(sum, right.values())) / n, "majority": sum(most.values()) / n}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--toy", choices=TOYS, default="bundled")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", type=int, help="frame side of the mp4 files, in pixels; default: the toy's")
    parser.add_argument("--frames", type=int, default=N_SAMPLED, help="frames of a clip that the model sees")
    args = parser.parse_args()
    toy = TOYS[args.toy]
    print(json.dumps(score(toy, args.checkpoint, args.n, args.seed, args.side or toy.side, args.frames), indent=2))


if __name__ == "__main__":
    main()
