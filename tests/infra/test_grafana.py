"""The dashboard and the files that install it, without Grafana: PromQL is evaluated in cluster/test_prometheus.py."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Object = dict[str, Any]


@pytest.fixture
def dashboard(infra: Path) -> Object:
    values: Object = json.loads((infra / "grafana/dashboards/raystp.json").read_text())
    return values


def test_panels_have_numbers_of_their_own_and_do_not_overlap(dashboard: Object) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for box in [panel["gridPos"]]
        for x in range(box["x"], box["x"] + box["w"])
        for y in range(box["y"], box["y"] + box["h"])
    ]
    assert len({*cells}) == len(cells)
    assert max(x for x, _ in cells) < 24  # columns of Grafana's grid


def test_every_query_uses_the_chosen_data_source_and_session(dashboard: Object) -> None:
    variables = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert variables == ["datasource", "session", "step"]
    targets = [target for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert targets
    for target in targets:
        assert target["datasource"]["uid"] == "${datasource}"
        assert 'SessionName=~"$session"' in target["expr"]


def test_the_dashboard_is_that_of_grafanas_schema(dashboard: Object) -> None:
    models = pytest.importorskip("grafana_foundation_sdk.models.dashboard", reason="needs grafana-foundation-sdk")
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder")
    read = json.loads(encoder.JSONEncoder().encode(models.Dashboard.from_json(dashboard)))
    assert _absent(dashboard, read) == []  # Grafana would drop a field that its schema lacks


def _absent(given: Any, read: Any, at: str = "") -> list[str]:
    """Return the paths of values that differ, or that were not read."""
    if isinstance(given, dict) and isinstance(read, dict):
        return [path for key, value in given.items() for path in _absent(value, read.get(key), f"{at}/{key}")]
    if isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        pairs = enumerate(zip(given, read, strict=True))
        return [path for number, pair in pairs for path in _absent(*pair, f"{at}/{number}")]
    return [] if given == read else [at]


def test_grafana_finds_the_dashboard_where_the_documentation_copies_it(infra: Path) -> None:
    (provider,) = yaml.safe_load((infra / "grafana/provisioning/dashboards/raystp.yaml").read_text())["providers"]
    assert provider["options"]["path"] == "/etc/grafana/dashboards"
    page = (infra.parent / "docs/observability.md").read_text().replace("\n", " ")
    assert "`infra/grafana/dashboards` to `/etc/grafana/dashboards`" in page


def test_prometheus_scrapes_the_pods_of_the_cluster(infra: Path, build: Callable[[Path], list[Object]]) -> None:
    monitor, dashboards = sorted(build(infra / "grafana"), key=lambda one: str(one["kind"]), reverse=True)
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == "metrics"  # KubeRay's name of the port
    cluster = yaml.safe_load((infra / "kuberay/base/raycluster.yaml").read_text())["spec"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert wanted <= group["template"]["metadata"]["labels"].items()
    assert json.loads(dashboards["data"]["raystp.json"])["uid"] == "raystp"
