"""The same prompts on the CPU and on a GPU: how far apart the logits are, and which other tokens are kept.

Processes of their own, because a build for GPUs hands large products to a GPU it sees even when no layer is on it:
  cpu      the GPU hidden, no layer on it: the truth here
  gpu      all layers and the vision tower on it
  exact    the same with products of float32 numbers, not of numbers rounded to 10 bits of fraction, as far as the
           device has them. On CUDA only cuBLAS obeys, ggml's own kernels stay as they are. On Vulkan rows go through
           the text model one by one: products of several rows copy their keys to float16 (the vision tower's, too)
  back     the CPU again, going on with the conversations that the GPU saved
  layers 0 the GPU seen, no layer on it
Random text models (those of the tests, F32 to Q8_0) also stand beside the tests' float64 oracle, which says whose
rounding it is; the bundled model is there as it is, where the CPU rounds to float16 as well, and in float32 ("demo
f32"). "forced": every cut takes what the CPU kept, so that both compute the same rows in every layer. Rows that only
one side keeps are "apart" by the CPU's scores of them, as a share of the score at the cut.

  python benchmarks/gpu_parity.py --out FOLDER [--clips 8] [--seeds 6]
"""

from __future__ import annotations

import argparse
import ctypes
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SIDES = {"cpu": 0, "gpu": -1, "exact": -1, "back": 0, "layers 0": 0}  # layers on the GPU; what matters most comes first
HIDE = {"CUDA_VISIBLE_DEVICES": "-1", "GGML_VK_VISIBLE_DEVICES": ""}
EXACT = {"NVIDIA_TF32_OVERRIDE": "0", "GGML_VK_DISABLE_F16": "1", "AIM_TEST_ROWS": "1"}
ENVIRONMENT = {"cpu": HIDE, "back": HIDE, "exact": EXACT}
PARTS = ("text", "demo", "chat")  # a process each: only the first needs torch
LAST_TURN = "Where does it go?"


@dataclass
class Found:
    """What one side computed. logits: {"prefill": [n_vocab], ...}; kept: rows that enter each layer; scores: theirs."""

    logits: dict[str, Any] = field(default_factory=dict)
    kept: list[Any] = field(default_factory=list)
    scores: dict[int, Any] = field(default_factory=dict)
    rows: Any = None  # visual tokens, float32 [n, n_embd]
    text: str = ""
    right: bool | None = None
    oracle: float | None = None  # distance of the logits to float64
    failure: str = ""


Results = dict[str, Found]


def forced(kept: Sequence[Any]) -> Callable[[int, Any, int], Any]:
    """A selector that keeps what another run kept."""
    return lambda il, scores, n: np.searchsorted(kept[il], kept[il + 1])


def distance(a: Any, b: Any) -> float:
    """Largest difference as a share of the largest of b."""
    return float(np.abs(np.asarray(a) - b).max() / np.abs(b).max())


# --- one side ---------------------------------------------------------------------------------------------------------


def text_cases(n_seeds: int) -> Iterator[tuple[str, Any, list[int], list[int], str, dict[str, Any]]]:
    """(name, shape, parts, counts, weights, options) of random text models."""
    from staged_models import SHAPE
    from test_staged_parity import draw

    for seed in range(n_seeds):
        shape, parts, counts, options = draw(seed)
        yield f"text f32 {seed}", shape, parts, counts, "F32", options
    shape, counts = replace(SHAPE, d_head=64), [196, 196, 147, 98, 49, 0]
    for weights, kv, flash in (
        ("F16", "f16", False),
        ("F16", "f16", True),
        ("Q8_0", "f16", True),
        ("Q8_0", "q8_0", True),
    ):
        options = {"type_k": kv, "type_v": kv, "flash_attn": flash}
        yield f"text {weights} kv {kv} flash {flash}", shape, [10, 196, 20], counts, weights, options


