"""Whatever a part holds, `find` ends with media or with one proper refusal, and leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from media_fixtures import picture, write_animation, write_clip
from server_files import EXAMPLES, WHERE, b64, encoded, png, sources
from thorough import examples
from web_server import loopback

from aim_local.server.failures import RequestError
from aim_local.server.limits import Limits
from aim_local.server.media.sources import Sources

TYPES = ["image_url", "input_image", "image", "video_url", "input_video", "video", "file", "input_file", "text", ""]
FIELDS = [
    *TYPES, "type", "url", "data", "file_id", "file_data", "file_url", "frames", "fps", "start", "end", "filename",
    "format", "detail", "max_pixels",
]  # fmt: skip
URLS = [
    b64(png()), "data:image/png;base64," + b64(png()), "data:video/jpeg;base64,QUJD,QUJD", "data:,%41%", "file:///etc/x",
    "file://a.png", "http://[::1]/", "http://10.0.0.1/x", "a.png", "file-abc", "QUJ=", "data:;base64,=", "\ud800", ",",
]  # fmt: skip

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(URLS)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3)
)
parts = st.dictionaries(st.sampled_from(FIELDS), values, max_size=3) | st.dictionaries(
    st.text(max_size=5), values, max_size=2
)
typed = st.builds(lambda kind, field, value, part: {**part, "type": kind, field: value},
                  st.sampled_from(TYPES), st.sampled_from(TYPES), values, parts)  # fmt: skip


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sources]:
    folder = tmp_path_factory.mktemp("open")
    (folder / "a.png").write_bytes(png())
    network = loopback(allow=lambda ip: False)
    with sources(Limits(n_media=10**9), media_path=folder, allow_http=True, network=network) as made:
        yield made


def check(given: Sources, part: dict[str, object]) -> bool:
    """Whether the part was taken. What is refused is refused properly."""
    refusal: RequestError | None = None
    with given.request() as scope:
        try:
            assert len(scope.find(part, WHERE).key) == 64
        except RequestError as e:
            refusal = e
    if refusal:
        body = json.dumps(refusal.body())
        assert 400 <= refusal.status < 500, body
        assert refusal.param.startswith(WHERE)
        assert str(given.uploads.scratch) not in body
        assert str(refusal).isprintable()
    return refusal is None


@settings(EXAMPLES, max_examples=examples(300))
@for_all(part=parts | typed)
def test_any_part(given: Sources, part: dict[str, object]) -> None:
    check(given, part)
    assert given.uploads.room.free == given.limits.files_bytes


@settings(EXAMPLES, max_examples=examples(100))
@for_all(url=st.text() | st.text("ABCabc019+/=,;:%", max_size=60) | st.binary(max_size=300).map(b64))
def test_any_url(given: Sources, url: str) -> None:
    for field in ("url", "data", "file_id"):
        check(given, {"type": "video_url", "video_url": {field: url}})
    check(given, {"type": "video_url", "video_url": {"url": "data:" + url}})
    check(given, {"type": "video_url", "video_url": {"url": "data:;base64," + url}})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """One small file of each kind that is read by its head."""
    folder = tmp_path_factory.mktemp("kinds")
    clips = [write_clip(folder / name, n_frames=3) for name in ("a.mp4", "a.mkv", "a.avi", "a.ts")]
    moving = [write_animation(folder / f"b.{kind}", 3) for kind in ("gif", "png", "webp")]
    pixels = picture(3)
    still = [encoded(pixels, kind) for kind in ("JPEG", "PNG", "TIFF", "BMP", "PPM", "JPEG2000", "WEBP", "AVIF")]
    return [path.read_bytes() for path in (*clips, *moving)] + still


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@settings(EXAMPLES, max_examples=examples(250))
@for_all(st.data())
def test_any_damage_of_a_file(given: Sources, files: list[bytes], data: st.DataObject) -> None:
    """Bytes changed, cut off or doubled, mostly in the head, where the sizes and numbers stand."""
    found = bytearray(data.draw(st.sampled_from(files)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, min(len(found) - 1, 400)) | st.integers(0, len(found) - 1))
        found[at] = data.draw(st.integers(0, 255) | st.sampled_from([0, 1, 127, 128, 255]))
    if data.draw(st.booleans()):
        del found[data.draw(st.integers(0, len(found))) :]
    check(given, {"type": "video", "video": b64(bytes(found))})


def test_a_part_that_is_fine_is_taken(given: Sources, tmp_path: Path) -> None:
    """Guards the tests above: their `check` tells one from the other."""
    assert check(given, {"type": "video_url", "video_url": "a.png"})
    assert not check(given, {"type": "video_url", "video_url": "b.png"})
