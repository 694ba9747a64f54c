"""The service's log: a line a request, which nobody who asks can forge."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from server_case import HeldLLM, Running, question, running

ASK = {"messages": question("hello")}


@pytest.fixture(scope="module")
def found() -> Iterator[Running]:
    with running(HeldLLM(free=True).load) as service:
        yield service


def forget_log(found: Running) -> None:
    """A line is written after the answer has gone, so the last test's may still come: one behind it is waited for."""
    found.get("/settled")
    found.wait(lambda: any("/settled" in line for line in found.log))
    found.log.clear()


def test_the_log_has_a_line_a_request_and_no_control_characters(found: Running) -> None:
    forget_log(found)
    found.post(ASK)
    found.get("/a%0d%0ab%1b[31m")
    found.wait(lambda: len(found.log) == 2)
    assert found.log[0].startswith("POST /v1/chat/completions 200 ")
    assert found.log[0].endswith(" ms, 2 tokens answered")
    assert found.log[1].startswith("GET /a%0d%0ab%1b[31m 404 ")


@pytest.mark.parametrize("path", ["/v1/x%20200%209%20ms", "/a%09200", "/%E2%80%A8GET%20/b%20200%201%20ms"])
def test_a_path_in_the_log_has_no_status_of_its_own(found: Running, path: str) -> None:
    forget_log(found)
    found.get(path)
    found.wait(lambda: len(found.log) == 1)
    assert found.log[0].startswith(f"GET {path} 404 ")


def test_probes_and_the_pages_files_are_not_in_the_log(found: Running) -> None:
    forget_log(found)
    for ask in (httpx.get, httpx.head):
        assert ask(f"{found.url}/health").status_code == 200
    assert httpx.head(found.url).status_code == 200
    assert found.get("/page/app.js").status_code == 200
    assert found.get("/page/nothing").status_code == 404
    found.wait(lambda: len(found.log) == 2)
    assert [line.split()[:3] for line in found.log] == [["HEAD", "/", "200"], ["GET", "/page/nothing", "404"]]
