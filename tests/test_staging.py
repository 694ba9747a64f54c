"""What a killed conversion leaves behind is removed by the next one to the same folder, and by no other."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aim_local.convert.staging import staged_folder

pytest.importorskip("fcntl")

CONVERTS = """
import sys, time
from pathlib import Path
from aim_local.convert.staging import staged_folder
with staged_folder(Path(sys.argv[1])) as stage:
    (stage / "model.gguf").write_bytes(bytes(1000))
    print("staged", flush=True)
    time.sleep(60)
"""


def partials(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if ".partial-" in p.name]


def test_leftovers_of_the_dead_go_and_the_living_stay(tmp_path: Path) -> None:
    out = tmp_path / "model"
    process = subprocess.Popen([sys.executable, "-c", CONVERTS, str(out)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "staged\n"
        first = partials(tmp_path)
        assert len(first) == 1
        with staged_folder(out):
            assert first[0] in partials(tmp_path), "a running conversion lost its folder"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert partials(tmp_path) == first
    with staged_folder(tmp_path / "mod"):
        assert first[0] in partials(tmp_path), "another folder's leftovers are not ours"
    with staged_folder(out) as stage:
        assert partials(tmp_path) == [stage.name]
    assert partials(tmp_path) == []
