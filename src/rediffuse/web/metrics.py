"""The figures of `/metrics`, in the format of Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

DECISIONS = ("real", "generated", "unsure", "none")


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "rediffuse_requests", "Answered requests.", ("method", "route", "status"), registry=self._registry
        )
        self.seconds = Histogram(
            "rediffuse_request_seconds", "Time until a request was answered.", ("route",), registry=self._registry
        )
        self.uploaded = Counter("rediffuse_uploaded_bytes", "Bytes of request bodies.", registry=self._registry)
        self.verdicts = Counter("rediffuse_verdicts", "Files by decision.", ("decision",), registry=self._registry)
        self.starts = Counter("rediffuse_worker_starts", "Starts of the worker process.", registry=self._registry)
        self.waiting = Gauge("rediffuse_waiting_files", "Files that wait or are judged.", registry=self._registry)
        self.jobs = Gauge("rediffuse_jobs", "Jobs that are kept.", registry=self._registry)
        self.stored = Gauge("rediffuse_stored_bytes", "Bytes of uploads and results.", registry=self._registry)
        self.clients = Gauge("rediffuse_open_requests", "Requests that are being answered.", registry=self._registry)
        for decision in DECISIONS:
            self.verdicts.labels(decision)

    def text(self) -> bytes:
        """All figures, as Prometheus reads them."""
        return generate_latest(self._registry)
