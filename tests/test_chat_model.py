"""`chat --resume` without a model: one of the user's own is taken, and no file that a conversation names is opened."""

from __future__ import annotations

import shlex
import shutil
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aim_local import GenerateConfig, LoadConfig, VisionLLM
from aim_local.cli._app import app
from aim_local.store.chat_file import ChatFileError, SavedChat, read_chat, write_chat
from aim_local.store.chat_model import model_of, typed
from aim_local.store.names import models_folder, resolve

SHORT = GenerateConfig(max_tokens=4)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> SavedChat:
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as llm, llm.chat(generate=SHORT) as chat:
        chat.ask("Hello")
        return read_chat(chat.save(tmp_path_factory.mktemp("kept") / "talk.aimchat"))


def written(kept: SavedChat, to: Path, **model: Any) -> Path:
    """The conversation with other words about its model."""
    header = deepcopy(kept.header)
    header["model"] |= model
    write_chat(to, header, kept.state)
    return to


def resumed(path: Path, *arguments: str) -> Any:
    asked = ["chat", *arguments, "--resume", str(path), "--threads", "1", "--max-tokens", "4", "-p", "And?"]
    return CliRunner().invoke(app, asked)


@pytest.mark.parametrize("place", ["file", "pipe", "folder", "none"])
def test_a_named_file_is_not_opened(kept: SavedChat, tmp_path: Path, place: str) -> None:
    """Not to compare it either: a pipe would wait, and a file may be on another machine."""
    import os

    named = tmp_path / "strange model.gguf"
    if place == "file":
        shutil.copy(resolve().model, named)
    elif place == "pipe":
        os.mkfifo(named)
    elif place == "folder":
        named.mkdir()
    path = written(kept, tmp_path / "talk.aimchat", path=str(named), name="x", fingerprints=["0" * 64, "0" * 64])
    opened: list[str] = []
    watching = [True]
    sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" and watching else None)
    result = resumed(path)
    watching.clear()
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert f"aim-local chat {shlex.quote(str(named))} --mmproj" in result.stderr
    assert f"--resume {path}" in result.stderr
    assert str(path) in opened
    assert str(named) not in opened


def test_a_model_of_the_store_is_found_by_its_contents(kept: SavedChat, tmp_path: Path) -> None:
    """Under another name, and wherever the file says that it was."""
    name = "renamed-model"
    shutil.copytree(resolve().model.parent, models_folder() / name, ignore=shutil.ignore_patterns("aim.json"))
    try:
        with (models_folder() / name / "model.gguf").open("r+b") as file:
            file.seek(-1000, 2)
            file.write(bytes(900))
        with VisionLLM.load(name, config=LoadConfig(n_threads=1)) as llm, llm.chat(generate=SHORT) as chat:
            chat.ask("Hello")
            own = read_chat(chat.save(tmp_path / "own.aimchat"))
        path = written(own, tmp_path / "talk.aimchat", path="/nowhere/x.gguf", name="demo")
        assert model_of(path, read_chat(path).header["model"]) == name
        assert resumed(path).exit_code == 0
        assert typed(resolve(name)) == []
    finally:
        shutil.rmtree(models_folder() / name)
    with pytest.raises(ChatFileError, match="is no model of your store"):
        model_of(path, read_chat(path).header["model"])


def test_a_model_that_the_user_names(kept: SavedChat, tmp_path: Path) -> None:
    """What the line says after /save, and what the refusal says, goes on."""
    shutil.copytree(resolve().model.parent, tmp_path / "my models")
    paths = resolve(tmp_path / "my models")
    path = written(kept, tmp_path / "talk.aimchat", path=str(paths.model), mmproj=str(paths.mmproj))
    words = typed(paths)
    assert words == [str(paths.model), "--mmproj", str(paths.mmproj)]
    assert resumed(path, *words).exit_code == 0
    assert resumed(path).exit_code == 0  # the bundled model has the same contents
