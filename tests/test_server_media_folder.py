"""Files under --media-path: those, and no way out of the folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from media_fixtures import picture
from server_files import EXAMPLES, WHERE, find, png, refused, sources, video_url

from aim_local.server.failures import RequestError
from aim_local.server.media import media_folder
from aim_local.server.media.media_folder import MediaFolder
from aim_local.server.media.sources import Sources

on_linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files have paths on Linux alone")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """open/ is the folder that may be read; secret.png lies beside it."""
    top = tmp_path_factory.mktemp("world")
    inside = top / "open"
    (inside / "sub" / "deep").mkdir(parents=True)
    (top / "open-too").mkdir()
    for path in (top / "secret.png", top / "open-too" / "secret.png", inside / "sub" / "a.png"):
        path.write_bytes(png(1))
    (inside / "a b%2e#?.png").write_bytes(png(2))
    (inside / "empty.png").touch()
    (inside / "way-out.png").symlink_to(top / "secret.png")
    (inside / "folder-out").symlink_to(top)
    (inside / "way-in.png").symlink_to(inside / "sub" / "a.png")
    (inside / "round").symlink_to(inside / "round")
    (inside / "sub" / "deep" / "back").symlink_to(inside / "sub", target_is_directory=True)
    (inside / "words.mp4").write_text("words")
    os.mkfifo(inside / "pipe.png")
    return top


@pytest.fixture
def given(world: Path) -> Iterator[Sources]:
    with sources(media_path=world / "open") as made:
        yield made


def test_ways_in(given: Sources, world: Path) -> None:
    folder = world / "open"
    for url in (
        f"file://{folder}/sub/a.png",
        f"file://{folder}//sub/./a.png",
        f"file://localhost{folder}/sub/a.png",
        f"file:{folder}/sub/a.png",
        "file://sub/a.png",
        "file:sub/a.png",
        "sub/a.png",
        "./sub/a.png",
        "file://way-in.png",
        "file://sub/deep/back/a.png",
        f"file://{quote(str(folder))}/s%75b/a%2Epng",
        f"file://{folder}/sub%2Fa.png",
    ):
        kept = find(given, video_url(url))
        assert np.array_equal(kept.pixels, picture(1)), url
        assert kept.found.name in ("a.png", "way-in.png")
    odd = f"file://{quote(str(folder / 'a b%2e#?.png'))}"
    assert np.array_equal(find(given, video_url(odd)).pixels, picture(2))


ATTACKS = [
    # url with {open} and {top}, status, words
    ("file://{top}/secret.png", 403, "not in the folder"),
    ("file://{open}-too/secret.png", 403, "not in the folder"),
    ("file://{open}/../secret.png", 403, "'..'"),
    ("file://{open}/sub/../../secret.png", 403, "'..'"),
    ("file://../secret.png", 403, "'..'"),
    ("../secret.png", 403, "'..'"),
    ("file://{open}/%2e%2e/secret.png", 403, "'..'"),
    ("file://{open}/..%2fsecret.png", 403, "'..'"),
    ("file://{open}/%252e%252e/secret.png", 404, "no such file"),
    ("file://{open}/way-out.png", 403, "not in the folder"),
    ("file://{open}/folder-out/secret.png", 403, "not in the folder"),
    ("file://folder-out/open/sub/a.png", 200, ""),  # out and in again: it ends inside
    ("file://{open}/round", 403, "not in the folder"),
    ("file:///etc/passwd", 403, "not in the folder"),
    ("file:////etc/passwd", 403, "not in the folder"),
    ("file:///proc/self/environ", 403, "not in the folder"),
    ("file:///dev/zero", 403, "not in the folder"),
    ("file://{open}/pipe.png", 403, "no regular file"),
    ("file://{open}/sub", 400, "is a folder"),
    ("file://{open}", 400, "is a folder"),
    ("file://", 400, "is a folder"),
    ("file://{open}/empty.png", 400, "0 bytes"),
    ("file://{open}/words.mp4", 400, "words.mp4: holds text"),
    ("file://{open}/none.png", 404, "no such file"),
    ("file://{open}/sub/a.png/more", 404, "no such file"),
    ("file://otherhost/share/a.png", 404, "no such file"),
    ("file://{open}/sub/a.png%00.mp4", 400, "is no path"),
    ("file://{open}/" + "a" * 300 + ".png", 404, "no such file"),
    ("file://{open}/" + "a/" * 3000, 400, "is no path"),
    ("file://{open}/sub/a.png?x=1", 400, "%3F"),
    ("file://{open}/sub/a.png#t=1", 400, "%23"),
    ("C:\\clips\\a.png", 400, "a path of Windows"),
    ("file:///C:/clips/a.png", 400, "a path of Windows"),
    ("file:///c%3A/clips/a.png", 400, "a path of Windows"),
    ("\\\\server\\share\\a.png", 400, "a path of Windows"),
    ("~/a.png", 404, "no such file"),
    ("file://{open}/\ud800.png", 400, "no URL"),
]


@pytest.mark.parametrize(("url", "status", "words"), ATTACKS)
def test_ways_out(given: Sources, world: Path, url: str, status: int, words: str) -> None:
    part = video_url(url.replace("{open}", str(world / "open")).replace("{top}", str(world)))
    if status == 200:
        find(given, part)
        return
    error = refused(given, part)
    assert (error.status, error.param) == (status, f"{WHERE}.video_url.url")
    assert words in str(error)


def test_a_link_put_in_place_of_a_checked_file_leads_nowhere(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the time between looking and opening: what is opened is looked at again, step by step."""
    folder = MediaFolder(world / "open")
    target = world / "open" / "sub" / "soon.png"
    target.write_bytes(png(3))
    real = os.path.realpath

    def swap(path: str) -> str:
        found = real(path)
        if str(path) == str(target):
            target.unlink()
            target.symlink_to(world / "secret.png")
        return found

    monkeypatch.setattr(media_folder.os.path, "realpath", swap)
    with pytest.raises(RequestError) as caught, folder.opened(str(target), lambda: None):
        pass
    assert caught.value.status == 403
    target.unlink()


