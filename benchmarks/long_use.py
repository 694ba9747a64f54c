"""Memory over a long life: answers one after the other, conversations that nobody closes, models that nobody closes.

python benchmarks/long_use.py [--answers 10000] [--chats 200] [--models 50] [--model NAME]

One line for every tenth of each, and at the end what a use is left with: MiB of resident memory more than after the
first tenth, in all and for each. Linux only: resident memory is read from /proc. Exit code 1 where one grows by more
than 0.02 MiB an answer or 0.5 MiB a conversation or model.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aim_local import GenerateConfig, LoadConfig, VisionLLM
from aim_local.demo import held_out, write_clip

SHORT = GenerateConfig(max_tokens=8)
ALLOWED = {"answers": 0.02, "chats": 0.5, "models": 0.5}  # MiB for each


def resident() -> float:
    """MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) / 1024


@contextmanager
def loaded(name: str | None) -> Iterator[VisionLLM]:
    with VisionLLM.load(name, config=LoadConfig(n_threads=1, cache_media=False)) as llm:
        yield llm


def measured(what: str, n: int, use: Callable[[int], object]) -> bool:
    """Whether it stays flat: from the first tenth on, in which caches fill."""
    step, first = max(1, n // 10), 0.0
    for i in range(n):
        use(i)
        if (i + 1) % step == 0:
            now = resident()
            first = first or now
            print(f"{what:8} {i + 1:6}: {now:8.1f} MiB", flush=True)
    grown = resident() - first
    each = grown / max(1, n - step)
    print(f"{what:8} {n:6}: {grown:+8.1f} MiB since the first {step}, {each:+.4f} MiB each")
    return each <= ALLOWED[what]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, n in (("answers", 10_000), ("chats", 200), ("models", 50)):
        parser.add_argument(f"--{name}", type=int, default=n)
    parser.add_argument("--model", help="a name or file; default: the bundled model")
    given = parser.parse_args()
    flat = True
    with tempfile.TemporaryDirectory() as folder, loaded(given.model) as llm:
        clip = write_clip(next(iter(held_out(1))), Path(folder) / "clip.mp4")
        flat &= measured(
            "answers",
            given.answers,
            lambda i: llm.generate("What moves?", [clip] if i % 10 == 0 else [], generate=SHORT),
        )
        open_ones: list[object] = []

        def unclosed(i: int) -> None:
            chat = llm.chat(generate=SHORT)
            chat.ask("What moves?", [clip] if i % 4 == 0 else [])
            open_ones[:] = [chat, open_ones[:1]] if i % 2 else [chat]  # some live a little longer, some in a circle
            if i % 8 == 0:
                open_ones.append(open_ones)

        flat &= measured("chats", given.chats, unclosed)

    def model(_: int) -> None:
        llm = VisionLLM.load(given.model, config=LoadConfig(n_threads=1, cache_media=False))
        chat = llm.chat(generate=SHORT)
        chat.ask("Hello")

    gc.collect()
    flat &= measured("models", given.models, model)
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
