"""hub.json, the note of a pull in the store: a bent one breaks that model alone, and no removal leaves the cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_case import one_line, run
from gguf_files import write_folder, write_mmproj, write_model

from aim_local import hub, store
from aim_local.errors import ModelError
from aim_local.store.pulled import ORIGIN, read_origin

REVISION = "1" * 40
BENT: dict[str, dict[str, Any]] = {
    "repo a number": {"repo": 5},
    "cache a number": {"cache": 5},
    "quant null": {"quant": None},
    "revision a list": {"revision": ["a"]},
    "files a text": {"files": "model.gguf"},
    "files of numbers": {"files": [1]},
    "default a text": {"default": "yes"},
    "mmproj a number": {"mmproj": 7},
    "model without mmproj": {"mmproj": ""},
    "model not among the files": {"model": "other.gguf"},
    "a file above": {"files": ["m.gguf", "p.gguf", "a/../../b"]},
    "an absolute file": {"files": ["m.gguf", "p.gguf", "/etc/passwd"]},
    "a backslash": {"files": ["m.gguf", "p.gguf", "..\\b"]},
    "a newline": {"files": ["m.gguf", "p.gguf", "a\nb"]},
    "text that turns around": {"quant": "Q8\u202e_0"},
    "a revision of two parts": {"revision": "a/b"},
    "no revision": {"revision": ""},
    "cache of another repository": {"cache": "/c/models--tiny--other"},
    "cache that is none": {"cache": "/home"},
    "cache not absolute": {"cache": "models--tiny--toy"},
    "a cache with a long name": {"cache": f"/{'c' * 256}/models--tiny--toy"},
    "a cache too deep": {"cache": f"/{'c/' * 2000}models--tiny--toy"},
    "a long file": {"files": ["m.gguf", "p.gguf", "é" * 128]},
    "a long revision": {"revision": "a" * 256},
    "more than is known": {"more": 1},
    "another format": {"format": 2},
}


def note(name: str, where: Path, **changed: Any) -> Path:
    """A model in the store that hub.json alone makes."""
    folder = store.models_folder() / name
    folder.mkdir(parents=True)
    told = {
        "format": 1, "repo": "tiny/toy", "revision": REVISION, "quant": "Q8_0", "default": True, "cache": str(where),
        "files": ["m.gguf", "p.gguf"], "model": "m.gguf", "mmproj": "p.gguf",
    }  # fmt: skip
    (folder / ORIGIN).write_text(json.dumps({**told, **changed}))
    return folder


def cached(cache: Path) -> tuple[Path, Path]:
    """The pair in the cache, as a pull of ours leaves it."""
    snapshot = cache / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    pair = write_model(snapshot / "m.gguf"), write_mmproj(snapshot / "p.gguf")
    for path in pair:
        store.note_fetched(path)
    return pair


def test_a_right_one(user_home: Path) -> None:
    """The tests below bend this one."""
    cache = user_home / "hf" / "models--tiny--toy"
    model, mmproj = cached(cache)
    note("toy", cache)
    assert store.resolve("toy").model == model
    result = run("models", "rm", "toy", "--yes")
    assert result.exit_code == 0, result.stderr
    assert not model.exists()
    assert not mmproj.exists()


@pytest.mark.parametrize("bent", BENT.values(), ids=BENT)
def test_bent(user_home: Path, bent: dict[str, Any]) -> None:
    """One line that names the file; the others are listed and found; the bent one can be removed."""
    write_folder(store.models_folder() / "good")
    folder = note("bent", Path("/c/models--tiny--toy"), **bent)
    with pytest.raises(ModelError, match=r"bent.hub\.json: cannot be read .*`aim-local models rm bent`") as e:
        read_origin(folder)
    assert "\n" not in str(e.value)
    listed = run("models")
    assert listed.exit_code == 0, listed.stderr
    assert [line.split()[0] for line in listed.stdout.splitlines()[2:]] == ["bent", "good"]
    assert store.resolve("good").mmproj is not None
    assert "cannot be read" in one_line(run("models", "info", "bent"), 1)
    removed = run("models", "rm", "bent", "--yes")
    assert (removed.exit_code, store.store_names()) == (0, ["good"]), removed.stderr
    assert "the hub's cache stays as it is" in removed.stdout


@pytest.mark.parametrize("text", ["[" * 100_000, "5", "null", "[]", "{", "\0"])
def test_no_json_of_ours(user_home: Path, text: str) -> None:
    folder = note("bent", Path("/c"))
    (folder / ORIGIN).write_text(text)
    with pytest.raises(ModelError, match="cannot be read"):
        read_origin(folder)


def test_removal_stays_in_the_cache(user_home: Path, tmp_path: Path) -> None:
    """Even of files that a pull fetched: the folder that hub.json names must be the repository's own in a cache."""
    mine = user_home / "mine"
    pair = cached(mine)
    note("bent", mine)
    assert not hub.plan_removal("bent").fetched
    assert run("models", "rm", "bent", "--yes").exit_code == 0
    assert all(path.exists() for path in pair)


def test_files_that_another_needs_by_another_spelling(user_home: Path) -> None:
    cache = user_home / "hf" / "models--tiny--toy"
    model, _ = cached(cache)
    note("toy", user_home / "hf" / ".." / "hf" / cache.name)
    note("other", cache)
    assert json.loads(run("models", "rm", "toy", "--yes", "--json").stdout)["kept"] == ["m.gguf", "p.gguf"]
    assert store.resolve("other").model == model


@pytest.mark.parametrize("link", ["snapshots", f"snapshots/{REVISION}"])
def test_removal_follows_no_link_out_of_the_cache(user_home: Path, link: str) -> None:
    cache, mine = user_home / "hf" / "models--tiny--toy", user_home / "mine"
    pair = cached(mine)
    (cache / link).parent.mkdir(parents=True)
    (cache / link).symlink_to(mine / link)
    note("toy", cache)
    result = run("models", "rm", "toy", "--yes")
    assert result.exit_code == 0, result.stderr
    assert "is a link out of the hub's cache" in result.stdout
    assert all(path.exists() for path in pair)
    assert store.store_names() == []


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name(user_home: Path, name: str) -> None:
    assert f"{name!r} is no model name" in one_line(run("models", "rm", name, "--yes"), 2)


@pytest.mark.parametrize("name", ["tiny/toy", "smolvlm2-500m", "tiny/toy:Q4_0"])
def test_nothing_to_remove(user_home: Path, name: str) -> None:
    line = one_line(run("models", "rm", name, "--yes"), 1)
    assert line.startswith(f"error: {name} is not on this machine: nothing to remove")
    assert "pull" not in line
