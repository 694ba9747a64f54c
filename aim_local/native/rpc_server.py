"""This machine as an RPC server: ggml's own, in a thread that ends with the process.

It serves one client after another. It has no password and checks little of what it is sent: whoever reaches its port
can do with this process what they like. Who may reach it is decided above.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from ctypes import c_char_p, c_size_t, c_void_p

from ..errors import NativeError
from . import ggml
from .rpc import rpc_function
from .rpc_greeting import greet

_CAME, _WENT = b"Accepted client connection", b"Client connection closed"  # what ggml's server prints


class RpcServer:
    """Serves from now on: this machine's GPUs, or its CPU where there is none.

    host: a numeric IPv4 address. port: 0 takes a free one; `port` has it. Raises NativeError where it cannot listen.
    The server prints on the C library's standard output, which is read here. `stdout` is what that was before.
    """

    def __init__(self, host: str, port: int, n_threads: int) -> None:
        self.host, self.port = host, _free_port(host, port)
        found = ggml.devices()
        gpus = [device for device in found if device.type in (ggml.GPU, ggml.INTEGRATED_GPU)]
        self.devices = gpus or [device for device in found if device.type == ggml.CPU]
        # void ggml_backend_rpc_start_server(const char * endpoint, const char * cache_dir, size_t n_threads,
        #         size_t n_devices, ggml_backend_dev_t * devices)
        types = [c_char_p, c_char_p, c_size_t, c_size_t, c_void_p]
        self._start = rpc_function("ggml_backend_rpc_start_server", types, None)
        self.stdout = open(os.dup(1), "w", encoding="utf-8")  # noqa: SIM115  (as long as the process)
        reading, writing = os.pipe()
        os.dup2(writing, 1)
        os.close(writing)
        self._printed = open(reading, "rb")  # noqa: SIM115  (as long as the process)
        thread = threading.Thread(target=self._serve, args=(n_threads,), daemon=True)
        thread.start()
        self._wait_for(thread)

    def _serve(self, n_threads: int) -> None:
        handles = [device.handle for device in self.devices]
        self._start(
            f"{self.host}:{self.port}".encode(), None, n_threads, len(handles), (c_void_p * len(handles))(*handles)
        )
        os.close(1)  # it does not listen any more

    def _wait_for(self, thread: threading.Thread) -> None:
        """Until it answers: ggml's server does not tell when it listens. Raises NativeError where it does not."""
        address = f"{'127.0.0.1' if self.host == '0.0.0.0' else self.host}:{self.port}"
        while True:
            try:
                greet(address)
                break
            except NativeError:
                thread.join(0.01)
                if not thread.is_alive():
                    raise
        next(event for event in self.events() if event == "gone")  # our own greeting

    def events(self) -> Iterator[str]:
        """ "client" and "gone", as they come and go; ends with the server."""
        for line in self._printed:
            if line.strip() in (_CAME, _WENT):
                yield "client" if line.strip() == _CAME else "gone"


def _free_port(host: str, port: int) -> int:
    """The port, once this process could listen there. Raises NativeError."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except OSError as e:
        raise NativeError(f"cannot listen on {host}:{port}: {e.strerror or e}; give another host or port") from e
