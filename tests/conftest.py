"""What tests get: user state in a temporary folder, so that none touches the real home; clips and tiny models."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import signal
import ssl
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # test processes side by side have a core each; before torch's OpenMP starts
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import thorough
import torchvision_ops  # noqa: F401

if TYPE_CHECKING:
    from staged_models import Models

    from aim_local.child import Child

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts background jobs so; tests of Ctrl-C need it
    signal.signal(signal.SIGINT, signal.default_int_handler)

# hundreds of processes are started here from the same sources: compiling them each time would be a third of the work
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# each client that asks a server here over plain HTTP makes one, and reads 150 certificates for it
ssl.create_default_context = functools.cache(ssl.create_default_context)
_HOMES = itertools.count()
_XDG = ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME")


def pytest_configure(config: pytest.Config) -> None:
    thorough.set_all(config)


def pytest_collection_finish() -> None:
    """What all test files import stays: the garbage collector, which takes a second for it, need not look there."""
    gc.collect()
    gc.freeze()


class Rehearsals:
    """The process that model files are tried out in: one for many files, until one ends it, as its start is dear."""

    def __init__(self) -> None:
        self._kept: list[tuple[str, Child]] = []  # with the folder that it runs in

    @contextmanager
    def started(self, name: str, arguments: Sequence[str]) -> Iterator[Child]:
        from aim_local.child import Child

        here, child = os.getcwd(), None
        with suppress(IndexError):  # another thread may have it
            where, child = self._kept.pop()
        if child and not (where == here and child.is_alive):
            child.close()
            child = None
        child = child or Child(name, arguments)
        try:
            yield child
            if child.is_alive and not self._kept:
                self._kept.append((here, child))
                return
        except BaseException:
            child.close()
            raise
        child.close()

    def close(self) -> None:
        while self._kept:
            self._kept.pop()[1].close()


@pytest.fixture(autouse=True, scope="session")
def rehearsals() -> Iterator[None]:
    from aim_local.native import rehearsal

    made = Rehearsals()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rehearsal, "Child", made.started)
        yield
    made.close()


@pytest.fixture(autouse=True)
def user_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new, empty home folder; AIM_LOCAL_HOME is a folder in it that does not exist yet."""
    home = tmp_path_factory.getbasetemp() / "homes" / str(next(_HOMES))  # mktemp lists all that are there, each time
    home.mkdir(parents=True)
    for variable in ("HOME", "USERPROFILE", "LOCALAPPDATA", "APPDATA"):
        monkeypatch.setenv(variable, str(home))
    for variable in _XDG:
        monkeypatch.setenv(variable, str(home / variable.lower()))
    monkeypatch.setenv("AIM_LOCAL_HOME", str(home / "aim-local"))
    yield home
    if log := sys.modules.get("aim_local.native.log"):
        log.echo_native_log(False)  # what a test of --debug has turned on


@pytest.fixture(scope="session")
def clip_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The clip of that name in media_fixtures.CLIPS, written once."""
    from media_fixtures import CLIPS, write_clip

    folder = tmp_path_factory.mktemp("clips")

    def make(name: str) -> Path:
        path = folder / name
        return path if path.exists() else write_clip(path, **CLIPS[name])

    return make


@pytest.fixture(scope="session")
def mp4(clip_of: Callable[[str], Path]) -> Path:
    """H.264 with open groups of pictures, 120 frames."""
    return clip_of("open-gop.mp4")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    """Tiny random text models, loaded when they are asked for."""
    from staged_models import Models

    made = Models(tmp_path_factory.mktemp("gguf"))
    yield made
    made.close()
