"""Metrics of a run: documented names, drawn on the dashboard, and absent without Ray."""

import itertools
import json
import re
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from raystp.cluster import metrics

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "infra/grafana/dashboards/raystp.json"


def queries() -> list[str]:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def test_every_metric_is_documented_and_drawn() -> None:
    page, drawn = (ROOT / "docs/observability.md").read_text(), " ".join(queries())
    for name in metrics.COUNTERS:
        assert f"`ray_raystp_{name}_total`" in page
        assert f"ray_raystp_{name}_total" in drawn
    for name in metrics.GAUGES:
        assert f"`ray_raystp_{name}`" in page
        assert f"ray_raystp_{name}{{" in drawn


def test_the_dashboard_draws_no_unknown_metric() -> None:
    service = {"requests_total", "seconds_bucket", "batch_requests_bucket", "batch_tiles_bucket"}
    known = {f"{name}_total" for name in metrics.COUNTERS} | {*metrics.GAUGES} | service
    found = re.findall(r"ray_raystp_(\w+)", " ".join(queries()))
    assert {*found} <= known


def test_without_ray_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    assert metrics.step_metrics("embed", "tile", 96) is None


class Total:
    """A counter or a gauge."""

    def __init__(self) -> None:
        self.counted: list[float] = []

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert not tags
        self.counted.append(value)

    def set(self, value: float) -> None:
        assert value >= 0


def test_threads_count_each_byte_once(monkeypatch: pytest.MonkeyPatch) -> None:
    totals: dict[str, Total] = defaultdict(Total)
    read = itertools.count(1000, 1000)

    def bytes_read() -> int:
        value = next(read)
        time.sleep(0.001)  # another thread may count here
        return value

    monkeypatch.setattr(metrics, "bytes_read", bytes_read)
    for kind in ("counter", "gauge"):
        monkeypatch.setattr(metrics, kind, totals.__getitem__)
    counted = metrics.EncoderMetrics()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: counted.add(tiles=2, failed=False), range(40)))
    assert sum(totals["read_bytes"].counted) == 40_000
    assert sum(totals["tiles_embedded"].counted) == 80


def test_bytes_read_rise_with_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(100_000))
    before = metrics.bytes_read()
    (tmp_path / "file").read_bytes()
    if before:  # Linux counts them
        assert metrics.bytes_read() - before >= 100_000
    assert metrics.gpu_memory() >= 0
