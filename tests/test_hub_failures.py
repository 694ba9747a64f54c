"""What goes wrong on the way from the hub: each is one line with what to do, and nothing half is taken as good."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import hub_toy
import pytest
from cli_case import run
from hub_server import Hub, sums
from hub_toy import MMPROJ, MODEL, REPO, offer

from aim_local import store

hub = hub_toy.hub


@pytest.fixture
def toy(hub: Hub, tmp_path: Path) -> Hub:
    """A pair of heads; the model is larger than what comes in one piece."""
    return offer(hub, tmp_path, n_vocab=40_000)


def pull(model: str = REPO, code: int = 1) -> str:
    """The last line on stderr of a pull that fails; the store stays empty."""
    result = run("pull", model, "--yes")
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    lines = result.stderr.splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert store.store_names() == []
    return str(lines[-1])


def blobs(user_home: Path) -> dict[str, int]:
    found = (user_home / "hf" / "hub").rglob("blobs/*")
    return {p.name: p.lstat().st_size for p in found}


def test_no_such_repository(hub: Hub) -> None:
    line = pull("ggml-org/Qwen2.5-VL-3B-Instruct-GUFF")
    assert f"no repository ggml-org/Qwen2.5-VL-3B-Instruct-GUFF at {hub.url}" in line
    assert "did you mean ggml-org/Qwen2.5-VL-3B-Instruct-GGUF?" in line


def test_file_gone_meanwhile(toy: Hub) -> None:
    toy.refuse[f"/{MMPROJ}"] = (404, "EntryNotFound")
    assert pull() == f"error: {REPO} has no file {MMPROJ}: it was changed meanwhile; give the same command again"


def test_gated(toy: Hub, user_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the token it comes; the other host, which holds the files, never sees the token (hub_server.py)."""
    toy.token = "hf_secret"
    line = pull()
    assert (
        f"{REPO} is gated: accept its terms at {toy.url}/{REPO}, then log in (`hf auth login`) or set HF_TOKEN" in line
    )
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert run("pull", REPO, "--yes").exit_code == 0


@pytest.mark.parametrize("status", [401, 403])
def test_not_allowed(toy: Hub, status: int) -> None:
    toy.refuse["/resolve/"] = (status, "")
    line = pull()
    assert "HF_TOKEN" in line
    assert "hf auth login" in line


@pytest.mark.parametrize(("status", "told"), [(429, "asks for a pause"), (503, "answered 503")])
def test_server_in_trouble(toy: Hub, status: int, told: str) -> None:
    toy.refuse["/cdn/"] = (status, "")
    assert told in pull()


def test_something_else_answers(toy: Hub) -> None:
    toy.refuse["/api/"] = (200, "")
    assert pull() == f"error: {toy.url} does not answer as a hub does (JSONDecodeError); check HF_ENDPOINT"


