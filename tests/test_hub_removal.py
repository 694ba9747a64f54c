"""What `models rm` removes: the model that was named, and of the hub's cache only what our pull fetched."""

from __future__ import annotations

import json
from pathlib import Path

import hub_toy
import pytest
from cli_case import one_line, run
from hub_server import Hub
from hub_toy import MMPROJ, MODEL, REPO, offer

from aim_local import store

hub = hub_toy.hub


@pytest.fixture
def toy(hub: Hub, tmp_path: Path) -> Hub:
    files = offer(hub, tmp_path).repos[REPO]
    files["toy-F16.gguf"] = files[MODEL] + bytes(32)
    return hub


def other_program(hub: Hub, user_home: Path, name: str) -> Path:
    """The library itself fetches a file into the cache that all share."""
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(REPO, name, endpoint=hub.url, cache_dir=user_home / "hf" / "hub"))


def test_files_that_were_there_before_stay(toy: Hub, user_home: Path) -> None:
    """Another program's model stays, with its blob; the vision tower, which the pull fetched, goes."""
    theirs = other_program(toy, user_home, MODEL)
    assert run("pull", REPO, "--yes").exit_code == 0
    tower = store.resolve(REPO).mmproj
    assert tower is not None
    asked = run("models", "rm", "toy")
    assert "1 files of the hub's cache that it was pulled with; 1 file that was in the hub's cache before stays" in (
        asked.stderr.replace("\n", " ")
    )
    result = run("models", "rm", "toy", "--yes")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.endswith("freed; 1 file that was in the hub's cache before stays\n")
    assert theirs.read_bytes() == toy.repos[REPO][MODEL]
    assert not tower.exists()
    assert store.store_names() == []


def test_a_pull_that_went_on_later_owns_all_its_files(toy: Hub, user_home: Path) -> None:
    """The first try fetched the model only; that file is ours all the same."""
    toy.refuse[f"/{MMPROJ}"] = (503, "")
    assert run("pull", REPO, "--yes").exit_code == 1
    toy.refuse.clear()
    assert run("pull", REPO, "--yes").exit_code == 0
    told = json.loads(run("models", "rm", "toy", "--yes", "--json").stdout)
    assert told["foreign"] == []
    assert not any(p.is_file() for p in (user_home / "hf" / "hub").rglob("blobs/*"))
    assert not any((user_home / "hf" / "hub").rglob("refs/main"))


def test_a_file_fetched_anew_by_another_program(toy: Hub, user_home: Path) -> None:
    """Ours was deleted by hand; what lies in its place now is theirs."""
    assert run("pull", REPO, "--yes").exit_code == 0
    path = store.resolve(REPO).model
    path.resolve().unlink()
    path.unlink()
    theirs = other_program(toy, user_home, MODEL)
    assert json.loads(run("models", "rm", "toy", "--yes", "--json").stdout)["foreign"] == [MODEL]
    assert theirs.exists()


def test_another_quantisation_is_not_removed(toy: Hub) -> None:
    assert run("pull", f"{REPO}:f16", "--yes").exit_code == 0
    line = one_line(run("models", "rm", REPO, "--yes"), 1)
    assert line == f"error: {REPO} is not here, toy-f16 is; name that"
    assert store.store_names() == ["toy-f16"]
    assert run("models", "rm", f"{REPO}:F16", "--yes").exit_code == 0
