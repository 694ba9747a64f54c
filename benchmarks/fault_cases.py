"""What kills.py and side_by_side.py disturb: commands that write, and what readers take of what they wrote.

Each case has a place of its own for each try: inputs, outputs and all user state are in it. The commands are those of a
user, on tiny models that are made here and on a hub on loopback.
"""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from hub_server import Hub, serving
from run_case import CLIPS, environment, write_questions

from aim_local.lab.compare.workspace import CellFolder
from aim_local.store.chat_file import read_chat
from aim_local.store.encoded import EncodedStore, Key
from aim_local.store.files import replaced
from aim_local.store.names import MANIFEST, bundled_folder

REPO = "tiny/Toy-GGUF"
QUESTION = "What happens?"
MARK = "AIM_FAULTS_MARK"  # variable by which a try's processes are known, however they are related
_COMMAND = (sys.executable, "-P", "-c", "from aim_local.cli import main; main()")

Found = dict[str, Any]  # what a reader takes as whole, by name


@dataclass(frozen=True)
class Case:
    """arguments: of aim-local, in a try's place. read: what readers take there, raises for what is damaged.

    typed: what is typed at the command's prompt. inputs: made in a place before the command runs.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    read: Callable[[Path], Found]
    typed: str = ""
    inputs: Callable[[Path], None] = lambda _: None


@dataclass(frozen=True)
class Truth:
    """An undisturbed run: its seconds, results and files."""

    seconds: float
    found: Found
    names: set[str]


class Started:
    """A command that runs. said: its stderr, once it has ended."""

    def __init__(self, case: Case, place: Path, hub: Hub, mark: str, n: int = 0) -> None:
        self._errors = place / f"stderr-{n}"
        endpoint = {"HF_ENDPOINT": hub.url, "HF_HOME": str(place / "hf"), "NO_PROXY": "127.0.0.1,localhost"}
        own = {**environment(place / "home"), **endpoint, "OMP_THREAD_LIMIT": "1", MARK: mark}
        self._keyboard = -1
        given = subprocess.DEVNULL
        if case.typed:  # at a terminal, else it is one question
            self._keyboard, given = pty.openpty()
            os.write(self._keyboard, case.typed.encode())
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*_COMMAND, *case.arguments(place)],
                stdin=given, stdout=subprocess.DEVNULL, stderr=errors, env=own, cwd=place, start_new_session=True,
            )  # fmt: skip
        if case.typed:
            os.close(given)

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        code = self.process.wait()
        if self._keyboard >= 0:
            os.close(self._keyboard)
            self._keyboard = -1
        return code

    @property
    def said(self) -> str:
        return self._errors.read_text(encoding="utf-8", errors="replace")


def read_tally(file: Path | None) -> dict[str, Any]:
    """What earlier runs did, by case; empty without a file."""
    return json.loads(file.read_text(encoding="utf-8")) if file and file.exists() else {}


def write_tally(file: Path | None, rows: Mapping[str, Any]) -> None:
    if file:
        with replaced(file) as partial:
            partial.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def names(place: Path) -> set[str]:
    """All there is in a place, but for what the try itself wrote and what remembers sums of files that are not new."""
    found = {str(path.relative_to(place)) for path in place.rglob("*")}
    return {name for name in found if not re.search(r"^stderr-\d+$|digests\.json$", name)}


def remaining(mark: str) -> list[int]:
    """Processes of a try that are there still."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}\0".encode() in (folder / "environ").read_bytes() and _is_alive(folder):
                found.append(int(folder.name))
        except OSError:  # ended meanwhile
            continue
    return found


