"""What the tests of infra/ share: the tools, the built kustomizations, and what is wrong with an object."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # shipped without types
import kubernetes_validate  # type: ignore[import-untyped]  # shipped without types
import pytest
import yaml

from tests.conftest import ROOT

Object = dict[str, Any]
Build = Callable[[Path], list[Object]]
Faults = Callable[[Object], list[str]]

KUBERNETES = "1.34"
"""Whose published schemas the objects are checked with; they are shipped in the validator's package."""


@pytest.fixture(scope="session")
def infra() -> Path:
    return ROOT / "infra"


@pytest.fixture(scope="session")
def pins() -> dict[str, str]:
    """Package -> the one version that everything is built with, from the constraints file."""
    lines = (ROOT / "constraints-cpu.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Find a program that a development dependency ships; a test is skipped, by name, where it is not installed."""

    def find(name: str) -> str:
        found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not installed; it comes with the `dev` extra")
        return found

    return find


@pytest.fixture(scope="session")
def build(tool: Callable[[str], str]) -> Build:
    """Build a kustomization with the real kustomize, the one inside kubectl; no cluster is asked."""

    def kustomize(folder: Path) -> list[Object]:
        command = [tool("kubectl"), "kustomize", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(done.stderr)
        return list(yaml.safe_load_all(done.stdout))

    return kustomize


@pytest.fixture(scope="session")
def overlays(infra: Path, build: Build) -> Mapping[str, list[Object]]:
    """The objects that each overlay applies."""
    return {folder.name: build(folder) for folder in sorted((infra / "kuberay" / "overlays").iterdir())}


@pytest.fixture(scope="session")
def faults() -> Faults:
    """Say, as sentences, what is wrong with an object of Kubernetes or of KubeRay; nothing for a right one."""
    schema = json.loads((Path(__file__).parent / "ray_io_v1.json").read_text())
    kinds = {
        kind: jsonschema.Draft202012Validator({"$defs": schema["$defs"], "$ref": f"#/$defs/{kind}"})
        for kind in ("RayCluster", "RayJob")
    }
    seen: dict[str, list[str]] = {}

    def find(thing: Object) -> list[str]:
        if thing["apiVersion"].startswith("ray.io/"):
            wrong = [_sentence(fault) for fault in kinds[thing["kind"]].iter_errors(thing)]
            return wrong + [one for template in _templates(thing) for one in find(_pod_template(template))]
        key = json.dumps(thing, sort_keys=True)
        if key not in seen:  # nine RayJobs have the same pods
            seen[key] = _kubernetes(thing)
        return seen[key]

    return find


def _sentence(fault: Any) -> str:
    return f"{'.'.join(map(str, fault.absolute_path))}: {fault.message}"


def _kubernetes(thing: Object) -> list[str]:
    try:
        kubernetes_validate.validate(thing, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as fault:
        return [_sentence(fault)]
    return []


def _templates(thing: Object) -> Iterator[Object]:
    """Yield the pod templates of a RayCluster or RayJob, and one that stands for the autoscaler's container."""
    spec = thing["spec"]
    if "submitterPodTemplate" in spec:
        yield spec["submitterPodTemplate"]
    cluster = spec if thing["kind"] == "RayCluster" else spec.get("rayClusterSpec", {})
    for group in [cluster.get("headGroupSpec", {}), *cluster.get("workerGroupSpecs", [])]:
        yield group.get("template", {})
    options = cluster.get("autoscalerOptions", {})
    pods_own = {"resources", "securityContext", "env", "envFrom", "volumeMounts", "imagePullPolicy"} & options.keys()
    yield {"spec": {"containers": [{"name": "autoscaler", **{key: options[key] for key in pods_own}}]}}


def _pod_template(template: Object) -> Object:
    return {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "any"}, "template": template}


@pytest.fixture(scope="session")
def texts(infra: Path) -> Mapping[str, str]:
    """Every file of infra/, by its path from there; what a tool keeps for itself (`.cache`, `__pycache__`) is none."""
    files = {str(path.relative_to(infra)): path for path in sorted(infra.rglob("*")) if path.is_file()}
    kept = [name for name in files if not any(part.startswith((".", "__")) for part in Path(name).parts[:-1])]
    return {name: files[name].read_text() for name in kept}


@pytest.fixture(scope="session")
def options_of() -> Callable[[Any], set[str]]:
    """List the flags of a click command, such as `--head`."""

    def flags(command: Any) -> set[str]:
        every = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        return {flag for flag in every if re.match(r"--?\w", flag)}

    return flags
