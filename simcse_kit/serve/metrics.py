"""Measurements of the server for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["ServerMetrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TOKENS = tuple(2**power for power in range(2, 16))


class ServerMetrics:
    """Counters and histograms of one server.

    Args:
        waiting: Function that returns the number of requests that wait or are computed.
    """

    def __init__(self, waiting: Callable[[], float]):
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "simcse_requests", "Number of requests.", ["path", "status"], registry=registry
        )
        self.seconds = Histogram(
            "simcse_request_seconds",
            "Seconds from the head of a request to the end of its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_tokens = Histogram(
            "simcse_batch_tokens", "Tokens per batch.", buckets=_TOKENS, registry=registry
        )
        self.batch_seconds = Histogram(
            "simcse_batch_seconds", "Seconds per batch.", buckets=_SECONDS, registry=registry
        )
        self.crashes = Counter(
            "simcse_worker_restarts", "Number of failures of the worker.", registry=registry
        )
        queue = Gauge("simcse_queue", "Requests that wait or are computed.", registry=registry)
        queue.set_function(waiting)

    def note_batch(self, tokens: int, seconds: float) -> None:
        """Count a batch."""
        self.batch_tokens.observe(tokens)
        self.batch_seconds.observe(seconds)

    def note_request(self, path: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self.requests.labels(path, status).inc()
        self.seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """Return all values in Prometheus' text format."""
        return generate_latest(self._registry)
