"""What was fetched must be a pair by its contents, whatever its names are; and where it goes must be writable."""

from __future__ import annotations

from pathlib import Path

import hub_server
import pytest
from cli_case import run
from gguf_files import write_mmproj, write_model
from hub_server import Hub

from aim_local import store

hub = hub_server.hub
REPO = "tiny/toy-GGUF"
MODEL, MMPROJ = "toy-Q4_0.gguf", "mmproj-toy-F16.gguf"
HTML = b"<html><body>Please log in to the network of this house</body></html>"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[bytes, bytes]:
    return write_model(tmp_path / "m.gguf").read_bytes(), write_mmproj(tmp_path / "p.gguf").read_bytes()


def refused() -> str:
    """The last line of a pull that fails; the store stays empty."""
    result = run("pull", REPO, "--yes")
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    assert store.store_names() == []
    return str(result.stderr.splitlines()[-1])


def test_exchanged_contents(hub: Hub, pair: tuple[bytes, bytes]) -> None:
    """The names are exchanged: taken as the files are, and listed without a problem."""
    hub.repos[REPO] = {MODEL: pair[1], MMPROJ: pair[0]}
    result = run("pull", REPO, "--yes")
    assert result.exit_code == 0, result.stderr
    paths = store.resolve(REPO)
    assert paths.mmproj is not None
    assert (paths.model.read_bytes(), paths.mmproj.read_bytes()) == pair
    assert store.find_entry("toy").architecture == "qwen2"
    assert "is here already" in run("pull", REPO).stderr


def test_two_of_a_kind(hub: Hub, pair: tuple[bytes, bytes]) -> None:
    hub.repos[REPO] = {MODEL: pair[0], MMPROJ: pair[0]}
    assert f"{REPO} holds no usable model: {MODEL} and {MMPROJ} are both language models" in refused()
    hub.repos[REPO] = {MODEL: pair[1], MMPROJ: pair[1] + bytes(32)}
    hub.repos["tiny/b-GGUF"] = hub.repos[REPO]
    result = run("pull", "tiny/b-GGUF", "--yes")
    assert (result.exit_code, store.store_names()) == (1, [])
    assert "are both vision towers (mmproj)" in result.stderr


@pytest.mark.parametrize("which", [MODEL, MMPROJ])
def test_no_gguf(hub: Hub, pair: tuple[bytes, bytes], which: str) -> None:
    hub.repos[REPO] = {**dict(zip((MODEL, MMPROJ), pair, strict=True)), which: HTML}
    line = refused()
    assert f"{which} is no GGUF file (it starts with b'<htm'); take another repository" in line
    assert "stays in" in line


def test_cut_short(hub: Hub, pair: tuple[bytes, bytes]) -> None:
    """As the repository itself holds it: its checksum is right."""
    hub.repos[REPO] = {MODEL: pair[0][:-64], MMPROJ: pair[1]}
    assert f"{MODEL} lacks " in refused()


@pytest.mark.parametrize("kind", ["cache", "store"])
@pytest.mark.parametrize("is_file", [True, False])
def test_nowhere_to_write(
    hub: Hub, pair: tuple[bytes, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, is_file: bool
) -> None:
    """Told by the folder's name before the first byte."""
    hub.repos[REPO] = dict(zip((MODEL, MMPROJ), pair, strict=True))
    place = tmp_path / "occupied" if is_file else Path("/proc/none")
    if is_file:
        place.write_text("a file")
    elif not Path("/proc").is_dir():
        pytest.skip("no folder here that nobody can write")
    if kind == "cache":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(place))
    else:
        monkeypatch.setenv(store.HOME_VARIABLE, str(place))
    result = run("pull", REPO, "--yes")
    assert result.exit_code == 1, result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith(f"error: {place}"), line
    assert "cannot be written (" in line or "cannot be read (Not a directory)" in line
    assert ("HF_HOME" if kind == "cache" else store.HOME_VARIABLE) in line
    assert hub.downloads(".gguf") == []