def test_a_fault_of_ours_is_not_the_hubs(toy: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the reading of an answer is told as one that no hub gives."""

    def broken(*args: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr("aim_local.hub.download._fetch", broken)
    line = pull()
    assert "ours" in line
    assert "does not answer as a hub does" not in line


def test_offline_with_nothing(toy: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    line = pull()
    assert f"{REPO} is not in the hub's cache" in line
    assert "HF_HUB_OFFLINE is set" in line
    assert toy.asked == []


def test_offline_with_a_full_cache(toy: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another program put into the cache is taken."""
    from huggingface_hub import snapshot_download

    snapshot_download(REPO, endpoint=toy.url, cache_dir=store.data_folder().parent / "hf" / "hub")
    toy.asked.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert run("pull", REPO).exit_code == 0
    assert toy.asked == []
    assert store.resolve(REPO).model.read_bytes() == toy.repos[REPO][MODEL]


def test_interrupted_and_resumed(toy: Hub, user_home: Path) -> None:
    """The line breaks for good: what came is kept. The next run asks for the rest, over a line that breaks often."""
    content = toy.repos[REPO][MODEL]
    assert len(content) > 300_000
    toy.cut[MODEL], toy.only[MODEL] = 100_000, 1
    assert "cannot be reached (RemoteProtocolError)" in pull()
    assert blobs(user_home) == {sums(MODEL, content)[0] + ".incomplete": 100_000}
    toy.only.clear()
    toy.cut[MODEL] = 120_000
    toy.asked.clear()
    result = run("pull", REPO, "--yes")
    assert result.exit_code == 0, result.stderr
    assert toy.downloads(f"/cdn/tiny--toy-GGUF/{MODEL}") == [
        f"bytes={begin}-" for begin in range(100_000, len(content), 120_000)
    ]  # fmt: skip
    assert store.resolve(REPO).model.read_bytes() == content
    assert not any(name.endswith(".incomplete") for name in blobs(user_home))


def test_no_answer_in_time(toy: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.hang = 0.6
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    line = pull()
    assert f"{toy.url} does not answer in time, asked for {REPO}; check the network" in line


def test_nobody_there(toy: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 cannot be reached (ConnectError)" in pull()


def test_wrong_content(toy: Hub, user_home: Path) -> None:
    """One bit is wrong: refused, deleted, and fetched anew by the next run."""
    toy.wrong.add(MMPROJ)
    assert f"{MMPROJ}: what came is not what the hub announced (checksum); it was deleted" in pull()
    assert set(blobs(user_home)) == {sums(MODEL, toy.repos[REPO][MODEL])[0]}
    toy.wrong.clear()
    assert run("pull", REPO, "--yes").exit_code == 0


def test_wrong_content_in_the_cache(toy: Hub, user_home: Path) -> None:
    """A blob that another program left, or the disk bent."""
    from huggingface_hub import hf_hub_download

    path = Path(hf_hub_download(REPO, MODEL, endpoint=toy.url, cache_dir=user_home / "hf" / "hub",
                                revision=toy.revision(REPO)))  # fmt: skip
    path.resolve().write_bytes(b"GGUF" + bytes(len(toy.repos[REPO][MODEL]) - 4))
    assert "checksum" in pull()
    assert run("pull", REPO, "--yes").exit_code == 0


def test_too_little_room(toy: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told before the first byte."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 30_000_000))
    line = pull()
    assert line.startswith(f"error: {REPO} needs 0.0 GB more, and ")
    assert "has 0.0 GB free; free space, or set HF_HOME to another disk" in line
    assert toy.downloads(".gguf") == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_disk_full_while_writing(toy: Hub, user_home: Path) -> None:
    folder = user_home / "hf" / "hub" / "models--tiny--toy-GGUF" / "blobs"
    folder.mkdir(parents=True)
    part = folder / (sums(MODEL, toy.repos[REPO][MODEL])[0] + ".incomplete")
    part.symlink_to("/dev/full")
    assert "the disk is full" in pull()
    part.unlink()
    assert run("pull", REPO, "--yes").exit_code == 0


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["toy-Q4_K_M.gguf"], "has language models only, no mmproj*.gguf"),
        (["pytorch_model.bin", "config.json"], "holds neither a GGUF model with its mmproj nor safetensors (it has"),
        (["model.safetensors"], "has safetensors but no config.json"),
        (
            ["a-Q4_K_M.gguf", "b-Q4_K_M.gguf", "mmproj.gguf"],
            "has several models in Q4_K_M: a-Q4_K_M.gguf, b-Q4_K_M.gguf",
        ),
        (["a-Q8_0-00001-of-00002.gguf", "mmproj.gguf"], "lacks a-Q8_0-00002-of-00002.gguf, a part of"),
        ([], "(it is empty)"),
    ],
)
def test_repositories_without_a_model(hub: Hub, files: list[str], told: str) -> None:
    hub.repos[REPO] = dict.fromkeys(files, b"GGUF")
    assert told in pull()
    assert all(path.startswith("/api/") for _, path, _ in hub.asked)


@pytest.mark.parametrize("name", ["toy", "./a/b", "a/b/c", "a b/c", "../x", ""])
def test_what_is_no_reference(hub: Hub, name: str) -> None:
    assert "names no model on the hub; give OWNER/NAME" in pull(name, 2)
    assert hub.asked == []


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["pull", "a" * 300 + "/b"], 1, "the maximum length is 96: 'aaa"),
        (["chat", "n" * 300, "-p", "x"], 2, "nnn...: the name is too long; give a shorter one"),
        (["pull", "a/" + "b" * 200], 1, "the maximum length is 96: 'a/bbb"),
        (["pull", "a--b/c"], 1, "Cannot have -- or .. in repo_id: 'a--b/c'; check the repository's name"),
        (["pull", "a/b", "--name", "n" * 201], 2, "has 201 bytes; use 200 at most"),
    ],
)
def test_names_that_cannot_be(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, told: str, offline: bool
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert hub.asked == []


def test_a_taken_name(toy: Hub, tmp_path: Path) -> None:
    """A model of the user's own keeps its name; the pulled one gets its owner's in front."""
    (store.models_folder() / "toy").mkdir(parents=True)
    assert run("pull", REPO, "--yes").exit_code == 0
    assert store.stored_name(REPO) == "tiny-toy"
    result = run("pull", REPO, "--yes", "--name", "toy")
    assert "a model called toy is in the store already" in result.stderr
