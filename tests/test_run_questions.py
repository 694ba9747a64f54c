"""A file of questions for `run`: what a line may say, and what is said of one that cannot be asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from run_case import CLIPS, write_questions

from aim_local.batch.questions import Bad, BadQuestionsError, Clip, Question, check_clips, read_questions, refuse_bad
from aim_local.errors import SuiteError

ASKED = {"video": "clip.mp4", "question": "What happens?"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(CLIPS / "time.mp4", tmp_path / "clip.mp4")
    PIL.Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "picture.png")
    return tmp_path


def read(folder: Path, *rows: dict[str, Any] | str) -> list[Question | Bad]:
    return list(check_clips(read_questions(write_questions(folder / "q.jsonl", rows))).lines)


def test_every_key(folder: Path) -> None:
    row = {
        "id": 7, "video": ["clip.mp4", str(folder / "clip.mp4")], "image": "picture.png", "question": "What?",
        "frames": 4, "fps": 2, "start": 0.5, "end": 3, "tokens": "paper:keep=0.5", "max_tokens": 8,
        "system": "Be short.", "pick": "time",
    }  # fmt: skip
    path = str(folder / "clip.mp4")
    clips = (
        Clip("video", "clip.mp4", path),
        Clip("video", path, path),
        Clip("image", "picture.png", str(folder / "picture.png")),
    )
    assert read(folder, row) == [
        Question(1, "7", clips, "What?", 4, 2.0, 0.5, 3.0, "paper:keep=0.5", 8, "Be short.", "time"),
    ]


def test_lines_of_a_suite_without_its_answers(folder: Path) -> None:
    """`media` as in suites of compare: a video or a picture; an id left out is the line's number."""
    found = read(folder, "", {"media": ["clip.mp4", "picture.png"], "question": "What?"}, {**ASKED, "id": "x"})
    assert [(line.id, [clip.kind for clip in line.clips]) for line in found if isinstance(line, Question)] == [
        ("2", ["media", "media"]),
        ("x", ["video"]),
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{oops", "line 1: is not JSON (Expecting property name enclosed in double quotes, column 2)"),
        ("[1]", "line 1: is a list; it must be an object"),
        ('{"a": 1, "a": 2}', "line 1: is not JSON that can be used (the key 'a' stands twice in one object)"),
        ({**ASKED, "vidoe": "x"}, "line 1: unknown key 'vidoe'; did you mean 'video'? allowed are id, media, video"),
        ({**ASKED, "choices": ["a"]}, "line 1: unknown key 'choices'; choices is for suites of `compare`; allowed are"),
        ({"question": "What?"}, "line 1: has no video and no image; it needs the path of a video"),
        ({"video": "clip.mp4"}, "line 1: has no question; it needs what is asked"),
        ({**ASKED, "media": "clip.mp4"}, "line 1: has media beside video or image"),
        ({**ASKED, "video": []}, "line 1: video is an empty list"),
        ({**ASKED, "video": 3}, "line 1: video is a number; it must be the path of a video"),
        ({**ASKED, "video": "nope.mp4"}, "line 1: video nope.mp4: no such file; check the name and the folder"),
        ({**ASKED, "image": "q.jsonl"}, "line 1: image q.jsonl: "),
        ({**ASKED, "video": "."}, "line 1: video "),
        ({**ASKED, "frames": 0}, "line 1: frames is 0; it must be how many frames of a video are read, a whole number"),
        ({**ASKED, "frames": 2.5}, "line 1: frames is 2.5; it must be"),
        ({**ASKED, "frames": True}, "line 1: frames is true or false; it must be"),
        ({**ASKED, "fps": 0}, "line 1: fps is 0; it must be frames per second of video, a number above 0"),
        ({**ASKED, "fps": "2"}, "line 1: fps is a text; it must be"),
        ({**ASKED, "start": 3, "end": 2}, "line 1: start 3 s is not before end 2 s"),
        ({**ASKED, "tokens": "papre"}, "line 1: tokens: setting 'papre' is unknown; give off"),
        ({**ASKED, "max_tokens": -1}, "line 1: max_tokens is -1; it must be the longest answer in tokens"),
        ({**ASKED, "system": ""}, "line 1: system is blank"),
        ({**ASKED, "id": 1.5}, "line 1: id is a number; it must be a text or a whole number"),
    ],
)
def test_lines_that_cannot_be_asked(folder: Path, row: dict[str, Any] | str, said: str) -> None:
    bad, good = read(folder, row, ASKED)
    assert isinstance(bad, Bad)
    assert bad.reason.startswith(said)
    assert "\n" not in bad.reason
    assert isinstance(good, Question)


def test_all_bad_lines_are_told(folder: Path) -> None:
    path = write_questions(folder / "q.jsonl", ["{oops", {**ASKED, "id": 4}, ASKED, ASKED, {**ASKED, "question": 1}])
    asked = check_clips(read_questions(path))
    with pytest.raises(BadQuestionsError) as error:
        refuse_bad(path, asked)
    assert [line.split(":")[0] for line in error.value.lines] == ["line 1", "line 4", "line 5"]
    assert error.value.lines[1] == "line 4: id '4' is that of line 2 too"
    assert str(error.value).startswith(f"{path}: 3 of 5 lines cannot be asked; correct what is named above")


def test_files_without_questions(folder: Path) -> None:
    (folder / "empty.jsonl").write_text("\n\n")
    (folder / "latin.jsonl").write_bytes(b'{"question": "gr\xfc\xdfe"}\n')
    for name, said in (("empty", "holds no question"), ("latin", "line 1: is not UTF-8"), ("none", "cannot be read")):
        with pytest.raises(SuiteError, match=said):
            read_questions(folder / f"{name}.jsonl")


def test_the_digest_is_of_what_is_asked(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Not of where the file lies, its blank lines or the order of keys."""
    other = tmp_path_factory.mktemp("other")
    shutil.copy(folder / "clip.mp4", other)
    first = read_questions(write_questions(folder / "q.jsonl", [ASKED, {**ASKED, "id": "b"}]))
    swapped = json.dumps(dict(reversed(ASKED.items())))
    same = read_questions(write_questions(other / "r.jsonl", [swapped, "", {**ASKED, "id": "b"}]))
    assert first.sha256 == same.sha256
    others = [[ASKED], [ASKED, {**ASKED, "id": "c"}], [ASKED, {**ASKED, "id": "b", "frames": 3}]]
    assert len({first.sha256, *(read_questions(write_questions(folder / "q.jsonl", r)).sha256 for r in others)}) == 4


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ('{"video": "clip.mp4", "question": "x", "start": 1' + "0" * 400 + "}", "start is a number of more than 300"),
        ('{"video": "clip.mp4", "question": "x", "fps": 1' + "0" * 400 + "}", "fps is a number of more than 300"),
        ('{"video": "clip.mp4", "question": "x", "fps": 1e400}', "fps is inf"),
        ('{"video": "clip.mp4", "question": "x", "frames": 9999999999}', "frames is 1e+10"),
        (json.dumps({"video": "y" * 5000 + ".mp4", "question": "x"}), "cannot be read (File name too long)"),
        (json.dumps({"video": "a\0b.mp4", "question": "x"}), "no such file"),
    ],
)
def test_odd_values_are_the_fault_of_their_line(folder: Path, row: str, told: str) -> None:
    """They ended the whole run, as an internal error."""
    bad, good = read(folder, row, ASKED)
    assert isinstance(bad, Bad)
    assert bad.reason.startswith("line 1: ")
    assert told in bad.reason
    assert len(bad.reason) < 500
    assert isinstance(good, Question)
