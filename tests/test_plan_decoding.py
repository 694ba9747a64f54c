"""What a plan says of the decoder's memory, against the growth of a process that reads the item."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from media_fixtures import write_clip
from thorough import few

from aim_local.media import outline_media

SIZE = (1280, 720)
CLIPS = {
    "h264.mp4": {"options": {"preset": "ultrafast"}},
    "pictures.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
}
READ = """
import sys, PIL.Image
from pathlib import Path
from aim_local.media import open_media
from aim_local.media.canvas import resize_rgb
def now(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))
open_media(sys.argv[2])
Path("/proc/self/clear_refs").write_text("5")
before = now("VmRSS")
found = open_media(sys.argv[1], fit=lambda frame: resize_rgb(frame, (64, 64)))
if found.shape.kind == "image":
    resize_rgb(found.pixels, (64, 64))
print(now("VmHWM") - before)
"""


def measured(path: Path, small: Path) -> int:
    ran = subprocess.run([sys.executable, "-P", "-c", READ, str(path), str(small)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("name", few(["h264.mp4", "a.jpg", "pictures.mov", "moving.gif"], 2))
def test_told_and_measured(tmp_path: Path, name: str) -> None:
    path, small = tmp_path / name, tmp_path / f"small{Path(name).suffix}"
    if name in CLIPS:
        grey = [np.full((SIZE[1], SIZE[0], 3), 90 + i, np.uint8) for i in range(8)]
        write_clip(path, n_frames=8, size=SIZE, pictures=grey, **CLIPS[name])
        write_clip(small, n_frames=2, **CLIPS[name])
    else:
        first, *others = [PIL.Image.new("RGB", (2000, 1500), (i, 90, 40)) for i in range(3)]
        options = {"save_all": True, "append_images": others} if name == "moving.gif" else {}
        first.save(path, **options)
        first.resize((64, 64)).save(small)
    outline = outline_media(path)
    kept = 0 if outline.shape.kind == "video" else 3 * outline.height * outline.width
    told, came = outline.n_decoder_bytes + kept, measured(path, small)
    assert came / 2 < told < 2 * came, f"told {told >> 20} MiB, measured {came >> 20} MiB"
