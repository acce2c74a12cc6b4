"""What a server counts, as Prometheus reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from luodi.core.catalog import require

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter

SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 4.0, 8.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """One application's own registry: calls by status, latency, batch sizes, answers, and the process."""

    def __init__(self, name: str, digest: str, form: str) -> None:
        prometheus = require("prometheus_client", "serve")
        self.registry: CollectorRegistry = prometheus.CollectorRegistry()
        registry = self.registry
        self._calls: Counter = prometheus.Counter(
            "luodi_requests",
            "Calls of /predict by HTTP status; 499: the client went away.",
            ["status"],
            registry=registry,
        )
        self._seconds = prometheus.Histogram(
            "luodi_request_seconds", "From the first byte to the answer.", buckets=SECONDS, registry=registry
        )
        self._sizes = prometheus.Histogram(
            "luodi_batch_size", "Requests answered by one step.", buckets=SIZES, registry=registry
        )
        self._answers = prometheus.Counter("luodi_answers", "Requests answered.", registry=registry)
        self.waiting = prometheus.Gauge("luodi_waiting", "Calls waiting or being answered.", registry=registry)
        about = prometheus.Info("luodi_bundle", "What is being served.", registry=registry)
        about.info({"name": name, "digest": digest, "form": form})
        prometheus.ProcessCollector(registry=registry)
        self._by_status: dict[int, Counter] = {}

    def called(self, status: int, seconds: float) -> None:
        """One call was answered with `status` after `seconds`."""
        counter = self._by_status.get(status)
        if counter is None:
            counter = self._by_status[status] = self._calls.labels(str(status))
        counter.inc()
        self._seconds.observe(seconds)

    def stepped(self, answers: int) -> None:
        """One step gave this many answers."""
        self._sizes.observe(answers)
        self._answers.inc(answers)

    def text(self) -> bytes:
        """The page that Prometheus scrapes."""
        return require("prometheus_client", "serve").generate_latest(self.registry)
