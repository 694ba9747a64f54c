"""The command line of `aim-local serve`: what its options become, and what is refused before anything is loaded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from cli_case import one_line, run

pytest.importorskip("fastapi")

from aim_local.server import serving
from aim_local.server.limits import MIB, Limits
from aim_local.settings import parse_setting


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `serve` was called with, without serving."""
    found: dict[str, Any] = {}

    def serve(load: Any, settings: serving.Settings, told: serving.Told) -> int:
        found.update(load=load, settings=settings, told=told)
        return 0

    monkeypatch.setattr(serving, "serve", serve)
    return found


def test_the_defaults_are_the_librarys(asked: dict[str, Any]) -> None:
    assert run("serve").exit_code == 0
    assert asked["settings"] == serving.Settings()


def test_each_limit_has_an_option(asked: dict[str, Any]) -> None:
    options = {
        "--max-body": "1", "--max-file": "2", "--max-files": "3", "--fetch-timeout": "4s", "--max-media": "5",
        "--max-frames": "6", "--max-pixels": "7", "--max-answer": "8", "--queue": "9", "--timeout": "10s",
    }  # fmt: skip
    result = run("serve", *(word for pair in options.items() for word in pair))
    assert result.exit_code == 0, result.output
    assert asked["settings"].limits == Limits(MIB, 2 * MIB, 3 * MIB, 4, 5, 6, 7, 8, 9, 10)


def test_options_of_the_service(asked: dict[str, Any], tmp_path: Path) -> None:
    options = [
        "--host", "0.0.0.0", "--port", "1", "--no-auth", "--cors", "https://a.example", "--media-path", tmp_path,
        "--allow-http", "--grace", "5s", "--keep", "2", "--keep-memory", "100", "--name", "mine",
        "--tokens", "budget=0.5", "--frames", "4",
    ]  # fmt: skip
    assert run("serve", *options).exit_code == 0
    found = asked["settings"]
    assert (found.host, found.port, found.keys, found.cors) == ("0.0.0.0", 1, (), ("https://a.example",))
    assert (found.media_path, found.allow_http, found.grace, found.name) == (tmp_path, True, 5, "mine")
    assert found.keeping == serving.Keeping(2, 100 * MIB)
    assert found.defaults == serving.Defaults(parse_setting("budget=0.5"), 4)


def test_keys_come_from_options_a_file_and_the_environment(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text("from-file-1\nfrom-file-2\n")
    monkeypatch.setenv("AIM_LOCAL_API_KEY", "from-environment")
    result = run("serve", "--host", "0.0.0.0", "--api-key", "from-option", "--api-key-file", tmp_path / "keys")
    assert result.exit_code == 0
    assert asked["settings"].keys == ("from-option", "from-environment", "from-file-1", "from-file-2")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "--no-auth"),
        (["--no-auth", "--api-key", "12345678"], "say different things"),
        (["--api-key-file", "/nothing/there"], "--api-key-file"),
        (["--api-key", "short"], "API key"),
        (["--cors", "*"], "origin"),
        (["--queue", "0"], "--queue is 0"),
        (["--port", "70000"], "port"),
        (["--port", "-1"], "--port is -1"),
        (["--tokens", "papre"], "'papre' is unknown"),
        (["--frames", "0"], "--frames is 0"),
        (["--frames", "300"], "from 1 to 256"),
        (["--rpc", "x"], "--rpc is 'x'"),
        (["--host", "no such host"], "--host"),
        (["--media-path", "/nothing/there"], "--media-path"),
        (["--keep", "-1"], "--keep is -1"),
    ],
)
def test_what_cannot_be_is_told_before_a_model_is_loaded(options: list[str], said: str) -> None:
    assert said in one_line(run("serve", *options), 2)


def test_without_the_extra_a_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    for name in [name for name in sys.modules if name.startswith("aim_local.server")]:
        monkeypatch.delitem(sys.modules, name)
    assert "pip install -e '.[serve]'" in one_line(run("serve"), 1)


def test_an_unknown_model_ends_it() -> None:
    line = one_line(run("serve", "no-such-model", "--port", "0"), 1)
    assert "no-such-model" in line
