"""The words behind a command: which is the model and which are clips, and what is told where that is not clear."""

from __future__ import annotations

import shutil
from pathlib import Path

import cli_case
import pytest
from cli_case import Play, one_line, run
from gguf_files import write_folder
from PIL import Image

from aim_local import store

play, clip, picture = cli_case.play, cli_case.clip, cli_case.picture


def found(llm: object, *words: str | Path) -> tuple[str | None, list[str]]:
    """(model, names of media) that `chat` took from the words."""
    result = run("chat", *words, "-p", "What?")
    assert result.exit_code == 0, result.output
    load, call = llm.loads[-1], llm.calls[-1]  # type: ignore[attr-defined]
    return load[0], [path.name for path in call["media"]]


def test_clips_and_a_model_in_any_order(play: Play, clip: Path, picture: Path, tmp_path: Path) -> None:
    llm = play(*"abcdefgh")
    folder = write_folder(store.models_folder() / "mine")
    elsewhere = tmp_path / "copy"
    shutil.copytree(folder, elsewhere)
    gguf = elsewhere / "model.gguf"
    assert found(llm, clip) == (None, ["clip.mp4"])
    assert found(llm, "mine", clip) == ("mine", ["clip.mp4"])
    assert found(llm, clip, "mine", picture) == ("mine", ["clip.mp4", "picture.png"])
    assert found(llm, picture, "demo") == ("demo", ["picture.png"])
    assert found(llm, gguf, clip) == (str(gguf), ["clip.mp4"])
    assert found(llm, clip, elsewhere) == (str(elsewhere), ["clip.mp4"])
    assert found(llm, "owner/name:Q4_K_M", clip) == ("owner/name:Q4_K_M", ["clip.mp4"])
    assert found(llm, "smolvlm2-2.2b", f"file://{clip}") == ("smolvlm2-2.2b", ["clip.mp4"])


def test_options_come_behind(play: Play, clip: Path, picture: Path) -> None:
    assert found(play("x"), "--image", picture, "--video", clip, "demo", picture) == (
        "demo",
        ["picture.png", "clip.mp4", "picture.png"],
    )


def test_a_clip_is_told_from_a_picture_whatever_was_said(play: Play, clip: Path, tmp_path: Path) -> None:
    """--video with a picture, --image with an animated one: taken as what they are."""
    llm = play("x", "y")
    frames = [Image.new("RGB", (4, 4), (0, 0, shade)) for shade in (0, 255)]
    frames[0].save(tmp_path / "still.png")
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert found(llm, "--video", tmp_path / "still.png", "--image", tmp_path / "moving.gif")[1] == [
        "still.png",
        "moving.gif",
    ]
    assert found(llm, tmp_path / "moving.gif")[1] == ["moving.gif"]


def test_a_clip_given_as_picture_with_a_real_model(mp4: Path) -> None:
    result = run("chat", "--image", mp4, "-p", "What?", "--max-tokens", "1", "--stats", "--frames", "2")
    assert result.exit_code == 0, result.stderr
    assert "2 frames" in result.stderr


def here(folder: Path) -> None:
    """A file called as the bundled model, a folder of clips, an empty folder; in the working directory."""
    (folder / "demo").write_bytes(b"\0\0\0\x18ftypmp42")
    (folder / "clips").mkdir()
    (folder / "clips" / "a.mp4").touch()
    (folder / "empty").mkdir()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["none.mp4"], 1, "none.mp4: no such file"),
        (["mine", "none.png"], 1, "none.png: no such file"),
        (["demo"], 2, "'demo' is a model and a file here; write ./demo for the file, or rename it"),
        (["a", "b"], 2, "'a' and 'b' would both be models, for no file has such a name"),
        (["What happens?"], 2, "'What happens?' is neither a file here nor a model; a question goes with -p"),
        (["what", "is this"], 2, "'is this' is neither a file here nor a model"),
        (["clips"], 1, "clips: is a folder with no model in it; name the clips: clips/a.mp4"),
        (["https://example.com/clip.mp4"], 2, "is a URL; aim-local takes files: download it first, or `aim-local w"),
        (["https://example.com/v.webm?t=3"], 2, "is a URL"),
        (["rtsp://camera/stream"], 2, "rtsp://camera/stream is a URL"),
        (["--video", "https://example.com/watch"], 2, "https://example.com/watch is a URL"),
        (["--image", "data:image/png;base64,AAAA"], 2, "is a URL"),
    ],
)
def test_what_is_not_clear_is_one_line(
    words: list[str], code: int, told: str, play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = play("never said")
    monkeypatch.chdir(tmp_path)
    here(tmp_path)
    assert told in one_line(run("chat", *words, "-p", "x"), code)
    assert llm.loads == []


def test_a_name_that_is_nothing_has_both_readings() -> None:
    line = one_line(run("chat", "clop", "-p", "x"), 1)
    assert "no model called 'clop'" in line
    assert "There is no file of that name either" in line


@pytest.mark.parametrize(
    "command", [("explain", "-p", "What?", "--json"), ("plan", "--json"), ("chat", "-p", "What?", "--json")]
)
def test_every_command_about_clips_takes_them_so(command: tuple[str, ...], mp4: Path) -> None:
    name, *options = command
    result = run(name, mp4, "demo", "--frames", "2", *options)
    assert result.exit_code == 0, result.stderr
    assert str(mp4) in result.stdout
    assert "is a URL" in one_line(run(name, "https://example.com/a.mp4", *options), 2)


def test_explain_says_what_is_missing() -> None:
    assert "give a clip: aim-local explain clip.mp4" in one_line(run("explain", "-p", "What?"), 2)


def test_bench_takes_no_url() -> None:
    assert "is a URL" in one_line(run("bench", "--video", "https://example.com/a.mp4"), 2)


@pytest.mark.parametrize("args", [("--help",), ("chat", "--help")])
def test_help_has_three_examples(args: tuple[str, ...]) -> None:
    lines = [line.strip() for line in run(*args).stdout.splitlines()]
    examples = [line for line in lines if line.startswith("aim-local ")]
    assert len(examples) == 3
    assert examples[0].startswith("aim-local chat clip.mp4 ")
