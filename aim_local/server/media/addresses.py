"""A file from an http(s) address: only from public ones, and never more or longer than allowed.

A name is resolved here, every address that it has is checked, and the connection goes to one that was checked: what the
name leads to a moment later does not matter. A redirect is a new address, checked alike. Nothing of the environment
(proxies, netrc) takes part, no cookies are kept, and nothing is decompressed.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import queue
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote, urljoin, urlsplit

from ..failures import RequestError
from .fetching import Patience, PatientSocket, connect, secure
from .landing import Landing
from .words import display_name, printable, shown

IP = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 2**16
_CONNECT_S = 5.0  # for an address that is not a name's last one
_PORTS = {"http": 80, "https": 443}
_URL_CHARS = 8192
# beyond what ipaddress calls private, whose list grew with Python's versions
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4", "2001::/23", "2001:db8::/32", "3fff::/20",
    )
)  # fmt: skip
_GLOBAL_6 = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address

OFF = "is an address, and fetching is off; start the server with --allow-http, or send the file itself"


def is_public(ip: IP) -> bool:
    """Whether anybody may be asked at it: no address of this machine, its networks, or any special purpose.

    An IPv6 address that stands for an IPv4 one (mapped, 6to4, NAT64) is judged as that.
    """
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.scope_id:
            return False
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner:
            return is_public(inner)
        if ip not in _GLOBAL_6:
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _NOT_PUBLIC)


def system_resolve(host: str, port: int) -> list[str]:
    """All addresses of a name, as the system knows them. Raises OSError."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@dataclass(frozen=True)
class Network:
    """What is reached, and how. For tests: other addresses that are allowed, another resolver, another TLS context."""

    allow: Callable[[IP], bool] = is_public
    resolve: Callable[[str, int], Sequence[str]] = system_resolve
    context: ssl.SSLContext | None = None


@dataclass(frozen=True)
class Target:
    """An address whose form was checked. path: what is asked for, query included, percent-encoded."""

    url: str
    scheme: str
    host: str
    port: int
    path: str

    @property
    def name(self) -> str:
        return display_name(unquote(urlsplit(self.path).path, errors="replace"), self.host)


def read_address(url: str) -> Target:
    """Raises RequestError for what is no http(s) address that is asked for here."""
    if len(url) > _URL_CHARS or re.search(r"[\x00-\x20\x7f\\]|[\ud800-\udfff]", url):
        raise _bad(url, "holds spaces, control characters or backslashes, or is too long")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if "[" in parts.netloc:
            ipaddress.IPv6Address(host)
        else:
            host = host.encode("idna").decode("ascii")  # also checks that labels have 1 to 63 characters
    except ValueError as e:  # UnicodeError is one
        raise _bad(url, "is not well formed") from e
    if parts.scheme not in _PORTS:
        raise _bad(url, "is not http:// or https://")
    if "@" in parts.netloc:
        raise RequestError(403, f"{shown(url)} holds a user name or password; addresses with one are not fetched",
                           code="address_refused")  # fmt: skip
    if not host or not re.fullmatch(r"[a-z0-9._:-]+", host) or port == 0:
        raise _bad(url, "has no host name that can be asked")
    query = f"?{parts.query}" if parts.query else ""
    path = quote((parts.path or "/") + query, safe="/%?&=+,;:@!$'()*~[]-._")
    return Target(url, parts.scheme, host, port or _PORTS[parts.scheme], path)


def fetch(url: str, landing: Landing, network: Network, patience: Patience) -> str:
    """The file at an address into `landing`; the file's name. Raises RequestError."""
    target = read_address(url)
    for _ in range(MAX_REDIRECTS + 1):
        with _asked(target, network, patience) as response:
            if response.status not in _REDIRECTS:
                _save(response, target, landing)
                return target.name
            target = _followed(target, response)
    raise RequestError(400, f"{shown(url)} redirects more than {MAX_REDIRECTS} times", code="fetch_failed")


def _followed(target: Target, response: http.client.HTTPResponse) -> Target:
    raw = response.getheader("Location")
    if not raw:
        raise _failed(target, f"answers {response.status} without a place to go to")
    location = raw.strip().encode("latin-1").decode("utf-8", "replace")  # http.client reads heads as latin-1
    try:
        following = read_address(urljoin(target.url, location))
    except ValueError as e:
        raise _failed(target, f"redirects to {shown(location)}, which is no address") from e
    if target.scheme == "https" and following.scheme == "http":
        raise RequestError(403, f"{shown(target.url)} redirects from https down to http", code="address_refused")
    return following


