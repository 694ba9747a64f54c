"""Operations during which one call of the C library fails: a file says which, as "convert write 17 28".

Each must end in success or in one clear line, take nothing half-written as good, and do its work the next time. Run
by fuzz/faults.py, with faults.c preloaded; `make fuzz` leaves it out. 0 as the number of the call only counts: the
count is written beside the file.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fuzz.targets import checkpoint, state

SUFFIXES = (".fault",)
MEMORY_MIB = 600
CLIP = Path(__file__).resolve().parents[3] / "aim_local" / "data" / "clips" / "time.mp4"
NAMES = ("open", "write", "fsync", "rename", "mmap", "malloc")


def seeds(folder: Path) -> list[Path]:
    paths = []
    for name in OPERATIONS:
        paths.append(folder / f"{name}.fault")
        paths[-1].write_text(f"{name} open 0 0")
    return paths


def mutate(data: bytes, rng: random.Random) -> bytes:
    name, _, _, _ = data.decode().split()
    return f"{name} {rng.choice(NAMES)} {rng.randrange(1, 60)} {rng.choice((0, 5, 12, 13, 28))}".encode()


@dataclass(frozen=True)
class Fault:
    """The n-th call of a function fails with an errno; 0: a short write. n 0: nothing fails."""

    function: str
    n: int
    errno: int

    @contextmanager
    def armed(self, path: Path) -> Iterator[None]:
        library = ctypes.CDLL(None)
        assert library.aim_fault_arm(self.function.encode(), ctypes.c_long(self.n), self.errno) == 0
        try:
            yield
        finally:
            n_calls = library.aim_fault_disarm()
            if not self.n:
                path.with_suffix(".count").write_text(str(n_calls))


def read(path: Path) -> None:
    from aim_local.cli._app import describe
    from aim_local.errors import AimError

    name, function, n, errno = path.read_text().split()
    fault = Fault(function, int(n), int(errno))
    folder = Path(tempfile.mkdtemp())
    try:
        with state.home():
            OPERATIONS[name](folder, lambda: fault.armed(path))
    except AimError:
        raise
    except Exception as error:
        line, _ = describe(error)
        if line.startswith("internal error"):
            raise
        raise AimError(line) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


Armed = Callable[[], Any]


def twice(do: Callable[[], None], armed: Armed, good: Callable[[], bool], left: Callable[[], set[str]]) -> None:
    """With the fault, then without: what the first leaves is whole or not there; what is neither goes."""
    failed: Exception | None = None
    try:
        with armed():
            do()
    except Exception as error:
        failed = error
    assert good(), "something half-written stands in the result's place"
    if failed or left():
        do()
        assert good()
    assert not left(), left()
    if failed:
        raise failed


def digest(folder: Path) -> str:
    """Of all that is in it, by name."""
    found = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        found.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


# --- operations -------------------------------------------------------------------------------------------------------


def convert_one(folder: Path, armed: Armed) -> None:
    from aim_local.convert import ConvertConfig, convert

    source, out = folder / "llava", folder / "out" / "model"
    checkpoint.write_checkpoint(source, "llava", "", b"")
    config = ConvertConfig("f16", "f16", name="tiny")

    def do() -> None:
        convert(source, out, config)

    def good() -> bool:
        return not out.exists() or digest(out) == converted()[1]

    twice(do, armed, good, lambda: {p.name for p in (folder / "out").iterdir()} - {"model"})


@cache
def converted() -> tuple[Path, str]:
    """A model folder, and what is in it; it lives as long as this process."""
    from aim_local.convert import ConvertConfig, convert

    folder = Path(tempfile.mkdtemp())
    checkpoint.write_checkpoint(folder / "llava", "llava", "", b"")
    convert(folder / "llava", folder / "model", ConvertConfig("f16", "f16", name="tiny"))
    return folder / "model", digest(folder / "model")


def quantize_one(folder: Path, armed: Armed) -> None:
    from aim_local.convert import quantize

    source, out = converted()[0], folder / "out" / "model"
    out.parent.mkdir()

    def do() -> None:
        quantize(source, out, "q8_0", threads=1)

    def good() -> bool:
        return not out.exists() or digest(out) == quantized()

    twice(do, armed, good, lambda: {p.name for p in out.parent.iterdir()} - {"model"})


@cache
def quantized() -> str:
    from aim_local.convert import quantize

    folder = Path(tempfile.mkdtemp())
    quantize(converted()[0], folder / "model", "q8_0", threads=1)
    return digest(folder / "model")


@cache
def bundled() -> Any:
    from aim_local import LoadConfig, VisionLLM

    return VisionLLM.load(config=LoadConfig(n_threads=1, cache_media=False))


def save_chat(folder: Path, armed: Armed) -> None:
    """Over an earlier save: one of both is there afterwards, and says so."""
    path = folder / "out" / "c.aimchat"
    path.parent.mkdir()
    with bundled().chat() as chat:
        chat.ask("What is this?", [CLIP])
        chat.save(path)
        chat.ask("And?")

        def good() -> bool:
            with bundled().load_chat(path) as again:
                return list(again.messages) in (list(chat.messages), list(chat.messages)[:2])

        twice(lambda: chat.save(path), armed, good, lambda: {p.name for p in path.parent.iterdir()} - {path.name})


def load_chat(folder: Path, armed: Armed) -> None:
    path = folder / "c.aimchat"
    with bundled().chat() as chat:
        chat.ask("What is this?", [CLIP])
        chat.save(path)
        wanted = chat.ask("And?").text

    def do() -> None:
        with bundled().load_chat(path) as again:
            assert again.ask("And?").text == wanted

    twice(do, armed, lambda: True, set)


def ask_with_store(folder: Path, armed: Armed) -> None:
    """What cannot be kept costs the next question time, and no answer."""
    from aim_local import LoadConfig, VisionLLM
    from aim_local.store.encoded import EncodedStore

    wanted = bundled().generate("What is this?", [CLIP]).text
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as llm:

        def do() -> None:
            assert llm.generate("What is this?", [CLIP]).text == wanted

        def left() -> set[str]:
            return {p.name for p in EncodedStore().folder.iterdir() if p.suffix != ".rows"}

        twice(do, armed, lambda: True, left)
        do()


def ask_pruned(folder: Path, armed: Armed) -> None:
    """A staged prefill, in a model that goes on afterwards."""
    from aim_local import VisualTokenConfig

    tokens = VisualTokenConfig(merge_retain=0.5)
    wanted = bundled().generate("What is this?", [CLIP], tokens).text

    def do() -> None:
        assert bundled().generate("What is this?", [CLIP], tokens).text == wanted

    twice(do, armed, lambda: True, set)


def write_answers(folder: Path, armed: Armed) -> None:
    """A run's files, taken up again after the fault."""
    from aim_local.batch.answers import Answers
    from aim_local.batch.job import Outcome

    out, ids = folder / "out" / "a.jsonl", [f"q{n}" for n in range(4)]
    out.parent.mkdir()
    lines = [f'{{"id": "{name}", "answer": "x"}}' for name in ids]

    def do() -> None:
        with Answers(out, {"model": "m"}, ids) as answers:
            for index, name in enumerate(ids):
                if index not in answers.done:
                    answers.add(Outcome(index, {"id": name, "answer": "x"}, {}))
            answers.write()
        assert out.read_text().splitlines() == lines

    twice(do, armed, lambda: True, lambda: {p.name for p in out.parent.iterdir()} - {"a.jsonl", "a.jsonl.stats"})


def compare_two(folder: Path, armed: Armed) -> None:
    """Two questions and two cells, whose processes are children without a fault of their own."""
    from aim_local.lab.compare import Options, compare
    from aim_local.lab.compare.records import Item, Suite

    items = tuple(Item(f"q{n}", (CLIP,), f"What is this {n}?") for n in range(2))
    suite, out = Suite("s", items, "0" * 64), folder / "out"

    def do() -> None:
        report = compare(suite, out, settings=("off",), options=Options(max_tokens=2, kld_tokens=0))
        assert [(cell.status, cell.n_done) for cell in report.cells] == [("done", 2)], report.cells

    twice(do, armed, lambda: True, lambda: {p.name for p in out.rglob("*.aim-part")})


OPERATIONS: dict[str, Callable[[Path, Armed], None]] = {
    "convert": convert_one,
    "quantize": quantize_one,
    "save": save_chat,
    "load": load_chat,
    "store": ask_with_store,
    "prune": ask_pruned,
    "answers": write_answers,
    "compare": compare_two,
}
if os.environ.get("AIM_FAULT_OPERATIONS"):
    OPERATIONS = {name: OPERATIONS[name] for name in os.environ["AIM_FAULT_OPERATIONS"].split(",")}
