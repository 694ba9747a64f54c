"""VideoMME and MVBench as published, and how the layouts are told apart."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import suite_files
from suite_files import QUESTION, touch, write

from aim_local.errors import SuiteError, UsageError
from aim_local.lab.compare.records import Item
from aim_local.lab.compare.suite import find_suite, prompt_of
from aim_local.lab.compare.suites_published import TASKS

folder = suite_files.folder

# --- VideoMME --------------------------------------------------------------------------------------------------------

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


# --- MVBench ---------------------------------------------------------------------------------------------------------

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


# --- telling layouts apart -------------------------------------------------------------------------------------------


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
    with pytest.raises(UsageError, match=r"media_root .* does not go with .*animals\.jsonl"):
        find_suite(write(folder, QUESTION), folder)
    with pytest.raises(UsageError, match=r"name the folder of its videos with media_root=DIR"):
        find_suite(annotations(folder, [ROW]))


def test_the_hash_of_a_published_suite_follows_its_videos(tmp_path: Path) -> None:
    root = touch(tmp_path / "v", "data/abcdefghijk.mp4")
    path = annotations(tmp_path, [ROW])
    before = find_suite(path, root)
    (root / "data/abcdefghijk.mp4").write_bytes(b"cut otherwise")
    assert find_suite(path, root).sha256 != before.sha256
