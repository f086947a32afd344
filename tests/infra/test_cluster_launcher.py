"""The files for `ray up`, validated by Ray itself, without a cloud."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # shipped without types
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

Config = dict[str, Any]


@pytest.fixture(params=["aws", "gcp"])
def config(infra: Path, request: pytest.FixtureRequest) -> Config:
    loaded: Config = yaml.safe_load((infra / "cluster-launcher" / f"{request.param}.yaml").read_text())
    return loaded


def _filled(config: Config) -> Config:
    """Return the config with the defaults of `ray up`; raise where `ray up` would."""
    filled: Config = prepare_config(copy.deepcopy(config))
    validate_config(filled)
    return filled


def test_ray_accepts_the_file(config: Config) -> None:
    filled = _filled(config)
    assert filled["head_node_type"] in filled["available_node_types"]
    assert {kind: node["min_workers"] for kind, node in filled["available_node_types"].items()} == {
        "head": 0,
        "cpu_reader": 1,
        "gpu_encoder": 0,
    }


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("idle_timeout", 5),
        ("docker/images", "raystp-cpu"),
        ("available_node_types/cpu_reader/min_worker", 1),
        ("available_node_types/cpu_reader/resources/CPU", -1),
        ("available_node_types/gpu_encoder/docker/image", "raystp-gpu"),
        ("max_workers", "many"),
        ("provider/type", "cloud"),
    ],
)
def test_ray_refuses_a_broken_file(config: Config, path: str, value: Any) -> None:
    *parents, last = path.split("/")
    node = config
    for part in parents:
        node = node[part]
    node[last] = value
    with pytest.raises((jsonschema.ValidationError, NotImplementedError, ValueError)):
        _filled(config)


def test_the_head_runs_no_tasks_and_the_workers_are_on_spot_nodes(config: Config) -> None:
    kinds = config["available_node_types"]
    assert kinds["head"]["resources"] == {"CPU": 0}
    assert kinds["gpu_encoder"]["resources"]["GPU"] == 1
    spot = {
        kind: re.search("spot", yaml.safe_dump(node["node_config"]), re.I) is not None for kind, node in kinds.items()
    }
    assert spot == {"head": False, "cpu_reader": True, "gpu_encoder": True}
    assert kinds["gpu_encoder"]["docker"]["worker_image"].startswith("raystp-gpu:")
    assert sum(node.get("max_workers", 0) for node in kinds.values()) <= config["max_workers"]


def test_the_launchers_defaults_install_nothing(config: Config) -> None:
    """Without these lists, the launcher's defaults would install a nightly Ray over the image's Ray."""
    filled = _filled(config)
    commands = [line for key in filled if key.endswith("setup_commands") for line in filled[key]]
    assert not any(re.search(r"\bray\b", line) for line in commands)
    without = {key: value for key, value in config.items() if key != "setup_commands"}
    assert any("pip install" in line and "ray" in line for line in _filled(without)["setup_commands"])


def test_ray_has_every_flag_that_it_is_started_with_and_requires_the_token(
    config: Config, options_of: Callable[[Any], set[str]]
) -> None:
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    starts = [
        line for key in config if key.endswith("start_ray_commands") for line in config[key] if "ray start" in line
    ]
    assert len(starts) == 2
    for line in starts:
        assert line.startswith("RAY_AUTH_MODE=token ray start ")
        assert set(re.findall(r"--[\w-]+", line)) <= options_of(start)
    assert "--dashboard-host=127.0.0.1" in starts[0]  # only reachable through `ray dashboard`
