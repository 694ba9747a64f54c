"""The other commands, and what holds for every command: docs, help, --json."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cli_case import MAIN, one_line, run, run_process
from gguf_files import write_folder

from aim_local import store
from aim_local.cli import _docs, app
from aim_local.cli._answer import stats_line
from aim_local.results import Stats
from aim_local.visible import answer_text

REPO = Path(__file__).parent.parent


# --- the other commands ----------------------------------------------------------------------------------------------


def test_models() -> None:
    folder = write_folder(store.models_folder() / "onevision")
    result = run("models")
    assert result.exit_code == 0
    row = next(line for line in result.stdout.splitlines() if line.startswith("onevision"))
    assert row.split()[1] == "qwen2+llava_onevision"
    assert row.endswith(str(folder))
    found = json.loads(run("models", "--json").stdout)
    assert found["store"] == str(store.models_folder())
    assert [m["name"] for m in found["models"] if not m["bundled"]] == ["onevision"]


def test_models_with_an_empty_store() -> None:
    result = run("models")
    assert result.exit_code == 0
    assert "is empty; `aim-local pull NAME` or `aim-local convert SRC --name NAME` adds a model" in result.stderr


def test_convert_of_nothing(tmp_path: Path) -> None:
    line = one_line(run("convert", tmp_path / "none", "--out", tmp_path / "out"), 1)
    assert "does not exist" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("args", [["--name", "a/b"], ["--name", "demo"], []])
def test_convert_needs_a_name_for_the_store(tmp_path: Path, args: list[str]) -> None:
    (tmp_path / "bad name").mkdir()
    assert "model name" in one_line(run("convert", tmp_path / "bad name", *args), 2)


def test_convert_with_a_bad_type(tmp_path: Path) -> None:
    assert "'q9' is not a type" in one_line(run("convert", tmp_path, "--type", "q9"), 1)


def test_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import aim_local.convert

    def fail(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(aim_local.convert, "convert", fail)
    line = one_line(run("convert", tmp_path), 1)
    assert line == "error: converting needs torch; run in the source folder: pip install -e '.[convert]'"


def test_convert_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import aim_local.convert

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(aim_local.convert, "convert", interrupt)
    result = run("convert", tmp_path)
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


def test_quantize_of_nothing(tmp_path: Path) -> None:
    assert "no such model file" in one_line(run("quantize", tmp_path / "none.gguf"), 1)


# --- how it is built -------------------------------------------------------------------------------------------------


def test_docs_are_current() -> None:
    shown = (REPO / "docs" / "cli.md").read_text(encoding="utf-8")
    assert shown == _docs.markdown(), "run: python -m aim_local.cli._docs > docs/cli.md"


def test_help_and_version_load_nothing_heavy() -> None:
    code = (
        f"import sys, atexit; atexit.register(lambda: print(sorted(HEAVY & set(sys.modules)), file=sys.stderr)); {MAIN}"
    )
    heavy = "HEAVY = {'numpy', 'av', 'aim_local.native.library', 'gguf', 'rich', 'prompt_toolkit', 'torch'}; "
    for option in ("--help", "--version"):
        done = run_process(option, code=heavy + code)
        assert (done.returncode, done.stderr.strip()) == (0, "[]")
        assert "Usage" in done.stdout or done.stdout.startswith("aim-local ")


def test_every_command_has_json_and_debug() -> None:
    import typer

    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        options = {opt for param in command.params for opt in param.opts}
        assert {"--json", "--debug"} <= options, name


def test_each_command_is_told_in_a_line_that_fits() -> None:
    lines = run("--help").stdout.partition("Commands:")[2].splitlines()
    assert len(lines) > 10
    assert [line for line in lines if line.endswith("...")] == []


def test_no_command_shows_help() -> None:
    result = run()
    assert result.exit_code == 0
    assert "chat" in result.stdout


def test_stats_line_is_compact() -> None:
    stats = Stats(
        n_frames=8, n_images=1, n_visual_full=128, n_visual=32, decode_video_ms=12, vision_ms=210.4, prefill_ms=45.1,
        ttft_ms=301.2, n_generated=11, decode_ms=100, kv_bytes=3 << 20, stop_reason="length",
        vision_kernels="int8 (amx)", prefill_kernels="bf16 (amx)",
    )  # fmt: skip
    assert stats_line(stats) == (
        "stats: 8 frames, 1 image | visual tokens 128 -> 32 | ms: video 12, vision 210, prefill 45 | "
        "vision int8 (amx) | prefill bf16 (amx) | TTFT 301 ms | "
        "11 tokens at 100.0/s | KV cache 3.0 MiB | cut at --max-tokens"
    )
    assert stats_line(Stats(n_generated=1, stop_reason="cancelled")) == "stats: 1 token | cancelled"


def test_a_model_cannot_drive_the_terminal() -> None:
    assert answer_text("a\x1b[2J\tb\r\n\x9bc\x7f", terminal=True) == "a[2J\tb\nc"


def test_home_is_untouched() -> None:
    assert "home" in os.environ["HOME"]
