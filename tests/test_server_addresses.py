"""Addresses: which are public, which forms are none, and that the one that was checked is the one that is asked."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from server_files import EXAMPLES, refusal, refused, sources, video_url
from web_server import Web, answer, loopback

from aim_local.server.failures import RequestError
from aim_local.server.media import addresses
from aim_local.server.media.addresses import Network, is_public, read_address

PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e",
          "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]  # fmt: skip
NOT_PUBLIC = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.0.1",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.0.1",
    "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1",
    "2002:a9fe:a9fe::", "2001::1", "2001:0:7f00:1::", "2001:db8::1", "3fff::1", "fc00::1", "fd12::1", "fe80::1",
    "fe80::1%eth0", "fec0::1", "ff02::1", "100::1", "5f00::1",
]  # fmt: skip


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_addresses_that_are_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@EXAMPLES
@for_all(st.ip_addresses(v=4))
def test_an_address_in_disguise_is_judged_as_what_it_is(ip: ipaddress.IPv4Address) -> None:
    number = int(ip)
    for disguise in (0xFFFF << 32 | number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80):
        assert is_public(ipaddress.IPv6Address(disguise)) == is_public(ip)


BAD_URLS = [
    ("http://", 400), ("http:///path", 400), ("http:path", 400), ("https://?a", 400), ("http://a b/", 400),
    ("http://a\tb/", 400), ("http://a/\r\nHost: x", 400), ("http://a\\b/", 400), ("http://a/\\..", 400),
    ("http://a:0/", 400), ("http://a:65536/", 400), ("http://a:x/", 400), ("http://a:-1/", 400), ("http://[::1/", 400),
    ("http://[fe80::1%25eth0]/", 400), ("http://a..b/", 400), ("http://" + "a" * 64 + ".com/", 400),
    ("http://a%2eb/", 400), ("http://a_b$/", 400), ("http://a/\x00", 400), ("http://a/\ud800", 400),
    ("http://\ud800/", 400),
    ("http://a/" + "x" * 9000, 400), ("http://\u2100.com/", 400), ("ftp://a/", 400), ("http://[v1.a]/", 400),
    ("http://user@a/", 403), ("http://user:pw@a/", 403), ("http://@a/", 403), ("http://public.example@127.0.0.1/", 403),
]  # fmt: skip


@pytest.mark.parametrize(("url", "status"), BAD_URLS)
def test_forms_that_are_no_address(url: str, status: int) -> None:
    assert refusal(lambda: read_address(url)).status == status


def test_what_is_read_of_an_address() -> None:
    found = read_address("HTTP://EXAMPLE.com:8080/a b".replace(" ", "%20") + "/\u00e9.mp4?q=1&r=%2F#part")
    assert (found.scheme, found.host, found.port) == ("http", "example.com", 8080)
    assert found.path == "/a%20b/%C3%A9.mp4?q=1&r=%2F"
    assert found.name == "\u00e9.mp4"
    assert read_address("https://a").path == "/"
    assert read_address("https://a").port == 443
    assert read_address("https://a/").name == "a"
    assert read_address("http://b\u00fccher.example/x").host == "xn--bcher-kva.example"
    assert read_address("http://\uff11\uff12\uff17.0.0.1/").host == "127.0.0.1"
    assert read_address("http://[::1]:80/").host == "::1"


@EXAMPLES
@for_all(st.text(max_size=40))
def test_any_text_is_an_address_or_a_refusal(text: str) -> None:
    for url in (text, "http://" + text, "https://a/" + text):
        with contextlib.suppress(RequestError):
            target = read_address(url)
            assert target.path.isascii()
            assert not set(target.path) & set(" \r\n\t")
            assert target.host.isascii()


# every one of these is this machine, by the system's own resolver
LOOPBACK = ["127.0.0.1", "localhost", "localhost.", "LOCALHOST", "127.1", "2130706433", "0x7f000001", "0177.0.0.1",
            "0", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]"]  # fmt: skip


@pytest.mark.parametrize("host", LOOPBACK)
def test_this_machine_is_not_asked(host: str) -> None:
    with Web(answer(b"secret")) as web, sources(allow_http=True) as given:
        error = refused(given, video_url(f"http://{host}:{web.port}/a.mp4"))
        assert error.status in (403, 400)  # 400: a form that this system's resolver does not take
        assert error.status == 403 or host in (
            "[::1]",
            "0x7f000001",
            "0177.0.0.1",
            "127.1",
            "2130706433",
            "0",
            "localhost.",
        )
        assert "127.0.0.1" not in str(error).replace(host, "")
        assert web.requests == []


def fake(*found: str) -> Network:
    """A resolver that knows every name by these addresses; the rule of what is public is the real one."""
    return Network(resolve=lambda host, port: list(found))


@pytest.mark.parametrize("text", [text for text in NOT_PUBLIC if "%" not in text])
def test_names_that_lead_inside(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "connect", lambda *_: pytest.fail("connected"))
    for network in (fake(text), fake("8.8.8.8", text), fake(text, "8.8.8.8")):
        with sources(allow_http=True, network=network) as given:
            for url in ("http://intranet.example/a.mp4", "https://intranet.example:8443/a.mp4"):
                error = refused(given, video_url(url))
                assert error.status == 403
                assert text not in str(error), "what a name inside leads to is not told"


def test_the_address_that_was_checked_is_the_one_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against names that lead elsewhere the second time: the name is resolved once for each connection."""
    asked: list[tuple[str, int]] = []
    answers = iter([["8.8.8.8", "1.1.1.1"], ["127.0.0.1"], ["127.0.0.1"]])

    def connect(address: str, port: int, patience: object, seconds: float) -> socket.socket:
        asked.append((address, port))
        raise ConnectionRefusedError

    monkeypatch.setattr(addresses, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("resolved by somebody else"))
    with sources(allow_http=True, network=Network(resolve=lambda host, port: next(answers))) as given:
        error = refused(given, video_url("http://rebind.example:81/a.mp4"))
    assert error.status == 400
    assert asked == [("8.8.8.8", 81), ("1.1.1.1", 81)]


def test_names_that_are_not_known() -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    for network in (Network(resolve=unknown), fake()):
        with sources(allow_http=True, network=network) as given:
            error = refused(given, video_url("http://nowhere.example/a.mp4"))
            assert error.status == 400
            assert "name" in str(error)


def test_a_resolver_that_hangs_is_not_waited_for() -> None:
    done = threading.Event()

    def hang(host: str, port: int) -> list[str]:
        done.wait(60)
        return []

    stops = iter([False, False, True])
    with sources(allow_http=True, network=Network(resolve=hang)) as given:
        error = refused(given, video_url("http://slow.example/a.mp4"), should_stop=lambda: next(stops, True))
    done.set()
    assert error.status == 499


def test_nothing_of_the_environment_takes_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine files.example login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with Web(answer(b"from the proxy")) as proxy, Web(answer(b"no film")) as web:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        with sources(allow_http=True, network=loopback()) as given:
            assert "holds text" in str(refused(given, video_url(f"http://files.example:{web.port}/a.mp4")))
        assert proxy.requests == []
        (request,) = web.requests
        assert b"authorization" not in request.lower()
        assert b"cookie" not in request.lower()
        assert b"accept-encoding: identity" in request.lower()
        assert f"host: files.example:{web.port}\r\n".encode() in request.lower()
