"""Annotation files of VideoMME and MVBench as their authors publish them, as suites. Videos come from a media folder.

VideoMME: rows of the published parquet file (also as JSON list or JSON lines), and the JSON form of the authors'
evaluation script, questions inside videos (github.com/BradyFU/Video-MME, evaluation/output_test_template.json).
MVBench: one JSON list a task; the file's name is the task and decides the videos' folder and whether start and end
count (github.com/OpenGVLab/Ask-Anything, video_chat2/mvbench.ipynb). Fields these forms have and we do not need are
passed over.
"""

from __future__ import annotations

import difflib
import importlib
import io
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...batch.rows import Row, as_row, first_of, kind, parse, read_lines, read_text, reading
from ...bounded import MOST_QUESTIONS, bounded_bytes
from ...errors import MediaError, SuiteError
from ...media.files import check_file
from .questions import MAX_CHOICES, sealed, text_letter
from .records import Item, Suite

Loader = Callable[[Path, Path, int | None], Suite]
_SHOWN = 3  # missing videos named in an error


@dataclass(frozen=True)
class Found:
    """A question before its video is looked up. names: what the video's file may be called, without a folder.

    bounds: start and end, where they count for a video that is not cut out yet.
    """

    row: Row
    item: Item
    names: tuple[str, ...]
    folders: tuple[tuple[str, bool], ...]  # under the media folder, and whether videos there are cut to the range
    bounds: tuple[float | None, float | None] = (None, None)


def loader_of(path: Path) -> Loader | None:
    """The loader for a published file or folder; None for everything else, which is our JSONL or an error of it."""
    if path.is_dir():
        return _loader_of_folder(path)
    if path.suffix == ".parquet":
        return load_videomme
    if path.suffix == ".jsonl":
        rows = read_lines(path)
        return load_videomme if rows and _is_videomme(rows[0][1]) else None
    if path.suffix != ".json":
        return None
    rows_of_file = _json_rows(path)
    if rows_of_file[0].has("candidates"):
        return load_mvbench
    if _is_videomme(rows_of_file[0]):
        return load_videomme
    raise SuiteError(
        f"{path}: is neither VideoMME (videoID or video_id, options or questions) nor MVBench (video, candidates); "
        "write your own questions as JSONL, one object a line"
    )


def _loader_of_folder(folder: Path) -> Loader:
    if _task_files(folder):
        return load_mvbench
    raise SuiteError(f"{folder}: has neither suite.jsonl nor MVBench's task files (action_sequence.json ...)")


def _json_rows(path: Path) -> list[Row]:
    value = parse(str(path), read_text(path))
    if not isinstance(value, list) or not value:
        what = "an empty list" if value == [] else kind(value)
        raise SuiteError(f"{path}: is {what}; a published annotation file is a JSON list of objects")
    return [as_row(f"{path} entry {n}", entry) for n, entry in enumerate(value, 1)]


# --- VideoMME ---------------------------------------------------------------------------------------------------

# the same fact is called differently in the parquet rows, the evaluation template and its earlier form
_OPTIONS = ("options", "choices")
_TAGS = (("duration", "duration_category"), ("domain", "video_category"), ("task_type",))
_VIDEOMME_FOLDERS = (("data", False), ("videos", False), ("video", False), (".", False))
_SUFFIXES = (".mp4", ".MP4", ".mkv", ".webm")
_YOUTUBE = re.compile(r"(?:[?&]v=|youtu\.be/)([\w-]{11})")
_LISTED = re.compile(r"\(?([A-Z])[).:]\s*(\S.*)", re.DOTALL)


def _is_videomme(row: Row) -> bool:
    return row.has("questions") or ((row.has("videoID") or row.has("video_id")) and row.has("options"))


def load_videomme(path: Path, media_root: Path, limit: int | None = None) -> Suite:
    """VideoMME; videos are MEDIA/data/<YouTube id>.mp4 as in the published archives, or MEDIA itself, or <video_id>.

    Tags are duration, domain and task type (not sub_category: one is called as its domain, Multilingual).
    """
    found = [_videomme(question) for row in _videomme_rows(path) for question in _questions(row)]
    return _suite("videomme", path, media_root, found, limit)


def _videomme_rows(path: Path) -> list[Row]:
    if path.suffix == ".parquet":
        return [Row(f"{path} row {n}", fields) for n, fields in enumerate(_parquet(path), 1)]
    return [row for _, row in read_lines(path)] if path.suffix == ".jsonl" else _json_rows(path)


def _parquet(path: Path) -> list[dict[str, Any]]:
    try:
        table = importlib.import_module("pyarrow.parquet")
    except ImportError as e:
        raise SuiteError(
            f"{path}: reading parquet needs pyarrow (pip install pyarrow); or save the rows as a JSON list"
        ) from e
    with reading(path):
        data = bounded_bytes(path, MOST_QUESTIONS)
    try:
        rows: list[dict[str, Any]] = table.read_table(io.BytesIO(data)).to_pylist()
    except (OSError, ValueError) as e:  # pyarrow's errors are of these
        raise SuiteError(f"{path}: cannot be read as parquet ({str(e).splitlines()[0]})") from e
    return rows


