"""What lies in the hub's cache before a pull, and an answer without end: nothing is believed, nothing waited for.

Replies that lie are files: tests/fuzz/findings/hub.
"""

from __future__ import annotations

from pathlib import Path

import hub_toy
import pytest
from cli_case import run
from hub_server import Hub, sums
from hub_toy import MODEL, REPO, endless, endless_head

from aim_local import store
from aim_local.hub.download import download
from aim_local.hub.listing import list_repo

hub, toy = hub_toy.hub, hub_toy.toy


def folder(user_home: Path) -> Path:
    return user_home / "hf" / "hub" / "models--tiny--toy-GGUF"


@pytest.mark.parametrize("content", [b"", b"GGUF of another", None])
def test_a_blob_that_is_not_what_its_name_says(toy: Hub, user_home: Path, content: bytes | None) -> None:
    """Empty, another's, or of the right length: it is fetched, and the right one is answered from."""
    right = toy.repos[REPO][MODEL]
    blob = folder(user_home) / "blobs" / sums(MODEL, right)[0]
    blob.parent.mkdir(parents=True)
    blob.write_bytes(right[:-1] + b"?" if content is None else content)
    result = run("pull", REPO, "--yes")
    assert result.exit_code == 0, result.stderr
    assert store.resolve(REPO).model.read_bytes() == right


def test_a_blob_that_is_right_is_not_fetched_again(toy: Hub, user_home: Path) -> None:
    right = toy.repos[REPO][MODEL]
    blob = folder(user_home) / "blobs" / sums(MODEL, right)[0]
    blob.parent.mkdir(parents=True)
    blob.write_bytes(right)
    assert run("pull", REPO, "--yes").exit_code == 0
    assert toy.downloads(MODEL) == []


def test_an_entry_is_made_in_no_folder_but_the_caches(toy: Hub, user_home: Path) -> None:
    mine = user_home / "mine"
    mine.mkdir()
    snapshots = folder(user_home) / "snapshots"
    snapshots.mkdir(parents=True)
    (snapshots / toy.revision(REPO)).symlink_to(mine)
    result = run("pull", REPO, "--yes")
    assert result.exit_code == 1
    assert "leads out of the hub's cache" in result.stderr.splitlines()[-1]
    assert list(mine.iterdir()) == []


@pytest.mark.parametrize("path", ["/api/models/", f"HEAD /{REPO}/resolve/", f"/{MODEL}"])
def test_the_head_of_an_answer_has_no_end(toy: Hub, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr("aim_local.hub.asking.MOST_SECONDS", 0.5)
    toy.instead[path] = endless_head
    result = run("pull", REPO, "--yes")
    assert result.exit_code == 1
    said = result.stderr.splitlines()[-1]
    assert "does not answer as a hub does (after 0 s its answer has only begun)" in said
    assert store.store_names() == []


def test_a_listing_that_comes_a_byte_at_a_time(toy: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aim_local.hub.asking.MOST_SECONDS", 0.1)
    toy.instead["/api/models/"] = endless(b" ", 0.01)
    result = run("pull", REPO, "--yes")
    assert result.exit_code == 1
    assert "does not answer as a hub does (0 MiB in 0 s, and more to come)" in result.stderr.splitlines()[-1]


def test_an_entry_that_another_process_made_stays(toy: Hub, user_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waited for the same file, and the other one reads it already: it is never gone for a moment."""
    assert run("pull", REPO, "--yes").exit_code == 0
    entries = [path for path in (folder(user_home) / "snapshots").rglob("*") if path.is_symlink()]
    before = {path: path.lstat().st_ctime_ns for path in entries}
    assert len(before) == 2
    monkeypatch.setattr("aim_local.hub.download.cached", lambda *_: None)  # as it was before the other one had it
    listing = list_repo(REPO)
    for file in listing.files:
        download(listing, file, lambda *_: None)
    assert {path: path.lstat().st_ctime_ns for path in entries} == before
