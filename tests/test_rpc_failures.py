"""RPC servers that are not there, are none, are taken, or go away: one clear line, and the process lives on."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import rpc_case
from cli_case import MAIN, run_process
from rpc_case import Relay, Server, needs_rpc, stranger
from test_golden import ANSWERS, CLIPS
from thorough import few

from aim_local import GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.errors import AimError, ModelError, NativeError, ServerLostError, UsageError
from aim_local.native import ggml, rpc_greeting
from aim_local.native.rpc_greeting import greet

servers = rpc_case.servers

GREEDY = GenerateConfig(max_tokens=8)
QUESTION, CLIP = ANSWERS[0][1], CLIPS / ANSWERS[0][0]


def config(*addresses: str) -> LoadConfig:
    return LoadConfig(rpc=addresses, n_threads=1, cache_media=False)


def line_of(error: pytest.ExceptionInfo[AimError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("10.0.0.2", "give HOST:PORT"),
        ("10.0.0.2:", "give HOST:PORT"),
        (":50052", "give HOST:PORT"),
        ("10.0.0.2:0", "port from 1 to 65535"),
        ("10.0.0.2:65536", "port from 1 to 65535"),
        ("10.0.0.2:x", "give HOST:PORT"),
        ("http://10.0.0.2:50052", "IPv4 alone"),
        ("[fe80::1]:50052", "IPv4 alone"),
        ("::1:50052", "IPv4 alone"),
        ("", "give HOST:PORT"),
    ],
)
def test_what_is_no_address(address: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        LoadConfig(rpc=[address])
    assert repr(address) in line_of(error)
    assert says in line_of(error)


def test_what_is_no_list_of_addresses() -> None:
    for given, says in (
        ("a:1", "give a list"),
        ([f"a:{i}" for i in range(1, 18)], "at most 16"),
        (["a:1"] * 2, "twice"),
    ):
        with pytest.raises(UsageError, match=says):
            LoadConfig(rpc=given)
    assert LoadConfig(rpc=["a:1", "b:2"]) == LoadConfig(rpc=("a:1", "b:2"))
    assert hash(LoadConfig(rpc=["a:1"])) == hash(LoadConfig(rpc=("a:1",)))


def hello(*version: int, length: int = 28) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        assert connection.recv(33, socket.MSG_WAITALL)[:9] == struct.pack("<BQ", 14, 24)
        connection.sendall(struct.pack("<Q4B24x", length, *version, 0))

    return answer


def silence(connection: socket.socket) -> None:
    while connection.recv(100):
        pass


def byte_by_byte(connection: socket.socket) -> None:
    """Each in time, all of them not."""
    with contextlib.suppress(OSError):
        for _ in range(35):
            connection.sendall(b"\0")
            threading.Event().wait(0.05)


def web_server(connection: socket.socket) -> None:
    connection.recv(100)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def garbage(connection: socket.socket) -> None:
    connection.recv(100)
    connection.sendall(b"garbage")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (silence, "does not answer within 0.2 s"),
        (byte_by_byte, "does not answer within 0.2 s"),
        (web_server, "does not answer as an RPC server does"),
        (garbage, "does not answer as an RPC server does"),
        (lambda connection: None, "no RPC server, or one of a llama.cpp much older"),
        (hello(7, 0, 0, length=27), "does not answer as an RPC server does"),
        (hello(6, 0, 0), "speaks protocol 6.0.0, this aim-local 7.0"),
        (hello(8, 0, 0), "speaks protocol 8.0.0"),
        (hello(7, 1, 0), "speaks protocol 7.1.0"),
    ],
)
def test_a_stranger(answer: Callable[[socket.socket], None], says: str) -> None:
    with stranger(answer) as address, pytest.raises(NativeError) as error:
        greet(address, 0.2)
    assert address in line_of(error)
    assert says in line_of(error)


@needs_rpc
def test_nobody_is_there() -> None:
    """Told before anything is loaded."""
    with pytest.raises(NativeError) as error:
        VisionLLM.load(config=config("127.0.0.1:9"))
    assert "no RPC server at 127.0.0.1:9: Connection refused" in line_of(error)
    with pytest.raises(NativeError, match="has no IPv4 address"):  # no name, for a part of it is longer than 63
        greet(f"{'x' * 64}:1")
    with pytest.raises(NativeError, match=r"no-such-host\.invalid has no IPv4 address"):
        VisionLLM.load(config=config("no-such-host.invalid:50052"))


def test_libraries_without_rpc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ggml, "registry", lambda name: None)
    with pytest.raises(NativeError, match="built without RPC"):
        VisionLLM.load(config=config("127.0.0.1:9"))


@needs_rpc
def test_two_clients(servers: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One process after another; models of one process share its connection; two names of one server are noticed."""
    address, name = servers[0], servers[0].replace("127.0.0.1", "localhost")
    with pytest.raises(NativeError, match="are the same RPC server"):
        VisionLLM.load(config=config(address, name))
    with VisionLLM.load(config=config(address)) as first:
        with VisionLLM.load(config=config(address)) as second:
            texts = [llm.generate(QUESTION, [CLIP], generate=GREEDY).text for llm in (first, second)]
        texts.append(first.generate(QUESTION, [CLIP], generate=GREEDY).text)
        assert texts == [ANSWERS[0][2]] * 3
        with monkeypatch.context() as patch:
            patch.setattr(rpc_greeting.greet, "__defaults__", (0.3,))
            with pytest.raises(NativeError, match="serves one client at a time"):
                VisionLLM.load(config=config(name))  # another connection, as another process has
    with VisionLLM.load(config=config(name)) as third:
        assert third.generate(QUESTION, [CLIP], generate=GREEDY).text == ANSWERS[0][2]


