"""Prometheus metrics: requests, latency, batches, and the bundle that is served."""

from __future__ import annotations

import os
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector

MULTIPROCESS: Final = "PROMETHEUS_MULTIPROC_DIR"  # where several processes keep their numbers together
disable_created_metrics()  # a time stamp for each line, which nobody reads
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """The numbers of this process; `text` is those of all that share the port."""

    def __init__(self) -> None:
        several = MULTIPROCESS in os.environ
        registry = CollectorRegistry()
        self.requests = Counter(
            "recsys_requests", "Requests, by endpoint and status.", ("endpoint", "status"), registry=registry
        )
        self.seconds = Histogram(
            "recsys_request_seconds", "Time of a request.", ("endpoint",), buckets=_SECONDS, registry=registry
        )
        self.batch = Histogram(
            "recsys_batch_queries", "Queries that the model answered together.", buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )  # fmt: skip
        self.unknown = Counter(
            "recsys_unknown_items", "Items of histories that the bundle does not know.", registry=registry
        )
        self.fallback = Counter("recsys_fallback_answers", "Answers that are what sells now.", registry=registry)
        self.switches = Counter("recsys_switches", "Switches to another bundle.", registry=registry)
        self.refused = Counter("recsys_refused_bundles", "Bundles that were refused.", registry=registry)
        self._bundle = Gauge(
            "recsys_bundle_info", "1 for the bundle that answers, 0 for those that did.", ("bundle", "kind", "run"),
            registry=registry, multiprocess_mode="mostrecent",
        )  # fmt: skip
        self._told: tuple[str, str, str] | None = None
        self._shown = registry
        if several:
            self._shown = CollectorRegistry()
            MultiProcessCollector(self._shown)
        else:
            ProcessCollector(registry=registry)

    def answering(self, bundle: str, kind: str, run: str | None) -> None:
        """Note the bundle that answers from now on."""
        if self._told is not None:
            self._bundle.labels(*self._told).set(0)
        self._told = (bundle, kind, run or "")
        self._bundle.labels(*self._told).set(1)

    def text(self) -> bytes:
        """Return all numbers in Prometheus' text format."""
        return generate_latest(self._shown)
