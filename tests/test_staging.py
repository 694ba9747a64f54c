"""What a killed conversion leaves behind is removed by the next one; two do not write one output."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aim_local.convert.errors import ConvertError
from aim_local.convert.staging import staged_folder
from aim_local.store.files import PART

pytest.importorskip("fcntl")

CONVERTS = """
import sys, time
from pathlib import Path
from aim_local.convert.errors import ConvertError
from aim_local.convert.staging import staged_folder
from aim_local.store.files import PART
with staged_folder(Path(sys.argv[1])) as stage:
    (stage / "model.gguf").write_bytes(bytes(1000))
    print("staged", flush=True)
    time.sleep(60)
"""


def partials(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.endswith(PART)]


def test_leftovers_of_the_dead_go_and_the_living_stay(tmp_path: Path) -> None:
    out = tmp_path / "model"
    process = subprocess.Popen([sys.executable, "-c", CONVERTS, str(out)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "staged\n"
        first = partials(tmp_path)
        assert len(first) == 1
        with staged_folder(tmp_path / "other"):
            assert first[0] in partials(tmp_path), "a running conversion lost its folder"
        refused = rf"model is being written by another process \({process.pid}, since [-0-9]+ [:0-9]+\); wait for it"
        with pytest.raises(ConvertError, match=refused), staged_folder(out):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert partials(tmp_path) == first
    with staged_folder(out) as stage:
        assert partials(tmp_path) == [stage.parent.name]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "other"]
