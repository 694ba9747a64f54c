"""A loaded model is in memory once: what was repacked is not held as pages of its file, too (Linux tells)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from aim_local.lab.bench.shapes import parse_shape, write_text_gguf

SHAPE = parse_shape("layers=6,embd=1024,ff=4096,heads=8,kv=8,vocab=300")
LOAD = """
import re, sys
from pathlib import Path
from aim_local import LoadConfig
from aim_local.models.text import TextModel

def resident():
    text = Path("/proc/self/status").read_text()
    return sum(int(kib) * 1024 for kib in re.findall(r"^Rss(?:Anon|File):\\s+(\\d+) kB", text, re.MULTILINE))

before = resident()
model = TextModel(Path(sys.argv[1]), LoadConfig(n_threads=1))
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/status")
@pytest.mark.parametrize("kind", ["q4_0", "f16"])  # repacked where the CPU has kernels for it; used in place
def test_weights_are_resident_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_text_gguf(SHAPE, path, kind)
    done = subprocess.run([sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, check=True)
    grown, weights = int(re.findall(r"^(\d+)$", done.stdout, re.MULTILINE)[-1]), path.stat().st_size
    print(f"{kind}: {weights / 2**20:.1f} MiB of weights, {grown / 2**20:.1f} MiB more resident")
    assert 0.8 * weights < grown < 1.25 * weights + (8 << 20)