def _questions(row: Row) -> list[Row]:
    """A flat row is one question; a nested one is a video with its questions, which get its fields."""
    if not row.has("questions"):
        return [row]
    listed = row.fields["questions"]
    if not isinstance(listed, list):
        raise row.fault(f"questions is {kind(listed)}; it must be a list of objects")
    video = {key: value for key, value in row.fields.items() if key != "questions"}
    asked = [as_row(f"{row.where} question {n}", question) for n, question in enumerate(listed, 1)]
    return [Row(question.where, video | question.fields) for question in asked]


def _videomme(row: Row) -> Found:
    key = first_of(row, _OPTIONS) or "options"
    choices = _unlisted(_candidates(row, key))
    item = Item(
        id=row.text("question_id", "VideoMME's number, for example 001-1"),
        media=(),
        question=row.text("question", "a text"),
        answer=_letter(row, choices),
        choices=choices,
        tags=tuple(row.text(tag, "a text") for keys in _TAGS if (tag := first_of(row, keys))),
    )
    stems = [row.text(key, "the video's name") for key in ("videoID", "video_id") if row.has(key)]
    on_youtube = _YOUTUBE.search(row.text("url", "an address")) if row.has("url") else None
    stems += [on_youtube[1]] if on_youtube else []
    if not stems:
        raise row.fault("has neither videoID nor video_id; one of them names the video's file")
    return Found(row, item, tuple(s + suffix for s in stems for suffix in _SUFFIXES), _VIDEOMME_FOLDERS)


def _candidates(row: Row, key: str) -> tuple[str, ...]:
    """Options as texts; the published files have whole numbers among them."""
    values = row.fields.get(key)
    if isinstance(values, list):
        values = [str(v) if isinstance(v, int | float) and not isinstance(v, bool) else v for v in values]
    texts = Row(row.where, {key: values}).texts(key, "a list of texts")
    if not 2 <= len(texts) <= MAX_CHOICES:
        raise row.fault(f"has {len(texts)} {key}; it must have 2 to {MAX_CHOICES}")
    return texts


def _unlisted(options: Sequence[str]) -> tuple[str, ...]:
    """Options without their "A. ", where all have one: prompt_of writes the letters."""
    listed = [_LISTED.fullmatch(option.strip()) for option in options]
    pairs = list(zip(string.ascii_uppercase, listed, strict=False))
    if all(match and match[1] == letter for letter, match in pairs):
        return tuple(match[2] for _, match in pairs if match)
    return tuple(options)


def _letter(row: Row, choices: Sequence[str]) -> str:
    answer = row.text("answer", "the right option's letter").strip(" .()").upper()
    known = string.ascii_uppercase[: len(choices)]
    if len(answer) != 1 or answer not in known:
        raise row.fault(f"answer is {row.fields['answer']!r}; it must be a letter of {', '.join(known)}")
    return answer


# --- MVBench ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """Where a task's videos are. bound: start and end of a question count. cut: folder of videos cut to them."""

    folder: str
    bound: bool = False
    cut: str = ""
    other: str = ""  # the same videos converted to mp4


_STAR = Task("star/Charades_v1_480", bound=True, cut="star/Charades_segment")
_CLEVRER = Task("clevrer/video_validation")
_PERCEPTION = Task("perception/videos")
TASKS = {
    "action_sequence": _STAR,
    "action_prediction": _STAR,
    "action_antonym": Task("ssv2_video", other="ssv2_video_mp4"),
    "fine_grained_action": Task("Moments_in_Time_Raw/videos"),
    "unexpected_action": Task("FunQA_test/test"),
    "object_existence": _CLEVRER,
    "object_interaction": _STAR,
    "object_shuffle": _PERCEPTION,
    "moving_direction": _CLEVRER,
    "action_localization": Task("sta/sta_video", bound=True, cut="sta/sta_video_segment"),
    "scene_transition": Task("scene_qa/video"),
    "action_count": _PERCEPTION,
    "moving_count": _CLEVRER,
    "moving_attribute": _CLEVRER,
    "state_change": _PERCEPTION,
    "fine_grained_pose": Task("nturgbd", other="nturgbd_convert"),
    "character_order": _PERCEPTION,
    "egocentric_navigation": Task("vlnqa"),
    "episodic_reasoning": Task("tvqa/frames_fps3_hq", bound=True, cut="tvqa/video_fps3_hq_segment"),
    "counterfactual_inference": _CLEVRER,
}
# the archives unpack into MEDIA or MEDIA/video; data0613 holds videos that were added later
_MVBENCH_ROOTS = ("", "video/", "data0613/", "video/data0613/")


