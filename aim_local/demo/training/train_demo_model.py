"""Train the demo model on a CPU, within a given number of minutes.

Muon for the matrices inside the blocks, AdamW for the rest, the learning rate falling with the clock so that it
ends when the minutes end. The state is saved every few minutes (temporary file, then rename) and a later run with
the same --out carries on from it. `python -m aim_local.demo.training.export` turns the state into a checkpoint folder.
"""

import argparse
import json
import os
import signal
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoTokenizer

from aim_local.demo.clips import read_clip, write_clip
from aim_local.demo.training.data import IGNORE, Asker, Batches, Encoder, collate
from aim_local.demo.training.model import (
    N_COLOURS,
    N_CORNERS,
    N_KINDS,
    N_PARTS,
    N_WAYS,
    AuxHeads,
    PruneLayers,
    build,
    packed_forward,
)
from aim_local.demo.training.toys import TOYS
from aim_local.demo.world import make_scene

T = TypeVar("T")
# --merge: retained shares of a frame's 16 visual tokens, and how often a batch has each
MERGE_SHARES = {1.0: 0.3, 0.5: 0.1, 0.25: 0.5, 0.125: 0.1}
# --prune: (l1, l2) between which visual tokens leave, (6, 9) being the paper's for 12 layers, and how often
PRUNE_LAYERS: dict[PruneLayers | None, float] = {None: 0.4, (6, 9): 0.35, (8, 9): 0.15, (7, 10): 0.05, (8, 11): 0.05}
LONGEST_STEP = 60.0  # seconds; whatever took longer was a paused process
SPREAD = (0.15, 1.5)  # --toy untaught: mean gaps of the positions of visual rows, least and largest
VALIDATION_SEED = 900_000_000  # neither the pool's seeds nor the held-out ones


class Muon:
    """Momentum, then the nearest orthogonal matrix (Newton-Schulz), for weight matrices grouped by shape."""

    def __init__(self, params: list[nn.Parameter], momentum: float = 0.95) -> None:
        groups: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for p in params:
            groups[p.shape].append(p)
        self.groups, self.momentum = list(groups.values()), momentum
        self.buffers = [torch.zeros(len(g), *g[0].shape) for g in self.groups]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        for group, buffer in zip(self.groups, self.buffers, strict=True):
            grad = torch.stack([p.grad for p in group])  # [n, out, in]
            buffer.lerp_(grad, 1 - self.momentum)
            update = orthogonal(grad.lerp(buffer, self.momentum)) * (0.2 * max(grad.shape[1:]) ** 0.5)
            for p, u in zip(group, update, strict=True):
                p.mul_(1 - lr * 0.05).add_(u, alpha=-lr)


def orthogonal(g: Tensor, steps: int = 5) -> Tensor:
    """About U V^T of g = U S V^T, by the quintic Newton-Schulz iteration; [n, a, b] -> [n, a, b]."""
    x = g.bfloat16()
    if x.shape[1] > x.shape[2]:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if g.shape[1] > g.shape[2] else x).float()


