"""Suites: the JSONL form and all that can be wrong with it, the drawn demo suite, VideoMME and MVBench as published."""

from __future__ import annotations

import hashlib
import importlib
import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_local.demo import FAMILIES, held_out, read_clip, sampled_frames, write_clip
from aim_local.errors import SuiteError, UsageError
from aim_local.lab.compare import demo_suite
from aim_local.lab.compare.records import Item, Suite
from aim_local.lab.compare.suite import draw_demo_suite, find_suite, is_right, letters, load_suite, prompt_of
from aim_local.lab.compare.suites_published import TASKS

QUESTION = {"media": "a.mp4", "question": "What is shown?"}
CHOICES = {**QUESTION, "choices": ["a cat", "a dog", "no animal"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.mp4").write_bytes(f"bytes of {name}".encode())
    return tmp_path


def write(folder: Path, *rows: dict[str, Any] | str, name: str = "animals.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return path


def one(folder: Path, row: dict[str, Any]) -> Item:
    return load_suite(write(folder, row)).items[0]


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


# --- our JSONL --------------------------------------------------------------------------------------------------


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


# --- the hash ---------------------------------------------------------------------------------------------------


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


# --- asking and judging -----------------------------------------------------------------------------------------


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
@settings(max_examples=100, deadline=None)
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


# --- the demo suite ---------------------------------------------------------------------------------------------


def test_the_demo_suite_is_the_held_out_clips(tmp_path: Path) -> None:
    path = draw_demo_suite(tmp_path / "new" / "demo", 12, 3)
    suite = find_suite(tmp_path / "new" / "demo")
    assert path == tmp_path / "new" / "demo" / "suite.jsonl"
    assert suite.name == "demo"
    clips = list(held_out(12, 3))
    assert [(i.question, i.answer, i.tags) for i in suite.items] == [(c.question, c.answer, (c.family,)) for c in clips]
    assert {i.tags[0] for i in suite.items} == set(FAMILIES[:12])
    drawn, truth = read_clip(suite.items[5].media[0]), clips[5].frames()[sampled_frames()]
    assert abs(drawn.astype(int) - truth).mean() < 4  # what the codec loses


def test_the_same_seed_gives_the_same_suite_and_another_one_another(tmp_path: Path) -> None:
    def of(name: str, seed: int) -> Suite:
        return load_suite(draw_demo_suite(tmp_path / name, 4, seed))

    assert of("a", 0).sha256 == of("b", 0).sha256
    assert of("a", 0).sha256 != of("c", 1).sha256


def test_a_clip_has_the_same_bytes_whenever_it_is_written(tmp_path: Path) -> None:
    """x264's default paths look at memory that was used before: a resumed drawing would be another suite."""
    clip = list(held_out(8))[7]
    rng, used = np.random.default_rng(0), []
    seen = set()
    for _ in range(40):
        used = [*used[-20:], rng.integers(0, 255, rng.integers(10, 60_000), dtype=np.uint8)]
        seen.add(hashlib.sha256(write_clip(clip, tmp_path / "clip.mp4").read_bytes()).hexdigest())
    assert len(seen) == 1


def test_an_interrupted_drawing_is_completed_and_a_complete_one_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def interrupted(clip: Any, path: Path) -> Path:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path.name)
        return write_clip(clip, path)

    monkeypatch.setattr(demo_suite, "write_clip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw_demo_suite(tmp_path, 5)
    assert not (tmp_path / "suite.jsonl").exists()
    first = {p: p.stat().st_mtime_ns for p in (tmp_path / "clips").iterdir()}
    assert len(first) == 3

    monkeypatch.setattr(demo_suite, "write_clip", write_clip)
    suite = load_suite(draw_demo_suite(tmp_path, 5))
    assert len(suite.items) == 5
    assert {p: p.stat().st_mtime_ns for p in first} == first
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    draw_demo_suite(tmp_path, 5)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == stamps
    suite.items[2].media[0].unlink()  # a clip lost later is drawn again
    assert load_suite(draw_demo_suite(tmp_path, 5)).sha256 == suite.sha256


def test_a_drawn_suite_is_replaced_but_never_somebodys_own(folder: Path) -> None:
    draw_demo_suite(folder, 3)
    assert len(load_suite(draw_demo_suite(folder, 2)).items) == 2
    own = write(folder, QUESTION, name="suite.jsonl")
    with pytest.raises(SuiteError, match="is no drawn demo suite; it is left alone"):
        draw_demo_suite(folder, 2)
    assert json.loads(own.read_text()) == QUESTION


def test_faults_of_drawing(tmp_path: Path) -> None:
    for n, seed in ((0, 0), (1, -1)):
        with pytest.raises(UsageError, match="1 or more clips and a seed of 0 or more"):
            draw_demo_suite(tmp_path, n, seed)
    (tmp_path / "file").touch()
    with pytest.raises(SuiteError, match="file: the demo suite cannot be written"):
        draw_demo_suite(tmp_path / "file", 1)


# --- VideoMME ---------------------------------------------------------------------------------------------------

ROW = {  # a row of the published parquet file
    "video_id": "001",
    "duration": "short",
    "domain": "Knowledge",
    "sub_category": "Humanity & History",
    "url": "https://www.youtube.com/watch?v=abcdefghijk",
    "videoID": "abcdefghijk",
    "question_id": "001-1",
    "task_type": "Counting Problem",
    "question": "How many candles are there?",
    "options": ["A. Four.", "B. Nine.", "C. Five.", "D. Thirteen."],
    "answer": "C",
}
NESTED = {  # the form of the evaluation script's template, its earlier names
    "video_id": "001",
    "duration_category": "short",
    "video_category": "Knowledge",
    "video_subcategory": "Humanity & History",
    "questions": [
        {
            "question_id": f"001-{n}",
            "task_type": "Counting Problem",
            "question": "How many candles are there?",
            "choices": ["A. Four.", "B. Nine.", "C. Five.", "D. Thirteen."],
            "answer": "C",
            "response": "D",
        }
        for n in (1, 2)
    ],
}


def annotations(folder: Path, value: object, name: str = "test.json") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def videomme_item(media: Path) -> Item:
    choices = ("Four.", "Nine.", "Five.", "Thirteen.")
    tags = ("short", "Knowledge", "Counting Problem")
    return Item("001-1", (media,), "How many candles are there?", "C", choices, tags)


def test_videomme_rows_as_json_list_and_json_lines(tmp_path: Path) -> None:
    root = touch(tmp_path / "videos", "data/abcdefghijk.mp4")
    media = root / "data" / "abcdefghijk.mp4"
    flat = find_suite(annotations(tmp_path, [ROW]), root)
    lines = find_suite(write(tmp_path, {**ROW, "subtitles": "..."}, name="v.jsonl"), root)
    assert flat.items == lines.items == (videomme_item(media),)
    assert flat.name == "videomme"
    assert prompt_of(flat.items[0]).splitlines()[3] == "C. Five."


def test_videomme_nested_questions_under_both_sets_of_names(tmp_path: Path) -> None:
    root = touch(tmp_path / "videos", "001.mp4")
    old = find_suite(annotations(tmp_path, [NESTED]), root)
    names = {"duration_category": "duration", "video_category": "domain", "video_subcategory": "sub_category"}
    renamed = {names.get(key, key): value for key, value in NESTED.items()}
    renamed["questions"] = [
        {("options" if key == "choices" else key): value for key, value in q.items()} for q in NESTED["questions"]
    ]
    new = find_suite(annotations(tmp_path, [renamed]), root)
    assert old.items == new.items
    assert old.items[0] == videomme_item(root / "001.mp4")
    assert [item.id for item in old.items] == ["001-1", "001-2"]


@pytest.mark.parametrize("name", ["abcdefghijk.MP4", "video/abcdefghijk.mkv", "videos/001.webm", "data/001.mp4"])
def test_videomme_videos_are_found_where_people_unpack_them(tmp_path: Path, name: str) -> None:
    root = touch(tmp_path / "v", name)
    nested = {**NESTED, "url": ROW["url"]}
    for value in ([ROW], [nested]):
        assert find_suite(annotations(tmp_path, value), root).items[0].media == (root / name,)


def test_videomme_faults(tmp_path: Path) -> None:
    root = touch(tmp_path / "v", "001.mp4")
    faults: list[tuple[dict[str, Any], str]] = [
        ({**ROW, "answer": "E"}, "test.json entry 1: answer is 'E'; it must be a letter of A, B, C, D"),
        ({**ROW, "answer": None}, "test.json entry 1: has no answer"),
        ({**ROW, "question": None}, "test.json entry 1: has no question"),
        ({**ROW, "question_id": None}, "test.json entry 1: has no question_id"),
        ({**ROW, "options": ["A. x"]}, "test.json entry 1: has 1 options; it must have 2 to 26"),
        ({**ROW, "options": "A. x"}, "test.json entry 1: options is a text"),
        ({**NESTED, "questions": {}}, "test.json entry 1: questions is an object"),
        ({**NESTED, "questions": [3]}, "test.json entry 1 question 1: is a number"),
        ({**NESTED, "questions": NESTED["questions"][:1] * 2}, "question 2: id '001-1' is that of .* question 1 too"),
        ({**NESTED, "video_id": None}, "question 1: has neither videoID nor video_id"),
        ({**NESTED, "questions": []}, "test.json: holds no question"),
    ]
    for row, message in faults:
        with pytest.raises(SuiteError, match=message):
            find_suite(annotations(tmp_path, [row]), root)


def test_missing_videos_are_counted_and_the_place_is_named(tmp_path: Path) -> None:
    root = touch(tmp_path / "v", "data/abcdefghijk.mp4")
    rows = [ROW, *({**ROW, "question_id": f"{n}-1", "videoID": f"id{n}", "video_id": f"{n}"} for n in range(5))]
    rows = [{**row, "url": None} for row in rows]
    path = annotations(tmp_path, rows)
    message = r"entry 2: 5 videos not found under .*: id0.mp4, id1.mp4, id2.mp4, ...; expected as .*v/data/id0.mp4"
    with pytest.raises(SuiteError, match=message):
        find_suite(path, root)
    assert len(find_suite(path, root, limit=1).items) == 1
    with pytest.raises(SuiteError, match="gone: no such folder"):
        find_suite(path, tmp_path / "gone")


def test_videomme_parquet_without_pyarrow_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "test-00000-of-00001.parquet"
    path.write_bytes(b"PAR1")

    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(SuiteError, match=r"reading parquet needs pyarrow \(pip install pyarrow\); or save"):
        find_suite(path, tmp_path)


def test_videomme_parquet_rows_arrive_as_the_json_rows_do(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    root = touch(tmp_path / "v", "data/abcdefghijk.mp4")
    parquet.write_table(arrow.Table.from_pylist([ROW]), tmp_path / "test.parquet")
    assert find_suite(tmp_path / "test.parquet", root) == find_suite(annotations(tmp_path, [ROW]), root)
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    with pytest.raises(SuiteError, match="cannot be read as parquet"):
        find_suite(tmp_path / "bad.parquet", root)


# --- MVBench ----------------------------------------------------------------------------------------------------

STAR = {
    "video": "ABCDE.mp4",
    "question": "What happened after the person took the food?",
    "candidates": ["Ate the medicine.", "Tidied up the blanket.", "Put down the cup."],
    "answer": "Tidied up the blanket.",
    "question_id": "Interaction_T1_13",
    "start": 11.1,
    "end": 19.6,
}
LETTERS = {"video": "v1.mp4", "question": "Which letter was first?", "candidates": ["b", "c", "a"], "answer": "a"}


def test_mvbench_a_task_with_a_range(tmp_path: Path) -> None:
    root = touch(tmp_path / "mv", "star/Charades_v1_480/ABCDE.mp4")
    suite = find_suite(annotations(tmp_path, [STAR], "action_sequence.json"), root)
    media = (root / "star/Charades_v1_480/ABCDE.mp4",)
    candidates = tuple(STAR["candidates"])
    assert suite.items == (
        Item("action_sequence-1", media, str(STAR["question"]), "B", candidates, ("action_sequence",), 11.1, 19.6),
    )
    assert suite.name == "mvbench-action_sequence"


def test_mvbench_a_video_already_cut_has_no_range(tmp_path: Path) -> None:
    root = touch(tmp_path / "mv", "star/Charades_segment/ABCDE.mp4")
    item = find_suite(annotations(tmp_path, [STAR], "action_sequence.json"), root).items[0]
    assert (item.start, item.end) == (None, None)


def test_mvbench_a_task_without_range_and_candidates_that_are_letters(tmp_path: Path) -> None:
    root = touch(tmp_path / "mv", "perception/videos/v1.mp4")
    row = {**LETTERS, "start": 1.0, "end": 2.0}  # the authors' loader reads them for tasks with a range alone
    item = find_suite(annotations(tmp_path, [row], "character_order.json"), root).items[0]
    assert (item.answer, item.start, item.end) == ("C", None, None)
    numbers = {**LETTERS, "candidates": [3, 2, 4], "answer": 2}
    item = find_suite(annotations(tmp_path, [numbers], "action_count.json"), root).items[0]
    assert (item.choices, item.answer) == (("3", "2", "4"), "B")


@pytest.mark.parametrize("prefix", ["", "video/", "data0613/", "video/data0613/"])
def test_mvbench_every_task_has_its_folder(tmp_path: Path, prefix: str) -> None:
    """The folders of the authors' notebook and of the archives that unpack into `video`."""
    for name, task in TASKS.items():
        root = touch(tmp_path / name, f"{prefix}{task.folder}/x.mp4")
        row = {**LETTERS, "video": "x.mp4"}
        item = find_suite(annotations(tmp_path, [row], f"{name}.json"), root).items[0]
        assert item.media == (root / prefix / task.folder / "x.mp4",)
    assert len(TASKS) == 20
    bound = {name for name, task in TASKS.items() if task.bound}
    assert bound == {
        "action_sequence",
        "action_prediction",
        "object_interaction",
        "action_localization",
        "episodic_reasoning",
    }


def test_mvbench_a_folder_of_tasks(tmp_path: Path) -> None:
    root = touch(tmp_path / "mv", "star/Charades_v1_480/ABCDE.mp4", "perception/videos/v1.mp4")
    annotations(tmp_path / "set", [STAR, STAR], "json/action_sequence.json")
    annotations(tmp_path / "set", [LETTERS], "json/character_order.json")
    annotations(tmp_path / "set", {}, "json/other.json")
    for place in (tmp_path / "set", tmp_path / "set" / "json"):
        suite = find_suite(place, root)
        assert [i.id for i in suite.items] == ["action_sequence-1", "action_sequence-2", "character_order-1"]
        assert suite.name == "mvbench"
    assert len(find_suite(tmp_path / "set", root, 1).items) == 1


def test_mvbench_frames_are_refused_with_the_cure(tmp_path: Path) -> None:
    row = {**STAR, "video": "friends_s03e09", "fps": 3}
    path = annotations(tmp_path, [row], "episodic_reasoning.json")
    root = touch(tmp_path / "mv", "tvqa/frames_fps3_hq/friends_s03e09/00001.jpg")
    with pytest.raises(SuiteError, match=r"entry 1: .*is a folder of frames.*ffmpeg -framerate 3 .*s03e09\.mp4"):
        find_suite(path, root)
    touch(root, "tvqa/frames_fps3_hq/friends_s03e09.mp4")
    item = find_suite(path, root).items[0]
    assert (item.media[0].name, item.start) == ("friends_s03e09.mp4", 11.1)


def test_mvbench_faults(tmp_path: Path) -> None:
    root = touch(tmp_path / "mv", "star/Charades_v1_480/ABCDE.mp4")
    (root / "star/Charades_v1_480/none.mp4").touch()
    faults: list[tuple[dict[str, Any], str]] = [
        ({**STAR, "answer": "B"}, "action_sequence.json entry 1: answer 'B' is none of the candidates"),
        ({**STAR, "answer": None}, "action_sequence.json entry 1: has no answer"),
        ({**STAR, "video": None}, "action_sequence.json entry 1: has no video"),
        ({**STAR, "video": "gone.mp4"}, "entry 1: 1 video not found under .*mv: gone.mp4; expected as .*480/gone.mp4"),
        ({**STAR, "video": "none.mp4"}, "entry 1: video .*none.mp4: is empty"),
        ({**STAR, "start": 20.0}, "entry 1: start 20 s is not before end 19.6 s"),
        ({**STAR, "end": "x"}, "entry 1: end is a text"),
    ]
    for row, message in faults:
        with pytest.raises(SuiteError, match=message):
            find_suite(annotations(tmp_path, [row], "action_sequence.json"), root)
    with pytest.raises(SuiteError, match=r"file names are its tasks; did you mean action_sequence\.json\?"):
        find_suite(annotations(tmp_path, [STAR], "action_sequences.json"), root)


# --- telling layouts apart --------------------------------------------------------------------------------------


def test_what_is_no_layout_is_said(folder: Path) -> None:
    for value, message in [
        ({"a": 1}, "x.json: is an object; a published annotation file is a JSON list"),
        ([], "x.json: is an empty list"),
        ([3], "x.json entry 1: is a number"),
        ([QUESTION], "x.json: is neither VideoMME .* nor MVBench .*write your own questions as JSONL"),
    ]:
        with pytest.raises(SuiteError, match=message):
            find_suite(annotations(folder, value, "x.json"), folder)
    (folder / "x.json").write_text('{"a": 1}\n{"a": 2}\n')
    with pytest.raises(SuiteError, match=r"x\.json: is not JSON \(Extra data, line 2, column 1\)"):
        find_suite(folder / "x.json", folder)
    with pytest.raises(SuiteError, match=r"has neither suite\.jsonl nor MVBench's task files"):
        find_suite(folder)


def test_the_media_folder_goes_with_published_files_only(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"--media .* does not go with .*animals\.jsonl"):
        find_suite(write(folder, QUESTION), folder)
    with pytest.raises(UsageError, match=r"name the folder of its videos with --media"):
        find_suite(annotations(folder, [ROW]))


def test_the_hash_of_a_published_suite_follows_its_videos(tmp_path: Path) -> None:
    root = touch(tmp_path / "v", "data/abcdefghijk.mp4")
    path = annotations(tmp_path, [ROW])
    before = find_suite(path, root)
    (root / "data/abcdefghijk.mp4").write_bytes(b"cut otherwise")
    assert find_suite(path, root).sha256 != before.sha256


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
