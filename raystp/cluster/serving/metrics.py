"""Request metrics: of each replica for `GET /metrics`, and of the cluster through Ray's metrics."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from ray.util import metrics

SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0]
COUNTS = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0]


class ServiceMetrics:
    """A replica's metrics, labelled with its name: Prometheus reaches one replica per scrape."""

    def __init__(self, replica: str) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "raystp_requests", "Requests by status", labelnames=("replica", "status"), registry=self._registry
        )
        self._seconds = self._histogram("raystp_seconds", "Seconds per request", SECONDS)
        self._batch_requests = self._histogram("raystp_batch_requests", "Requests per batch", COUNTS)
        self._batch_tiles = self._histogram("raystp_batch_tiles", "Tiles per batch", COUNTS)
        self._ray_batch_requests = metrics.Histogram("raystp_batch_requests", "Requests per batch", COUNTS)
        self._ray_batch_tiles = metrics.Histogram("raystp_batch_tiles", "Tiles per batch", COUNTS)
        self._replica = replica

    def _histogram(self, name: str, description: str, bounds: list[float]) -> Histogram:
        return Histogram(name, description, labelnames=("replica",), registry=self._registry, buckets=bounds)

    def record_request(self, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(self._replica, str(status)).inc()
        self._seconds.labels(self._replica).observe(seconds)

    def record_batch(self, requests: int, tiles: int) -> None:
        """Count a batch."""
        self._batch_requests.labels(self._replica).observe(requests)
        self._batch_tiles.labels(self._replica).observe(tiles)
        self._ray_batch_requests.observe(requests)
        self._ray_batch_tiles.observe(tiles)

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self._registry)


def record_proxy_request() -> Callable[[int, float], None]:
    """Return a function that counts a proxy's requests in Ray's metrics, the refused ones too."""
    requests = metrics.Counter("raystp_requests", "Requests by status", ("status",))
    latency = metrics.Histogram("raystp_seconds", "Seconds per request", SECONDS)

    def record(status: int, seconds: float) -> None:
        requests.inc(tags={"status": str(status)})
        latency.observe(seconds)

    return record
