"""Files from addresses, against servers on loopback that behave badly."""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from media_fixtures import picture
from server_files import find, peak_memory, png, refused, sources, video_url
from web_server import Reply, Web, answer, for_ever, loopback, raw

from aim_local.server.limits import Limits
from aim_local.server.media import addresses
from aim_local.server.media.addresses import Network

OK = b"HTTP/1.1 200 OK\r\n"
MIB = 2**20


def test_a_file_is_fetched_as_it_is() -> None:
    for reply in (
        answer(png(7)),
        answer(png(7), Content_Type="text/html"),
        raw(OK + b"\r\n", png(7)),  # until the connection ends
        raw(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"%x\r\n%s\r\n" % (len(png(7)), png(7)), b"0\r\nX: y\r\n\r\n"),
        raw(b"HTTP/1.1 100 Continue\r\n\r\n", OK + b"Content-Length: %d\r\n\r\n" % len(png(7)), png(7), b"more"),
    ):
        with Web(reply) as web, sources(allow_http=True, network=loopback()) as given:
            kept = find(given, video_url(f"http://files.example:{web.port}/a/my%20picture.png?token=1#x"))
            assert np.array_equal(kept.pixels, picture(7))
            assert kept.found.name == "my picture.png"
            assert web.requests[0].startswith(b"GET /a/my%20picture.png?token=1 HTTP/1.1\r\n")


def moved(to: str, status: str = "302 Found") -> Reply:
    return answer(b"", status, Location=to)


def test_redirects_are_followed_five_times() -> None:
    def reply(connection: socket.socket, head: bytes) -> None:
        n = int(head.split(b"/")[1].split(b" ")[0])
        status = ("301 A", "302 B", "303 C", "307 D", "308 E")[n % 5]
        (answer(png(3)) if n == 0 else moved(f"../{n - 1}", status))(connection, head)

    with Web(reply) as web, sources(allow_http=True, network=loopback()) as given:
        assert np.array_equal(find(given, video_url(f"http://a.example:{web.port}/5")).pixels, picture(3))
        assert len(web.requests) == 6
        error = refused(given, video_url(f"http://a.example:{web.port}/6"))
        assert error.status == 400
        assert "more than 5 times" in str(error)
        assert len(web.requests) == 12, "the sixth redirect is not followed"


def test_a_redirect_may_be_written_in_utf8() -> None:
    def reply(connection: socket.socket, head: bytes) -> None:
        if head.startswith(b"GET /%C3%A9.png "):
            answer(png(3))(connection, head)
        else:
            moved("/\u00e9.png")(connection, head)

    with Web(reply) as web, sources(allow_http=True, network=loopback()) as given:
        kept = find(given, video_url(f"http://a.example:{web.port}/"))
        assert np.array_equal(kept.pixels, picture(3))
        assert kept.found.name == "\u00e9.png"


def test_an_address_that_is_silent_does_not_keep_the_others_from_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first address takes no connection: its queue is full."""
    monkeypatch.setattr(addresses, "_CONNECT_S", 0.2)
    network = Network(lambda ip: True, lambda host, port: ["127.0.0.2", "127.0.0.1"])
    with Web(answer(png(3))) as web, socket.socket() as full, contextlib.ExitStack() as stack:
        try:
            full.bind(("127.0.0.2", web.port))
        except OSError:
            pytest.skip("this system has no second loopback address")
        full.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.2", web.port))
        with sources(allow_http=True, network=network) as given:
            assert np.array_equal(find(given, video_url(f"http://a.example:{web.port}/")).pixels, picture(3))


@pytest.mark.parametrize(("to", "status"), [
    ("http://127.0.0.2:{port}/", 403), ("http://[::1]:{port}/", 403), ("//inside.example:{port}/", 403),
    ("http://user:pw@a.example/", 403), ("file:///etc/passwd", 400), ("ftp://a.example/", 400), ("data:,x", 400),
    ("http://a.example:99999/", 400), ("", 400), ("http://[::1", 400), ("http://a b/", 400), ("javascript:1", 400),
    ("http://\u00ff\ud7ff.example\\/", 400),
])  # fmt: skip
def test_redirects_that_are_not_followed(to: str, status: int) -> None:
    """Guards the check after each redirect; to loopback among others (127.0.0.1 alone is allowed to the test)."""

    def reply(connection: socket.socket, head: bytes) -> None:
        moved(to.replace("{port}", str(web.port)))(connection, head)

    names = loopback(inside_example="10.0.0.1")

    def resolve(host: str, port: int) -> list[str]:
        return [host] if host[0] in "1:" else list(names.resolve(host, port))

    network = type(names)(names.allow, resolve)
    with Web(reply) as web, sources(allow_http=True, network=network) as given:
        error = refused(given, video_url(f"http://a.example:{web.port}/"))
        assert error.status == status, str(error)
        assert len(web.requests) == 1


def test_no_way_down_from_https(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client = tls
    with Web(answer(png(1))) as plain, Web(moved(f"http://a.example:{plain.port}/"), server) as secure:
        with sources(allow_http=True, network=loopback(context=client)) as given:
            error = refused(given, video_url(f"https://a.example:{secure.port}/"))
        assert error.status == 403
        assert "from https down to http" in str(error)
        assert plain.requests == []


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(of a server named a.example, of a client that trusts it)"""
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=a.example",
               "-addext", "subjectAltName=DNS:a.example"]  # fmt: skip
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("makes its certificate with openssl")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return server, ssl.create_default_context(cafile=str(folder / "cert.pem"))


