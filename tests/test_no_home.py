"""A home folder that is not there is not made: what would be kept in it says so in one line, the rest goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_case import run_process

from aim_local import store
from aim_local.convert.staging import make_parents
from aim_local.errors import AimError
from aim_local.lab.bench.cache import make_folder as bench_folder
from aim_local.store.names import cache_folder, make_folder, state_folder

CLIP = str(Path(__file__).parent.parent / "aim_local" / "data" / "clips" / "order.mp4")


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that nobody made; our folders are in it."""
    home = tmp_path / "nobody"
    for variable in ("AIM_LOCAL_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    return home


def test_an_answer_needs_none(nowhere: Path) -> None:
    done = run_process("chat", CLIP, "-p", "What?", "--max-tokens", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert f"the home folder {nowhere} does not exist" in done.stderr
    assert not nowhere.exists()


FOLDERS = {
    "store": lambda: make_folder(store.models_folder()),
    "cache": lambda: make_folder(cache_folder() / "clips"),
    "state": lambda: make_folder(state_folder()),
    "a conversion": lambda: make_parents(store.models_folder()),
}


@pytest.mark.parametrize("make", FOLDERS.values(), ids=FOLDERS)
def test_no_folder_is_made_in_it(nowhere: Path, make: object) -> None:
    with pytest.raises(OSError, match=r"the home folder .* does not exist; make it, or set AIM_LOCAL_HOME") as e:
        make()  # type: ignore[operator]
    assert e.value.strerror
    assert not nowhere.exists()


def test_what_was_asked_for_is_one_line(nowhere: Path) -> None:
    with pytest.raises(AimError, match=r"the home folder .* does not exist") as e:
        bench_folder(cache_folder() / "bench")
    assert "\n" not in str(e.value)
    done = run_process("quantize", "demo", "--type", "q8_0")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert f"the home folder {nowhere} does not exist" in line
    assert not nowhere.exists()


@pytest.mark.parametrize("variable", ["AIM_LOCAL_HOME", "XDG_DATA_HOME"])
def test_a_folder_that_was_named_is_made(
    nowhere: Path, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "named"))
    make_folder(store.models_folder())
    assert store.models_folder().is_relative_to(tmp_path / "named")
    assert store.models_folder().is_dir()
    assert not nowhere.exists()


def test_folders_in_a_home_that_is_there_are_made(nowhere: Path) -> None:
    nowhere.mkdir()
    make_folder(store.models_folder())
    assert store.models_folder().is_dir()