def _is_alive(folder: Path) -> bool:
    return (folder / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"


@contextmanager
def all_cases(scratch: Path) -> Iterator[tuple[list[Case], Hub]]:
    """The cases, and the hub that they ask. scratch: for inputs that all tries share."""
    demo = bundled_folder()
    assert demo is not None, "this checkout has the bundled model"
    hub = Hub()
    hub.repos[REPO] = {
        "Toy-F16.gguf": (demo / "model.gguf").read_bytes(),
        "mmproj-Toy-f16.gguf": (demo / "mmproj.gguf").read_bytes(),
    }
    with ExitStack() as stack:
        server = stack.enter_context(serving(hub))
        vars(server)["handle_error"] = lambda *_: None  # clients that are killed are no faults of the hub
        yield [_convert(_checkpoint(scratch)), _quantize(demo), _compare(), _run(), _pull(), _chat(), _store()], hub


def _checkpoint(scratch: Path) -> Path:
    from checkpoints import write_llava

    return write_llava(scratch / "checkpoint")


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- the cases -------------------------------------------------------------------------------------------------------


def _convert(checkpoint: Path) -> Case:
    def read(place: Path) -> Found:
        return _model_folder(place / "out")

    return Case("convert", lambda place: ["convert", str(checkpoint), "--out", str(place / "out")], read)


def _model_folder(folder: Path) -> Found:
    """Of a converted model, whose files have to be those of its manifest."""
    if not folder.exists():
        return {}
    files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    for told in files.values():
        assert _sha(folder / told["path"]) == told["sha256"], f"{told['path']} is not what {MANIFEST} says"
    return {path.name: _sha(path) for path in folder.iterdir()}


def _quantize(demo: Path) -> Case:
    def read(place: Path) -> Found:
        return {path.name: _sha(path) for path in place.glob("*.gguf")}

    source = str(demo / "model.gguf")
    return Case("quantize", lambda place: ["quantize", source, str(place / "q.gguf"), "--type", "q4_0"], read)


def _compare() -> Case:
    options = ["--demo", "--n", "3", "--tokens", "off,paper", "--max-tokens", "3"]

    def read(place: Path) -> Found:
        out, found = place / "out", {}
        for folder in (out / "cells").glob("*"):
            for row in CellFolder(folder).rows():
                found[f"{folder.name} {row.id}"] = (row.text, row.tokens, row.right)
        if (out / "report.json").exists():
            report = json.loads((out / "report.json").read_text(encoding="utf-8"))
            done = [cell for cell in report["cells"] if cell["status"] == "done"]
            found |= {f"cell {cell['setting']}": cell["accuracy"] for cell in done}
        return found

    return Case("compare", lambda place: ["compare", *options, "--out", str(place / "out")], read)


def _run() -> Case:
    rows = [
        {"id": f"{name}-{i}", "video": str(CLIPS / f"{name}.mp4"), "question": QUESTION}
        for i in range(2) for name in ("order", "needle", "time", "direction")
    ]  # fmt: skip

    def inputs(place: Path) -> None:
        write_questions(place / "questions.jsonl", rows)

    def arguments(place: Path) -> list[str]:
        out = str(place / "answers.jsonl")
        return ["run", str(place / "questions.jsonl"), "--out", out, "--workers", "2", "--max-tokens", "4"]

    def read(place: Path) -> Found:
        path = place / "answers.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []  # a cut line is no answer to any reader
        return {f"line {i}": json.loads(line) for i, line in enumerate(lines)}

    return Case("run", arguments, read, inputs=inputs)


def _pull() -> Case:
    def read(place: Path) -> Found:
        """What is in the store, and what the hub's cache shows of it."""
        models = place / "home" / "aim-local" / "models"
        found = {f"{path.parent.name} {path.name}": "there" for path in models.glob("[!.]*/hub.json")}
        snapshots = (place / "hf" / "hub").glob("models--*/snapshots/*/*")
        return found | {path.name: _sha(path) for path in snapshots if path.is_file()}

    return Case("pull", lambda _: ["pull", REPO, "--yes"], read)


def _chat() -> Case:
    def read(place: Path) -> Found:
        path = place / "talk.aimchat"
        if not path.exists():
            return {}
        saved = read_chat(path)
        return {"messages": saved.header["messages"], "bytes": len(saved.state)}

    typed = f"{QUESTION}\n/save talk.aimchat\n/quit\n"
    return Case("saved chat", lambda _: ["chat", str(CLIPS / "order.mp4"), "--max-tokens", "4"], read, typed)


def _store() -> Case:
    def read(place: Path) -> Found:
        return {path.name: _entry(path) for path in _entries(place)}

    arguments = ["chat", str(CLIPS / "needle.mp4"), "-p", QUESTION, "--max-tokens", "2"]
    return Case("encoded store", lambda _: arguments, read)


def _entries(place: Path) -> list[Path]:
    return sorted(path for path in (place / "home").rglob("*.rows") if not path.name.startswith("."))


def _entry(path: Path) -> list[Any]:
    """An entry, as the store itself finds it."""
    data = path.read_bytes()
    described: Mapping[str, Any] = json.loads(data[data.rindex(b'{"key": ') :])
    entry = EncodedStore(path.parent).find(Key(described["key"]))
    assert entry is not None, f"{path.name} is there, and is damaged"
    return [float(sum(rows.sum() for rows in entry.rows)), len(entry.rows)]


def one_try(scratch: Path, case: Case) -> Path:
    """A new place with the case's inputs."""
    for i in range(1_000_000):
        place = scratch / f"{case.name.replace(' ', '-')}-{os.getpid()}-{i}"
        if not place.exists():
            (place / "home").mkdir(parents=True)
            case.inputs(place)
            return place
    raise AssertionError("no place is free")


def undisturbed(case: Case, scratch: Path, hub: Hub) -> Truth:
    place, begin = one_try(scratch, case), time.monotonic()
    started = Started(case, place, hub, uuid.uuid4().hex)
    code = started.wait()
    seconds = time.monotonic() - begin
    assert code == 0, f"{case.name} fails undisturbed: {started.said}"
    truth = Truth(seconds, case.read(place), names(place))
    assert truth.found, f"{case.name} has no result: {started.said}"
    shutil.rmtree(place)
    return truth


def changed(found: Found, wanted: Found) -> str:
    return str({key: (found.get(key), wanted.get(key)) for key in found | wanted if found.get(key) != wanted.get(key)})