@on_linux
def test_a_file_swapped_while_it_is_used_is_not_seen(given: Sources, world: Path) -> None:
    """Guards the time between checking and decoding."""
    target = world / "open" / "used.png"
    target.write_bytes(png(3))
    with given.request() as scope:
        found = scope.find(video_url("used.png"), WHERE)
        target.unlink()
        target.symlink_to(world / "secret.png")
        assert isinstance(found.media, Path)
        assert found.media.read_bytes() == png(3)
    target.unlink()


def test_a_folder_swapped_for_a_link_leads_nowhere(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = MediaFolder(world / "open")
    (world / "open" / "soon").mkdir()
    (world / "open" / "soon" / "secret.png").write_bytes(png(3))
    real = os.path.realpath

    def swap(path: str) -> str:
        found = real(path)
        if str(path).endswith("soon/secret.png"):
            (world / "open" / "soon").rename(world / "open" / "gone")
            (world / "open" / "soon").symlink_to(world)
        return found

    monkeypatch.setattr(media_folder.os.path, "realpath", swap)
    with pytest.raises(RequestError) as caught, folder.opened("soon/secret.png", lambda: None):
        pass
    assert caught.value.status in (403, 404)


@on_linux
def test_no_handle_stays_open(given: Sources, world: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for url, _, _ in ATTACKS:
        part = video_url(url.replace("{open}", str(world / "open")).replace("{top}", str(world)))
        with given.request() as scope:
            try:
                scope.find(part, WHERE)
            except RequestError:
                continue
    assert len(os.listdir("/proc/self/fd")) == before


STEPS = st.sampled_from(
    ["..", ".", "", "sub", "deep", "back", "folder-out", "open", "secret.png", "a.png", "way-out.png", "%2e%2e", "%2f",
     "etc", "passwd", "round", "\x00", "\ud800", "C:", "~", "open-too", "proc", "self", "root", "cwd", "a\\b"]
)  # fmt: skip


@EXAMPLES
@for_all(st.lists(STEPS, max_size=8), st.sampled_from(["", "/", "file://", "file:///", "file://localhost/", "{open}/"]))
def test_no_path_leads_out(world: Path, steps: list[str], head: str) -> None:
    """Whatever is opened lies in the folder by the system's own word."""
    root = os.path.realpath(world / "open")
    path = head.replace("{open}", root) + "/".join(steps)
    with sources(media_path=world / "open") as given, given.request() as scope:
        try:
            found = scope.find(video_url(path), WHERE)
        except RequestError:
            return
        assert os.path.realpath(str(found.media)).startswith(root + os.sep)