def run_text(folder: Path, n_layers: int, n_seeds: int, cpu: Results) -> Results:
    from reference_aim import Reference
    from staged_models import Models, make_prompt, open_context, run
    from staged_oracle import Agreement, compare

    from aim_local.native.library import llama

    class OnSide(Models):
        def load(self, shape: Any, weights: str = "F32") -> int:
            if (shape, weights) not in self.native:
                params = llama.llama_model_default_params()
                params.n_gpu_layers = 999 if n_layers < 0 else n_layers
                path = str(self.path(shape, weights)).encode()
                self.native[shape, weights] = llama.llama_model_load_from_file(path, params)
            return self.native[shape, weights]

    models, out = OnSide(folder), {}
    for seed, (name, shape, parts, counts, weights, options) in enumerate(text_cases(n_seeds)):
        prompt, agreement, found = make_prompt(shape, parts, seed), Agreement(), Found()
        try:
            n_text = len(prompt.ids) - counts[0] + 40
            with open_context(models, shape, counts, n_text, weights, **options) as ctx:
                first = compare(ctx, Reference(models.twin(shape)), prompt, counts, agreement, exact=False)
                found.logits["prefill"], found.oracle = first.numpy(), agreement.logits
                found.kept = [ctx.kept(il) for il in range(shape.n_layer)]
                scores = {il: ctx.importance(il) for il in range(shape.n_layer)}
                found.scores = {il: of for il, of in scores.items() if of is not None}
                truth = cpu.get(name, found).kept
                ctx.clear()
                found.logits["forced"] = run(ctx, prompt, counts, select=forced(truth))
                for token in range(4, 12):
                    found.logits["forced"] = np.append(found.logits["forced"], ctx.decode(token))
        except Exception as e:
            found.failure = f"{type(e).__name__}: {e}"
        out[name] = found
    models.close()
    return out


def settings() -> dict[str, Any]:
    from aim_local import VisualTokenConfig

    merged = VisualTokenConfig(prune_layers=None)
    pruned = VisualTokenConfig(merge_retain=1.0)
    return {"off": VisualTokenConfig.off(), "merged": merged, "pruned": pruned, "paper": VisualTokenConfig.paper()}


def on_side(n_layers: int) -> Any:
    """Options of the bundled model. No rows of another side are taken; the CPU's own rounding is not what is asked."""
    from aim_local import LoadConfig

    exact: dict[str, Any] = {"vision_precision": "exact", "prefill_precision": "exact"}
    return LoadConfig(n_gpu_layers=n_layers, n_threads=4, cache_media=False, **exact)


def demo_in_float32(folder: Path) -> tuple[Path, Path]:
    """The bundled model with the same numbers as F32: its text and its vision GGUF."""
    from aim_local.convert.quantize_vision import quantize_vision
    from aim_local.native.library import llama
    from aim_local.store.names import bundled_folder

    source, text, vision = bundled_folder(), folder / "demo-f32.gguf", folder / "demo-f32-mmproj.gguf"
    assert source is not None, "this installation has no bundled model"
    if not vision.is_file():
        params = llama.llama_model_quantize_default_params()
        params.ftype = llama.LLAMA_FTYPE_ALL_F32
        files = str(source / "model.gguf").encode(), str(text).encode()
        assert llama.llama_model_quantize(*files, ctypes.byref(params)) == 0, "llama_model_quantize failed"
        quantize_vision(source / "mmproj.gguf", vision, "f32")
    return text, vision


def run_demo(folder: Path, n_layers: int, n_clips: int, cpu: Results) -> Results:
    """The bundled model on held-out clips, as it is and in float32: visual tokens, logits, answers."""
    from aim_local import VisionLLM

    plain = replace(on_side(n_layers), n_ubatch=int(os.environ.get("AIM_TEST_ROWS", "512")))
    exact = replace(plain, type_k="f32", type_v="f32", flash_attn=False)
    with VisionLLM.load(config=plain) as llm:
        out = ask_demo(llm, "demo", folder, n_clips, cpu)
    with VisionLLM.load(*demo_in_float32(folder), config=exact) as llm:
        return out | ask_demo(llm, "demo f32", folder, n_clips, cpu)


def ask_demo(llm: Any, title: str, folder: Path, n_clips: int, cpu: Results) -> Results:
    from prompt_steps import encoded

    from aim_local import GenerateConfig
    from aim_local.demo import held_out, is_right, write_clip

    out = {}
    for i, clip in enumerate(held_out(n_clips)):
        path = write_clip(clip, folder / f"{i}.mp4")
        for setting, tokens in settings().items():
            found, name = Found(), f"{title} {setting} {i}"
            try:
                answer = llm.generate(clip.question, [path], tokens, GenerateConfig(max_tokens=16))
                found.text, found.right = answer.text, is_right(answer.text, clip.answer)
                free = llm.prefill(clip.question, [path], tokens)
                found.logits["prefill"], found.kept = free.logits, list(free.trace.kept)
                found.scores = dict(free.trace.importance)
                own = replace(tokens, importance=forced(cpu.get(name, found).kept)) if tokens.prunes else tokens
                found.logits["forced"] = llm.prefill(clip.question, [path], own).logits
                if setting in ("off", "merged"):
                    blocks = encoded(llm, f"<__media__>{clip.question}", [path], tokens).blocks.values()
                    found.rows = np.concatenate([block.rows for block in blocks])
            except Exception as e:
                found.failure = f"{type(e).__name__}: {e}"
            out[name] = found
    return out


