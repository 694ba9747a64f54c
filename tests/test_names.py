"""Every command with names that are not UTF-8, drive a terminal, or are as long as they can be: works, or one line."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import cli_case
import pytest
from cli_case import Play, run
from thorough import few
from typer.testing import CliRunner

from aim_local import VisionLLM, store
from aim_local.cli import _repl, app
from aim_local.errors import UsageError
from aim_local.store.names import bundled_folder
from aim_local.store.transcript import save_transcript

play, clip, picture = cli_case.play, cli_case.clip, cli_case.picture
NAMES = {
    "bytes": os.fsdecode(b"caf\xe9\xff"),
    "drives": "a\x1b]52;c;aGk=\x07\x1b[31m\nb\x9b31m\x7f\r\x08[red][c\u202egpj\u2066x\u200bb\ufeffc\u2028d",
    "long": "n" * 255,
    "dash": "-a",
}
ARGUMENTS = [
    ["{}"], ["{}.mp4"], ["--{}"],
    ["chat", "{}", "-p", "x"], ["chat", "{}.mkv", "-p", "x"], ["chat", "CLIP", "-p", "{}"],
    ["chat", "--video", "CLIP", "--image", "CLIP", "-p", "x"], ["chat", "--video", "{}", "-p", "x"],
    ["chat", "CLIP", "-p", "x", "--json"], ["chat", "CLIP", "-p", "x", "--system", "{}"], ["chat", "o/{}", "-p", "x"],
    ["chat", "--mmproj", "{}", "-p", "x"], ["chat", "--resume", "{}.aimchat", "-p", "x"],
    ["chat", "CLIP", "-p", "x", "--tokens", "{}"], ["chat", "CLIP", "-p", "x", "--frames", "{}"],
    ["chat", "CLIP", "-p", "x", "--rpc", "{}"], ["chat", "https://e.com/{}"],
    ["chat", "CLIP", "-p", "x", "--ttft", "{}"],
    ["watch", "{}.ts", "-p", "x", "--give-up", "0.1"], ["serve", "none", "--host", "{}"],
    ["serve", "none", "--media-path", "{}"], ["serve", "none", "--api-key-file", "{}"],
    ["serve", "none", "--cors", "{}"],
    ["explain", "{}.mkv", "-p", "x"], ["explain", "CLIP", "-p", "x", "--html", "{}/a.html"],
    ["run", "{}.jsonl", "--out", "o.jsonl"], ["run", "ROWS", "--out", "o.jsonl", "--cluster", "{}"],
    ["run", "ROWS", "{}", "--out", "o.jsonl"],
    ["compare", "--suite", "{}.jsonl"], ["compare", "--suite", "ROWS", "--tokens", "{}"],
    ["compare", "--suite", "ROWS", "--reference", "{}"], ["compare", "{}", "--suite", "ROWS"],
    ["convert", "{}"], ["convert", "FOLDER", "--out", "{}"], ["convert", "FOLDER", "--name", "{}"],
    ["convert", "FOLDER", "--type", "{}"], ["quantize", "{}"], ["quantize", "{}.gguf", "{}"], ["pull", "{}", "--yes"],
    ["pull", "o/{}", "--yes"], ["models", "{}"], ["models", "info", "{}"], ["models", "rm", "{}", "-y"],
    ["plan", "{}", "CLIP"], ["bench", "--shape", "{}"], ["bench", "{}"], ["bench", "--stock", "{}"],
    ["rpc-server", "--host", "{}"], ["completion", "{}"], ["cache", "{}"], ["doctor", "{}"],
]  # fmt: skip


def unseen(data: bytes) -> set[str]:
    """What a terminal would act on, or nobody see. Raises UnicodeDecodeError for what is not UTF-8."""
    return {c for c in data.decode() if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n"}


def fits(result: Any) -> None:
    """A run that went well or failed with one line, and showed nothing raw."""
    assert result.exit_code in (0, 1, 2), result.exception
    assert unseen(result.stdout_bytes) == unseen(result.stderr_bytes) == set()
    assert "internal error" not in result.stderr
    assert "Traceback" not in result.stderr
    if result.exit_code:
        assert sum(line.startswith("error: ") for line in result.stderr.splitlines()) == 1, result.stderr


@pytest.fixture
def folder(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.mark.parametrize("kind", few(NAMES, ("drives",)))
def test_every_argument_of_every_command(kind: str, folder: Path, play: Play) -> None:
    name = NAMES[kind]
    play(*"x" * len(ARGUMENTS))
    there = (name[:250] if kind == "long" else name) + ".mp4"
    shutil.copy("clip.mp4", f"./{there}")
    (folder / "rows.jsonl").write_text(json.dumps({"id": "1", "media": [there], "question": "What?"}) + "\n")
    (folder / "folder").mkdir()
    places = {"CLIP": f"./{there}", "ROWS": "rows.jsonl", "FOLDER": "folder"}
    for arguments in ARGUMENTS:
        words = [places.get(word, word.replace("{}", name)) for word in arguments]
        try:
            fits(CliRunner().invoke(app, words))
        except (AssertionError, UnicodeDecodeError) as e:
            raise AssertionError(f"{words!r:.300}") from e


@pytest.mark.parametrize("given", ["a question \udcff".encode("utf-8", "surrogateescape"), b"\xe9", b"\x1b[31m what?"])
def test_a_question_on_stdin(given: bytes, play: Play, clip: Path) -> None:
    play("an answer")
    fits(CliRunner().invoke(app, ["chat", str(clip)], input=given))


ANSWER = "red\x1b[2J\x9b\x07 b\u00e4r\r\n\tend\x7f"


def test_an_answer_in_a_pipe_has_no_control_characters(play: Play, clip: Path) -> None:
    play(ANSWER, ANSWER)
    assert run("chat", clip, "-p", "x").stdout == "red[2J b\u00e4r\n\tend\n"
    result = run("chat", clip, "-p", "x", "--json")
    assert not unseen(result.stdout_bytes)
    assert json.loads(result.stdout)["text"] == ANSWER


def test_no_conversation_is_lost(play: Play, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes that are no question are told, and the files stay attached."""
    llm = play("one", "two")
    repl = _repl.Repl(llm.chat(), "fake", stats=False, quiet=False)
    for line in (
        "clip.mp4",
        "what \udcff?",
        "/ask \ud800",
        "what?",
        "/save caf\udce9.md",
        "/save \x1b[31m.json",
        "/save \ud800.md",
    ):
        repl.handle(line)
    assert [len(call["media"]) for call in llm.calls] == [1]
    told = capsys.readouterr().err
    assert told.count("not UTF-8") == 2
    assert r"saved caf\xe9.md" in told
    assert not unseen(told.encode())
    assert "clip.mp4" in (folder / os.fsdecode(b"caf\xe9.md")).read_text("utf-8")
    assert (folder / "\x1b[31m.json").is_file()