@contextlib.contextmanager
def _asked(target: Target, network: Network, patience: Patience) -> Iterator[http.client.HTTPResponse]:
    try:
        with contextlib.closing(_connected(target, network, patience)) as sock:
            connection = http.client.HTTPConnection(target.host, target.port)
            connection.default_port = _PORTS[target.scheme]  # left out of the header Host
            connection.auto_open = 0
            connection.sock = PatientSocket(sock, patience)
            headers = {"User-Agent": "aim-local", "Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close"}
            connection.request("GET", target.path, headers=headers)
            yield connection.getresponse()
    except (OSError, http.client.HTTPException, ValueError) as e:
        raise _failed(target, f"cannot be fetched ({_reason(e)})") from e


def _connected(target: Target, network: Network, patience: Patience) -> socket.socket:
    """A connection to the first of the checked addresses that takes one."""
    failure: OSError | None = None
    found = _checked_addresses(target, network, patience)
    for i, address in enumerate(found):
        try:
            # one that says nothing must not take the time of those behind it
            sock = connect(address, target.port, patience, _CONNECT_S if i < len(found) - 1 else patience.seconds)
        except OSError as e:
            failure = e
            continue
        if target.scheme == "http":
            return sock
        return secure(sock, target.host.rstrip("."), network.context or ssl.create_default_context(), patience)
    raise failure or OSError("its name has no address")


def _checked_addresses(target: Target, network: Network, patience: Patience) -> list[str]:
    """Every address of the target's name, all of them allowed."""
    found = _resolved(target, network, patience)
    for text in found:
        if not network.allow(ipaddress.ip_address(text)):
            # which one it is stays here: names inside a network are nobody's business outside
            message = f"{shown(target.url)} leads to an address that is not public; only public ones are asked"
            raise RequestError(403, message, code="address_refused")
    return found


def _resolved(target: Target, network: Network, patience: Patience) -> list[str]:
    """In a thread, as the system's resolver can be neither stopped nor timed."""
    answers: queue.Queue[list[str] | Exception] = queue.Queue(1)

    def resolve() -> None:
        try:
            answers.put(list(dict.fromkeys(network.resolve(target.host, target.port))))
        except Exception as e:  # raised where it is waited for
            answers.put(e)

    threading.Thread(target=resolve, name="aim-local resolver", daemon=True).start()
    while True:
        try:
            found = answers.get(timeout=patience.step())
        except queue.Empty:
            continue
        if isinstance(found, Exception):
            raise found
        return found


def _save(response: http.client.HTTPResponse, target: Target, landing: Landing) -> None:
    if response.status != 200:
        raise _failed(target, f"answers {response.status} {response.reason}".strip())
    coding = response.getheader("Content-Encoding", "identity").strip().lower()
    transfer = response.getheader("Transfer-Encoding", "chunked").strip().lower()
    announced = response.getheader("Content-Length")
    if coding != "identity" or transfer != "chunked":
        raise _failed(target, "sends its file compressed, which was not asked for")
    if announced is not None and not re.fullmatch(r"[0-9]{1,18}", announced.strip()):
        raise _failed(target, f"announces a file of {shown(announced)} bytes")
    if response.length is not None:
        landing.expect(response.length)
    n_wanted = response.length
    while data := response.read(_CHUNK):
        landing.write(data)
    if n_wanted is not None and landing.n_bytes < n_wanted:
        raise _failed(target, f"ends after {landing.n_bytes:,} of {n_wanted:,} bytes")


def _reason(e: Exception) -> str:
    if isinstance(e, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {e.verify_message}"
    if isinstance(e, socket.gaierror):
        return "its name is not known"
    text = (getattr(e, "strerror", None) or str(e)) if isinstance(e, OSError) else ""
    return text or f"no proper HTTP: {type(e).__name__}"


def _failed(target: Target, what: str) -> RequestError:
    return RequestError(400, f"{shown(target.url)} {printable(what)[:200]}", code="fetch_failed")


def _bad(url: str, why: str) -> RequestError:
    return RequestError(400, f"{shown(url)} {why}; give http://host/file or https://host/file", code="bad_url")
