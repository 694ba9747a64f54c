"""Training batches: frames from the pool of encoded clips, mirrored at random, with packed questions and labels.

Knows how questions become token rows and how scenes become per-patch labels. Reads the shards of `make_pool.py`;
new shards are picked up while training runs.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from aim_local.demo.training.toys import Toy
from aim_local.demo.world import (
    COLOURS,
    FAMILIES,
    KINDS,
    PARTS,
    WAYS,
    Question,
    Scene,
    Shape,
    World,
    make_scene,
    questions,
    sampled_frames,
)  # fmt: skip

SLOT = 14  # rows of one packed question: its text, the assistant tag, the answer without its last token
IGNORE = -100
TAIL = "<|im_end|><|im_start|>assistant\n"


class Encoder:
    """Turns a question into one slot of token ids and targets, remembering what it has seen."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.seen: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prefix(self) -> Tensor:
        """Ids before the visual rows."""
        return torch.tensor(self.ids("<|im_start|>user "))

    def slot(self, q: Question) -> tuple[np.ndarray, np.ndarray]:
        """Input ids and targets, both int64 [SLOT]; only answer tokens and the end token are targets."""
        key = (q.text, q.answer)
        if key not in self.seen:
            self.seen[key] = self._slot(q)
        return self.seen[key]

    def _slot(self, q: Question) -> tuple[np.ndarray, np.ndarray]:
        prompt, answer = self.ids("\n" + q.text + TAIL), self.ids(q.answer + "<|im_end|>")
        rows = prompt + answer[:-1]
        if len(rows) > SLOT:
            raise ValueError(f"question needs {len(rows)} rows, a slot has {SLOT}: {q.text!r}")
        inputs, targets = np.full(SLOT, self.tokenizer.pad_token_id), np.full(SLOT, IGNORE)
        inputs[: len(rows)] = rows
        targets[len(prompt) - 1 : len(rows)] = answer
        return inputs, targets


