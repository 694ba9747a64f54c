"""What is here already, under which names: told, taken, and not asked for again."""

from __future__ import annotations

import json
from pathlib import Path

import hub_server
import pytest
from cli_case import one_line, run
from gguf_files import write_mmproj, write_model
from hub_server import Hub

from aim_local import store
from aim_local.cli import _hub
from aim_local.errors import ModelError
from aim_local.store.known import find_known

hub = hub_server.hub
KNOWN = "smolvlm2-500m"


@pytest.fixture
def known(hub: Hub, tmp_path: Path) -> Hub:
    """The files of a known name, and two other quantisations."""
    found = find_known(KNOWN)
    assert found is not None
    model = write_model(tmp_path / "model.gguf").read_bytes()
    mmproj = write_mmproj(tmp_path / "mmproj.gguf").read_bytes()
    name, tower = found.files
    others = {name.replace(found.quant, quant): model + bytes(32) for quant in ("Q5_0", "Q4_1")}
    assert name not in others
    hub.repos[found.repo] = {name: model, tower: mmproj, **others}
    return hub


def pull(*args: str) -> str:
    result = run("pull", *args, "--yes")
    assert result.exit_code == 0, result.stderr
    return str(result.stderr)


def test_another_quantisation_is_told(known: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    pull(f"{KNOWN}:q5_0")
    _hub.ready(KNOWN)
    assert capsys.readouterr().err.startswith(f"note: using {KNOWN}-q5_0, the only one of {KNOWN} that is here")
    _hub.ready(f"{KNOWN}-q5_0")
    _hub.ready(KNOWN, quiet=True)
    assert capsys.readouterr().err == ""
    pull(f"{KNOWN}:q4_1")
    line = run("chat", KNOWN, "-p", "hello").stderr.splitlines()[-1]
    assert f"error: {KNOWN} is not here yet" in line
    assert f"run `aim-local pull {KNOWN} --yes` first; {KNOWN}-q4_1 and {KNOWN}-q5_0 are here" in line
    with pytest.raises(ModelError, match=f"of that repository {KNOWN}-q4_1, {KNOWN}-q5_0 can be named"):
        store.resolve(KNOWN)


def test_what_is_here_is_not_asked_for(known: Hub) -> None:
    """Nor where a folder in the working directory has the name."""
    pull(KNOWN, "--name", "mine")
    known.asked.clear()
    known.refuse["/"] = (503, "")
    assert pull(KNOWN) == pull(KNOWN, "--name", "mine") != ""
    assert "mine is here already" in pull(KNOWN)
    assert json.loads(run("pull", KNOWN, "--json", "--yes").stdout)["name"] == "mine"
    assert known.asked == []
    assert run("pull", KNOWN, "--name", "other", "--yes").exit_code == 1


def test_a_folder_of_the_same_name(known: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pull(KNOWN, "--name", "mine")
    (tmp_path / KNOWN).mkdir()
    monkeypatch.chdir(tmp_path)
    known.asked.clear()
    assert store.resolve(KNOWN).name == "mine"
    _hub.ready(KNOWN)
    pull(KNOWN)
    assert (known.asked, store.store_names()) == ([], ["mine"])


def test_known_names_tell_what_is_here(known: Hub) -> None:
    def told() -> str:
        return next(line for line in run("models", "--known").stdout.splitlines() if line.startswith(f"{KNOWN} "))

    pull(f"{KNOWN}:q5_0")
    assert told().endswith(f"{KNOWN}-q5_0 is here")
    pull(KNOWN)
    assert told().endswith(" is here")
    assert not told().endswith("q5_0 is here")
    store.resolve(KNOWN).model.unlink()
    assert told().endswith("files are gone")
    here = {row["name"]: row["here"] for row in json.loads(run("models", "--known", "--json").stdout)["known"]}
    assert here[KNOWN] is False
    warning = next(line for line in run("models").stderr.splitlines() if line.startswith("warning"))
    assert warning.count(f"{KNOWN}:") == 1
    assert f"`aim-local pull {KNOWN} --name {KNOWN}` fetches it again" in warning


def test_the_cache_without_the_hub(known: Hub, user_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program offline, and a new store offline, find what a pull fetched."""
    from huggingface_hub import hf_hub_download

    pull(KNOWN)
    found = find_known(KNOWN)
    assert found is not None
    path = hf_hub_download(found.repo, found.files[0], cache_dir=user_home / "hf" / "hub", local_files_only=True)
    assert Path(path) == store.resolve(KNOWN).model
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("AIM_LOCAL_HOME", str(user_home / "new"))
    assert store.store_names() == []
    pull(KNOWN)
    assert store.store_names() == [KNOWN]


def test_convert_of_what_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = one_line(run("convert", "OWNER/NAME"), 1)
    assert "`aim-local pull OWNER/NAME` fetches and converts it" in line
    (tmp_path / "f").mkdir()
    write_model(tmp_path / "f" / "b.gguf")
    assert one_line(run("convert", "f/b.gguf"), 1).endswith("use it directly as MODEL")