def run_chats(folder: Path, side: str, n_layers: int) -> Results:
    """Two turns, saved; then the third as it is, and the third of what this side and another one saved."""
    from aim_local import GenerateConfig, VisionLLM
    from aim_local.demo import held_out, write_clip

    clip = write_clip(next(iter(held_out(1))), folder / f"chat-{side}.mp4".replace(" ", "-"))
    short, out = GenerateConfig(max_tokens=6), {}
    other = {"gpu": "cpu", "exact": "cpu", "back": "gpu"}.get(side)
    with VisionLLM.load(config=on_side(n_layers)) as llm:
        for setting, tokens in settings().items():
            file = folder / f"{setting}-{side}.aimchat".replace(" ", "-")

            def talk(tokens: Any = tokens, file: Path = file) -> str:
                with llm.chat(tokens, generate=short) as chat:
                    said = [chat.ask("What moves?", [clip]).text, chat.ask("And its colour?").text]
                    chat.save(file)
                    return " | ".join([*said, chat.ask(LAST_TURN).text])

            def go_on(path: Path = file) -> str:
                with llm.load_chat(path, short) as chat:
                    said = [str(message["content"]) for message in chat.messages if message["role"] == "assistant"]
                    return " | ".join([*said, chat.ask(LAST_TURN).text])

            tasks = {f"chat {setting}": talk, f"chat {setting}, saved and loaded": go_on}
            if other:
                path = folder / f"{setting}-{other}.aimchat"
                tasks[f"chat {setting}, saved by {other}"] = lambda path=path, go_on=go_on: go_on(path)
            for name, task in tasks.items():
                found = out.setdefault(name, Found())
                try:
                    found.text = task()
                except Exception as e:
                    found.failure = f"{type(e).__name__}: {e}"
    return out


def run_side(folder: Path, side: str, part: str, n_seeds: int, n_clips: int) -> None:
    cpu = read(folder, "cpu") if side != "cpu" else {}
    work, n_layers = folder / "work", SIDES[side]
    work.mkdir(exist_ok=True)
    if part == "text":
        found = {} if side == "back" else run_text(work, n_layers, n_seeds, cpu)
    elif part == "demo":
        found = {} if side == "back" else run_demo(work, n_layers, n_clips, cpu)
    else:
        from aim_local.native.devices import device_names

        print(f"{side}: {'; '.join(device_names())}", flush=True)
        found = run_chats(work, side, n_layers)
    (folder / f"{side}-{part}.pickle").write_bytes(pickle.dumps(found))


def read(folder: Path, side: str) -> Results:
    found: Results = {}
    for part in PARTS:
        path = folder / f"{side}-{part}.pickle"
        found |= pickle.loads(path.read_bytes()) if path.is_file() else {}
    return found


# --- both -------------------------------------------------------------------------------------------------------------


def cuts(ours: Sequence[Any], theirs: Sequence[Any]) -> tuple[int, int, int, int]:
    """(cuts, cuts that differ, rows kept at cuts, rows of them that only one side keeps)."""
    n = other = rows = moved = 0
    for il in range(1, len(theirs)):
        if 0 < len(theirs[il]) < len(theirs[il - 1]):
            lost = len(np.setdiff1d(theirs[il], ours[il]))
            n, other, rows, moved = n + 1, other + bool(lost), rows + len(theirs[il]), moved + lost
    return n, other, rows, moved


