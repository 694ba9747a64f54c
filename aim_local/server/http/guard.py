"""Who may ask: Host, Origin and API key of a request, before anything of it is read.

Without a key, a web page elsewhere must not reach the service through a visitor's browser: a name of its own that leads
here (DNS rebinding) is refused by the Host header, and its requests by Origin.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from ...errors import UsageError
from ..failures import RequestError

_OPEN = ("/", "/health")  # without a key; and the page's files
_OPEN_FOLDER = "/page/"
MIN_KEY = 8


@dataclass(frozen=True)
class Guard:
    """host: the address that is listened on. keys: any of them opens; none: everybody may ask. cors: other origins."""

    host: str
    keys: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key in self.keys:
            if len(key) < MIN_KEY or not key.isascii() or not key.isprintable() or " " in key:
                raise UsageError(f"the API key is no good; give at least {MIN_KEY} ASCII letters and digits, no spaces")
        for origin in self.cors:
            parts = urlsplit(origin)
            if (
                parts.scheme not in ("http", "https")
                or origin != f"{parts.scheme}://{parts.netloc}"
                or not parts.netloc
            ):
                raise UsageError(f"{origin!r} is no origin; give one such as https://example.org, or with a port")

    def check_host(self, host: str) -> None:
        """Raises RequestError for a Host header that does not name this machine as its users do."""
        name = host_name(host)
        if self.keys or name == self.host.lower():
            return
        if is_loopback(self.host):
            if not is_loopback(name):
                raise RequestError(403, f"Host {host[:80]!r} is not this machine; use localhost", code="foreign_host")
        elif not (is_address(name) or name == "localhost" or name == socket.gethostname().lower()):
            said = f"Host {host[:80]!r} is not known; use this machine's address, or serve with an API key"
            raise RequestError(403, said, code="foreign_host")

    def check_origin(self, origin: str | None, host: str) -> None:
        """Raises RequestError where a web page of another origin asks that was not named."""
        if origin is None or origin in self.cors or _place(origin) == host.lower():
            return
        said = f"Origin {origin[:80]!r} may not ask; serve with --cors {origin[:80]} to let it"
        raise RequestError(403, said, code="foreign_origin")

    def account(self, path: str, authorization: str | None, address: str) -> str:
        """Whom a request is counted to: its key, else its address. Raises RequestError for a wrong key."""
        if not self.keys or path in _OPEN or path.startswith(_OPEN_FOLDER):
            return address
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            raise _unauthorized("this service needs an API key: send the header Authorization: Bearer KEY")
        found = [_same(given.strip(), key) for key in self.keys]  # all of them: the time says nothing
        if not any(found):
            raise _unauthorized("the API key is wrong")
        return f"key {found.index(True)}"


def check_exposed(host: str, keys: Sequence[str], *, no_auth: bool) -> None:
    """Raises UsageError where others could reach a service that anybody may use, and nobody said so."""
    if not (is_loopback(host) or keys or no_auth):
        raise UsageError(
            f"--host {host} lets other machines in; give --api-key KEY (or AIM_LOCAL_API_KEY, or --api-key-file), or "
            "--no-auth to let everybody ask"
        )


def host_name(host: str) -> str:
    """A Host header without its port and brackets, in lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _place(origin: str) -> str:
    """Host and port of an origin in lower case, "" for what is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # such as http://[
        return ""


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    return name == "localhost" or (is_address(name) and ipaddress.ip_address(name).is_loopback)


def _same(given: str, key: str) -> bool:
    # digests have one length; compare_digest takes as long for a near miss as for any other
    return hmac.compare_digest(hashlib.sha256(given.encode()).digest(), hashlib.sha256(key.encode()).digest())


def _unauthorized(text: str) -> RequestError:
    return RequestError(401, text, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
