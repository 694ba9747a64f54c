"""Text of others made safe: what is shown of names, what is kept of answers, JSON that gives the same text again."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import unicodedata
from pathlib import Path

import pytest

from aim_local.lab.html import escape
from aim_local.visible import answer_text, is_visible, json_text, rejoined, shell_word, visible

HOSTILE = {
    "title and clipboard": "a\x1b]0;t\x07\x1b]52;c;aGk=\x1b\\",
    "c1": "\x9b31m\x90\x9d\x85",
    "overwriting": "good\rbad\x08\x7f",
    "direction": "a\u202egpj\u2066\u2069\u200e",
    "unseen": "a\u200b\u2060\ufeff\u00adb\U000e0041",
    "lines": "a\nb\u2028c\u2029d",
    "bytes": os.fsdecode(b"caf\xe9\xff"),
    "half": "a\ud800b",
}


def raw(text: str, allowed: str = "") -> set[str]:
    """Characters of it that do something to a terminal, or hide. An independent list."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in allowed}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_raw_is_left(text: str) -> None:
    assert raw(text)
    assert not is_visible(text)
    assert not raw(visible(text))
    assert not raw(answer_text(text, terminal=True), "\n\t")
    assert not {c for c in answer_text(text) if unicodedata.category(c) in ("Cc", "Cs")} - {"\n", "\t"}
    assert not raw(escape(text), "\n\t")
    for made in (visible(text), json_text({text: text}), escape(text), answer_text(text), shell_word(text)):
        made.encode()


@pytest.mark.parametrize("text", [*HOSTILE.values(), "plain", "\U0001f468\u200d\U0001f469", "na\u00efve \u4e2d"])
def test_json_gives_the_same_text_again(text: str) -> None:
    for options in ({}, {"indent": 2}, {"ensure_ascii": True}):
        made = json_text([text, {"k": text}], **options)
        assert not raw(made, "\n\x7f" if options.get("ensure_ascii") else "\n")
        assert json.loads(made) == [text, {"k": text}]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31m", r"a\x1b[31m"), ("a\nb\tc\rd", r"a\nb\tc\rd"), ("\x9b", r"\x9b"), ("\u202e", r"\u202e"),
        ("\U000e0041", r"\U000e0041"), ("caf\udcc3\udca9", "caf\u00e9"), ("caf\udce9", r"caf\xe9"),
        ("\ud800", r"\ud800"),
        ("na\u00efve \u4e2d \U0001f600", "na\u00efve \u4e2d \U0001f600"), ("", ""),
    ],
)  # fmt: skip
def test_what_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_an_answer_keeps_its_text() -> None:
    family = "\U0001f468\u200d\U0001f469"
    assert answer_text(f"a\tb\n{family} \u202b x") == f"a\tb\n{family} \u202b x"
    assert answer_text(f"a\tb\n{family} \u202e x", terminal=True) == f"a\tb\n{family}  x"


@pytest.mark.parametrize("text", ["a b", "it's", "a\x1b[31m\n'\\", os.fsdecode(b"caf\xe9\xff"), "-x\u202e", "\t"])
def test_a_shell_reads_the_same_word(text: str) -> None:
    word = shell_word(text)
    assert not raw(word)
    done = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert done.stdout == os.fsencode(text)


def test_utf8_of_a_system_without_is_text_again() -> None:
    assert rejoined("na\u00efve".encode().decode("ascii", "surrogateescape")) == "na\u00efve"
    assert rejoined("a\udcff") == "a\udcff"


def test_only_two_files_of_the_command_line_print() -> None:
    """Guards the one place: what is printed elsewhere would not go through `visible`."""
    folder = Path(__file__).resolve().parent.parent / "cli"
    allowed = {"_out.py", "_log.py", "_docs.py", "_families.py"}
    wrong = [
        f"{path.name}:{node.lineno}"
        for path in sorted(folder.glob("*.py"))
        if path.name not in allowed
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("print", "typer.echo", "typer.confirm", "sys.stdout.write")
    ]
    assert not wrong
