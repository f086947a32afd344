"""What is counted: by each replica, for `GET /metrics`, and by Ray's own metrics, for the whole cluster."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from ray.util import metrics

SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0]
COUNTS = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0]


class ServiceMetrics:
    """A replica's counts; a scrape reaches one replica, whose name stands beside each."""

    def __init__(self, replica: str) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "raystp_requests", "Requests by status", labelnames=("replica", "status"), registry=self._registry
        )
        self._seconds = self._histogram("raystp_seconds", "Seconds to an answer", SECONDS)
        self._joined = self._histogram("raystp_batch_requests", "Requests answered together", COUNTS)
        self._tiles = self._histogram("raystp_batch_tiles", "Tiles answered together", COUNTS)
        self._ray_joined = metrics.Histogram("raystp_batch_requests", "Requests answered together", COUNTS)
        self._ray_tiles = metrics.Histogram("raystp_batch_tiles", "Tiles answered together", COUNTS)
        self._replica = replica

    def _histogram(self, name: str, words: str, bounds: list[float]) -> Histogram:
        return Histogram(name, words, labelnames=("replica",), registry=self._registry, buckets=bounds)

    def request(self, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(self._replica, str(status)).inc()
        self._seconds.labels(self._replica).observe(seconds)

    def batch(self, requests: int, tiles: int) -> None:
        """Count requests that were answered together."""
        self._joined.labels(self._replica).observe(requests)
        self._tiles.labels(self._replica).observe(tiles)
        self._ray_joined.observe(requests)
        self._ray_tiles.observe(tiles)

    def text(self) -> bytes:
        """Return all counts as Prometheus reads them."""
        return generate_latest(self._registry)


def ray_requests() -> Callable[[int, float], None]:
    """Return what counts the requests that come to a proxy, those that it refuses too."""
    requests = metrics.Counter("raystp_requests", "Requests by status", ("status",))
    seconds = metrics.Histogram("raystp_seconds", "Seconds to an answer", SECONDS)

    def seen(status: int, took_s: float) -> None:
        requests.inc(tags={"status": str(status)})
        seconds.observe(took_s)

    return seen