def load_mvbench(path: Path, media_root: Path, limit: int | None = None) -> Suite:
    """MVBench: a task's JSON file, or a folder of them (also one with a folder `json`); the tag is the task."""
    files = _task_files(path) if path.is_dir() else [path]
    found = [question for file in files for question in _mvbench_file(file)]
    return _suite("mvbench" if path.is_dir() else f"mvbench-{path.stem}", path, media_root, found, limit)


def _task_files(folder: Path) -> list[Path]:
    for place in (folder, folder / "json"):
        files = [place / f"{task}.json" for task in TASKS if (place / f"{task}.json").is_file()]
        if files:
            return files
    return []


def _mvbench_file(path: Path) -> list[Found]:
    if path.stem not in TASKS:
        near = difflib.get_close_matches(path.stem.lower(), TASKS, n=1)
        hint = f"did you mean {near[0]}.json? " if near else ""
        raise SuiteError(f"{path}: MVBench's file names are its tasks; {hint}known are {', '.join(TASKS)}")
    return [_mvbench(path.stem, n, row) for n, row in enumerate(_json_rows(path), 1)]


def _mvbench(name: str, n: int, row: Row) -> Found:
    task = TASKS[name]
    choices = _candidates(row, "candidates")
    answer = str(row.fields["answer"]) if row.has("answer") else row.text("answer", "the text of the right candidate")
    if answer not in choices and text_letter(choices, answer) is None:
        raise row.fault(f"answer {answer!r} is none of the candidates")
    item = Item(
        id=f"{name}-{n}",
        media=(),
        question=row.text("question", "a text"),
        # by its text alone: a task about written letters has candidates such as "b" and "c"
        answer=text_letter(choices, answer),
        choices=choices,
        tags=(name,),
    )
    folders = [(task.folder, False), (task.other, False), (task.cut, True)]
    places = tuple((root + folder, cut) for folder, cut in folders if folder for root in _MVBENCH_ROOTS)
    video = row.text("video", "the name of the video's file")
    names = (video,) if Path(video).suffix else (video, f"{video}.mp4")
    return Found(row, item, names, places, _bounds(row) if task.bound else (None, None))


def _bounds(row: Row) -> tuple[float | None, float | None]:
    start, end = row.seconds("start"), row.seconds("end")
    if start is not None and end is not None and start >= end:
        raise row.fault(f"start {start:g} s is not before end {end:g} s")
    return start, end


# --- both -------------------------------------------------------------------------------------------------------


def _suite(name: str, path: Path, media_root: Path, found: Sequence[Found], limit: int | None) -> Suite:
    if not found:
        raise SuiteError(f"{path}: holds no question")
    if not media_root.is_dir():
        raise SuiteError(f"{media_root}: no such folder; name the folder of the benchmark's videos with media_root=DIR")
    _check_ids(found)
    chosen = found[:limit]
    items = [_with_media(question, media_root) for question in chosen]
    missing = sorted({question.names[0] for question, item in zip(chosen, items, strict=True) if item is None})
    if missing:
        first = next(question for question, item in zip(chosen, items, strict=True) if item is None)
        raise SuiteError(_missing(first, media_root, missing))
    return sealed(name, [item for item in items if item is not None])


def _check_ids(found: Sequence[Found]) -> None:
    first: dict[str, Row] = {}
    for question in found:
        if question.item.id in first:
            raise question.row.fault(f"id {question.item.id!r} is that of {first[question.item.id].where} too")
        first[question.item.id] = question.row


def _with_media(question: Found, media_root: Path) -> Item | None:
    """The item with its video; None where there is none. A range is dropped for a video that is cut to it."""
    places = [(media_root / folder / name, cut) for folder, cut in question.folders for name in question.names]
    for video, cut in places:
        if _is(video, Path.exists) and not _is(video, Path.is_dir):
            start, end = (None, None) if cut else question.bounds
            return replace(question.item, media=(_checked(question, video),), start=start, end=end)
    for video, _ in places:
        if _is(video, Path.is_dir):
            raise question.row.fault(
                f"{video} is a folder of frames, not a video; make a video beside it, for example: "
                f"ffmpeg -framerate 3 -i {video}/%05d.jpg {video}.mp4"
            )
    return None


def _is(path: Path, what: Callable[[Path], bool]) -> bool:
    """Not where the path cannot even be asked about: a name that is too long, a folder that may not be read."""
    try:
        return what(path)
    except OSError:
        return False


def _checked(question: Found, video: Path) -> Path:
    try:
        return check_file(video)
    except MediaError as e:
        raise question.row.fault(f"video {e}") from e


def _missing(first: Found, media_root: Path, missing: Sequence[str]) -> str:
    names = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
    place = media_root / first.folders[0][0]
    return (
        f"{first.row.where}: {len(missing)} video{'s' * (len(missing) > 1)} not found under {media_root}: {names}; "
        f"expected as {place / first.names[0]}"
    )
