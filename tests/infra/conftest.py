"""Shared by the tests of infra/: tools, built kustomizations, and the validation of objects."""

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
"""Version of the published schemas; the validator's package contains them."""


@pytest.fixture(scope="session")
def infra() -> Path:
    return ROOT / "infra"


@pytest.fixture(scope="session")
def pins() -> dict[str, str]:
    """Package -> its pinned version, from the constraints file."""
    lines = (ROOT / "constraints-cpu.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Find a program of a development dependency; skip the test if it is not installed."""

    def find(name: str) -> str:
        found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not installed; it comes with the `dev` extra")
        return found

    return find


@pytest.fixture(scope="session")
def build(tool: Callable[[str], str]) -> Build:
    """Build a kustomization with kubectl's kustomize; this needs no cluster."""

    def kustomize(folder: Path) -> list[Object]:
        command = [tool("kubectl"), "kustomize", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(done.stderr)
        return list(yaml.safe_load_all(done.stdout))

    return kustomize


@pytest.fixture(scope="session")
def overlays(infra: Path, build: Build) -> Mapping[str, list[Object]]:
    """The objects of each overlay."""
    return {folder.name: build(folder) for folder in sorted((infra / "kuberay" / "overlays").iterdir())}


@pytest.fixture(scope="session")
def faults() -> Faults:
    """Return a function that lists the errors of an object of Kubernetes or KubeRay."""
    schema = json.loads((Path(__file__).parent / "ray_io_v1.json").read_text())
    kinds = {
        kind: jsonschema.Draft202012Validator({"$defs": schema["$defs"], "$ref": f"#/$defs/{kind}"})
        for kind in ("RayCluster", "RayJob")
    }
    seen: dict[str, list[str]] = {}

    def find(manifest: Object) -> list[str]:
        if manifest["apiVersion"].startswith("ray.io/"):
            wrong = [_message(fault) for fault in kinds[manifest["kind"]].iter_errors(manifest)]
            return wrong + [one for template in _templates(manifest) for one in find(_pod_template(template))]
        key = json.dumps(manifest, sort_keys=True)
        if key not in seen:  # all RayJobs have the same pods
            seen[key] = _kubernetes(manifest)
        return seen[key]

    return find


def _message(fault: Any) -> str:
    return f"{'.'.join(map(str, fault.absolute_path))}: {fault.message}"


def _kubernetes(manifest: Object) -> list[str]:
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as fault:
        return [_message(fault)]
    return []


def _templates(manifest: Object) -> Iterator[Object]:
    """Yield the pod templates of a RayCluster or RayJob, and one for the autoscaler's container."""
    spec = manifest["spec"]
    if "submitterPodTemplate" in spec:
        yield spec["submitterPodTemplate"]
    cluster = spec if manifest["kind"] == "RayCluster" else spec.get("rayClusterSpec", {})
    for group in [cluster.get("headGroupSpec", {}), *cluster.get("workerGroupSpecs", [])]:
        yield group.get("template", {})
    options = cluster.get("autoscalerOptions", {})
    container = {"resources", "securityContext", "env", "envFrom", "volumeMounts", "imagePullPolicy"} & options.keys()
    yield {"spec": {"containers": [{"name": "autoscaler", **{key: options[key] for key in container}}]}}


def _pod_template(template: Object) -> Object:
    return {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "any"}, "template": template}


@pytest.fixture(scope="session")
def texts(infra: Path) -> Mapping[str, str]:
    """Every file of infra/ by its path below it, without caches of tools (`.cache`, `__pycache__`)."""
    files = {str(path.relative_to(infra)): path for path in sorted(infra.rglob("*")) if path.is_file()}
    names = [name for name in files if not any(part.startswith((".", "__")) for part in Path(name).parts[:-1])]
    return {name: files[name].read_text() for name in names}


@pytest.fixture(scope="session")
def options_of() -> Callable[[Any], set[str]]:
    """Return a function that lists the flags of a click command, such as `--head`."""

    def flags(command: Any) -> set[str]:
        every = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        return {flag for flag in every if re.match(r"--?\w", flag)}

    return flags
