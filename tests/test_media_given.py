"""Media as programs hold them: Pillow's pictures, lists of frames, iterators; each is what the same array is."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from aim_local import FrameSampling, GenerateConfig, LoadConfig, VisionLLM
from aim_local.errors import UsageError
from aim_local.media import Image, Video, open_media

SHORT = GenerateConfig(max_tokens=2)
CLIP = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), np.uint8)
PICTURES = [PIL.Image.fromarray(frame) for frame in CLIP]


def endless() -> Iterator[np.ndarray[Any, Any]]:
    while True:
        yield from CLIP


@pytest.fixture(scope="module")
def llm() -> Iterator[VisionLLM]:
    with VisionLLM.load(config=LoadConfig(n_threads=1, cache_media=False)) as loaded:
        yield loaded


# --- what becomes of them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [list(CLIP), tuple(CLIP), PICTURES, [*PICTURES[:2], *CLIP[2:]]])
def test_a_list_is_one_clip(given: Any) -> None:
    found, same = open_media(given), open_media(CLIP)
    assert isinstance(found, Video)
    assert isinstance(same, Video)
    np.testing.assert_array_equal(found.frames, CLIP)
    assert found.digest == same.digest


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK"])
def test_a_picture_of_pillows_is_read_as_its_file(mode: str, tmp_path: Path) -> None:
    picture = PICTURES[0].convert(mode)
    picture.save(tmp_path / "picture.tiff")
    found, of_file = open_media(picture), open_media(tmp_path / "picture.tiff")
    assert isinstance(found, Image)
    assert isinstance(of_file, Image)
    np.testing.assert_array_equal(found.pixels, of_file.pixels)
    assert found.digest == open_media(of_file.pixels).digest


def test_an_open_picture_is_turned_as_its_file_says(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[274] = 6  # turn by 90 degrees
    data = io.BytesIO()
    PICTURES[0].save(data, "PNG", exif=exif)
    found = open_media(PIL.Image.open(data))
    assert isinstance(found, Image)
    np.testing.assert_array_equal(found.pixels, np.rot90(CLIP[0], -1))


def test_an_iterator_is_read_once_and_no_further() -> None:
    frames = endless()
    found = open_media(frames, FrameSampling(n_frames=3))
    assert isinstance(found, Video)
    np.testing.assert_array_equal(found.frames, CLIP[:3])
    np.testing.assert_array_equal(next(frames), CLIP[3])  # the next one is still to come
    assert found.warnings == (
        "an iterator gave 3 frames, as many as n_frames asks for: what it has beyond was not read",
    )
    short = open_media(iter(PICTURES), FrameSampling(n_frames=9))
    assert isinstance(short, Video)
    assert (len(short.frames), short.warnings) == (5, ())


# --- in questions ----------------------------------------------------------------------------------------------------


def test_every_form_gets_the_answer_of_the_array(llm: VisionLLM) -> None:
    wanted = llm.generate("What?", [CLIP], generate=SHORT)
    for given in (list(CLIP), PICTURES, iter(CLIP), (frame for frame in PICTURES)):
        found = llm.generate("What?", [given], generate=SHORT)
        assert (found.text, found.stats.n_frames) == (wanted.text, 5)
    assert (llm.prefill("What?", [PICTURES]).logits == llm.prefill("What?", [CLIP]).logits).all()
    assert llm.score("What?", [PICTURES], generate=SHORT).answer.text == wanted.text
    assert llm.generate("What?", PICTURES[:2], generate=SHORT).stats.n_images == 2
    with llm.chat(generate=SHORT) as chat:
        assert chat.ask("What?", [iter(PICTURES)]).text == wanted.text
        assert chat.ask("And?", [PICTURES[0]]).stats.n_images == 1


def test_an_endless_iterator_ends_at_the_models_frames(llm: VisionLLM) -> None:
    found = llm.generate("What?", [endless()], generate=SHORT)
    assert found.stats.n_frames == llm.default_frames
    assert any("an iterator gave 8 frames" in line for line in found.warnings)
    assert llm.generate("What?", [endless()], generate=SHORT, sampling=FrameSampling(n_frames=2)).stats.n_frames == 2


def test_encoded_ahead(llm: VisionLLM) -> None:
    wanted = llm.generate("What?", [CLIP], generate=SHORT)
    with llm.encode_ahead(iter(PICTURES)) as ahead:
        assert llm.generate("What?", [ahead], generate=SHORT).text == wanted.text


# --- refused ---------------------------------------------------------------------------------------------------------

SMALL = PIL.Image.new("RGB", (32, 48))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "media is NoneType; give a path, a picture"),
        (3, "media is int; give a path"),
        ({"a": 1}, "media is dict; give a path"),
        ([], "a clip without frames"),
        (iter([]), "a clip without frames"),
        ([CLIP[0], SMALL], "frame 1 of a clip is 32 x 48 and frame 0 is 64 x 48; frames of a clip have one size"),
        (["a.png"], "frame 0 of a clip is str; a frame is uint8"),
        ([CLIP[0], CLIP[1] / 255], r"frame 1 of a clip is an array float64 \[48, 64, 3\]; a frame is uint8"),
        ([CLIP], r"frame 0 of a clip is an array uint8 \[5, 48, 64, 3\]"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_media_is_one_line(given: Any, told: str, llm: VisionLLM) -> None:
    for call in (open_media, llm.encode_ahead, lambda item: llm.generate("What?", [item])):
        with pytest.raises(UsageError, match=told) as e:
            call(given)
        assert "\n" not in str(e.value)


@pytest.mark.parametrize("given", [None, "clip.mp4", b"x", SMALL, CLIP, Path("a"), 3, endless(), {"a": "b"}])
def test_media_must_be_a_list(given: Any, llm: VisionLLM) -> None:
    with pytest.raises(UsageError, match=r"media is \w+, not a list; give one: \[item\] for one item, \[\] for none"):
        llm.generate("What?", given)


def test_times_cannot_be_asked_of_frames(llm: VisionLLM) -> None:
    """Told before an iterator is touched."""
    frames = iter(CLIP)
    with pytest.raises(UsageError, match="fps, start and end need a file"):
        llm.generate("What?", [frames], sampling=FrameSampling(n_frames=None, fps=2))
    assert len(list(frames)) == 5
