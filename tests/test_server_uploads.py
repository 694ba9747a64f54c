"""Uploaded files: kept whole or not at all, within the room there is, in a folder of their own."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from media_fixtures import picture, write_clip, write_sound
from openai.types import FileObject
from server_files import EXAMPLES, WHERE, b64, encoded, long_gif, png, refusal, sources, tall_png, video_url

from aim_local.server.limits import Limits
from aim_local.server.media import uploads as uploads_file
from aim_local.server.media.private_folder import remove_abandoned
from aim_local.server.media.uploads import Upload, Uploads
from aim_local.server.media.words import display_name


@pytest.fixture
def uploads() -> Iterator[Uploads]:
    with Uploads(Limits()) as made:
        yield made


def put(uploads: Uploads, data: bytes, name: str = "a.png", piece: int = 7919) -> Upload:
    with uploads.begin(name, "vision") as writer:
        for start in range(0, len(data), piece):
            writer.write(data[start : start + piece])
        return writer.finish()


def in_folder(uploads: Uploads) -> list[str]:
    return sorted(path.name for path in uploads.scratch.iterdir())


def test_a_file_comes_back_as_it_was_sent(uploads: Uploads, tmp_path: Path) -> None:
    data = write_clip(tmp_path / "a.mp4", n_frames=5).read_bytes()
    kept = put(uploads, data, "holiday.mp4")
    assert kept.path.read_bytes() == data
    assert kept.digest == hashlib.sha256(data).hexdigest()
    assert uploads.get(kept.id) == kept
    assert in_folder(uploads) == [kept.id]
    assert uploads.room.free == uploads.limits.files_bytes - len(data)


def test_room_that_was_expected_too_large_is_given_back(uploads: Uploads) -> None:
    for n in (0, len(png()), len(png()) + 1000):
        with uploads.begin("a.png", "vision", n) as writer:
            assert uploads.room.free == uploads.limits.files_bytes - n
            writer.write(png())
            kept = writer.finish()
        assert uploads.room.free == uploads.limits.files_bytes - len(png())
        uploads.delete(kept.id)


def test_the_file_object_is_openais(uploads: Uploads) -> None:
    kept = put(uploads, png(), "b.png")
    found = FileObject.model_validate(kept.to_dict(), strict=True)
    assert (found.id, found.filename, found.bytes, found.purpose) == (kept.id, "b.png", len(png()), "vision")
    assert (found.object, found.status) == ("file", "processed")


def test_the_folder_is_private_and_goes_at_the_end(tmp_path: Path) -> None:
    with Uploads(Limits(), tmp_path) as uploads:
        kept = put(uploads, png())
        assert kept.path.parent.parent == tmp_path
        assert uploads.scratch.stat().st_mode & 0o777 == 0o700
        assert kept.path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == []
    uploads.close()


def test_the_list_has_the_newest_first(uploads: Uploads) -> None:
    ids = [put(uploads, png(i)).id for i in range(3)]
    assert [kept.id for kept in uploads.files()] == ids[::-1]
    assert len(set(ids)) == 3


def test_deleted_is_gone(uploads: Uploads) -> None:
    kept = put(uploads, png())
    uploads.delete(kept.id)
    assert in_folder(uploads) == []
    assert uploads.room.free == uploads.limits.files_bytes
    for act in (uploads.get, uploads.delete):
        error = refusal(partial(act, kept.id))
        assert (error.status, error.code) == (404, "file_not_found")


@pytest.mark.parametrize(
    "id", ["", ".", "..", "../x", "/etc/passwd", "file-", "file-" + "0" * 32, "a\0b", "\ud800", "x" * 99999]
)
def test_ids_are_no_paths(uploads: Uploads, id: str) -> None:
    for act in (uploads.get, uploads.delete, lambda id: uploads.held(id).__enter__()):
        assert refusal(partial(act, id)).status == 404


def test_a_file_in_use_is_deleted_when_it_is_free() -> None:
    with sources() as given:
        kept = put(given.uploads, png())
        with given.request() as scope, given.request() as other:
            found = scope.find(video_url(kept.id), WHERE)
            other.find(video_url(kept.id), WHERE)
            given.uploads.delete(kept.id)
            assert given.uploads.files() == []
            assert isinstance(found.media, Path)
            assert found.media.read_bytes() == png()
            assert refusal(lambda: given.request().find(video_url(kept.id), WHERE)).status == 404
            other.close()
            assert found.media.exists()
        assert not found.media.exists()
        assert given.uploads.room.free == given.limits.files_bytes


def test_what_is_no_media_is_not_kept(uploads: Uploads, tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "a.m4a").read_bytes()
    for data, status, words in (
        (b"", 400, "0 bytes"),
        (b"just words", 400, "film.mp4: holds text"),
        (bytes(1000), 400, "film.mp4: is not a video or image"),
        (sound, 400, "film.mp4: holds sound only"),
        (tall_png(1, 60_000_000), 413, "film.mp4: a picture (PNG) of 1 x 60000000"),
        (long_gif(2000, 8000, 6000), 413, "film.mp4: an animated picture (GIF) of more than 256"),
    ):
        error = refusal(partial(put, uploads, data, "../film.mp4"))
        assert error.status == status
        assert words in str(error)
        assert str(uploads.scratch) not in str(error)
    assert in_folder(uploads) == []
    assert uploads.room.free == uploads.limits.files_bytes


def test_purposes(uploads: Uploads) -> None:
    for purpose in ("vision", "user_data", "assistants"):
        uploads.begin("a", purpose).abort()
    for purpose in ("", "fine-tune", "batch", "x" * 1000, "\n"):
        error = refusal(partial(uploads.begin, "a", purpose))
        assert (error.status, error.param) == (400, "purpose")
    assert in_folder(uploads) == []


def test_a_dropped_connection_leaves_nothing(uploads: Uploads) -> None:
    with contextlib.suppress(ConnectionResetError), uploads.begin("a.png", "vision") as writer:
        writer.write(png()[:50])
        assert len(in_folder(uploads)) == 1
        raise ConnectionResetError
    writer.abort()
    assert in_folder(uploads) == []
    assert uploads.room.free == uploads.limits.files_bytes
    assert uploads.files() == []


def test_a_file_that_is_too_large() -> None:
    with Uploads(Limits(file_bytes=1000)) as uploads:
        with uploads.begin("a.png", "vision") as writer:
            writer.write(bytes(1000))
            error = refusal(lambda: writer.write(b"x"))
        assert error.status == 413
        assert "--max-file " in str(error) + " "
        assert refusal(lambda: uploads.begin("a.png", "vision", 1001)).status == 413
        assert in_folder(uploads) == []
        assert uploads.room.free == uploads.limits.files_bytes


def test_a_full_folder_says_what_to_delete() -> None:
    large = encoded(picture(0, 400, 400), "PNG") + bytes(3000)
    with Uploads(Limits(files_bytes=len(large) + 1000)) as uploads:
        kept = put(uploads, large, "large.png")
        for act in (lambda: put(uploads, png() + bytes(2000)), lambda: uploads.begin("b.png", "vision", 1001)):
            error = refusal(act)
            assert error.status == 413
            assert kept.id in str(error)
            assert "'large.png'" in str(error)
            assert "--max-files" in str(error)
        assert in_folder(uploads) == [kept.id]
        assert uploads.room.free == 1000
        uploads.delete(kept.id)
        put(uploads, large)


def bytes_in(folder: str | Path) -> int:
    """Of its files; one that is taken away meanwhile has none."""
    total = 0
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):
            total += entry.stat().st_size
    return total


def test_uploads_at_once_stay_within_the_room() -> None:
    """Sixteen threads write; whenever one looks, the bytes on the disk are no more than allowed."""
    most = 20_000
    seen: list[int] = []
    done: list[Upload] = []
    start = threading.Barrier(16)

    def work(uploads: Uploads, i: int) -> None:
        data = png(i) + bytes(3000)
        start.wait()
        try:
            with uploads.begin(f"{i}.png", "vision", len(data) if i % 2 else 0) as writer:
                for at in range(0, len(data), 100):
                    writer.write(data[at : at + 100])
                    seen.append(bytes_in(uploads.scratch))
                done.append(writer.finish())
        except uploads_file.RequestError:
            return

    with Uploads(Limits(files_bytes=most)) as uploads:
        threads = [threading.Thread(target=work, args=(uploads, i)) for i in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert max(seen) <= most
        assert len(done) <= 6  # none, where each had a part of the room when it was used up
        assert in_folder(uploads) == sorted(kept.id for kept in done)
        assert uploads.room.free == most - sum(kept.n_bytes for kept in done)


def test_only_so_many_files(monkeypatch: pytest.MonkeyPatch, uploads: Uploads) -> None:
    monkeypatch.setattr(uploads_file, "MOST_FILES", 2)
    with uploads.begin("late.png", "vision") as late:
        late.write(png())
        put(uploads, png(1))
        put(uploads, png(2))
        assert refusal(lambda: uploads.begin("c", "vision")).status == 413
        assert refusal(late.finish).status == 413
    assert len(in_folder(uploads)) == 2
    assert uploads.room.free == uploads.limits.files_bytes - len(png(1)) - len(png(2))


def test_a_full_disk_is_told(uploads: Uploads) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with uploads.begin("a.png", "vision") as writer:
        landing = writer._landing
        landing._file.close()
        landing._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
        error = refusal(lambda: writer.write(png()))
        assert (error.status, error.code) == (507, "disk_full")


NAMES = [
    ("clip.mp4", "clip.mp4"), ("../../etc/passwd", "passwd"), ("C:\\Users\\me\\clip.mp4", "clip.mp4"), ("a/b/", "b"),
    ("", "file"), ("..", "file"), (". .", "file"), ("/", "file"), ("a\nb\x00c\x1b[31m.mp4", "a b c [31m.mp4"),
    ("\u202egpj.exe", "gpj.exe"),
    ("\ud800.mp4", ".mp4"), ("\u00e9t\u00e9 \U0001f3ac.mp4", "\u00e9t\u00e9 \U0001f3ac.mp4"),
    ("x" * 10_000 + ".mp4", "x" * 113 + "....mp4"), ("a" * 200, "a" * 117 + "..."), ("  a   b  ", "a b"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shown"), NAMES, ids=range(len(NAMES)))
def test_names_are_cleaned_for_people(uploads: Uploads, name: str, shown: str) -> None:
    assert display_name(name) == shown
    kept = put(uploads, png(), name)
    assert kept.name == shown
    assert in_folder(uploads) == [kept.id], "no path is made from a name"


@EXAMPLES
@for_all(st.text(st.characters()))
def test_any_name_can_be_shown(name: str) -> None:
    shown = display_name(name)
    assert shown.isprintable()
    assert 1 <= len(shown) <= 120
    assert not set(shown) & set("/\\")
    shown.encode()


def test_an_upload_is_the_same_media_as_the_bytes_in_the_request() -> None:
    with sources() as given, given.request() as scope:
        kept = put(given.uploads, png(4))
        by_id, by_bytes = (scope.find(video_url(url), WHERE) for url in (kept.id, b64(png(4))))
        assert by_id.key == by_bytes.key
        assert by_id.name == "a.png"


@pytest.mark.skipif(os.name == "nt", reason="locks of folders are POSIX")
def test_the_folder_of_a_killed_server_goes_and_that_of_a_running_one_stays(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom aim_local.server.limits import Limits\n"
        "from aim_local.server.media.uploads import Uploads\n"
        "kept = Uploads(Limits(), pathlib.Path(sys.argv[1]))\nprint(kept.scratch, flush=True)\ninput()"
    )
    command = [sys.executable, "-P", "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        folder = Path(other.stdout.readline().strip())
        (folder / "file-1").write_bytes(b"x")
        remove_abandoned(tmp_path, 0)
        assert folder.is_dir(), "its server runs"
        other.kill()
    remove_abandoned(tmp_path)
    assert folder.is_dir(), "one that is as young may be in the making"
    (tmp_path / "aim-local-files-link").symlink_to(Path(__file__).parent)
    remove_abandoned(tmp_path, 0)
    assert not folder.exists()
    assert Path(__file__).exists()
