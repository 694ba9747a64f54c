"""What the headers say of a body: honoured or refused, never left out. And a folder of files that somebody removes."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import httpx
import pytest
from server_case import PATIENCE_S, Running, question, running, served, video_part
from server_files import png

from aim_local.server.failures import RequestError
from aim_local.server.limits import Limits
from aim_local.server.media.uploads import Uploads

__all__ = ["served"]

ASKED = json.dumps({"messages": question("é?"), "max_tokens": 1}, ensure_ascii=False)
JSON = [("Content-Type", "application/json")]
FORM = [("Content-Type", "multipart/form-data; boundary=X")]


def post(served: Running, path: str, headers: list[tuple[str, str]], body: bytes) -> httpx.Response:
    return httpx.post(f"{served.base}{path}", headers=headers, content=body, timeout=PATIENCE_S)


def form(*of_the_part: str, file: bytes | None = None) -> bytes:
    heads = ['Content-Disposition: form-data; name="file"; filename="a.png"', *of_the_part]
    purpose = b'--X\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nvision\r\n--X\r\n'
    return purpose + "\r\n".join(heads).encode() + b"\r\n\r\n" + (file or png()) + b"\r\n--X--\r\n"


def refused(response: httpx.Response, status: int, words: str) -> None:
    error = response.json()["error"]
    assert response.status_code == status, error
    assert words in error["message"]
    assert "\n" not in error["message"]


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ([("Content-Encoding", "gzip")], 415, "Content-Encoding is 'gzip'; send the body as it is"),
        ([("Content-Encoding", "identity"), ("Content-Encoding", "br")], 415, "Content-Encoding is 'identity, br'"),
        ([("Content-Range", "bytes 0-99/200")], 400, "send all of it in one request"),
        ([("Content-Type", "text/plain")], 400, "Content-Type is there twice"),
    ],
)
@pytest.mark.parametrize("path", ["/chat/completions", "/files"])
def test_a_body_that_is_something_else_than_its_bytes(
    served: Running, path: str, more: list[tuple[str, str]], status: int, words: str
) -> None:
    headers, body = (FORM, form()) if path == "/files" else (JSON, ASKED.encode())
    refused(post(served, path, headers + more, body), status, words)


def test_a_packed_file_is_not_kept(served: Running) -> None:
    """It was kept as it was, to be refused as no picture, or to be another one than was sent."""
    before = len(served.uploads.files())
    body = gzip.compress(form())
    refused(post(served, "/files", [*FORM, ("Content-Encoding", "gzip")], body), 415, "Content-Encoding")
    assert len(served.uploads.files()) == before


@pytest.mark.parametrize("coding", ["identity", "Identity", ""])
def test_a_coding_that_changes_nothing(served: Running, coding: str) -> None:
    more = [("Content-Encoding", coding)]
    assert post(served, "/chat/completions", JSON + more, ASKED.encode()).status_code == 200
    assert post(served, "/files", FORM + more, form()).status_code == 200


@pytest.mark.parametrize("head", ["Content-Transfer-Encoding: base64", "content-transfer-encoding: Quoted-Printable",
                                  "Content-Encoding: gzip"])  # fmt: skip
def test_a_part_that_is_something_else_than_its_bytes(served: Running, head: str) -> None:
    name, _, value = head.partition(": ")
    refused(post(served, "/files", FORM, form(head)), 415, f'{name.title()} of a part is "{value.lower()}"; send its')


@pytest.mark.parametrize("head", ["Content-Transfer-Encoding: binary", "Content-Transfer-Encoding: 8BIT",
                                  "Content-Encoding: identity", "Content-Type: image/png"])  # fmt: skip
def test_a_part_as_it_is(served: Running, head: str) -> None:
    assert post(served, "/files", FORM, form(head)).json()["bytes"] == len(png())


@pytest.mark.parametrize("charset", ["latin-1", "utf-16", '"UTF-16LE"', "windows-1252"])
def test_json_in_another_charset(served: Running, charset: str) -> None:
    body = ASKED.encode(charset.strip('"'))
    headers = [("Content-Type", f"application/json; charset={charset}")]
    refused(post(served, "/chat/completions", headers, body), 415, "; send the body in UTF-8")


@pytest.mark.parametrize("kind", ["; charset=utf-8", "; charset=UTF8", '; charset="Utf-8"', "; charset=us-ascii", ";"])
def test_json_in_utf8(served: Running, kind: str) -> None:
    body = json.dumps(json.loads(ASKED)).encode() if "ascii" in kind else ASKED.encode()
    assert post(served, "/chat/completions", [("Content-Type", f"application/json{kind}")], body).status_code == 200


def test_a_byte_order_mark(served: Running) -> None:
    assert post(served, "/chat/completions", JSON, ASKED.encode("utf-8-sig")).status_code == 200


# --- a folder that goes -----------------------------------------------------------------------------------------------


def test_the_folder_goes_while_the_server_runs() -> None:
    with running() as served:
        lost = post(served, "/files", FORM, form()).json()["id"]
        room = served.uploads.room.free
        shutil.rmtree(served.uploads.scratch)
        assert served.get(f"/v1/files/{lost}").status_code == 404
        assert served.uploads.room.free == room + len(png())
        response = served.post({"messages": question("What?", video_part()), "max_tokens": 1})
        assert response.status_code == 200
        kept = post(served, "/files", FORM, form()).json()["id"]
        assert [file["id"] for file in served.get("/v1/files").json()["data"]] == [kept]
        assert served.get(f"/v1/files/{kept}/content").content == png()
        folder = served.uploads.scratch
    assert not folder.exists()


def test_another_folder_of_its_name_is_not_taken(tmp_path: Path) -> None:
    """Where all may write, anybody can make one."""
    with Uploads(Limits(), tmp_path) as uploads:
        before = uploads.scratch
        shutil.rmtree(before)
        before.mkdir(mode=0o777)
        assert uploads.scratch != before
        assert uploads.scratch.stat().st_mode & 0o777 == 0o700
        (before / "theirs").touch()
    assert [path.name for path in tmp_path.iterdir()] == [before.name]


def test_no_place_for_another_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with Uploads(Limits(), tmp_path / "a") as uploads:
        shutil.rmtree(tmp_path / "a")
        with pytest.raises(RequestError, match="somebody removed the server's own files") as e:
            uploads.begin("a.png", "vision")
        assert e.value.status == 503


def test_the_folder_goes_while_a_file_comes_in(tmp_path: Path) -> None:
    with Uploads(Limits(), tmp_path) as uploads:
        free = uploads.room.free
        with uploads.begin("a.png", "vision") as writer:
            writer.write(png())
            shutil.rmtree(uploads.scratch)
            with pytest.raises(RequestError, match="send what you sent again"):
                writer.finish()
        assert uploads.room.free == free
