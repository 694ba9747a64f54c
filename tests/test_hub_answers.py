"""What a hub may answer: names that lead elsewhere, values of other kinds, sizes that are not told or not true."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hub_toy
import pytest
from cli_case import run
from hub_server import Hub
from hub_toy import MODEL, REPO

from aim_local import store

hub, toy = hub_toy.hub, hub_toy.toy
Bend = Callable[[dict[str, Any]], Any]


def pull(*options: str, code: int = 1) -> str:
    """The error of a pull that fails: one line, all of it printable; the store stays empty."""
    result = run("pull", REPO, *options)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert all(line.isprintable() for line in result.stderr.splitlines()), ascii(result.stderr)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert errors == result.stderr.splitlines()[-1:]
    assert "internal error" not in errors[0]
    assert store.store_names() == []
    return errors[0]


def bent(key: str, value: object, file: int | None = None) -> Bend:
    """A listing in which one value is another: of the repository, or of a file ("lfs.sha256" of its large file)."""

    def bend(listing: dict[str, Any]) -> dict[str, Any]:
        place = listing if file is None else listing["siblings"][file]
        *above, last = key.split(".")
        for name in above:
            place = place[name]
        place[last] = value
        return listing

    return bend


def test_a_name_that_leads_out_of_the_cache(toy: Hub, user_home: Path) -> None:
    """A file of the user's, where the listing's name would lead: neither read nor removed."""
    victim = user_home / "mmproj-victim.gguf"
    victim.write_bytes(b"mine")
    revision = toy.revision(REPO)
    snapshot = user_home / "hf" / "hub" / "models--tiny--toy-GGUF" / "snapshots" / revision
    snapshot.mkdir(parents=True)
    name = "../" * 5 + victim.name
    assert (snapshot / name).resolve() == victim.resolve()
    toy.bend = bent("rfilename", name, 1)
    told = pull("--yes")
    assert victim.read_bytes() == b"mine"
    assert f"{REPO} lists a file named '{name}', which would lie outside its folder" in told
    assert toy.downloads(".gguf") == []


@pytest.mark.parametrize("where", ["folder", "file"])
def test_a_link_in_the_cache_that_leads_out_of_it(toy: Hub, user_home: Path, where: str) -> None:
    mine = user_home / "mine"
    mine.mkdir()
    (mine / MODEL).write_bytes(b"mine")
    place = user_home / "hf" / "hub" / "models--tiny--toy-GGUF" / "snapshots" / toy.revision(REPO)
    link = place if where == "folder" else place / MODEL
    link.parent.mkdir(parents=True)
    link.symlink_to(mine if where == "folder" else mine / MODEL)
    assert "leads out of the hub's cache" in pull("--yes")
    assert (mine / MODEL).read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/etc/mmproj.gguf", "outside"), ("a/../mmproj.gguf", "outside"), ("a//mmproj.gguf", "outside"),
        ("..\\mmproj.gguf", "outside"), ("C:mmproj.gguf", "outside"),
        ("mmproj\x1b[31mred.gguf", "control"), ("mmproj\n.gguf", "control"), ("mmproj\u202efuag.gguf", "control"),
        ("mmproj\ud800.gguf", "control"), ("mmproj\u2028.gguf", "control"),
        ("mmproj" + "x" * 256 + ".gguf", "longer"), ("a/" * 600 + "mmproj.gguf", "longer"),
    ],
)  # fmt: skip
def test_names_that_are_not_taken(toy: Hub, name: str, why: str) -> None:
    toy.bend = bent("rfilename", name, 1)
    assert why in pull("--yes")
    assert toy.downloads(".gguf") == []


def test_odd_names_of_other_files_are_passed_over(toy: Hub) -> None:
    toy.repos[REPO]["a picture\u200d\\.png"] = b"png"
    assert run("pull", REPO, "--yes").exit_code == 0


@pytest.mark.parametrize(
    "bend",
    [
        bent("sha", 5), bent("sha", None), bent("sha", ""), bent("sha", "../../x"), bent("id", None), bent("id", 5),
        bent("id", "../.."), bent("id", "toy"), bent("id", "a/b\x1b[2J"), bent("rfilename", 5, 0),
        bent("rfilename", None, 0), bent("size", "abc", 0), bent("size", 1.5, 0), bent("size", True, 0),
        bent("lfs.sha256", 5, 0), bent("lfs.sha256", "../x", 0), bent("lfs", "x", 0), bent("blobId", 7, 0),
        bent("siblings", 5), bent("siblings", [5]), lambda listing: [listing],
        lambda listing: b"[" * 100_000, lambda listing: b'{"id":' * 100_000, lambda listing: b"null",
    ],
)  # fmt: skip
def test_values_of_another_kind(toy: Hub, bend: Bend) -> None:
    toy.bend = bend
    told = pull("--yes")
    assert "does not answer as a hub does" in told
    assert told.endswith("check HF_ENDPOINT")
    assert len(told) < 400


def test_a_repository_that_was_renamed(toy: Hub) -> None:
    """The hub's own spelling counts."""
    toy.repos["Tiny/Toy2-GGUF"] = toy.repos[REPO]
    toy.bend = bent("id", "Tiny/Toy2-GGUF")
    assert run("pull", REPO, "--yes").exit_code == 0
    assert store.stored_name("Tiny/Toy2-GGUF") is not None
    assert hashlib.sha256(store.resolve("Tiny/Toy2-GGUF").model.read_bytes()).digest() == (
        hashlib.sha256(toy.repos[REPO][MODEL]).digest()
    )
