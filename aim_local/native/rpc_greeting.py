"""Greets an RPC server before ggml does, with a time limit: who does not answer as one is told in one line.

ggml itself waits for ever. The protocol is in llama.cpp's ggml/src/ggml-rpc/ggml-rpc.cpp: a request is its number (one
byte), the length of its data (8 bytes) and the data; an answer is a length and data. Numbers are little-endian.
"""

from __future__ import annotations

import socket
import struct
import time

from ..errors import NativeError

PROTOCOL = (7, 0)  # RPC_PROTO_MAJOR_VERSION and _MINOR_VERSION of the pinned llama.cpp; a test asks a real server
TIMEOUT = 5.0  # seconds for each step
DEFAULT_PORT = 50052

_HELLO = 14
_CAPS = bytes(24)  # no faster transport than TCP
_ANSWER = struct.Struct("<Q3Bx24s")  # length, major, minor, patch, capabilities
_START_HERE = "start one there with `aim-local rpc-server`"


def split_address(address: str) -> tuple[str, int]:
    """("10.0.0.2", 50052) of "10.0.0.2:50052", as LoadConfig has checked it."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def greet(address: str, timeout: float = TIMEOUT) -> tuple[str, int]:
    """The numeric address of a server that answers and speaks our protocol. Raises NativeError for any other."""
    host, port = split_address(address)
    numeric = resolve(host)
    try:
        with socket.create_connection((numeric, port), timeout) as connection:
            answer = _ask(connection, time.monotonic() + timeout)
    except TimeoutError as e:
        raise NativeError(
            f"the RPC server at {address} does not answer within {timeout:g} s: it serves one client at a time and may "
            "have another, or a firewall is between"
        ) from e
    except OSError as e:
        raise NativeError(f"no RPC server at {address}: {e.strerror or e}; {_START_HERE}") from e
    _check_answer(address, answer)
    return numeric, port


def resolve(host: str) -> str:
    """The numeric IPv4 address of a name, which is all that ggml's RPC speaks. Raises NativeError."""
    try:
        return str(socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except (OSError, UnicodeError) as e:  # the second for what cannot be a name
        why = getattr(e, "strerror", None) or e
        raise NativeError(f"{host:.100} has no IPv4 address ({why}); RPC servers are reached by IPv4 alone") from e


def _ask(connection: socket.socket, deadline: float) -> bytes:
    """What it answers to a greeting, fewer bytes where it closes. Raises TimeoutError at the deadline (monotonic)."""
    answer = b""
    try:
        connection.sendall(struct.pack("<BQ", _HELLO, len(_CAPS)) + _CAPS)
        while len(answer) < _ANSWER.size:
            connection.settimeout(max(0.001, deadline - time.monotonic()))  # of all of it: bytes may come one by one
            part = connection.recv(_ANSWER.size - len(answer))
            if not part:
                break
            answer += part
    except (ConnectionResetError, BrokenPipeError):
        pass
    return answer


def _check_answer(address: str, answer: bytes) -> None:
    ours = ".".join(map(str, PROTOCOL))
    if not answer:
        raise NativeError(
            f"{address} closes the connection instead of answering: it is no RPC server, or one of a llama.cpp much "
            f"older than this one (protocol {ours})"
        )
    if len(answer) < _ANSWER.size:
        raise NativeError(f"{address} does not answer as an RPC server does; {_START_HERE}")
    length, major, minor, patch, _ = _ANSWER.unpack(answer)
    if length != _ANSWER.size - 8:
        raise NativeError(f"{address} does not answer as an RPC server does; {_START_HERE}")
    if major != PROTOCOL[0] or minor > PROTOCOL[1]:
        raise NativeError(
            f"the RPC server at {address} speaks protocol {major}.{minor}.{patch}, this aim-local {ours}: install the "
            "same version of aim-local on both machines"
        )