def test_https_checks_the_name(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client = tls
    with Web(answer(png(2)), server) as web:
        with sources(allow_http=True, network=loopback(context=client)) as given:
            assert np.array_equal(find(given, video_url(f"https://a.example:{web.port}/x.png")).pixels, picture(2))
            other = refused(given, video_url(f"https://b.example:{web.port}/x.png"))
            assert other.status == 400
            assert "certificate is not valid" in str(other)
        with sources(allow_http=True, network=loopback()) as given:
            assert "self-signed" in str(refused(given, video_url(f"https://a.example:{web.port}/x.png")))
        assert len(web.requests) == 1


BAD: list[tuple[str, Reply, int, str]] = [
    ("404", answer(b"no", "404 Not Found"), 400, "answers 404 Not Found"),
    ("500 with control characters", answer(b"", "500 \x1b[31mred"), 400, "answers 500"),
    ("204", answer(b"", "204 No Content"), 400, "answers 204"),
    ("206", answer(png(), "206 Partial Content"), 400, "answers 206"),
    ("304", answer(b"", "304 Not Modified"), 400, "answers 304"),
    ("a page", answer(b"<html>log in</html>", Content_Type="video/mp4"), 400, "a.mp4: holds text"),
    ("nothing", answer(b""), 400, "empty (0 bytes)"),
    ("gzip", answer(gzip.compress(png()), Content_Encoding="gzip"), 400, "compressed"),
    ("brotli", answer(png(), Content_Encoding="identity, br"), 400, "compressed"),
    ("a coded transfer", answer(png(), Transfer_Encoding="gzip, chunked"), 400, "compressed"),
    ("10 GB", answer(b"x", Content_Length=str(10 * 10**9)), 413, "9,536.7 MiB; at most 1.0 MiB"),
    ("10^40 bytes", answer(b"x", Content_Length="1" + "0" * 40), 400, "announces"),
    ("-1 bytes", answer(b"x", Content_Length="-1"), 400, "announces"),
    ("two lengths", raw(OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), 400, "announces"),
    ("a short file", answer(png(), Content_Length=str(len(png()) + 1)), 400, "ends after"),
    ("a long file", answer(bytes(2 * MIB), Content_Length=""), 413, "at most 1.0 MiB"),
    ("endless", for_ever(OK + b"\r\n", bytes(65536)), 413, "at most 1.0 MiB"),
    ("endless pieces", for_ever(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + bytes(65536) + b"\r\n"), 413,
     "at most 1.0 MiB"),
    ("a piece of 16 EB", raw(OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 16 + b"\r\nxx"), 400, "cannot be"),
    ("a piece of no size", raw(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nxx"), 400, "cannot be fetched"),
    ("pieces cut off", raw(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"), 400, "cannot be fetched"),
    ("a head without end", raw(OK + b"X: " + b"a" * 70000), 400, "cannot be fetched"),
    ("a thousand heads", raw(OK + b"X: y\r\n" * 1000 + b"\r\n"), 400, "cannot be fetched"),
    ("no HTTP", raw(b"SSH-2.0-OpenSSH_9.2\r\n"), 400, "cannot be fetched"),
    ("HTTP/0.9", raw(b"<html>"), 400, "cannot be fetched"),
    ("silence", raw(), 400, "cannot be fetched"),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "status", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_servers_that_behave_badly(reply: Reply, status: int, words: str) -> None:
    with Web(reply) as web, sources(Limits(file_bytes=MIB), allow_http=True, network=loopback()) as given:
        error = refused(given, video_url(f"http://a.example:{web.port}/a.mp4"))
        assert (error.status, error.code in ("fetch_failed", "limit_exceeded", "invalid_media", "empty_file")) == (
            status,
            True,
        )
        assert words in str(error)
        assert given.uploads.room.free == given.limits.files_bytes


def test_ten_gigabytes_are_refused_at_once() -> None:
    """Guards the order: a length that is too much is refused by the head, before anything comes."""
    held = threading.Event()

    def reply(connection: socket.socket, head: bytes) -> None:
        connection.sendall(OK + b"Content-Length: 10000000000\r\n\r\n")
        held.wait(30)

    with Web(reply) as web, sources(allow_http=True, network=loopback()) as given:
        error = refused(given, video_url(f"http://a.example:{web.port}/a.mp4"))
        held.set()
        assert error.status == 413


SLOW: dict[str, Reply] = {
    "head": for_ever(OK + b"X: ", b"a", 0.02),
    "more and more heads": for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.02),
    "body": for_ever(OK + b"Content-Length: 1000\r\n\r\n", b"a", 0.02),
    "pieces": for_ever(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", 0.02),
    "size of a piece": for_ever(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0", 0.02),
    "trailer": for_ever(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", b"X: y\r\n", 0.02),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_slow_drip_has_one_time_for_all(name: str) -> None:
    with Web(SLOW[name]) as web, sources(Limits(fetch_s=0.3), allow_http=True, network=loopback()) as given:
        error = refused(given, video_url(f"http://a.example:{web.port}/a.mp4"))
        assert (error.status, error.code) == (400, "fetch_timeout"), str(error)
        assert "within 0.3 s" in str(error)
        assert "--fetch-timeout" in str(error)
        assert web.gone.wait(30), "the connection is closed"


def test_redirects_share_the_time() -> None:
    def reply(connection: socket.socket, head: bytes) -> None:
        threading.Event().wait(0.15)
        moved("/")(connection, head)

    with Web(reply) as web, sources(Limits(fetch_s=0.4), allow_http=True, network=loopback()) as given:
        assert refused(given, video_url(f"http://a.example:{web.port}/a.mp4")).code == "fetch_timeout"


def test_a_handshake_that_never_ends(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        with sources(Limits(fetch_s=0.3), allow_http=True, network=loopback(context=tls[1])) as given:
            assert refused(given, video_url(f"https://a.example:{port}/a.mp4")).code == "fetch_timeout"


def stopping(web: Web) -> Callable[[], bool]:
    return lambda: bool(web.requests)  # once the server was asked


def test_a_client_that_goes_ends_the_fetch() -> None:
    for reply in (
        for_ever(OK + b"Content-Length: 1000\r\n\r\n", b"a", 0.02),
        for_ever(OK + b"\r\n", bytes(4096), 0.001),
    ):
        with Web(reply) as web, sources(allow_http=True, network=loopback()) as given:
            start = time.monotonic()
            error = refused(given, video_url(f"http://a.example:{web.port}/a.mp4"), should_stop=stopping(web))
            assert error.status == 499
            assert web.gone.wait(30)
            assert time.monotonic() - start < 30


def test_a_closed_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with sources(allow_http=True, network=loopback()) as given:
        error = refused(given, video_url(f"http://a.example:{port}/a.mp4"))
        assert (error.status, error.code) == (400, "fetch_failed")


def test_a_large_file_takes_no_memory() -> None:
    head = OK + b"Content-Length: %d\r\n\r\n" % (len(png(1)) + 40 * MIB)
    with Web(raw(head, png(1), *[bytes(MIB)] * 40)) as web, sources(allow_http=True, network=loopback()) as given:
        url = f"http://a.example:{web.port}/a.png"
        find(given, video_url(url))
        assert peak_memory(lambda: find(given, video_url(url))) < 8 * MIB
