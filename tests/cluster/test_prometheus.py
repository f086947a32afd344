"""A real Prometheus scrapes a real run: no panel of the dashboard is empty, and workers log JSON."""

import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import free_port
from tests.cluster.job_cluster import Cluster, running
from tests.conftest import ROOT
from tests.faults.cohort import SLIDES, TILING, draw, table

pytestmark = pytest.mark.faults

GRAFANA = ROOT / "infra/grafana"
SERVICE = """
import time
from raystp.cluster.serving.metrics import ServiceMetrics, record_proxy_request
from raystp.cluster.session import session
with session({address!r}):
    record, batches = record_proxy_request(), ServiceMetrics("replica")
    for number in range(40):
        record(503 if number % 10 == 9 else 200, 0.01 * number)
        batches.record_batch(2, 64)
        time.sleep(0.5)
"""


@pytest.fixture(scope="module")
def program() -> str:
    """Prometheus from PATH, or from a package that is unpacked and named by RAYSTP_TEST_PROMETHEUS."""
    found = os.environ.get("RAYSTP_TEST_PROMETHEUS") or shutil.which("prometheus")
    if found is None:
        pytest.skip("Prometheus is not installed: unpack Debian's package, set RAYSTP_TEST_PROMETHEUS")
    return found


@pytest.fixture(scope="module")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that reports its metrics each second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
        with running(tmp_path_factory.mktemp("home"), free_port) as one:
            yield one


@contextlib.contextmanager
def prometheus(program: str, folder: Path) -> Iterator[str]:
    """Scrape as infra/grafana/prometheus.yml says, each second, the nodes of the cluster in this process's folder."""
    config = yaml.safe_load((GRAFANA / "prometheus.yml").read_text())
    config["global"]["scrape_interval"] = "1s"
    (listed,) = config["scrape_configs"][0]["file_sd_configs"]
    listed["files"] = [f"/tmp/rs-{os.getpid()}/{Path(name).name}" for name in listed["files"]]
    listed["refresh_interval"] = "1s"
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    command = [program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "prometheus.log").open("w") as log:
        server = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
        try:
            yield f"http://{address}"
        finally:
            server.kill()
            server.wait()


def peak(url: str, query: str, seconds: float) -> float:
    """Return the largest finite value of a query over the last seconds; raise AssertionError where there is none."""
    now = time.time()
    words = {"query": query, "start": now - seconds, "end": now, "step": 2}
    with urllib.request.urlopen(f"{url}/api/v1/query_range?{urllib.parse.urlencode(words)}", timeout=30) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    values = [float(value) for one in found for _, value in one["values"]]
    finite = [value for value in values if math.isfinite(value)]
    assert finite, f"no value of {query}"
    return max(finite)


def panels() -> dict[str, list[str]]:
    """Title -> queries, with Grafana's variables as it fills them in."""
    filled = {"$session": ".*", "$step": ".*", "$__rate_interval": "30s"}
    found: dict[str, list[str]] = {}
    for panel in json.loads((GRAFANA / "dashboards/raystp.json").read_text())["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"]
            for name, value in filled.items():
                query = query.replace(name, value)
            found.setdefault(panel["title"], []).append(query)
    return found


def run(one: Cluster, store: Path, *words: str) -> str:
    command = [sys.executable, "-m", "raystp.cli", *words, "--log-format", "json"]
    command += [f"--run.store={store}", f"--run.address={one.gcs}"]
    environment = {**one.environment, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stderr


def test_no_panel_is_empty_after_a_run_and_every_line_of_its_log_is_json(
    program: str, ray_head: Cluster, tmp_path: Path
) -> None:
    began, slides = time.time(), tmp_path / "slides"
    draw(slides)
    listed = table(tmp_path / "slides.csv", {name: str(slides / f"{name}.svs") for name in SLIDES})
    with prometheus(program, tmp_path) as url:
        log = run(ray_head, tmp_path, "tile", f"slides={listed}", *(f"{key}={value}" for key, value in TILING.items()))
        log += run(ray_head, tmp_path, "embed", "tiles=tile/default", "unit_tiles=1", "run.encoders=1")
        code = SERVICE.format(address=ray_head.gcs)
        environment = {**ray_head.environment, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        found = {title: [peak(url, query, time.time() - began) for query in each] for title, each in panels().items()}
    assert len(found) == 15
    for title in ("Tiles per second", "Work units committed", "Finished per second", "Bytes read by encoders"):
        assert min(found[title]) > 0, found
    assert 0 < found["Done"][0] <= 1  # a driver may end before its last report
    assert found["Failed"] == [0.0, 0.0]
    entries = [json.loads(line) for line in log.splitlines()]
    assert {entry["step"] for entry in entries} >= {"tile", "embed"}
