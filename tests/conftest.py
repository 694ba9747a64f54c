"""What every test gets: user state in a temporary folder, so that no test reads or writes the real home."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts background jobs so; tests of Ctrl-C need it
    signal.signal(signal.SIGINT, signal.default_int_handler)

_XDG = ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME")


@pytest.fixture(autouse=True)
def user_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new, empty home folder; AIM_LOCAL_HOME is a folder in it that does not exist yet."""
    home = tmp_path_factory.mktemp("home")
    for variable in ("HOME", "USERPROFILE", "LOCALAPPDATA", "APPDATA"):
        monkeypatch.setenv(variable, str(home))
    for variable in _XDG:
        monkeypatch.setenv(variable, str(home / variable.lower()))
    monkeypatch.setenv("AIM_LOCAL_HOME", str(home / "aim-local"))
    return home
