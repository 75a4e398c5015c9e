"""What a server counts, in the format of Prometheus."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from r4t.serving.service import Service

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
__all__ = ["CONTENT_TYPE_LATEST", "Measures"]


class Measures:
    """Of one process; under Ray Serve each replica has its own."""

    def __init__(self, service: Service) -> None:
        own = CollectorRegistry()
        self._registry, self._service = own, service
        self._requests = Counter("r4t_requests", "Requests by route and status.", ["route", "status"], registry=own)
        self._seconds = Histogram(
            "r4t_request_seconds", "From the request's head to its answer.", ["route"], buckets=SECONDS, registry=own
        )
        self._sets = Counter("r4t_sets", "Sets answered, by method.", ["method"], registry=own)
        self._phases = Histogram("r4t_phase_seconds", "Of a batch.", ["phase"], buckets=SECONDS, registry=own)
        self._version = Gauge("r4t_version", "1 for the version in use.", ["lineage"], registry=own)
        self._reloads = Counter("r4t_reloads", "New versions found, by outcome.", ["outcome"], registry=own)
        for name, help_, read in (
            ("r4t_waiting_queries", "Queries without an answer yet.", lambda: service.waiting),
            ("r4t_batches", "Batches worked on.", lambda: service.load.batches),
            ("r4t_batched_queries", "Queries in them.", lambda: service.load.entries),
            ("r4t_largest_batch", "Queries of the largest.", lambda: service.load.largest),
            ("r4t_items", "Items of the catalogue.", lambda: len(service.version.catalogue)),
        ):
            Gauge(name, help_, registry=own).set_function(read)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Counts a request that was answered."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def sets(self, method: str, count: int, seconds: dict[str, float]) -> None:
        """Counts the sets of a request, whose batch took `seconds` in each phase."""
        self._sets.labels(method).inc(count)
        for phase, value in seconds.items():
            self._phases.labels(phase).observe(value)

    def reload(self, outcome: str) -> None:
        """Counts a new version: `taken` or `failed`."""
        self._reloads.labels(outcome).inc()

    def text(self) -> bytes:
        """All of it."""
        self._version.clear()
        self._version.labels(self._service.version.lineage).set(1)
        return generate_latest(self._registry)
