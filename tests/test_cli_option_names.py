"""Messages on the command line name options, never the fields of the library's dataclasses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import cli_case
import pytest
import typer
from cli_case import Play, run
from fake_llm import Scripted

from aim_local import GenerateConfig, LoadConfig, VisualTokenConfig
from aim_local.cli import _options, _runtime, app
from aim_local.cli._option_names import FLAGS, OPTIONS, in_options
from aim_local.errors import AimError, ContextError
from aim_local.lab.bench.benchmark import BenchConfig
from aim_local.lab.compare.job import Options
from aim_local.media import FrameSampling

play, clip = cli_case.play, cli_case.clip
CONFIGS = (LoadConfig, VisualTokenConfig, GenerateConfig, FrameSampling, BenchConfig, Options)
FIELDS = {field.name for kind in CONFIGS for field in fields(kind)}
BAD = ("-1", "0", "1.5", "7,3", "nan", "1e99", "luck", "")
COMMANDS = ("chat", "explain", "plan", "bench", "compare")
ALL = (*COMMANDS, "serve", "run", "watch", "convert", "pull")


def flags_of(command: str) -> set[str]:
    group: Any = typer.main.get_command(app)
    return {max(param.opts, key=len) for param in group.commands[command].params if getattr(param, "is_flag", False)}


def options_of(command: str) -> Iterator[str]:
    group: Any = typer.main.get_command(app)
    for param in group.commands[command].params:
        if param.param_type_name == "option" and not param.is_flag and "--help" not in param.opts:
            yield max(param.opts, key=len)


def spoken(message: str) -> list[str]:
    """Fields of the library that a message names: those with an underscore anywhere, others as `NAME is VALUE`."""
    plain = re.sub(r"'[^']*'", "''", message)  # what the user typed is quoted
    found = [name for name in FIELDS if "_" in name and re.search(rf"(?<![\w-]){name}\b", plain)]
    return found + [name for name in FIELDS if re.search(rf"(?:error: |: ){name} is ", plain)]


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch, play: Play) -> None:
    """What is accepted ends before any work."""

    def stop(*_: object, **__: object) -> None:
        raise AimError("accepted")

    play(*[Scripted("x")] * 999)
    monkeypatch.setattr(_runtime, "load", stop)
    monkeypatch.setattr("aim_local.engine.model.open_model", stop)
    monkeypatch.setattr("aim_local.lab.bench.benchmark.run_bench", stop)
    monkeypatch.setattr("aim_local.lab.compare.suite.draw_demo_suite", stop)


@pytest.mark.parametrize("command", COMMANDS)
def test_bad_values_of_every_option(
    command: str, clip: Path, nothing_runs: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group: Any = typer.main.get_command(app)  # once: making it takes longer than a run
    given = {
        "chat": ["-p", "x", str(clip)],
        "explain": ["-p", "x", str(clip), "--json"],
        "plan": ["-p", "x", str(clip)],
        "bench": [],
        "compare": ["--demo", "--out", str(tmp_path / "out")],
    }[command]
    refused = 0
    for option in options_of(command):
        for value in BAD:
            words = [word for i, word in enumerate(given) if option not in given[max(0, i - 1) : i + 1]]
            code = group.main([command, *words, option, value], standalone_mode=False)
            told = capsys.readouterr().err
            assert "internal error" not in told
            assert spoken(told) == [], f"{command} {option} {value}: {told}"
            refused += code == 2
    assert refused > 2 * len(list(options_of(command)))


def test_the_table_is_the_option_groups() -> None:
    """Every field that an option sets is in the table, under an option that exists."""
    there = {option for command in ALL for option in options_of(command)}
    flags = {flag for command in ALL for flag in flags_of(command)}
    assert set(OPTIONS.values()) <= there | flags
    assert set(FLAGS.values()) <= flags
    by_flag = {"cache_media"}  # set by --no-cache
    for group, made in (
        (_options.LoadOptions, LoadConfig), (_options.TokenOptions, VisualTokenConfig),
        (_options.AnswerOptions, GenerateConfig), (_options.FrameOptions, FrameSampling),
    ):  # fmt: skip
        n_options = sum(f"--{field.name.replace('_', '-')}" in there for field in fields(group))
        known = [field.name for field in fields(made) if field.name in OPTIONS or field.name in by_flag]
        assert len(known) >= n_options - 2, group.__name__  # --tokens names several fields, --system none


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("n_ctx is -1; give a whole number above 0", "--ctx is -1; give a whole number above 0"),
        ("load with n_ctx=900 or more, or use n_frames=12 or fewer", "load with --ctx 900 or more, or use --frames 12"),
        ("type_v q8_0 needs flash attention; give flash_attn=True or type_v=f16", "give --flash-attn on or --type-v f"),
        ("use --prune off (prune_layers=None)", "use --prune off"),
        ('use --weigh equal (weigh="equal")', "use --weigh equal"),
        ("set prune_layers=None", "set --prune off"),
        ("use a larger n_ctx", "use a larger --ctx"),
        ("give a smaller n_ctx where one was given", "give a smaller --ctx where one was given"),
        ("ttft is 0 s; give a time above 0, such as 10s", "--ttft is 0 s; give a time above 0, such as 10s"),
        ("seed is -1; give a whole number from 0 to 9, or None", "--seed is -1; give a whole number from 0 to 9"),
        ("tokens is 3; give a VisualTokenConfig, or None for the default", "--tokens is 3; give a VisualTokenConfig"),
        ("--keep: merge_retain is 0.0; it is", "--keep is 0.0; it is"),
        ("setting 'paper:keep=2': keep: merge_retain is 2.0", "setting 'paper:keep=2': keep is 2.0"),
        ("setting 'x:seed=a': seed: 'a' is no whole number", "setting 'x:seed=a': seed: 'a' is no whole number"),
        ("start 5 s is after end 3 s; start must come first", "--start 5 s is after --end 3 s; start must come first"),
        ("/data/n_ctx/clip.mp4: no such file", "/data/n_ctx/clip.mp4: no such file"),
        ("load option 'n_ctx=0': n_ctx is 0", "load option 'n_ctx=0': n_ctx is 0"),
        ("the start of the clip, at the end", "the start of the clip, at the end"),
        (
            "a.jsonl: is a folder; name a file in it with out=FILE",
            "a.jsonl: is a folder; name a file in it with --out FILE",
        ),
        ("one is enough; leave rpc or stock out", "one is enough; leave --rpc or --against-stock out"),
        ("leave skip_vision and stock out", "leave --skip-vision and --against-stock out"),
        ("lower kld_tokens, give kld_tokens=0, or", "lower --kld-tokens, give --no-kld, or"),
        ("name it with mmproj=FILE, or take skip_vision=True", "name it with --mmproj FILE, or take --skip-vision"),
        ("types names q4_0 twice; drop one", "--types names q4_0 twice; drop one"),
        ("vision_types names 'q9', which is unknown", "--vision-types names 'q9', which is unknown"),
        ("a: away for 3 s, so it is given up (give_up)", "a: away for 3 s, so it is given up (--give-up)"),
        ("the vision tower: vision_tower's weights were not used", "tower: --vision-tower's weights were not used"),
        ("http://x/a?name=b: no such host; out of memory", "http://x/a?name=b: no such host; out of memory"),
        ("q.jsonl line 3: start 5 s is not before end 3 s", "q.jsonl line 3: start 5 s is not before end 3 s"),
        ("line 3: max_tokens is 0; it must be 1 or more", "line 3: max_tokens is 0; it must be 1 or more"),
    ],
)
def test_words(said: str, told: str) -> None:
    assert told in in_options(said)


def test_warnings_and_errors_of_an_answer(play: Play) -> None:
    full = "the answer was cut: the context of 256 tokens is full; use a larger n_ctx"
    play(Scripted("a", warnings=[full]), Scripted(error=ContextError("use n_frames=3 or fewer")))
    assert run("chat", "-p", "x").stderr.endswith("is full; use a larger --ctx\n")
    assert run("chat", "-p", "x").stderr == "error: use --frames 3 or fewer\n"


def test_the_number_of_frames_that_fits(mp4: Path) -> None:
    """With the bundled model: what is told fits, one frame more does not."""
    command = ("chat", mp4, "-p", "What?", "--max-tokens", "1", "--ctx", "512")
    found = re.search(r"use --frames (\d+) or fewer", run(*command, "--frames", "60").stderr)
    assert found
    n = int(found[1])
    assert run(*command, "--frames", str(n)).exit_code == 0
    assert "does not fit" not in run("plan", *command[1:], "--frames", str(n)).stdout
    more = run(*command, "--frames", str(n + 1))
    assert more.exit_code == 1
    assert f"use --frames {n} or fewer" in more.stderr
