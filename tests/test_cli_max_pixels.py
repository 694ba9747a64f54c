"""`--max-pixels` on the command line: what it refuses and allows, and that nothing else is said with -q."""

from __future__ import annotations

import json
from pathlib import Path

import PIL.Image
import pytest
from cli_case import Play, one_line, play, run, run_process
from media_fixtures import picture
from server_files import tall_png

from aim_local.cli._media import check_media
from aim_local.config import MAX_PIXELS
from aim_local.errors import MediaBudgetError

__all__ = ["play"]  # a fixture


def small(folder: Path) -> Path:
    path = folder / "a.png"
    PIL.Image.fromarray(picture(1)).save(path)
    return path


def test_too_large_is_told_before_a_model_is_loaded(play: Play, tmp_path: Path) -> None:
    llm, path = play("fine"), small(tmp_path)
    for command in ("chat", "plan", "explain"):
        for words in ([path], ["--image", path], ["--video", path]):
            line = one_line(run(command, *words, "-p", "what", "--max-pixels", "6143"), 1)
            assert "at most 6,143 are allowed" in line
            assert line.endswith("or give --max-pixels 6144 or more")
    assert not llm.loads


def test_what_is_allowed_goes_to_the_model(play: Play, tmp_path: Path) -> None:
    llm = play("fine")
    assert run("chat", small(tmp_path), "-p", "what", "--max-pixels", "6144").exit_code == 0
    assert llm.loads[0][2].max_pixels == 6144
    assert "max_pixels" not in one_line(run("chat", "--max-pixels", "0", "-p", "x"), 2)


def test_in_a_conversation_the_question_tells(tmp_path: Path) -> None:
    """A file that is attached later: how much is allowed is known to the model alone."""
    path = tmp_path / "large.png"
    path.write_bytes(tall_png(100_000, 4_000))
    assert check_media(path) == path
    with pytest.raises(MediaBudgetError):
        check_media(path, max_pixels=MAX_PIXELS)


def test_a_large_picture_is_no_attack(tmp_path: Path) -> None:
    """Pillow warns from 90 megapixels on, and refuses from 180 on."""
    path = tmp_path / "phone.png"
    path.write_bytes(tall_png(16320, 12240))
    done = run_process("plan", path, "-q", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    made = json.loads(done.stdout)
    assert made["memory"]["parts"]["decoding"] > 4 * 16320 * 12240
    assert made["warnings"] == []
