"""What a killed writer leaves: gone when something is written there again, while the living keep theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aim_local.batch.files import write_text
from aim_local.lab.compare.workspace import Folder, Workspace
from aim_local.store.files import PART, Part, replaced, sweep
from aim_local.store.transcript import save_transcript

pytest.importorskip("fcntl")

# each writes something half in the folder argv[1], says so, and waits
WRITERS = {
    "file": "with replaced(folder / 'a.json') as partial: partial.write_bytes(b'half'); wait()",
    "folder": "with Part(folder / 'model', is_folder=True) as part: (part.at / 'model.gguf').write_bytes(b'h'); wait()",
    "long name": "with replaced(folder / ('n' * 250)) as partial: partial.write_bytes(b'half'); wait()",
    "text": "Path.write_text = lambda *_, **__: wait(); write_text(folder / 'inputs.json', '{}')",
    "transcript": "Path.write_bytes = lambda *_: wait(); save_transcript(folder / 'talk.md', [], 'x')",
}
HEAD = """
import sys, time
from pathlib import Path
from aim_local.batch.files import write_text
from aim_local.store.files import Part, replaced
from aim_local.store.transcript import save_transcript
folder = Path(sys.argv[1])

def wait():
    print("half", flush=True)
    time.sleep(60)

"""


@contextmanager
def writing(folder: Path, what: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has written something half."""
    command = [sys.executable, "-c", HEAD + WRITERS[what], str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "half\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("what", WRITERS)
def test_what_the_dead_leave_goes_with_the_next(tmp_path: Path, what: str) -> None:
    with writing(tmp_path, what) as process:
        (left,) = names(tmp_path)
        assert left.startswith(".")
        assert left.endswith(PART)
        with replaced(tmp_path / "living") as partial:
            assert left in names(tmp_path), "what is being written was removed"
            partial.write_bytes(b"whole")
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert names(tmp_path) == [left, "living"]
    with replaced(tmp_path / "another"):
        pass
    assert names(tmp_path) == ["another", "living"]


def test_a_comparison_clears_all_its_folders(tmp_path: Path) -> None:
    out = tmp_path / "out"
    Workspace(out).cell("demo / off").adopt({"a": 1})
    places = [out, out / "reference" / "logits", next((out / "cells").iterdir())]
    for place in places:
        with writing(place, "file"):
            pass
    with Folder(out):
        Workspace(out)
    assert [path.name for path in out.rglob(f"*{PART}")] == []


def test_an_earlier_folder_comes_back(tmp_path: Path) -> None:
    """A process that ends between moving the earlier folder away and the new one into its place."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.gguf").write_bytes(b"earlier")
    code = (
        "import os\nreal = Path.rename\n"
        "Path.rename = lambda self, to: os._exit(1) if self.name == 'new' else real(self, to)\n"
        "Part(folder / 'model', is_folder=True).keep()"
    )
    subprocess.run([sys.executable, "-c", HEAD + code, str(tmp_path)], check=False)
    assert not model.exists()
    sweep(tmp_path)
    assert names(tmp_path) == ["model"]
    assert (model / "model.gguf").read_bytes() == b"earlier"


def interrupted(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The n-th call of a function of os ends in a Ctrl-C, after it has done its work."""
    real: Callable[..., object] = getattr(os, call)

    def pressed(*args: object, **options: object) -> object:
        real(*args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, call, pressed)


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_ctrl_c_at_any_call_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    interrupted(monkeypatch, call)
    with pytest.raises(KeyboardInterrupt), replaced(tmp_path / "a") as partial:
        partial.write_bytes(b"whole")
    monkeypatch.undo()
    assert names(tmp_path) == (["a"] if call == "replace" else [])


def test_a_part_that_nobody_took_goes(tmp_path: Path) -> None:
    """The interrupt comes between the making and the `with`."""
    Part(tmp_path / "a")
    assert names(tmp_path) == []


def test_somebody_elses_files_stay(tmp_path: Path) -> None:
    for name in (f"a{PART}", ".a.part", ".a.partial"):
        (tmp_path / name).touch()
    before = names(tmp_path)
    write_text(tmp_path / "x", "")
    save_transcript(tmp_path / "talk.md", [])
    assert names(tmp_path) == sorted([*before, "x", "talk.md"])
