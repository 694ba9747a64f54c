"""schemathesis against the service's own description: no 500, no hang, only statuses and bodies that are described."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from server_case import PATIENCE_S, HeldLLM, Running, running
from thorough import examples

schemathesis = pytest.importorskip("schemathesis")

from schemathesis import checks  # noqa: E402

checks.load_all_checks()
# a schema cannot say which models, files and media there are
CHECKS = [checks.CHECKS.get_one(name) for name in checks.CHECKS.get_all_names() if name != "positive_data_acceptance"]
TRIED = {  # operation -> examples that are right, that are wrong; benchmarks/serve_fuzz.py takes more
    "POST /v1/chat/completions": (8, 10),
    "GET /v1/models": (1, 0),  # nothing can be wrong
    "GET /v1/models/{model}": (5, 0),
    "POST /v1/files": (6, 6),
    "GET /v1/files": (5, 5),
    "GET /v1/files/{id}": (5, 0),
    "DELETE /v1/files/{id}": (5, 0),
    "GET /v1/files/{id}/content": (5, 0),
    "GET /health": (1, 0),
    "GET /metrics": (1, 0),
}
CASES = [(label, wrong, n) for label, numbers in TRIED.items() for wrong, n in enumerate(numbers) if n]
CALM = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def found() -> Iterator[Running]:
    with running(HeldLLM(free=True).load) as service:
        yield service


@pytest.fixture(scope="module")
def operations(found: Running) -> dict[str, Any]:
    schema = schemathesis.openapi.from_url(f"{found.url}/openapi.json")
    return {operation.ok().label: operation.ok() for operation in schema.get_all_operations()}


def test_every_operation_is_tried(operations: dict[str, Any]) -> None:
    assert set(operations) == set(TRIED)


@pytest.mark.parametrize(("label", "wrong", "n"), CASES)
def test_nothing_breaks(operations: dict[str, Any], label: str, wrong: bool, n: int) -> None:
    modes = schemathesis.GenerationMode
    strategy = operations[label].as_strategy(generation_mode=modes.NEGATIVE if wrong else modes.POSITIVE)

    @settings(CALM, max_examples=examples(n))
    @given(case=strategy)
    def run(case: Any) -> None:
        case.call_and_validate(checks=CHECKS, timeout=PATIENCE_S)

    run()


def test_the_request_is_described_as_it_is_read(found: Running) -> None:
    chat = found.get("/openapi.json").json()["components"]["schemas"]["ChatRequest"]
    assert chat["additionalProperties"] is False
    assert {"messages", "visual_tokens", "media_io_kwargs", "n_predict"} <= set(chat["properties"])