class Trainer:
    """Model, auxiliary heads and optimisers, with one step and saving."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.args, self.toy = args, TOYS[args.toy]
        self.tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
        self.encoder = Encoder(self.tokenizer)
        self.prefix = self.encoder.prefix()
        self.model, self.aux = build(self.tokenizer, self.toy), AuxHeads()
        if args.freeze_below:
            self.freeze(args.freeze_below)
        self.make_optimisers()
        self.rng = np.random.default_rng(args.seed)
        self.clock, self.steps = 0.0, 0  # seconds of training and steps so far, over all runs
        self.loss = torch.compile(self.losses, dynamic=False) if args.compile else self.losses

    def freeze(self, il: int) -> None:
        """Leave everything before text layer il as it is: nothing has to flow back that far."""
        text = self.model.model.language_model
        trained = [*text.layers[il:].parameters(), *text.norm.parameters(), *self.model.lm_head.parameters()]
        self.model.requires_grad_(False)
        for p in trained:
            p.requires_grad_(True)

    def make_optimisers(self) -> None:
        named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        inner = [p for n, p in named if p.ndim == 2 and (".layers." in n or "projector" in n)]
        rest = [p for n, p in named if all(p is not q for q in inner) and "post_layernorm" not in n]
        self.muon = Muon(inner)
        self.adam = torch.optim.AdamW(rest + list(self.aux.parameters()), betas=(0.9, 0.98), weight_decay=0.0)

    def lr_share(self) -> float:
        """Warm-up over the first 20 seconds, flat, then linear to nothing over the last 70 % of the time."""
        done = self.clock / (self.args.minutes * 60)
        return max(0.002, min(1.0, self.clock / 20, (1 - done) / 0.7))

    def losses(
        self, frames: Tensor, tokens: Tensor, targets: Tensor, patch: Tensor, token: Tensor, share: float = 1.0,
        prune: PruneLayers | None = None, gaps: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Loss of the answers and sum of the auxiliary losses; merged tokens have no labels of their own."""
        with torch.autocast("cpu", torch.bfloat16):
            out = packed_forward(self.model, normalised(frames), self.prefix, tokens, share, prune, gaps)
            names = ("patch", "token", "motion") if share == 1 else ("patch",)
            heads = {k: getattr(self.aux, k)(out[k]).float() for k in names}
        answer = F.cross_entropy(out["logits"].float().flatten(0, 2), targets.flatten(), ignore_index=IGNORE)
        wanted = {"patch": patch, "token": token, "motion": token}
        return answer, torch.stack([class_loss(scores, wanted[k]) for k, scores in heads.items()]).sum()

    def draw(self, table: Mapping[T, float]) -> T:
        """One of the keys, each as often as its value says."""
        return list(table)[self.rng.choice(len(table), p=list(table.values()))]

    def gaps(self, n_visual: int) -> Tensor | None:
        """Gaps of the positions of a batch's visual rows: in a third of the batches 1 each, in a third stretched or
        squeezed alike, in a third uneven as well. [n_visual]"""
        how = self.rng.integers(3) if self.toy.spread else 0
        if how == 0:
            return None
        mean = np.exp(self.rng.uniform(*np.log(SPREAD)))
        gaps = self.rng.gamma(2.0, 0.5, n_visual) if how == 2 else np.ones(n_visual)
        return torch.from_numpy((mean * gaps).astype(np.float32))

    def step(self, batch: dict[str, Tensor]) -> tuple[float, float]:
        share = self.lr_share()
        layout = self.draw(MERGE_SHARES) if self.args.merge else 1.0
        prune = self.draw(PRUNE_LAYERS) if self.args.prune else None
        gaps = self.gaps(batch["frames"].shape[1] * self.toy.pooled**2 + 1) if layout == 1 else None
        answer, aux = self.loss(**batch, share=layout, prune=prune, gaps=gaps)
        (answer + self.args.aux * aux).backward()
        for group in self.adam.param_groups:
            group["lr"] = self.args.lr * share
        self.muon.step(self.args.muon_lr * share)
        self.adam.step()
        self.adam.zero_grad()
        self.model.zero_grad()
        self.steps += 1
        return float(answer.detach()), float(aux.detach())

    def save(self, path: Path) -> None:
        state = {
            "model": self.model.state_dict(), "aux": self.aux.state_dict(), "adam": self.adam.state_dict(),
            "muon": self.muon.buffers, "clock": self.clock, "steps": self.steps,
        }  # fmt: skip
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    def resume(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.aux.load_state_dict(state["aux"])
        self.adam.load_state_dict(state["adam"])
        self.muon.buffers = state["muon"]
        self.clock, self.steps = state["clock"], state["steps"]

    def start_from(self, path: Path) -> None:
        """Weights and optimiser state of another run (or weights alone), with the clock and the steps at zero."""
        state = torch.load(path, weights_only=True)
        if set(state) == {"model"}:
            self.model.load_state_dict(state["model"])
            return
        self.resume(path)
        self.clock, self.steps = 0.0, 0


def normalised(frames: Tensor) -> Tensor:
    """uint8 [B, T, side, side, 3] -> float [B, T, 3, side, side], mean 0.5 and deviation 0.5."""
    return (frames.float() / 127.5 - 1).permute(0, 1, 4, 2, 3)


def class_loss(scores: Tensor, wanted: Tensor) -> Tensor:
    """Sum of the cross entropies of colour, kind and, where the head has them, way, part and corner."""
    sizes = (N_COLOURS, N_KINDS, N_WAYS, N_PARTS, N_CORNERS)
    n = 2 if scores.shape[-1] == N_COLOURS + N_KINDS else 5
    parts = scores.flatten(0, -2).split(sizes[:n], dim=-1)
    wanted = wanted.reshape(-1, 5)
    losses = [F.cross_entropy(p, wanted[:, i], ignore_index=IGNORE) for i, p in enumerate(parts)]
    return torch.stack(losses).sum()


def validation(trainer: Trainer, n: int, folder: Path) -> list[tuple[list[str], dict[str, Tensor]]]:
    """n encoded clips with their questions: (families of the questions, batch of one batch size)."""
    toy = trainer.toy
    rng, asker, clips = np.random.default_rng(1), Asker(toy.world), []
    for i in range(n):
        scene = make_scene(VALIDATION_SEED + i, toy.world)
        frames = read_clip(write_clip(scene, folder / "validation.mp4", side=toy.side))
        clips.append((scene, frames, asker.pick(scene, trainer.args.questions, rng)))
    size = trainer.args.clips
    chunks = [clips[i : i + size] for i in range(0, n - size + 1, size)]
    return [([q.family for _, _, asked in c for q in asked], collate(c, trainer.encoder, toy)) for c in chunks]


@torch.no_grad()
def accuracy(
    trainer: Trainer, batches: list[tuple[list[str], dict[str, Tensor]]], share: float, prune: PruneLayers | None
) -> dict[str, float]:
    """Share of wholly right answers (every answer token and the end token) by family, and over "all"."""
    right: dict[str, list[float]] = defaultdict(list)
    for families, batch in batches:
        with torch.autocast("cpu", torch.bfloat16):
            pixels = normalised(batch["frames"])
            logits = packed_forward(trainer.model, pixels, trainer.prefix, batch["tokens"], share, prune)["logits"]
        targets = batch["targets"]
        ok = ((logits.argmax(-1) == targets) | (targets == IGNORE)).all(-1).flatten()
        for family, hit in zip(families, ok.tolist(), strict=True):
            right[family].append(hit)
            right["all"].append(hit)
    return {k: round(float(np.mean(v)), 3) for k, v in sorted(right.items())}


def scores(trainer: Trainer, batches: list[tuple[list[str], dict[str, Tensor]]]) -> str:
    """Accuracy with all visual tokens and, as far as it is trained, with merging, with pruning and with both: JSON."""
    shares = (1.0, 0.25) if trainer.args.merge else (1.0,)
    prunes = (None, (6, 9)) if trainer.args.prune else (None,)
    found = {f"{s:g} {p or ''}".strip(): accuracy(trainer, batches, s, p) for s in shares for p in prunes}
    return json.dumps(found)


def train(trainer: Trainer, args: argparse.Namespace) -> None:
    log = (args.out / "log.txt").open("a", buffering=1)
    checks = validation(trainer, args.validate, args.out)
    seed = args.seed + trainer.steps
    data = Batches(trainer.toy, args.pool, trainer.tokenizer, args.clips, args.questions, seed, args.drill)
    loader = iter(torch.utils.data.DataLoader(data, batch_size=None, num_workers=1, prefetch_factor=4))
    if args.merge or args.prune:
        print("start", scores(trainer, checks), file=log)
    last = {"step": time.time(), "save": trainer.clock, "check": trainer.clock}
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))  # save, then stop
    while trainer.clock < args.minutes * 60 and not stopped:
        answer, aux = trainer.step(next(loader))
        now = time.time()
        if trainer.steps > 3:  # compiling is not training
            trainer.clock += min(now - last["step"], LONGEST_STEP)
        last["step"] = now
        if trainer.steps % 20 == 0:
            speed = trainer.steps * args.clips / max(trainer.clock, 1)
            line = f"{time.strftime('%H:%M:%S')} step {trainer.steps} min {trainer.clock / 60:.1f}"
            print(f"{line} loss {answer:.3f} aux {aux:.3f} clips/s {speed:.1f}", file=log)
        if trainer.clock - last["check"] > args.check_every:
            last["check"] = trainer.clock
            print(scores(trainer, checks), file=log)
            last["step"] = time.time()
        if trainer.clock - last["save"] > args.save_every:
            last["save"] = trainer.clock
            trainer.save(args.out / "state.pt")
    trainer.save(args.out / "state.pt")
    print("end", scores(trainer, checks), file=log)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the state and the log")
    parser.add_argument("--pool", type=Path, required=True, help="folder of the shards of make_pool")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder written by make_tokenizer")
    parser.add_argument("--toy", choices=TOYS, default="bundled")
    parser.add_argument("--start-from", type=Path, help="state of another run to begin with; its clock starts anew")
    parser.add_argument("--merge", action="store_true", help="merge visual tokens in most batches")
    parser.add_argument("--prune", action="store_true", help="prune visual tokens inside the LLM in most batches")
    parser.add_argument("--freeze-below", type=int, default=0, help="train nothing before this text layer")
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--clips", type=int, default=16, help="clips of 8 frames in a batch, or as many frames")
    parser.add_argument("--questions", type=int, default=10, help="questions packed behind each clip")
    parser.add_argument("--drill", nargs="*", default=(), help="families that get half of the questions")
    parser.add_argument("--lr", type=float, default=2e-3, help="AdamW's")
    parser.add_argument("--muon-lr", type=float, default=2e-3)
    parser.add_argument("--aux", type=float, default=0.3, help="weight of the auxiliary losses")
    parser.add_argument("--validate", type=int, default=128, help="validation clips")
    parser.add_argument("--check-every", type=float, default=240, help="seconds between validations")
    parser.add_argument("--save-every", type=float, default=120, help="seconds between saves")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="slow to start and no gain where it was tried")
    args = parser.parse_args()
    torch.set_flush_denormal(True)  # small gradients become denormal, which this CPU computes many times slower
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(args)
    if (args.out / "state.pt").exists():
        trainer.resume(args.out / "state.pt")
    elif args.start_from:
        trainer.start_from(args.start_from)
    train(trainer, args)


if __name__ == "__main__":
    main()