# --- files of such names with a real model ----------------------------------------------------------------------------


@pytest.fixture
def named(folder: Path, mp4: Path) -> str:
    """A folder with the bundled model, and a clip, all of one name that is not UTF-8."""
    name = NAMES["bytes"]
    shutil.copytree(bundled_folder() or "", folder / name)
    shutil.copy(mp4, folder / f"{name}.mp4")
    return name


def test_models_clips_and_saved_conversations_open(named: str, folder: Path) -> None:
    for model in (named, Path(named), os.fsencode(named)):
        VisionLLM.load(model).close()
    with VisionLLM.load(f"{named}/model.gguf", os.fsencode(f"{named}/mmproj.gguf")) as llm, llm.chat() as chat:
        said = chat.ask("What?", media=[f"{named}.mp4"]).text
        assert llm.chat().ask("What?", media=[os.fsencode(f"{named}.mp4")]).text == said
        saved = chat.save(os.fsencode(f"{named}.aimchat"))
        with llm.load_chat(saved) as again:
            assert again.messages == chat.messages
        written = save_transcript(os.fsencode(f"{named}.json"), chat.messages, llm.name)
    assert Path(json.loads(written.read_text("utf-8"))["messages"][0]["media"][0]).is_file()
    fits(result := run("chat", "--resume", saved, "-p", "And?", "--json"))
    assert result.exit_code == 0, result.stderr
    fits(run("plan", named, f"{named}.mp4"))
    assert json.loads(run("plan", named, f"{named}.mp4", "--json").stdout)["media"][0]["source"] == f"{named}.mp4"


def test_a_page_and_a_list_of_such_names(named: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIM_LOCAL_HOME", str(folder / NAMES["bytes"]))
    shutil.copytree(named, store.models_folder() / "esc\x1b[31m\udcff")
    fits(result := run("models"))
    assert r"esc\x1b[31m\xff" in result.stdout
    fits(run("models", "--json"))
    fits(run("explain", f"{named}.mp4", "-p", "What?", "--html", f"{named}.html", "--max-tokens", "2"))
    assert not unseen((folder / f"{named}.html").read_bytes())
    fits(run("cache"))


def test_questions_name_such_clips(named: str, folder: Path) -> None:
    rows = {"id": "\x1b[2J", "media": [f"{named}.mp4"], "question": "What?"}
    (folder / "q.jsonl").write_text(json.dumps(rows) + "\n")
    result = run("run", "q.jsonl", "--out", f"{named}.jsonl", "--max-tokens", "2", "--frames", "2")
    fits(result)
    assert result.exit_code == 0, result.stderr
    line = (folder / f"{named}.jsonl").read_text("utf-8")
    assert "\x1b" not in line
    assert json.loads(line)["id"] == "\x1b[2J"


@pytest.mark.parametrize("name", ["\ud800.mp4", "a\0b.mp4", b"\x89PNG\r\n\0", 5], ids=repr)
def test_what_no_file_can_be_called_is_one_line(name: Any) -> None:
    with VisionLLM.load() as llm, pytest.raises(UsageError):
        llm.generate("What?", [name])
