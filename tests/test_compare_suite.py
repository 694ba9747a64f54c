"""Suites in JSONL: every field, all that can be wrong, the hash, how answers are judged."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
import suite_files
from hypothesis import given, settings
from hypothesis import strategies as st
from suite_files import CHOICES, QUESTION, one, touch, write
from thorough import examples

from aim_local.errors import SuiteError, UsageError
from aim_local.lab.compare.records import Item
from aim_local.lab.compare.suite import find_suite, is_right, letters, load_suite, prompt_of

folder = suite_files.folder


# --- our JSONL -------------------------------------------------------------------------------------------------------


def test_every_field_arrives(folder: Path) -> None:
    row = {
        **CHOICES,
        "id": "q1",
        "media": ["a.mp4", "b.mp4"],
        "answer": "B",
        "tags": ["x", "y"],
        "start": 1,
        "end": 2.5,
    }
    suite = load_suite(write(folder, row))
    media = (folder / "a.mp4", folder / "b.mp4")
    choices = ("a cat", "a dog", "no animal")
    assert suite.items == (Item("q1", media, "What is shown?", "B", choices, ("x", "y"), 1.0, 2.5),)
    assert suite.name == "animals"


def test_what_is_left_out_has_a_default(folder: Path) -> None:
    suite = load_suite(write(folder, "", {**QUESTION, "answer": None, "tags": None}, QUESTION, {**QUESTION, "id": 7}))
    assert suite.items[0] == Item("2", (folder / "a.mp4",), "What is shown?")
    assert [item.id for item in suite.items] == ["2", "3", "7"]  # without id: the line's number in the file


def test_bom_crlf_blank_lines_and_line_separators_in_a_text_are_fine(folder: Path) -> None:
    path = folder / "s.jsonl"
    rows = [{**QUESTION, "question": "One\u2028two\u0085three?"}, {**QUESTION, "question": "Größe?"}]
    text = "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n  \r\n")
    assert [(i.id, i.question) for i in load_suite(path).items] == [("1", "One\u2028two\u0085three?"), ("3", "Größe?")]


def test_media_are_relative_to_the_file_or_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    (folder / "deep").mkdir()
    path = write(folder / "deep", {**QUESTION, "media": "../a.mp4"}, {**QUESTION, "media": str(folder / "b.mp4")})
    media = [item.media[0].read_bytes() for item in load_suite(path.relative_to(folder.parent)).items]
    assert media == [b"bytes of a", b"bytes of b"]


def test_limit_takes_the_first_and_needs_only_their_media(folder: Path) -> None:
    path = write(folder, QUESTION, {**QUESTION, "media": "b.mp4"}, {**QUESTION, "media": "gone.mp4"})
    assert [item.id for item in load_suite(path, limit=2).items] == ["1", "2"]
    assert load_suite(path, limit=2).sha256 != load_suite(path, limit=1).sha256
    for load in (load_suite, find_suite):
        with pytest.raises(UsageError, match="limit is 0; it must be 1 or more"):
            load(path, limit=0)


FAULTS: list[tuple[dict[str, Any] | str, str]] = [
    ('{"media": "a.mp4", "question": "x"', r"line 2: is not JSON \(Expecting ',' delimiter, column 35\)"),
    ('{"media": "a.mp4", "question": "x", "question": "y"}', "line 2: .*the key 'question' stands twice"),
    ('{"media": "a.mp4", "question": "x", "start": NaN}', "line 2: .*NaN is no JSON number"),
    ("[" * 100_000, "line 2: is not JSON"),
    ('["a.mp4", "x"]', "line 2: is a list; it must be an object"),
    ({**QUESTION, "anwser": "a cat"}, "line 2: unknown key 'anwser'; did you mean 'answer'.* allowed are id, media, "),
    ({**QUESTION, "zzz": 1}, "line 2: unknown key 'zzz'; allowed are id"),
    ({"question": "x"}, "line 2: has no media; it needs the path of a video"),
    ({"media": "a.mp4"}, "line 2: has no question"),
    ({**QUESTION, "question": " "}, "line 2: question is blank"),
    ({**QUESTION, "question": ["x"]}, "line 2: question is a list; it must be what is asked, a text"),
    ({**QUESTION, "question": "\ud800"}, "line 2: question has half of a surrogate pair"),
    ({**QUESTION, "media": 3}, "line 2: media is a number; it must be the path"),
    ({**QUESTION, "media": []}, "line 2: media is an empty list"),
    ({**QUESTION, "media": ["a.mp4", 3]}, r"line 2: media\[1\] is a number"),
    ({**QUESTION, "media": "gone.mp4"}, "line 2: media .*gone.mp4: no such file"),
    ({**QUESTION, "media": "."}, "line 2: media .*: is a folder"),
    ({**QUESTION, "media": "empty.mp4"}, "line 2: media .*empty.mp4: is empty"),
    ({**QUESTION, "media": "a\0.mp4"}, "line 2: media .*"),
    ({**QUESTION, "id": True}, "line 2: id is true or false"),
    ({**QUESTION, "id": 1}, "line 2: id '1' is that of line 1 too"),
    ({**QUESTION, "answer": 3}, "line 2: answer is a number"),
    ({**QUESTION, "answer": ""}, "line 2: answer is blank"),
    ({**QUESTION, "tags": "colour"}, "line 2: tags is a text; it must be a list"),
    ({**QUESTION, "tags": [None]}, r"line 2: tags\[0\] is null"),
    ({**QUESTION, "start": "1"}, "line 2: start is a text; it must be a number of seconds"),
    ({**QUESTION, "end": True}, "line 2: end is true or false"),
    ({**QUESTION, "start": -1}, "line 2: start is -1; it must be seconds"),
    ({**QUESTION, "start": 2, "end": 2}, "line 2: start 2 s is not before end 2 s"),
    (CHOICES, "line 2: has choices without answer"),
    ({**CHOICES, "answer": "D"}, "line 2: answer 'D' is none of the choices; give a letter of A, B, C or its text"),
    ({**CHOICES, "answer": "a horse"}, "line 2: answer 'a horse' is none of the choices"),
    ({**CHOICES, "answer": "B. a cat"}, "line 2: answer 'B. a cat' is none of the choices"),
    ({**CHOICES, "choices": ["a cat"], "answer": "A"}, "line 2: choices has 1 texts; it must have 2 to 26"),
    ({**CHOICES, "choices": [], "answer": "A"}, "line 2: choices has 0 texts"),
    ({**CHOICES, "choices": ["a cat", "a cat "], "answer": "A"}, "line 2: choices has 'a cat ' twice"),
    (
        {**CHOICES, "choices": ["B", "A"], "answer": "A"},
        "line 2: answer 'A' is choice A and the text of B; write 'A. B'",
    ),
]


@pytest.mark.parametrize(("row", "message"), FAULTS, ids=[str(i) for i in range(len(FAULTS))])
def test_a_fault_is_one_line_that_names_file_and_line(folder: Path, row: dict[str, Any] | str, message: str) -> None:
    (folder / "empty.mp4").touch()
    path = write(folder, {**QUESTION, "id": "1"}, row)
    with pytest.raises(SuiteError, match=f"animals.jsonl {message}") as caught:
        find_suite(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.exit_code == 1


def test_faults_of_the_whole_file(folder: Path) -> None:
    for text in ("", "\n \r\n"):
        (folder / "s.jsonl").write_text(text)
        with pytest.raises(SuiteError, match=r"s\.jsonl: holds no question"):
            find_suite(folder / "s.jsonl")
    (folder / "s.jsonl").write_bytes(json.dumps(QUESTION).encode() + b"\n\n\xff\n")
    with pytest.raises(SuiteError, match=r"s\.jsonl line 3: is not UTF-8"):
        find_suite(folder / "s.jsonl")
    with pytest.raises(SuiteError, match=r"gone\.jsonl: no such file"):
        find_suite(folder / "gone.jsonl")
    with pytest.raises(SuiteError, match=r"gone\.jsonl: cannot be read"):
        load_suite(folder / "gone.jsonl")


def test_ids_given_twice_name_both_lines(folder: Path) -> None:
    path = write(folder, {**QUESTION, "id": "q"}, QUESTION, {**QUESTION, "id": "q"})
    with pytest.raises(SuiteError, match=r"line 3: id 'q' is that of line 1 too"):
        load_suite(path)
    with pytest.raises(SuiteError, match=r"line 2: id '2' is that of line 1 too; a question without id has its line"):
        load_suite(write(folder, {**QUESTION, "id": 2}, QUESTION))


@pytest.mark.parametrize("answer", ["B", "b", " b. ", "(B)", "a dog", "A Dog.", "B. a dog", "(b) A dog"])
def test_the_answer_among_choices_becomes_its_letter(folder: Path, answer: str) -> None:
    assert one(folder, {**CHOICES, "answer": answer}).answer == "B"


def test_choices_that_are_letters_themselves(folder: Path) -> None:
    assert one(folder, {**CHOICES, "choices": ["b", "c", "a"], "answer": "a"}).answer == "C"  # its exact text
    assert one(folder, {**CHOICES, "choices": ["b", "c", "a"], "answer": "A"}).answer == "A"
    assert one(folder, {**CHOICES, "choices": ["B", "A"], "answer": "A. B"}).answer == "A"
    assert one(folder, {**CHOICES, "choices": ["A", "B"], "answer": "B"}).answer == "B"


# --- the hash --------------------------------------------------------------------------------------------------------


def test_the_hash_follows_questions_and_bytes_of_media_but_not_names(folder: Path, tmp_path_factory: Any) -> None:
    rows = [{**CHOICES, "answer": "B", "tags": ["x"]}, {**QUESTION, "media": "b.mp4", "start": 1}]
    first = load_suite(write(folder, *rows))
    assert load_suite(write(folder, *rows)).sha256 == first.sha256
    assert len(first.sha256) == 64

    other = tmp_path_factory.mktemp("moved")
    for old, new in (("a", "one"), ("b", "two")):
        (other / f"{new}.mp4").write_bytes((folder / f"{old}.mp4").read_bytes())
    moved = [{**rows[0], "media": "one.mp4", "answer": "a dog"}, {**rows[1], "media": "two.mp4", "start": 1.0}]
    assert load_suite(write(other, *moved, name="renamed.jsonl")).sha256 == first.sha256

    changed: list[list[dict[str, Any]]] = [
        [{**rows[0], **change}, rows[1]]
        for change in ({"answer": "A"}, {"question": "?"}, {"tags": []}, {"id": "z"}, {"end": 3}, {"media": "b.mp4"})
    ]
    changed += [[{**rows[0], "choices": ["a cat", "a dog", "none"]}, rows[1]], [{**rows[0], "media": ["a.mp4"] * 2}]]
    hashes = {load_suite(write(folder, *r)).sha256 for r in [rows, *changed]}
    assert len(hashes) == 1 + len(changed)

    (folder / "b.mp4").write_bytes(b"other bytes")
    assert load_suite(write(folder, *rows)).sha256 not in hashes


# --- asking and judging ----------------------------------------------------------------------------------------------


def test_the_prompt_lists_choices_and_asks_for_the_letter(folder: Path) -> None:
    item = one(folder, {**CHOICES, "answer": "C"})
    assert prompt_of(item) == ("What is shown?\nA. a cat\nB. a dog\nC. no animal\nAnswer with the option's letter.")
    assert letters(item) == ("A", "B", "C")
    plain = one(folder, QUESTION)
    assert (prompt_of(plain), letters(plain)) == ("What is shown?", ())


def test_right_wrong_and_unknown(folder: Path) -> None:
    free = one(folder, {**QUESTION, "answer": "Top left"})
    assert [is_right(free, t) for t in ("top left", " Top  LEFT.", "top", "")] == [True, True, False, False]
    item = one(folder, {**CHOICES, "answer": "B"})
    assert all(is_right(item, t) for t in ("B", "b.", " (B) ", "B. a dog", "a dog", "A dog!"))
    assert not any(is_right(item, t) for t in ("A", "C", "", "a cat", "B. a cat", "a bad dog", "AB"))
    assert is_right(one(folder, QUESTION), "anything") is None


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(lambda t: t.strip())


@given(st.lists(TEXTS, min_size=2, max_size=26, unique_by=str.strip), st.data())
@settings(max_examples=examples(100), deadline=None)
def test_any_suite_reads_back_as_it_was_written(tmp_path_factory: Any, choices: list[str], data: st.DataObject) -> None:
    """A letter that is one of ours is always understood; texts of every kind arrive unchanged."""
    letter = data.draw(st.sampled_from(string.ascii_uppercase[: len(choices)]))
    index = string.ascii_uppercase.index(letter)
    if letter in choices and choices.index(letter) != index:
        return  # the ambiguous case, tested above
    folder = tmp_path_factory.mktemp("any")
    (folder / "a.mp4").write_bytes(b"x")
    row = {"media": "a.mp4", "question": choices[0], "choices": choices, "answer": letter, "tags": choices[1:]}
    item = one(folder, row)
    assert (item.question, item.choices, item.answer, item.tags) == (
        choices[0],
        tuple(choices),
        letter,
        tuple(choices[1:]),
    )
    assert [is_right(item, x) for x in letters(item)] == [x == letter for x in letters(item)]


# --- telling layouts apart -------------------------------------------------------------------------------------------


def test_the_example_in_the_docs_is_a_suite(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "compare.md").read_text(encoding="utf-8")
    example = text.split("```jsonl\n")[1].split("```")[0]
    rows = [json.loads(line) for line in example.splitlines()]
    touch(
        tmp_path,
        *(name for row in rows for name in (row["media"] if isinstance(row["media"], list) else [row["media"]])),
    )
    suite = load_suite(write(tmp_path, *example.splitlines()))
    assert [item.id for item in suite.items] == ["1", "dog-1", "3", "4"]
    assert suite.items[1].answer == "B"
    used = {key for row in rows for key in row}
    assert all(f"`{key}`" in text for key in used | {"id", "media", "question"})