@needs_rpc
def test_too_little_memory(servers: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ggml.Device, "memory", lambda self: (1 << 20, 1 << 30))
        with pytest.raises(ModelError) as error:
            VisionLLM.load(config=config(servers[0]))
    assert "13 of 13 layers take 0.0 GiB, the RPC servers have 0.0 GiB free" in line_of(error)
    VisionLLM.load(config=config(servers[0])).close()  # nothing of the first try is left there


@needs_rpc
@pytest.mark.parametrize("tokens", [VisualTokenConfig.off(), VisualTokenConfig.paper()], ids=["plain", "pruned"])
def test_killed_in_the_middle_of_an_answer(servers: tuple[str, str], tokens: VisualTokenConfig) -> None:
    with Server() as server, VisionLLM.load(config=config(servers[0], server.address)) as llm:
        with pytest.raises(ServerLostError) as error:
            llm.generate(QUESTION, [CLIP], tokens, GREEDY, on_text=lambda text: server.kill())
        assert f"the RPC server at {server.address} is gone" in line_of(error)
        with pytest.raises(ServerLostError, match="is gone"):
            llm.generate(QUESTION, [CLIP], tokens, GREEDY)
    with VisionLLM.load(config=config(*servers)) as llm:
        assert llm.generate(QUESTION, [CLIP], tokens, GREEDY).text == ANSWERS[0][2]


@needs_rpc
def test_a_conversation_whose_server_goes() -> None:
    with Server() as server, VisionLLM.load(config=config(server.address)) as llm, llm.chat(generate=GREEDY) as chat:
        chat.ask(QUESTION, [CLIP])
        messages = chat.messages
        server.kill()
        with pytest.raises(ServerLostError, match="is gone"):
            chat.ask("And then?")
        with pytest.raises(ServerLostError, match="is gone"):
            chat.save(Path(os.environ["AIM_LOCAL_HOME"]) / "talk.aimchat")
        assert chat.messages == messages
        assert not Path(os.environ["AIM_LOCAL_HOME"], "talk.aimchat").exists()


