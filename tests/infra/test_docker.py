"""The images: linted, with the pinned versions, and built from existing files."""

import re
import subprocess
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

DOCKERFILE = ROOT / "infra/docker/Dockerfile"
PROXY_IMAGE = "nginxinc/nginx-unprivileged:1.28-alpine"
"""The only image that is not raystp's."""


@pytest.fixture(scope="module")
def project() -> Mapping[str, Any]:
    table: Mapping[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


@pytest.fixture
def lint(tool: Callable[[str], str]) -> Callable[[str], str]:
    def hadolint(text: str) -> str:
        command = [tool("hadolint"), "--no-color", "--failure-threshold", "style", "-"]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False).stdout

    return hadolint


def test_the_dockerfile_passes_its_linter(lint: Callable[[str], str]) -> None:
    assert lint(DOCKERFILE.read_text()) == ""


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("rayproject/ray:${RAY_VERSION}-py311-cpu", "rayproject/ray:latest", "DL3007"),
        ("pip install --no-cache-dir", "pip install", "DL3042"),
        ("WORKDIR /opt/raystp", "WORKDIR opt/raystp", "DL3000"),
        ("--from=source", "--from=sources", "DL3022"),
        ("RUN install", "RUM install", "unexpected"),
    ],
)
def test_the_linter_refuses_a_broken_dockerfile(lint: Callable[[str], str], old: str, new: str, word: str) -> None:
    assert old in DOCKERFILE.read_text()
    assert word in lint(DOCKERFILE.read_text().replace(old, new))


def _images(text: str) -> set[str]:
    return set(re.findall(r"raystp-[cg]pu:[\w.-]+", text))


@pytest.fixture
def expected(project: Mapping[str, Any], pins: Mapping[str, str]) -> set[str]:
    tag = f"{project['version']}-ray{pins['ray']}-py311"
    return {f"raystp-cpu:{tag}", f"raystp-gpu:{tag}"}


def test_every_image_has_the_pinned_ray_and_this_version(texts: Mapping[str, str], expected: set[str]) -> None:
    found = {name: _images(text) for name, text in texts.items() if _images(text)}
    assert {"docker/Dockerfile", "kuberay/base/raycluster.yaml", "mlflow/compose.yaml"} <= set(found)
    assert {name: images - expected for name, images in found.items() if images - expected} == {}
    assert _images("image: raystp-cpu:0.1.0-ray2.59.0-py311\n") - expected


def test_no_other_image_is_pulled(texts: Mapping[str, str], expected: set[str]) -> None:
    # In Python, `image:` is the type of an argument.
    manifests = [text for name, text in texts.items() if not name.endswith(".py")]
    named = {image for text in manifests for image in re.findall(r"^[\s-]*(?:worker_)?image: *(\S+)", text, re.M)}
    assert named == expected | {PROXY_IMAGE}


def test_the_base_image_has_the_pinned_ray(pins: Mapping[str, str]) -> None:
    text = DOCKERFILE.read_text()
    assert re.findall(r"^ARG RAY_VERSION=(.*)$", text, re.M) == [pins["ray"]]
    bases = re.findall(r"^FROM (\S+) AS (\w+)$", text, re.M)
    assert bases == [
        ("scratch", "source"),
        ("rayproject/ray:${RAY_VERSION}-py311-cpu", "cpu"),
        ("rayproject/ray:${RAY_VERSION}-py311-gpu", "gpu"),
    ]


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_an_image_installs_its_extra_with_the_constraints_and_runs_without_root(
    project: Mapping[str, Any], target: str
) -> None:
    text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text())
    stage = re.split(r"^FROM .* AS ", text, flags=re.M)
    (own,) = (part for part in stage if part.startswith(f"{target}\n"))
    installs = re.findall(r"pip install .*?'\.\[(.*?)\]'", own)
    assert installs == [f"{target},s3"]
    assert set(installs[0].split(",")) <= set(project["optional-dependencies"])
    assert "-c constraints-cpu.txt" in own
    assert re.findall(r"^USER (.*)$", own, re.M)[-1] == "1000:100"
    assert own.index("COPY pyproject.toml") < own.index("pip install") < own.index("COPY --from=source")
    assert "org.opencontainers.image.title" in own
    assert not re.search(r"^(?:ENTRYPOINT|CMD)", own, re.M)  # the operator and the launcher set the command


def test_the_gpu_image_has_the_faiss_that_its_extra_requires(
    project: Mapping[str, Any], pins: Mapping[str, str]
) -> None:
    (pin,) = re.findall(r"^faiss-gpu==(.*)$", (ROOT / "infra/docker/constraints-gpu.txt").read_text(), re.M)
    (wanted,) = (one for one in project["optional-dependencies"]["gpu"] if one.startswith("faiss-gpu"))
    assert Requirement(wanted).specifier.contains(pin)
    assert pin == pins["faiss-cpu"]  # GPU nodes read indexes that CPU nodes wrote


def _allowed(path: str) -> bool:
    """Return whether a path is in the build context: the last matching pattern of the ignore file decides."""
    allowed = True
    for line in (ROOT / "infra/docker/Dockerfile.dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if (
            pattern
            and not pattern.startswith("#")
            and any(Path(part).match(pattern) for part in (path, *map(str, Path(path).parents)) if part != ".")
        ):
            allowed = line.startswith("!")
    return allowed


def test_copied_files_exist_and_nothing_else_is_in_the_build_context() -> None:
    copies = re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE.read_text(), re.M)
    sources = {word for copy in copies for word in copy.split()[:-1]}
    assert {"raystp", "jobs", "conf", "pyproject.toml", "constraints-cpu.txt"} <= sources
    assert {source for source in sources if not (ROOT / source).exists() or not _allowed(source)} == set()
    assert not any(map(_allowed, (".git", ".venv", "store", "tests", "infra/slurm", "infra/docker/Dockerfile")))


def test_no_registry_is_named(texts: Mapping[str, str]) -> None:
    """The user chooses the registry of the images and the package index."""
    host = re.compile(
        r"(?:index-url|registry|mirror)\S*[ =]+https?://|\b[\w-]+(?:\.[\w-]+)+(?::\d+)?/(?:[\w-]+/)*raystp-"
    )
    assert {name for name, text in texts.items() if host.search(text)} == set()
    assert host.search("image: ghcr.example.org/team/raystp-cpu:1")
    assert host.search("--extra-index-url https://wheels.example.org/cpu")
