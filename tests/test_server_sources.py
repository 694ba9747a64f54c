"""Content parts as clients send them become the very media that was sent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_from_bytes

import numpy as np
import pytest
from media_fixtures import codes_of, picture, write_animation, write_clip
from server_files import WHERE, b64, encoded, find, png, refused, sources, video_url

from aim_local import VisionLLM
from aim_local.errors import UsageError
from aim_local.media import FrameSampling, open_media
from aim_local.server.limits import Limits
from aim_local.server.media.sources import Sources
from aim_local.server.media.uploads import Uploads


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("media") / "my clip#1.mp4", n_frames=20)


@pytest.fixture
def given(clip: Path) -> Iterator[Sources]:
    with sources(media_path=clip.parent) as made:
        yield made


def test_a_clip_in_every_form_is_the_same_clip(given: Sources, clip: Path) -> None:
    data, truth = clip.read_bytes(), open_media(clip)
    with given.uploads.begin("c.mp4", "vision") as writer:
        writer.write(data)
        id = writer.finish().id
    url, raw = f"data:video/mp4;base64,{b64(data)}", b64(data)
    path = f"file://{quote(str(clip))}"
    parts: list[dict[str, object]] = [
        video_url(url),
        video_url(raw),
        video_url(f" {raw}\n"),  # as `base64 -w0` and shells leave it
        video_url(id),
        video_url(path),
        video_url(path.replace("file://", "file://localhost", 1)),
        video_url(path.replace("file://", "FILE:", 1)),
        video_url(f"file://{quote(clip.name)}"),  # from the folder on, as llama-server has it
        video_url(str(clip)),
        video_url(clip.name),
        video_url(url.replace("video/mp4", "image/png")),  # what it says it is does not count
        video_url(url.replace("video/mp4", "")),
        video_url(url.replace("video/mp4", "video/mp4;codecs=avc1")),
        video_url("DATA:," + quote_from_bytes(data)),
        video_url("data:video/mp4;base64," + quote(raw, safe="")),
        {"type": "video_url", "video_url": url},
        {"type": "video", "video": url},
        {"type": "video", "video": {"url": url}},
        {"type": "image_url", "image_url": {"url": url, "detail": "high"}},
        {"type": "input_video", "input_video": url},
        {"type": "input_video", "input_video": {"data": raw, "format": "mp4"}},
        {"type": "input_video", "input_video": {"data": url, "url": None}},
        {"type": "input_video", "input_video": {"url": url}},
        {"type": "input_video", "input_video": {"file_id": id}},
        {"type": "input_video", "video_url": {"url": url}},
        {"type": "input_video", "data": raw, "format": "mp4"},
        {"type": "file", "file": {"file_id": id}},
        {"type": "file", "file": {"file_data": url, "filename": "c.mp4"}},
        {"type": "input_file", "file_id": id},
        {"type": "input_file", "file_data": raw, "filename": "c.mp4"},
    ]
    keys = set()
    for i, part in enumerate(parts):
        kept = find(given, part)
        assert np.array_equal(kept.pixels, truth.frames), i
        keys.add(kept.found.key)
    assert len(keys) == 1


def test_a_picture_in_every_form_is_the_same_picture(given: Sources) -> None:
    pixels = picture(5)
    url = f"data:image/png;base64,{b64(png(5))}"
    parts: list[dict[str, object]] = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "image_url", "image_url": url},
        {"type": "input_image", "image_url": url, "detail": "auto"},
        {"type": "input_image", "input_image": {"data": url}},
        {"type": "image", "image": url},
        video_url(url),
    ]
    for part in parts:
        assert np.array_equal(find(given, part).pixels, pixels)


def test_keys_are_of_the_bytes(given: Sources) -> None:
    one, other = (find(given, video_url(b64(png(i)))).found.key for i in (1, 2))
    assert one != other
    assert len(one) == 64
    assert one != hashlib.sha256(png(1)).hexdigest(), "a file and a clip of that file alone differ"
    assert find(given, {"type": "video", "video": [b64(png(1))]}).found.key != one


def test_names_are_for_people(given: Sources, clip: Path) -> None:
    data = b64(clip.read_bytes())
    assert find(given, video_url(f"file://{quote(str(clip))}")).found.name == "my clip#1.mp4"
    part: dict[str, object] = {"type": "file", "file": {"file_data": data, "filename": "../x/a\n\x1b[31mb.mp4"}}
    assert find(given, part).found.name == "a [31mb.mp4"
    assert find(given, video_url(data)).found.name == "the file"


def test_sampling_of_a_part(given: Sources, clip: Path) -> None:
    data = b64(clip.read_bytes())
    asked = FrameSampling(n_frames=8, start=0.1)
    assert find(given, video_url(data), sampling=asked).found.sampling is None
    assert find(given, video_url(data, frames=3, end=0.5), sampling=asked).found.sampling == FrameSampling(
        3, None, 0.1, 0.5
    )
    inside: dict[str, object] = {"type": "input_video", "input_video": {"data": data, "fps": 2.5}}
    assert find(given, inside, sampling=asked).found.sampling == FrameSampling(8, 2.5, 0.1)
    assert find(given, video_url(data, frames=-1)).found.sampling == FrameSampling(n_frames=Limits().n_frames)
    assert len(find(given, video_url(data, frames=3)).pixels) == 3


@pytest.mark.parametrize("fields", [
    {"frames": 0}, {"frames": 2.0}, {"frames": True}, {"frames": "8"}, {"frames": 10**400}, {"frames": -(10**30)},
    {"fps": 0}, {"fps": -1}, {"fps": float("nan")}, {"fps": float("inf")}, {"fps": "2"}, {"start": -1},
    {"start": 10**400}, {"end": []}, {"start": 2, "end": 1}, {"end": {"a": 1}},
])  # fmt: skip
def test_bad_sampling_is_refused_with_its_field(given: Sources, clip: Path, fields: dict[str, object]) -> None:
    error = refused(given, video_url(b64(clip.read_bytes()), **fields))
    assert error.status == 400
    assert error.param in [f"{WHERE}.{name}" for name in fields]


def test_more_frames_than_allowed(given: Sources, clip: Path) -> None:
    error = refused(given, video_url(b64(clip.read_bytes()), frames=257))
    assert (error.status, error.param) == (413, f"{WHERE}.frames")
    assert "257" in str(error)
    assert "--max-frames" in str(error)


def test_a_still_picture_has_no_sampling(given: Sources) -> None:
    assert refused(given, video_url(b64(png()), frames=2)).param == f"{WHERE}.frames"


def test_animations_are_clips(given: Sources, tmp_path: Path) -> None:
    for suffix in ("gif", "png", "webp"):
        path = write_animation(tmp_path / f"a.{suffix}", n_frames=4)
        kept = find(given, {"type": "image_url", "image_url": {"url": b64(path.read_bytes())}})
        assert codes_of(kept.pixels) == [0, 1, 2, 3]
        assert kept.times == pytest.approx([0, 0.1, 0.2, 0.3])


def test_colours_and_turns_are_the_media_layers(given: Sources) -> None:
    alpha = np.dstack([picture(3), np.full((64, 96), 7, np.uint8)])
    over_white = picture(3) * (7 / 255) + 255 * (1 - 7 / 255)
    assert np.abs(find(given, video_url(b64(encoded(alpha, "PNG")))).pixels - over_white).max() <= 1
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6: a quarter turn
    turned = find(given, video_url(b64(encoded(picture(3), "JPEG", exif=exif)))).pixels
    assert turned.shape == (96, 64, 3)


def test_files_of_a_request_go_with_it(given: Sources, clip: Path) -> None:
    free = given.uploads.room.free
    with given.request() as scope:
        path = scope.find(video_url(b64(clip.read_bytes())), WHERE).media
        assert isinstance(path, Path)
        assert path.exists()
        assert path.stat().st_mode & 0o77 == 0
        assert given.uploads.room.free == free - clip.stat().st_size
    assert not path.exists()
    assert given.uploads.room.free == free


def test_only_so_many_media_in_a_request(given: Sources) -> None:
    with sources(Limits(n_media=2)) as few, few.request() as scope:
        for _ in range(2):
            scope.find(video_url(b64(png())), WHERE)
        with pytest.raises(Exception, match=r"3 videos and pictures .* at most 2 .* --max-media") as caught:
            scope.find(video_url(b64(png())), WHERE)
        assert getattr(caught.value, "status", 0) == 413


def test_a_client_that_goes_stops_the_work(given: Sources, clip: Path) -> None:
    for part in (video_url(b64(clip.read_bytes())), video_url(str(clip)), {"type": "video", "video": [b64(png())] * 3}):
        assert refused(given, part, should_stop=lambda: True).status == 499


def test_the_engine_takes_what_is_found(given: Sources, clip: Path) -> None:
    """A file that is held open, an array that lies on the disk, a film that was made of pictures."""
    pictures = [b64(png(i)) for i in range(4)]
    parts: list[dict[str, object]] = [
        video_url(str(clip)),
        {"type": "video", "video": pictures},
        {"type": "video", "video": pictures, "fps": 2},
        video_url(pictures[0]),
    ]
    n_frames = []
    with VisionLLM.load() as llm, given.request() as scope:
        for part in parts:
            found = scope.find(part, WHERE, sampling=FrameSampling(n_frames=3))
            sampling = found.sampling or FrameSampling(n_frames=3)
            n_frames.append(llm.generate("What happens?", [found.media], sampling=sampling).stats.n_frames)
    assert n_frames[:3] == [3, 4, 4]


def test_a_media_path_has_to_be_a_folder(clip: Path) -> None:
    with Uploads(Limits()) as uploads, pytest.raises(UsageError, match="--media-path"):
        Sources(Limits(), uploads, media_path=clip)