class Asker:
    """Picks questions of a scene so that, over many scenes, the answers within a family are about balanced."""

    def __init__(self, world: World, n_scenes: int = 1500) -> None:
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for seed in range(n_scenes):
            for q in questions(make_scene(seed, world)):
                counts[q.family][q.answer] += 1
        self.weight = {(f, a): 1 / n for f in counts for a, n in counts[f].items()}

    def pick(self, scene: Scene, n: int, rng: np.random.Generator, drill: Sequence[str] = ()) -> list[Question]:
        """n questions: one of each family the scene allows, then more of any but the scene-wide families.

        With `drill`, half of the questions are of those families, as far as the scene allows them.
        """
        groups: dict[str, list[Question]] = defaultdict(list)
        for q in questions(scene):
            groups[q.family].append(q)
        families = [f for f in FAMILIES if f in groups]
        again = [f for f in families if f not in ("count", "order")]
        drilled = [f for f in drill if f in groups]
        if drilled:
            families, again = [families[i] for i in rng.permutation(len(families))[: n // 2]], drilled
        families += [again[i] for i in rng.integers(len(again), size=max(0, n - len(families)))]
        return [self._one(groups[f], rng) for f in families[:n]]

    def _one(self, group: list[Question], rng: np.random.Generator) -> Question:
        weights = np.array([self.weight.get((q.family, q.answer), 1.0) for q in group])
        return group[rng.choice(len(group), p=weights / weights.sum())]


def labels(scene: Scene, grid: int, n_frames: int) -> np.ndarray:
    """What covers each cell of a grid x grid raster: int64 [T, grid * grid, 5] of colour, kind, way, part, corner.

    0 is "nothing", way 1 is "stands still"; a mover's way is IGNORE in the first frame that shows it.
    """
    seen = sampled_frames(k=n_frames)
    out = np.zeros((n_frames, grid * grid, 5), np.int64)
    middle = (np.arange(grid) + 0.5) / grid
    for t, frame in enumerate(seen):
        best = np.full(grid * grid, np.inf)
        for s in scene.shapes:
            if not s.visible(frame):
                continue
            x, y = s.centre(frame)
            far = np.maximum(np.abs(middle[None, :] - x), np.abs(middle[:, None] - y)).ravel()  # [grid * grid]
            here = (far < s.radius + 0.25 / grid) & (far < best)
            best[here] = far[here]
            first = not any(s.visible(f) for f in seen[:t])
            out[t, here] = (*shape_classes(s, first), 1 + (x >= 0.5) + 2 * (y >= 0.5))
    return out


def shape_classes(s: Shape, first: bool) -> tuple[int, int, int, int]:
    way = 1 if not s.moves else IGNORE if first else 2 + list(WAYS).index(s.way)
    return 1 + list(COLOURS).index(s.colour), 1 + KINDS.index(s.kind), way, 1 + PARTS.index(s.part)


class Pool:
    """Encoded clips on disk: shards named by the seed of their first clip, uint8 [N, 16, side, side, 3] each."""

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.world = folder, world
        self.shards: dict[int, np.ndarray] = {}
        self.refresh()

    def refresh(self) -> None:
        for path in sorted(self.folder.glob("[0-9]*[0-9].npy")):
            if int(path.stem) not in self.shards:
                self.shards[int(path.stem)] = np.load(path, mmap_mode="r")

    def draw(self, rng: np.random.Generator, n_frames: int) -> tuple[Scene, np.ndarray]:
        """A random clip: its scene and frames uint8 [T, side, side, 3], mirrored in one of four ways."""
        first = list(self.shards)[rng.integers(len(self.shards))]
        i = int(rng.integers(len(self.shards[first])))
        across, upside_down = (bool(b) for b in rng.integers(0, 2, 2))
        frames = self.shards[first][i, sampled_frames(k=n_frames)]
        frames = frames[:, :: -1 if upside_down else 1, :: -1 if across else 1]
        return make_scene(first + i, self.world).mirrored(across, upside_down), np.ascontiguousarray(frames)


class Batches(torch.utils.data.IterableDataset):
    """Endless batches; see `one` for what is in them."""

    def __init__(
        self,
        toy: Toy,
        folder: Path,
        tokenizer: PreTrainedTokenizerBase,
        n_clips: int,
        n_questions: int,
        seed: int,
        drill: Sequence[str] = (),
    ) -> None:
        self.toy, self.folder, self.encoder = toy, folder, Encoder(tokenizer)
        self.n_clips, self.n_questions, self.seed, self.drill = n_clips, n_questions, seed, drill

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        pool, asker, n = Pool(self.folder, self.toy.world), Asker(self.toy.world), 0
        while True:
            n += 1
            if n % 100 == 0:
                pool.refresh()
            yield self.one(pool, asker, rng)

    def one(self, pool: Pool, asker: Asker, rng: np.random.Generator) -> dict[str, Tensor]:
        """frames uint8 [B, T, side, side, 3]; tokens, targets [B, Q, SLOT]; patch, token [B, T, cells, 5].

        T is drawn per batch, B so that a batch has as many frames as n_clips clips of 8.
        """
        n_frames = int(rng.choice(self.toy.frames))
        n_clips = max(1, round(self.n_clips * 8 / n_frames))
        drawn = [pool.draw(rng, n_frames) for _ in range(n_clips)]
        asked = [(s, f, asker.pick(s, self.n_questions, rng, self.drill)) for s, f in drawn]
        return collate(asked, self.encoder, self.toy)


def collate(clips: list[tuple[Scene, np.ndarray, list[Question]]], encoder: Encoder, toy: Toy) -> dict[str, Tensor]:
    """Stack clips of equally many frames and questions into one batch."""
    slots = [[encoder.slot(q) for q in asked] for _, _, asked in clips]
    arrays = {
        "frames": np.stack([f for _, f, _ in clips]),
        "tokens": np.stack([[i for i, _ in row] for row in slots]),
        "targets": np.stack([[t for _, t in row] for row in slots]),
        "patch": np.stack([labels(s, toy.grid, len(f)) for s, f, _ in clips]),
        "token": np.stack([labels(s, toy.pooled, len(f)) for s, f, _ in clips]),
    }
    return {k: torch.from_numpy(v) for k, v in arrays.items()}