CUTS = """
import sys
from pathlib import Path
from aim_local import GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.errors import AimError
from rpc_case import Relay

def once(address, after):
    with Relay(address, after) as relay:
        try:
            with VisionLLM.load(config=LoadConfig(rpc=[relay.address], n_threads=1)) as llm:
                for tokens in (VisualTokenConfig.paper(), VisualTokenConfig.off()):
                    with llm.chat(tokens, generate=GenerateConfig(max_tokens=4)) as chat:
                        chat.ask(QUESTION, [CLIP])
                        chat.ask("And then?")
                        path = chat.save(FOLDER / f"{after}.aimchat")
                    with llm.load_chat(path) as chat:
                        chat.ask("And its colour?")
        except AimError as e:
            assert after is not None and "\\n" not in str(e), e
            print(after, type(e).__name__, e, flush=True)
        else:
            assert after is None
        return relay.n_up

address, QUESTION, CLIP, FOLDER = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
n = once(address, None)
cuts = [0, 40, 100, 200, 400, 900, 2000, n // 4, *(n * i // 24 for i in range(10, 24)), n - 2000, n - 100]
for cut in cuts[:: int(sys.argv[5])]:
    once(address, cut)
print("done")
"""


@needs_rpc
@pytest.mark.parametrize("step", few([5, 1], 1))
def test_the_line_is_cut_anywhere(servers: tuple[str, str], tmp_path: Path, step: int) -> None:
    """While connecting, loading, reading, answering, ranking again, saving, taking up: an error of ours each time."""
    found = subprocess.run(
        [sys.executable, "-c", CUTS, servers[0], QUESTION, str(CLIP), str(tmp_path), str(step)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )
    print(f"\n{found.stdout}")
    assert found.returncode == 0, found.stderr[-2000:]
    assert found.stdout.splitlines()[-1] == "done"
    assert found.stderr == ""


@needs_rpc
@pytest.mark.skipif(os.name != "posix", reason="no SIGINT to one process")
def test_ctrl_c_ends_loading(servers: tuple[str, str]) -> None:
    """A model that takes minutes to be sent is given up, by the library and by a command, and the server is free."""
    here = Relay(servers[0], 1_000_000, lambda: os.kill(os.getpid(), signal.SIGINT))
    with here, pytest.raises(KeyboardInterrupt):
        VisionLLM.load(config=config(here.address))
    with Relay(servers[0], 1_000_000, lambda: process.send_signal(signal.SIGINT)) as relay:
        command = [sys.executable, "-P", "-c", MAIN, "chat", "-p", "x", "--rpc", relay.address]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.communicate(timeout=60) == ("", "interrupted\n")
        assert process.returncode == 130
    VisionLLM.load(config=config(servers[0])).close()


@needs_rpc
@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells of timers")
def test_connections_ask_whether_the_other_end_is_there(servers: tuple[str, str]) -> None:
    """Both ends, or one that lost its power would be waited for, or served, for ever. proc(5): tcp, timer 2."""
    port, timers, until = f":{int(servers[0].split(':')[1]):04X}", list[str](), time.monotonic() + 20
    with VisionLLM.load(config=config(servers[0])):
        while timers != ["02", "02"] and time.monotonic() < until:  # timer 1 comes first: an answer that is on its way
            lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            timers = [line[5][:2] for line in lines if port in line[1] + line[2] and line[3] == "01"]
    assert timers == ["02", "02"]


@needs_rpc
def test_the_command_line_says_it(servers: tuple[str, str]) -> None:
    """An answer that a server's end cuts: exit code 1 and one line."""
    with Relay(servers[0]) as counter, VisionLLM.load(config=LoadConfig(rpc=[counter.address])) as llm:
        llm.generate(QUESTION, [CLIP])
    with Relay(servers[0], counter.n_up - 3000) as relay:
        cut = run_process("chat", "--video", CLIP, "-p", QUESTION, "-q", "--rpc", relay.address)
    assert cut.returncode == 1
    assert cut.stderr.startswith(f"error: the RPC server at {relay.address} is gone")
    assert cut.stderr.count("\n") == 1
