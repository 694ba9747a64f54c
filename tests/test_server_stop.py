"""`aim-local serve` as a process: its line when it is ready, and how signals end it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cli_case import MAIN
from server_case import PATIENCE_S, openai, question

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
ENDLESS = "root ::= [a-z ] root"  # a grammar that never lets an answer end


class Process:
    """A service of its own. url: where it is ready."""

    def __init__(self, *args: str, code: str = MAIN) -> None:
        command = [sys.executable, "-P", "-c", code, "serve", "--port", "0", "--threads", "1", "--json", *args]
        self.run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.run.stdout is not None
        self.ready = json.loads(self.run.stdout.readline() or "{}")
        self.url = str(self.ready.get("address"))

    def stop(self, *signals: int) -> tuple[int, str]:
        """(exit code, stderr)"""
        for number in signals:
            self.run.send_signal(number)
        _, err = self.run.communicate(timeout=PATIENCE_S)
        return self.run.returncode, err


@contextmanager
def process(*args: str, code: str = MAIN) -> Iterator[Process]:
    found = Process(*args, code=code)
    try:
        yield found
    finally:
        found.run.kill()
        found.run.communicate()


def stream(found: Process, **more: Any) -> Any:
    client = openai.OpenAI(base_url=f"{found.url}/v1", api_key="none", max_retries=0)
    options = {"stream": True, "extra_body": {"grammar": ENDLESS}, "max_tokens": 3500, **more}
    return client.chat.completions.create(model="default", messages=question("Go on."), **options)


def test_sigterm_lets_the_answer_end_and_exits_0() -> None:
    with process("--grace", "60") as found:
        assert found.ready["model"] == "demo"
        answer = stream(found, max_tokens=100)
        next(answer)
        found.run.send_signal(signal.SIGTERM)
        assert list(answer)[-1].choices[0].finish_reason == "length"
        code, err = found.stop()
        assert (code, "Traceback" in err) == (0, False)
        assert "POST /v1/chat/completions 200" in err


def test_after_the_grace_time_the_answer_is_cut_honestly() -> None:
    with process("--grace", "0.2") as found:
        answer, said = stream(found), []
        said.append(next(answer))
        found.run.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIError, match="the service stopped, the answer was cut"):
            said.extend(answer)
        assert found.stop()[0] == 0
        assert all(chunk.choices[0].finish_reason is None for chunk in said)


@pytest.mark.thorough
def test_a_body_that_still_comes_is_told_that_the_service_stops() -> None:
    with process("--grace", "0") as found:
        host, port = found.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as client:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            client.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            while httpx.get(f"{found.url}/health", timeout=PATIENCE_S).status_code != 200:
                pass
            assert found.stop(signal.SIGTERM)[0] == 0
            said = b"".join(iter(lambda: client.recv(2**16), b""))
    assert said.startswith(b"HTTP/1.1 503")
    assert b'"code":"stopping"' in said


READS_FOR_LONG = """
import sys, time
import aim_local.server.media.{module} as module
module.check_head = lambda *_: (sys.stderr.write("reading\\n"), sys.stderr.flush(), time.sleep(600))
"""


@pytest.mark.parametrize(
    ("module", "number", "code"),
    [("uploads", signal.SIGTERM, 0), ("uploads", signal.SIGINT, 130), ("sources", signal.SIGTERM, 0)],
)
def test_a_file_that_is_read_for_long_does_not_hold_up_the_end(
    module: str, number: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with process("--grace", "0", code=READS_FOR_LONG.format(module=module) + MAIN) as found:
        files = {"purpose": (None, b"vision"), "file": ("a.png", b"abc")}
        body = {"messages": question("?", {"type": "image_url", "image_url": "data:image/png;base64,AAAA"})}
        how: dict[str, Any] = {"files": files} if module == "uploads" else {"json": body}
        path = "/v1/files" if module == "uploads" else "/v1/chat/completions"
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(httpx.post, f"{found.url}{path}", timeout=PATIENCE_S, **how)
            assert found.run.stderr is not None
            assert found.run.stderr.readline() == "reading\n"
            assert found.stop(number)[0] == code
            assert asking.exception() or asking.result().status_code == 503
    assert not list(tmp_path.iterdir())


def test_ctrl_c_exits_130_and_a_second_one_does_not_wait() -> None:
    with process("--grace", "600") as found:
        answer = stream(found)
        next(answer)
        found.run.send_signal(signal.SIGINT)
        while httpx.get(f"{found.url}/health", timeout=PATIENCE_S).json()["status"] != "stopping":
            pass
        code, err = found.stop(signal.SIGINT)
        assert (code, "Traceback" in err) == (130, False)


def test_a_taken_port_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-P", "-c", MAIN, "serve", "--port", port]
        found = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1
    assert f"port {port}" in found.stderr
