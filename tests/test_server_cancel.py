"""What ends a request early: a client that hangs up, a deadline, a service that stops. The rest goes on."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import httpx
import pytest
from server_case import PATIENCE_S, HeldLLM, Running, data_url, openai, question, running, video_part

from aim_local.errors import MediaError, NativeError
from aim_local.server.limits import Limits


def raw_post(found: Running, body: Any) -> socket.socket:
    """A connection on which a request was sent, and nothing read."""
    data = json.dumps(body).encode()
    host, port = found.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return connection


def sample(found: Running, name: str) -> float:
    lines = found.get("/metrics").text.splitlines()
    return float(next((line.rpartition(" ")[2] for line in lines if line.startswith(name)), 0))


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_ends_its_work(stream: bool) -> None:
    llm = HeldLLM()
    with running(llm.load) as found:
        connection = raw_post(found, {"messages": question("1"), "stream": stream})
        call = llm.next_call()
        if stream:
            assert b"word" in b"".join(iter_until(connection, b"word"))
        assert not call.stopped.is_set()
        connection.close()
        assert call.stopped.wait(PATIENCE_S)
        found.wait(lambda: found.service.is_idle)
        llm.free = True
        assert found.post({"messages": question("2")}).json()["choices"][0]["message"]["content"] == "word end"
        assert sample(found, 'aim_local_cancelled_total{why="client"}') == 1


def iter_until(connection: socket.socket, wanted: bytes) -> Any:
    seen = b""
    while wanted not in seen:
        data = connection.recv(4096)
        assert data, "closed before it came"
        seen += data
        yield data


def test_a_client_that_hangs_up_while_it_waits_leaves_the_queue() -> None:
    llm = HeldLLM()
    with running(llm.load) as found:
        first = raw_post(found, {"messages": question("1")})
        call = llm.next_call()
        second = raw_post(found, {"messages": question("2")})
        found.wait(lambda: len(found.service.queue) == 1)
        second.close()
        found.wait(lambda: len(found.service.queue) == 0)
        call.release.set()
        assert b'"word end"' in b"".join(iter_until(first, b"word end"))
        assert [known.question for known in llm.calls] == ["1"]


def test_media_are_let_go_when_their_request_hangs_up() -> None:
    """The files of a request are removed, also of one that never had its turn."""
    llm = HeldLLM()
    with running(llm.load) as found:
        first = raw_post(found, {"messages": question("1", video_part())})
        call = llm.next_call()
        second = raw_post(found, {"messages": question("2", video_part())})
        found.wait(lambda: len(list(found.uploads.scratch.iterdir())) == 2)
        second.close()
        found.wait(lambda: len(list(found.uploads.scratch.iterdir())) == 1)
        call.release.set()
        assert b"word end" in b"".join(iter_until(first, b"word end"))
        found.wait(lambda: not list(found.uploads.scratch.iterdir()))


def test_the_deadline_is_504_and_in_a_stream_an_event() -> None:
    llm = HeldLLM()
    with running(llm.load, Limits(answer_s=0.3)) as found:
        answer = found.post({"messages": question("1")})
        assert (answer.status_code, answer.json()["error"]["type"]) == (504, "timeout_error")
        assert llm.next_call().stopped.wait(PATIENCE_S)
        with pytest.raises(openai.APIError, match="the service's limit"):
            for _ in found.openai().chat.completions.create(model="held", messages=question("2"), stream=True):
                pass


def test_the_deadline_counts_waiting() -> None:
    llm = HeldLLM()
    with running(llm.load, Limits(answer_s=0.5)) as found:
        threads = [threading.Thread(target=found.post, args=[{"messages": question("1")}])]
        threads[0].start()
        llm.next_call()
        assert found.post({"messages": question("2")}).status_code == 504
        assert len(found.service.queue) == 0
        threads[0].join(PATIENCE_S)


def test_an_error_before_the_first_word_has_its_status_in_a_stream_too() -> None:
    llm = HeldLLM(free=True)
    llm.error = MediaError("clip.mp4: no video in it; give another")
    with running(llm.load) as found:
        for stream in (False, True):
            answer = found.post({"messages": question("1"), "stream": stream})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_media")


def test_a_fault_of_ours_is_a_500_without_a_trace() -> None:
    llm = HeldLLM(free=True)
    llm.error = KeyError("secret")
    with running(llm.load) as found:
        answer = found.post({"messages": question("1")})
        assert answer.status_code == 500
        assert "secret" not in answer.text
        llm.error = NativeError("llama_decode failed")
        assert found.post({"messages": question("1")}).json()["error"]["type"] == "server_error"
        llm.error = None
        assert found.post({"messages": question("1")}).status_code == 200


def test_a_stop_lets_the_answer_end_and_tells_who_waits() -> None:
    llm = HeldLLM()
    with running(llm.load) as found:
        told: dict[str, httpx.Response] = {}

        def ask(text: str) -> None:
            told[text] = found.post({"messages": question(text)})

        threads = [threading.Thread(target=ask, args=[text]) for text in ("1", "2")]
        threads[0].start()
        call = llm.next_call()
        threads[1].start()
        found.wait(lambda: len(found.service.queue) == 1)
        found.service.stop()
        threads[1].join(PATIENCE_S)
        assert told["2"].status_code == 503
        assert found.get("/health").json()["status"] == "stopping"
        assert found.post({"messages": question("3")}).status_code == 503
        call.release.set()
        threads[0].join(PATIENCE_S)
        assert told["1"].json()["choices"][0]["message"]["content"] == "word end"


def test_a_cut_answer_says_so_after_what_was_said() -> None:
    llm = HeldLLM()
    with running(llm.load) as found:
        stream = found.openai().chat.completions.create(model="held", messages=question("1"), stream=True)
        said = [next(stream), next(stream)]
        found.service.stop()
        found.service.cut()
        with pytest.raises(openai.APIError, match="cut"):
            said += list(stream)
        assert said[-1].choices[0].delta.content == "word "


def test_while_the_model_is_loaded_the_port_says_so() -> None:
    llm, gate = HeldLLM(free=True), threading.Event()

    def load() -> Any:
        assert gate.wait(PATIENCE_S)
        return llm

    with running(load, wait=False) as found:
        health = found.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "loading")
        answer = found.post({"messages": question("1", video_part(data_url()))})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "loading")
        gate.set()
        found.wait(lambda: found.get("/health").status_code == 200)
        assert found.post({"messages": question("1")}).status_code == 200
