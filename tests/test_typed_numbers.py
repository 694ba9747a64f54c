"""Numbers as people type them are ASCII digits, in every option alike; what Python reads beyond that is refused."""

from __future__ import annotations

import cli_case
import pytest
import typer
from cli_case import Play, one_line, run

from aim_local.cli import _values
from aim_local.errors import UsageError
from aim_local.settings import parse_number, parse_setting, parse_whole

play = cli_case.play
ODD = ("\u0663", "\uff11\uff12", "1_000", "\u0967.5", "\u2460")


@pytest.mark.parametrize("text", ODD)
def test_digits_of_other_scripts_and_underscores(text: str) -> None:
    for parse in (parse_number, parse_whole):
        with pytest.raises(UsageError, match=r"is no (whole )?number"):
            parse(text)


@pytest.mark.parametrize("text", ["off:keep=\u0661", "off:merge=ward:window=\u0662", "budget=\u0660.5", "off:seed=1_0"])
def test_in_settings(text: str) -> None:
    with pytest.raises(UsageError, match="number"):
        parse_setting(text)


@pytest.mark.parametrize(("option", "text"), [("--threads", "\u0664"), ("--temp", "\uff11"), ("--frames", "1_0")])
def test_on_the_command_line(play: Play, option: str, text: str) -> None:
    llm = play("x")
    assert "number" in one_line(run("chat", "-p", "x", option, text), 2)
    assert llm.loads == []


@pytest.mark.parametrize("text", ["1\u212a", "\u0661M", "2\u212aiB", "\uff11G"])
def test_sizes(text: str) -> None:
    """The sign for kelvin is a K to Python where case is ignored, and no unit: an internal error."""
    with pytest.raises(typer.BadParameter, match="is no size"):
        _values.parse_size(text)


def test_what_is_plain() -> None:
    assert [parse_number(text) for text in ("0.5", " 1e-3 ", "-2", ".5")] == [0.5, 0.001, -2, 0.5]
    assert [parse_whole(text) for text in ("8", " 08", "-1", 3)] == [8, 8, -1, 3]
    assert _values.parse_size("1.5k") == 1536