def swapped(theirs: Found, ours: Found) -> float:
    """How near to each other the rows are that only one of both keeps, by their scores: 0 where all are the same.

    Of all cuts the largest; from the best that only `theirs` has to the worst that only `ours` has, as a share of the
    score at the cut. `theirs` has the scores. Cuts after one that differs are left out, they choose from other rows.
    """
    for il, scores in sorted(theirs.scores.items()):
        score = dict(zip(np.asarray(theirs.kept[il]).tolist(), np.asarray(scores).tolist(), strict=True))
        a, b = set(np.asarray(theirs.kept[il + 1]).tolist()), set(np.asarray(ours.kept[il + 1]).tolist())
        if a != b and (cut := min(score[row] for row in a)) > 1e-30:  # zero in float32: no row is better than another
            return (max(score[row] for row in a - b) - min(score[row] for row in b - a)) / cut
    return 0.0


def group(name: str) -> str:
    """Cases that are one line of the table."""
    return name.rpartition(" ")[0] if name.rpartition(" ")[2].isdigit() else name


def report(side: str, cpu: Results, found: Results) -> None:
    print(f"\n{side} beside cpu (largest difference over the largest logit: worst, median)")
    names = [name for name in cpu if not name.startswith("chat") and name in found]
    for title in dict.fromkeys(group(name) for name in names):
        pairs = [(cpu[name], found[name]) for name in names if group(name) == title]
        for failure in {p[1].failure for p in pairs if p[1].failure}:
            print(f"  {title}: FAILED {failure}")
        report_group(title, [p for p in pairs if not p[0].failure and not p[1].failure])


def undecided(theirs: Any, ours: Any) -> float | None:
    """How far apart two top tokens are by `theirs`, as a share of the largest logit; None where they are the same."""
    a, b = int(theirs.argmax()), int(ours.argmax())
    return None if a == b else float((theirs[a] - theirs[b]) / np.abs(theirs).max())


def report_group(title: str, pairs: list[tuple[Found, Found]]) -> None:
    if not pairs:
        return
    parts = []
    for kind in ("prefill", "forced"):
        apart = [distance(b.logits[kind], a.logits[kind]) for a, b in pairs]
        parts.append(f"{'free' if kind == 'prefill' else kind} {max(apart):.1e}, {np.median(apart):.1e}")
    n, other, rows, moved = np.sum([cuts(b.kept, a.kept) for a, b in pairs], axis=0)
    apart = f", the first {max(swapped(a, b) for a, b in pairs):.1e} apart" if other else ""
    parts.append(f"{other} of {n} cuts differ, {moved} of {rows} rows{apart}")
    ties = [tie for a, b in pairs if (tie := undecided(a.logits["prefill"], b.logits["prefill"])) is not None]
    parts.append(
        f"top token equal {len(pairs) - len(ties)} of {len(pairs)}" + (f", {max(ties):.1e} apart" if ties else "")
    )
    if pairs[0][0].oracle is not None:
        ours, theirs = (max(p[i].oracle or 0 for p in pairs) for i in (0, 1))
        parts.append(f"to float64: cpu {ours:.1e}, here {theirs:.1e}")
    rows_apart = [distance(b.rows, a.rows) for a, b in pairs if a.rows is not None and b.rows is not None]
    if rows_apart:
        parts.append(f"visual tokens {max(rows_apart):.1e}, {np.median(rows_apart):.1e}")
    if pairs[0][0].text:
        equal = sum(a.text == b.text for a, b in pairs)
        right = [sum(bool(p[i].right) for p in pairs) for i in (0, 1)]
        parts.append(f"answers equal {equal} of {len(pairs)}, right {right[0]} and {right[1]}")
    print(f"  {title} ({len(pairs)}): {'; '.join(parts)}")


def report_chats(folder: Path, side: str) -> None:
    print(f"\n{side}: conversations of three turns")
    for name, found in read(folder, side).items():
        if name.startswith("chat"):
            print(f"  {name}: {found.failure or found.text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--side", choices=list(SIDES))
    parser.add_argument("--part", choices=PARTS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(ROOT / "tests"))
    if args.side:
        run_side(args.out, args.side, args.part, args.seeds, args.clips)
        return
    for side in SIDES:
        env = {**os.environ, **ENVIRONMENT.get(side, {})}
        for part in PARTS:
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--part", part]
            done = subprocess.run(command, env=env)
            if done.returncode:
                print(f"{side}, {part}: FAILED with exit status {done.returncode}")
        if side in ("gpu", "exact", "layers 0"):
            report(side, read(args.out, "cpu"), read(args.out, side))
        report_chats(args.out, side)


if __name__ == "__main__":
    main()
