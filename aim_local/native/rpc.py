"""Layers of a language model on other machines, through llama.cpp's RPC backend.

A server that is lost fails the graphs on it (patches/0018-rpc.patch), and `RemoteDevices.check` says which one. ggml
registers no server, so nothing but the language model that is given the devices is ever placed on them.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from ctypes import c_bool, c_char_p, c_void_p
from typing import Any

from ..errors import NativeError, ServerLostError
from . import ggml
from .rpc_greeting import greet

_NOT_BUILT = "these libraries were built without RPC (GGML_RPC); reinstall aim-local"

_in_use: Counter[str] = Counter()  # addresses that models of this process have connections to, which they share
_in_use_lock = threading.Lock()


def is_built() -> bool:
    """Whether the libraries can place layers on other machines, and serve them."""
    return ggml.registry("RPC") is not None


class RemoteDevices:
    """The devices of RPC servers, and the connections to them. `close()` ends those.

    addresses: "HOST:PORT", in the order in which layers go to them. Raises NativeError for one that cannot be used.
    A server serves one process at a time; models of one process share the connection.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._backends: list[tuple[str, int]] = []
        self._lost = rpc_function("aim_rpc_lost", [c_void_p], c_bool)
        self.devices: list[ggml.Device] = []
        _greet_all(addresses)
        try:
            for address in addresses:
                self._connect(address)
        except BaseException:
            self.close()
            raise

    def _connect(self, address: str) -> None:
        # ggml_backend_reg_t ggml_backend_rpc_add_server(const char * endpoint)
        server = rpc_function("ggml_backend_rpc_add_server", [c_char_p], c_void_p)(address.encode())
        if server is None:
            raise NativeError(f"the RPC server at {address} is gone again, or has no device")
        for device in ggml.devices_of(server):
            self._backends.append((address, device.start()))
            with _in_use_lock:
                _in_use[address] += 1
            self.devices.append(device)
        self.check()

    def check(self) -> None:
        """After a native call: raises ServerLostError where a server was lost before it was done."""
        for address, backend in self._backends:
            if self._lost(backend):
                raise ServerLostError(
                    f"the RPC server at {address} is gone, and with it what it held: it ended, or the network failed; "
                    "start it again and load the model anew"
                )

    def memory(self) -> tuple[int, int]:
        """(free, all) bytes of the servers together. One without a GPU calls all of its memory free."""
        found = [device.memory() for device in self.devices]
        return sum(free for free, _ in found), sum(total for _, total in found)

    def close(self) -> None:
        """When nothing is on the devices any more."""
        while self._backends:
            address, backend = self._backends.pop()
            ggml.free_backend(backend)
            with _in_use_lock:
                _in_use[address] -= 1


def _greet_all(addresses: Sequence[str]) -> None:
    """Raises NativeError for an address without a server, and for two addresses of one: it would wait for itself."""
    found: dict[tuple[str, int], str] = {}
    for address in addresses:
        with _in_use_lock:
            if _in_use[address]:  # it answers to us alone, and would not answer another connection
                continue
        where = greet(address)
        if where in found:
            raise NativeError(f"{found[where]} and {address} are the same RPC server; name it once")
        found[where] = address


def rpc_function(name: str, argtypes: Sequence[Any], restype: Any) -> Any:
    reg = ggml.registry("RPC")
    found = None if reg is None else ggml.function(reg, name, argtypes, restype)
    if found is None:
        raise NativeError(_NOT_BUILT)
    return found
