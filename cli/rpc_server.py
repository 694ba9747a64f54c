"""`aim-local rpc-server`: compute layers of another machine's language model here."""

from __future__ import annotations

import ipaddress
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

from aim_local.config import LoadConfig
from aim_local.errors import NativeError, UsageError

from . import _log, _out
from . import _options as opt

if TYPE_CHECKING:
    from aim_local.native.rpc_server import RpcServer

_NO_AUTH_HELP = "Listen beyond this machine although there is no password: on a network that you trust in full."


def rpc_server(
    *,
    host: Annotated[str, opt.text("IPv4 address or name to listen on.", "HOST", "--host")] = "127.0.0.1",
    port: Annotated[int, opt.whole("Port to listen on; 0 takes a free one.")] = 50052,
    threads: opt.Threads = None,
    no_auth: Annotated[bool, opt.flag(_NO_AUTH_HELP, "--no-auth")] = False,
    output: opt.OutputOptions,
) -> None:
    """Compute layers of another machine's model here.

    The other machine names this one with --rpc. Serves one program at a time, until Ctrl-C. Whoever reaches the
    port can do what they like with this process, so it listens on this machine alone; others come through a tunnel:
    `ssh -N -L 50052:127.0.0.1:50052 THIS-MACHINE` there, and then `--rpc 127.0.0.1:50052`. --json prints where it
    listens and what it offers.
    """
    from aim_local.models.threads import physical_cores
    from aim_local.native.rpc_greeting import resolve
    from aim_local.native.rpc_server import RpcServer

    if not 0 <= port <= 65535:
        raise UsageError(f"--port {port}: give a port from 1 to 65535, or 0 for a free one")
    numeric = resolve(host)
    if not ipaddress.ip_address(numeric).is_loopback and not no_auth:
        raise UsageError(
            f"--host {host}: an RPC server has no password, and whoever reaches it owns it; keep 127.0.0.1 and let "
            f"others come through a tunnel (ssh -N -L {port}:127.0.0.1:{port} THIS-MACHINE), or give --no-auth as well"
        )
    n_threads = LoadConfig(n_threads=threads).n_threads or physical_cores()
    server = RpcServer(numeric, port, n_threads)
    if output.json:
        with redirect_stdout(server.stdout):
            _out.json(_facts(server, n_threads))
        server.stdout.flush()
    else:
        offered = ", ".join(f"{found.name} ({found.memory()[0] / 2**30:.1f} GiB)" for found in server.devices)
        _log.say(f"listening on {server.host}:{server.port} with {offered}, {n_threads} threads; Ctrl-C ends it")
    for event in server.events():
        if not output.quiet and not output.json:
            _log.say("a client is served" if event == "client" else "the client is gone; ready for another")
    raise NativeError(f"the RPC server on {server.host}:{server.port} stopped listening; start it again")


def _facts(server: RpcServer, n_threads: int) -> dict[str, Any]:
    devices = [
        {"name": found.name, "about": found.description, "memory": found.memory()[0]} for found in server.devices
    ]
    return {"host": server.host, "port": server.port, "threads": n_threads, "devices": devices}
