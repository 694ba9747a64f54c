"""`aim-local rpc-server`: where it listens, whom it tells of, how it ends; and --rpc of the other commands."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from cli_case import MAIN, one_line, run
from rpc_case import Server, needs_rpc

from aim_local import LoadConfig
from aim_local.cli._options import LoadOptions
from aim_local.errors import UsageError
from aim_local.native.rpc_greeting import greet


@pytest.mark.parametrize("host", ["0.0.0.0", "198.51.100.7"])
def test_beyond_this_machine_only_in_so_many_words(host: str) -> None:
    says = one_line(run("rpc-server", "--host", host), 2)
    assert "no password" in says
    assert "ssh -N -L 50052:127.0.0.1:50052" in says
    assert "--no-auth" in says


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--port", "65536"], 2, "--port 65536: give a port from 1 to 65535, or 0"),
        (["--port", "-1"], 2, "--port -1: give a port"),
        (["--host", "::1"], 1, "::1 has no IPv4 address"),
        (["--host", "no-such-host.invalid"], 1, "no-such-host.invalid has no IPv4 address"),
        (["--threads", "0"], 2, "--threads is 0"),
        (["--host", "198.51.100.7", "--no-auth"], 1, "cannot listen on 198.51.100.7:50052"),
    ],
)
def test_what_it_refuses(options: list[str], code: int, says: str) -> None:
    assert says in one_line(run("rpc-server", *options), code)


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        says = one_line(run("rpc-server", "--port", port), 1)
    assert says.startswith(f"error: cannot listen on 127.0.0.1:{port}: ")


@needs_rpc
def test_it_tells_of_clients_and_ends_with_ctrl_c() -> None:
    with Server() as server:
        assert server.first_line.endswith(", 1 threads; Ctrl-C ends it\n")
        assert greet(server.address) == ("127.0.0.1", int(server.address.split(":")[1]))
        assert server.lines.get(timeout=30) == "a client is served\n"
        assert server.lines.get(timeout=30) == "the client is gone; ready for another\n"
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 130
        assert server.lines.get(timeout=30) == "interrupted\n"


@needs_rpc
def test_json_says_where_it_listens() -> None:
    command = [sys.executable, "-P", "-c", MAIN, "rpc-server", "--port", "0", "--threads", "1", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = iter(process.stdout.readline, "}\n")
        found = json.loads("".join(lines) + "}")
        greet(f"{found['host']}:{found['port']}")
        process.terminate()
    assert (found["host"], found["threads"]) == ("127.0.0.1", 1)
    assert {"name", "about", "memory"} == found["devices"][0].keys()


@needs_rpc
@pytest.mark.skipif(os.name != "posix", reason="no SIGTERM")
def test_it_can_be_ended_while_it_serves() -> None:
    with Server("--quiet") as server, socket.create_connection(("127.0.0.1", int(server.address.split(":")[1]))):
        server.process.terminate()
        assert server.process.wait(30) == 128 + signal.SIGTERM
        assert server.lines.get(timeout=30) == "terminated\n"


def test_the_option() -> None:
    assert LoadOptions().load_config().rpc == ()
    assert LoadOptions(rpc="a:1, b:2").load_config() == LoadConfig(rpc=["a:1", "b:2"])
    assert "--rpc is 'b'" in one_line(run("chat", "-p", "x", "--rpc", "a:1,b"), 2)
    assert "--rpc is ''" in one_line(run("chat", "-p", "x", "--rpc", "a:1,"), 2)
    assert "nothing to compute" in one_line(run("chat", "-p", "x", "--rpc", "a:1", "--gpu-layers", "0"), 2)
    assert "leave --rpc or --against-stock out" in one_line(run("bench", "--rpc", "a:1", "--against-stock"), 2)


def test_layers_that_leave_the_cpu() -> None:
    assert [LoadConfig(n_gpu_layers=n).n_layers_away for n in (None, 0, 5, -1)] == [None, 0, 5, -1]
    assert [LoadConfig(n_gpu_layers=n, rpc=["a:1"]).n_layers_away for n in (None, 5, -1)] == [-1, 5, -1]
    with pytest.raises(UsageError, match="n_gpu_layers is 0, so the RPC servers have nothing"):
        LoadConfig(n_gpu_layers=0, rpc=["a:1"])
