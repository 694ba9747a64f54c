"""Options of the command line: how values are written, groups of options, and the library's objects made of them."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, replace
from typing import Annotated, Any

import cli_case
import pytest
import typer
from cli_case import Play, one_line, run
from typer.testing import CliRunner

from aim_local import settings
from aim_local.cli import _docs, _values
from aim_local.cli._app import app
from aim_local.cli._groups import Without, flat
from aim_local.config import KV_TYPES, VisualTokenConfig
from aim_local.errors import UsageError

play = cli_case.play

# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("75", 75), ("1:15", 75), ("1:15.25", 75.25), ("1:01:15", 3675), (".5", 0.5)]
)
def test_times(text: str, seconds: float) -> None:
    assert _values.parse_time(text) == seconds


@pytest.mark.parametrize(("text", "n"), [("800M", 800 * 2**20), ("2G", 2**31), ("1.5GiB", 3 * 2**29), ("4096", 4096)])
def test_sizes(text: str, n: int) -> None:
    assert _values.parse_size(text) == n


@pytest.mark.parametrize("text", ["", "8,", "8,x", "0", "8,8", "-1", "1.5"])
def test_bad_frames(text: str) -> None:
    with pytest.raises(UsageError, match="--frames"):
        _values.parse_frames(text, "--frames")


def test_lists() -> None:
    assert _values.parse_frames("8, 32", "--frames") == [8, 32]
    assert _values.parse_list("off,paper:keep=0.5", "--tokens") == ["off", "paper:keep=0.5"]
    assert _values.parse_list(None, "--types") == []


@pytest.mark.parametrize(
    ("text", "layers"), [("14,22", (14, 22)), ("14-22", (14, 22)), ("late", "late"), ("off", None)]
)
def test_layers(text: str, layers: Any) -> None:
    assert settings.parse_layers(text) == layers


# --- visual tokens ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], None),
        (["--tokens", "off"], (1.0, None, None)),
        (["--tokens", "paper"], (0.25, "auto", None)),
        (["--tokens", "fast"], (0.125, "auto", None)),
        (["--tokens", "budget=0.15"], (0.25, "auto", 0.15)),
        (["--tokens", "auto"], (0.16, None, None)),
        (["--keep", "0.5"], (0.5, None, None)),
        (["--importance", "random"], (0.25, "auto", None)),
        (["--prune", "3,7", "--keep", "1"], (1.0, (3, 7), None)),
        (["--tokens", "fast", "--prune", "off"], (0.125, None, None)),
    ],
    ids=str,
)
def test_visual_token_options(words: list[str], wanted: Any, play: Play) -> None:
    llm = play("x")
    assert run("chat", "-p", "what?", *words).exit_code == 0
    found = llm.calls[0]["tokens"]
    assert (found and (found.merge_retain, found.prune_layers, found.flops_share)) == wanted


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--tokens", "ward", "--window", "4"], VisualTokenConfig(0.1, merge_by="ward", merge_window=4)),
        (["--tokens", "paper", "--merge", "ward", "--keep", "0.5"], VisualTokenConfig(0.5, merge_by="ward")),
        (["--keep", "0.5"], replace(VisualTokenConfig.auto(), merge_retain=0.5)),
        (["--window", "4"], replace(VisualTokenConfig.auto(), merge_window=4)),
        (["--prune", "3,7", "--weigh", "size"], VisualTokenConfig(prune_layers=(3, 7), weigh="size")),
        (["--tokens", "average", "--merge", "similarity"], VisualTokenConfig()),
    ],
    ids=str,
)
def test_merging_options(words: list[str], wanted: VisualTokenConfig, play: Play) -> None:
    llm = play("x")
    assert run("chat", "-p", "what?", *words).exit_code == 0
    assert llm.calls[0]["tokens"] == wanted


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tokens", "magic"], "'magic' is unknown"),
        (["--tokens", ""], "'' is unknown"),
        (["--tokens", "budget="], "'budget=' is unknown"),
        (["--tokens", "budget=2"], "budget is 2"),
        (["--tokens", "budget=0.1", "--keep", "0.5"], "--keep: a budget plans what keep says"),
        (["--keep", "0"], "--keep is 0"),
        (["--keep", "1.5"], "--keep is 1.5"),
        (["--prune", "7,3"], "--prune is (7, 3)"),
        (["--prune", "7"], "--prune: '7' is no pair of layers"),
        (["--importance", "luck"], "--importance is 'luck'"),
        (["--merge", "luck"], "--merge is 'luck'"),
        (["--tokens", "off", "--merge", "ward"], "--merge: all visual tokens are kept"),
        (["--keep", "1", "--weigh", "size"], "--weigh: all visual tokens are kept"),
        (["--tokens", "auto", "--importance", "question"], "--importance: nothing is pruned"),
        (["--tokens", "paper", "--window", "4"], "--window is 4 with --merge 'similarity'"),
    ],
    ids=str,
)
def test_visual_token_options_that_cannot_be(words: list[str], told: str, play: Play) -> None:
    play("never said")
    assert told in one_line(run("chat", "-p", "what?", *words), 2)


# --- groups -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    width: Annotated[int, typer.Option(help="How wide.")] = 4
    height: Annotated[int, typer.Option("--height", "-t", help="How tall.")] = 3


def drawn(command: Any, *args: str) -> Any:
    app = typer.Typer(add_completion=False)
    app.command()(flat(command))
    return CliRunner().invoke(app, list(args))


def test_a_group_arrives_whole_and_its_options_stand_in_its_place() -> None:
    def draw(context: typer.Context, *, name: str = "a", size: Size, size2: bool = False) -> None:
        print(context.get_parameter_source("width").name, name, size, size2)

    assert drawn(draw, "-t", "7", "--size2").stdout == "DEFAULT a Size(width=4, height=7) True\n"
    help_text = drawn(draw, "--help").stdout
    places = [help_text.index(word) for word in ("--name", "--width", "-t", "--size2")]
    assert places == sorted(places)
    assert "How tall" in help_text


def test_a_command_has_its_own_defaults_and_leaves_options_out() -> None:
    def draw(*, size: Annotated[Size, Without("width")] = Size(9, 9)) -> None:
        print(size)

    assert drawn(draw).stdout == "Size(width=9, height=9)\n"
    assert drawn(draw, "--width", "1").exit_code == 2


def test_leaving_out_what_is_not_there_is_our_fault() -> None:
    def draw(*, size: Annotated[Size, Without("depth")]) -> None: ...

    with pytest.raises(AssertionError, match="depth"):
        flat(draw)


# --- names in help texts ----------------------------------------------------------------------------------------------


def test_types_of_the_help_texts_are_the_converters() -> None:
    from aim_local.cli.quantize import DEFAULT
    from aim_local.convert import QUANTIZE_TYPES, WEIGHT_TYPES

    assert tuple(WEIGHT_TYPES) == KV_TYPES
    assert {DEFAULT, "q4_k_m", "q5_k_m", "q6_k", "q8_0", "q4_0", "iq4_xs"} <= set(QUANTIZE_TYPES)


def test_settings_of_the_help_texts_are_presets() -> None:
    text = _docs.markdown()
    (listed,) = re.findall(r"Settings to compare, separated by commas: (.*), budget=SHARE", text)
    (others,) = set(re.findall(r"or (merge-only.*)\. Default: auto for videos", text))
    assert {*listed.split(", "), *others.split(", ")} <= set(settings.PRESETS)


def test_names_that_older_typers_spell_in_capitals() -> None:
    """typer 0.27 makes `--SHAPE` of an option `shape` with the metavar SHAPE, unless its name is given."""
    for command in app.registered_commands:
        assert command.callback is not None
        for name, parameter in inspect.signature(command.callback).parameters.items():
            for note in getattr(parameter.annotation, "__metadata__", ()):
                if isinstance(note, typer.models.OptionInfo) and (note.metavar or "").lower() == name:
                    # in Annotated, typer keeps the first name where the default would stand
                    assert note.default == f"--{name}", f"{command.callback.__name__}: write out --{name}"
