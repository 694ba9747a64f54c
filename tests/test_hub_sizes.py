"""Sizes that a hub does not tell or does not keep to: asked before the user is, and no byte of another file is kept."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import hub_toy
import pytest
from cli_case import run
from hub_server import Hub, sums
from hub_toy import MODEL, REPO, Answer, endless, offer
from test_hub_answers import bent, pull

from aim_local import store

hub = hub_toy.hub
KEPT = 1000  # bytes of the model that an earlier run left
PAGE = b"<html>please log in</html>" * 8


@pytest.fixture
def toy(hub: Hub, tmp_path: Path) -> Hub:
    return offer(hub, tmp_path, n_vocab=10_000)


@pytest.fixture
def part(toy: Hub, user_home: Path) -> Path:
    """The first bytes of the model, as an earlier run leaves them."""
    content = toy.repos[REPO][MODEL]
    folder = user_home / "hf" / "hub" / "models--tiny--toy-GGUF" / "blobs"
    folder.mkdir(parents=True)
    left = folder / (sums(MODEL, content)[0] + ".incomplete")
    left.write_bytes(content[:KEPT])
    return left


@pytest.mark.parametrize("size", [None, -5])
def test_an_unknown_size_is_asked_before_the_user_is(toy: Hub, size: int | None) -> None:
    right = sum(len(content) for content in toy.repos[REPO].values())
    toy.bend = bent("size", size, 0)
    told = pull(code=2)
    assert f"{right / 1e3:.1f} kB would be downloaded; nobody can be asked" in told
    assert toy.downloads(".gguf") == []
    assert run("pull", REPO, "--yes").exit_code == 0
    assert store.resolve(REPO).model.read_bytes() == toy.repos[REPO][MODEL]


@pytest.mark.parametrize("size", [0, 7, 10**15])
def test_a_size_that_is_not_true(toy: Hub, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for whatever it says, and not taken where the file's own answer is another."""
    monkeypatch.setattr("aim_local.hub.pull._check_space", lambda plan: None)

    def bend(listing: dict[str, object]) -> dict[str, object]:
        return bent("size", size, 1)(bent("size", size, 0)(listing))

    toy.bend = bend
    assert "nobody can be asked" in pull(code=2)
    assert f"({size} bytes were announced, now {len(toy.repos[REPO][MODEL])} bytes)" in pull("--yes")
    assert toy.downloads(".gguf") == []


def test_a_body_without_end(toy: Hub, user_home: Path) -> None:
    toy.instead[f"/cdn/tiny--toy-GGUF/{MODEL}"] = endless(b"x" * 4096)
    size = len(toy.repos[REPO][MODEL])
    assert f"{MODEL}: more came than the {size} bytes that were announced; it was deleted" in pull("--yes")
    assert not list((user_home / "hf").rglob("blobs/*"))


def answer(status: int, body: bytes, **headers: str) -> Answer:
    """Headers with _ for -; a Content_Length of "" leaves it away, and the body ends with the line."""

    def by_hand(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            if value:
                handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return by_hand


@pytest.mark.parametrize(
    ("by_hand", "told"),
    [
        (answer(200, PAGE, Content_Type="text/html; charset=utf-8"), "a web page"),
        (answer(200, PAGE), "'208' bytes instead of"),
        (answer(200, PAGE, Content_Length=""), "an unknown number of bytes instead of"),
        (answer(206, PAGE), "a range that was not asked"),
        (answer(206, PAGE, Content_Range="bytes 0-207/208"), "a range that was not asked"),
        (answer(206, PAGE, Content_Range="bytes 1000-1207/1208"), "a range that was not asked"),
        (answer(206, PAGE, Content_Range="bytes 1000-1207/*"), "'208' bytes instead of"),
        (answer(203, PAGE), "status 203"),
        (answer(200, PAGE, Content_Encoding="gzip"), "the encoding 'gzip'"),
    ],
)
def test_a_login_page_leaves_what_is_here(toy: Hub, part: Path, by_hand: Answer, told: str) -> None:
    """Refused before a byte is written; the next run goes on behind what was here."""
    toy.instead[f"/cdn/tiny--toy-GGUF/{MODEL}"] = by_hand
    line = pull("--yes")
    assert f"{MODEL}: {toy.url} answered with {told}" in line
    content = toy.repos[REPO][MODEL]
    assert part.read_bytes() == content[:KEPT]
    toy.instead.clear()
    toy.asked.clear()
    assert run("pull", REPO, "--yes").exit_code == 0
    assert toy.downloads(f"/cdn/tiny--toy-GGUF/{MODEL}") == [f"bytes={KEPT}-"]
    assert store.resolve(REPO).model.read_bytes() == content


def test_a_login_page_is_no_first_part(toy: Hub, user_home: Path) -> None:
    toy.instead[f"/cdn/tiny--toy-GGUF/{MODEL}"] = answer(200, PAGE, Content_Length="")
    assert "208 bytes instead of" in pull("--yes")
    assert not list((user_home / "hf").rglob("blobs/*"))


def test_a_server_that_gives_no_rest(toy: Hub, part: Path) -> None:
    """416: what is here is dropped, and the file fetched from its begin, once."""
    place = f"/cdn/tiny--toy-GGUF/{MODEL}"
    content = toy.repos[REPO][MODEL]

    def no_range(handler: BaseHTTPRequestHandler) -> None:
        (answer(416, b"") if "Range" in handler.headers else answer(200, content))(handler)

    toy.instead[place] = no_range
    assert run("pull", REPO, "--yes").exit_code == 0
    assert toy.downloads(place) == [f"bytes={KEPT}-", ""]
    assert store.resolve(REPO).model.read_bytes() == content


def test_a_server_that_gives_nothing(toy: Hub, part: Path) -> None:
    place = f"/cdn/tiny--toy-GGUF/{MODEL}"
    toy.instead[place] = answer(416, b"")
    assert "answered 416" in pull("--yes")
    assert toy.downloads(place) == [f"bytes={KEPT}-", ""]


def test_the_plan_is_the_right_size(toy: Hub) -> None:
    toy.bend = bent("size", None, 0)
    result = run("pull", REPO, "--yes", "--json")
    assert json.loads(result.stdout)["name"] == "toy"
    assert f"{MODEL}, {len(toy.repos[REPO][MODEL]) / 1e3:.1f} kB" in result.stderr


def test_a_right_file_stays_where_the_listing_lies(toy: Hub, user_home: Path) -> None:
    """Of another program, or of an earlier pull."""
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(REPO, endpoint=toy.url, cache_dir=user_home / "hf" / "hub"))
    toy.bend = bent("size", 7, 0)
    right = toy.repos[REPO][MODEL]
    assert f"the hub announces 7 bytes for it, what has its checksum has {len(right)}" in pull("--yes")
    assert (folder / MODEL).read_bytes() == right
