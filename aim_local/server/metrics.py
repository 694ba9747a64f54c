"""What the service counts, for Prometheus: requests, the queue, stages, tokens. A registry of its own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ..results import STAGES, Stats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)


class Metrics:
    """queue_length: asked when the numbers are read."""

    def __init__(self, queue_length: Callable[[], float]) -> None:
        self.registry = own = CollectorRegistry()
        self._requests = Counter(
            "aim_local_requests", "Requests, by route and status.", ["method", "route", "status"], registry=own
        )
        self._request_seconds = Histogram(
            "aim_local_request_seconds",
            "From a request's arrival to its end.",
            ["route"],
            buckets=_SECONDS,
            registry=own,
        )
        length = Gauge("aim_local_queue_length", "Requests that wait for the model.", registry=own)
        length.set_function(queue_length)
        self._queue_seconds = Histogram(
            "aim_local_queue_seconds", "How long answered requests waited.", buckets=_SECONDS, registry=own
        )
        self._stages = Histogram(
            "aim_local_stage_seconds", "Work of each stage of an answer.", ["stage"], buckets=_SECONDS, registry=own
        )
        self._visual = Counter(
            "aim_local_visual_tokens", "Visual tokens, before and after reduction.", ["when"], registry=own
        )
        self._tokens = Counter("aim_local_tokens", "Tokens: prompt (computed), cached, answer.", ["kind"], registry=own)
        self._ended = Counter(
            "aim_local_cancelled", "Requests ended early: client, deadline, shutdown, queue.", ["why"], registry=own
        )
        self._failed = Counter("aim_local_internal_errors", "Faults of the service itself.", registry=own)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def answered(self, stats: Stats, queue_ms: float) -> None:
        self._queue_seconds.observe(queue_ms / 1000)
        for stage in STAGES:
            self._stages.labels(stage).observe(getattr(stats, f"{stage}_ms") / 1000)
        self._stages.labels("decode").observe(stats.decode_ms / 1000)
        self._stages.labels("ttft").observe(stats.ttft_ms / 1000)
        self._visual.labels("before").inc(stats.n_reused_visual_full + stats.n_visual_full)
        self._visual.labels("after").inc(stats.n_reused_visual + stats.n_visual)
        for kind, n in (("prompt", stats.n_prompt), ("cached", stats.n_reused), ("answer", stats.n_generated)):
            self._tokens.labels(kind).inc(n)

    def ended(self, why: str) -> None:
        self._ended.labels(why).inc()

    def failed(self) -> None:
        self._failed.inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)
