"""A repository with a checkpoint: fetched, converted into the store, answered from, removed."""

from __future__ import annotations

import json
from pathlib import Path

import hub_server
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from checkpoints import Shape, write_onevision
from cli_case import run
from hub_server import Hub

from aim_local import store

hub = hub_server.hub
REPO = "tiny/toy-hf"


def test_checkpoint(hub: Hub, tmp_path: Path, user_home: Path) -> None:
    folder = write_onevision(tmp_path / "hf", Shape())
    hub.repos[REPO] = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    bad = run("pull", f"{REPO}:Q4_X", "--yes")
    assert bad.stderr.startswith(f"error: {REPO} is a checkpoint, converted here, and Q4_X is no type for that")
    result = run("pull", f"{REPO}:f16", "--yes", "--json")
    assert result.exit_code == 0, result.stderr
    assert "then converted to F16 into the store" in result.stderr
    entry = json.loads(result.stdout)
    assert (entry["name"], entry["quantisation"], entry["problem"]) == ("toy-hf-f16", "F16", None)
    paths = store.resolve(f"{REPO}:F16")
    assert paths.model.parent == store.models_folder() / "toy-hf-f16"
    n = len(hub.asked)
    answer = run("chat", REPO, "-p", "hello", "--max-tokens", "2")
    assert answer.exit_code == 0, answer.stderr
    assert len(hub.asked) == n
    fetched = sum(path.stat().st_size for path in (user_home / "hf" / "hub").rglob("blobs/*"))
    assert fetched == sum(len(c) for name, c in hub.repos[REPO].items() if name != "README.md")
    freed = json.loads(run("models", "rm", f"{REPO}:f16", "--yes", "--json").stdout)["freed"]
    assert freed > fetched + entry["n_bytes"]
    assert not any(path.is_file() for path in (user_home / "hf" / "hub").rglob("blobs/*"))
    assert store.store_names() == []


def test_checkpoint_that_cannot_be_converted(hub: Hub) -> None:
    """The converter's own words; nothing in the store, and what was fetched is not fetched again."""
    hub.repos[REPO] = {"config.json": b'{"model_type": "mystery"}', "model.safetensors": b"\x02" + bytes(7) + b"{}"}
    for _ in range(2):
        result = run("pull", REPO, "--yes")
        assert result.exit_code == 1
        assert "mystery" in result.stderr.splitlines()[-1]
    assert not list(store.models_folder().iterdir())
    assert len(hub.downloads("/model.safetensors")) == 2  # asked where it is, then its content, once
