"""The KubeRay overlays, built with the real kustomize and checked with published schemas, without a cluster."""

import copy
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

Object = dict[str, Any]
OVERLAYS = ("aws", "gcp", "local")
CLOUDS = ("aws", "gcp")


@dataclass(frozen=True)
class Copied:
    """A copy of infra/kuberay that a test may change."""

    root: Path
    kustomize: Callable[[Path], list[Object]]

    def change(self, file: str, old: str, new: str) -> None:
        text = (self.root / file).read_text()
        assert old in text
        (self.root / file).write_text(text.replace(old, new))

    def build(self) -> list[Object]:
        return self.kustomize(self.root / "overlays/aws")


@pytest.fixture
def copied(infra: Path, build: Callable[[Path], list[Object]], tmp_path: Path) -> Copied:
    shutil.copytree(infra / "kuberay", tmp_path / "kuberay")
    return Copied(tmp_path / "kuberay", build)


def _of(objects: list[Object], kind: str) -> list[Object]:
    return [one for one in objects if one["kind"] == kind]


def _cluster(objects: list[Object]) -> Object:
    (cluster,) = _of(objects, "RayCluster")
    spec: Object = cluster["spec"]
    return spec


def _pods(objects: list[Object]) -> dict[str, Object]:
    """Name -> pod spec, of the head, of every group and of the submitter."""
    spec = _cluster(objects)
    pods = {group["groupName"]: group["template"]["spec"] for group in spec["workerGroupSpecs"]}
    submitter = _of(objects, "RayJob")[0]["spec"]["submitterPodTemplate"]["spec"]
    return {"head": spec["headGroupSpec"]["template"]["spec"], "submitter": submitter, **pods}


def _set(node: Any, path: str, value: Any) -> None:
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in parents:
        node = node[part]
    if value is ...:
        del node[last]
    else:
        node[last] = value


def test_there_is_one_overlay_per_platform(overlays: Mapping[str, list[Object]]) -> None:
    assert sorted(overlays) == sorted(OVERLAYS)


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_object_is_valid(
    overlays: Mapping[str, list[Object]], faults: Callable[[Object], list[str]], name: str
) -> None:
    assert {one["metadata"]["name"]: faults(one) for one in overlays[name] if faults(one)} == {}


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_few_failed_slides_of_many_leave_each_job_succeeded(infra: Path, name: str) -> None:
    found = {}
    for file in [
        *(infra / "kuberay/base/conf").glob("*.yaml"),
        *(infra / f"kuberay/overlays/{name}/conf").glob("*.yaml"),
    ]:
        found[file.stem] = yaml.safe_load(file.read_text()).get("run", {}).get("max_failed")
    tried = ("spots", "tile", "embed", "impute", "predict", "pipeline")
    assert {step: found[step] for step in tried} == dict.fromkeys(tried, 0.02)


HEAD = "spec/headGroupSpec/template/spec"


@pytest.mark.parametrize(
    ("kind", "path", "value", "word"),
    [
        ("RayCluster", "spec/workerGroupSpecs/0/maxReplica", 3, "maxReplica"),
        ("RayCluster", "spec/authOptions/mode", "tokens", "tokens"),
        ("RayCluster", "spec/autoscalerOptions/version", 2, "version"),
        ("RayCluster", "spec/autoscalerOptions/resources/limits/cpu", [1], "limits.cpu"),
        ("RayCluster", "spec/headGroupSpec/rayStartParams/num-cpus", 0, "0 is not of type 'string'"),
        ("RayCluster", f"{HEAD}/containers/0/volumeMounts/0/mountPath", ..., "mountPath"),
        ("RayCluster", f"{HEAD}/containers/0/resource", {}, "resource"),
        ("RayCluster", f"{HEAD}/securityContext/runAsUser", "1000", "runAsUser"),
        ("RayCluster", f"{HEAD}/terminationGraceSeconds", 15, "terminationGraceSeconds"),
        ("RayJob", "metadata/name", "raystp_embed", "raystp_embed"),
        ("RayJob", "metadata/name", "raystp-" + 41 * "x", "too long"),
        ("RayJob", "spec/submissionMode", "K8sJob", "K8sJob"),
        ("RayJob", "spec/shutdownAfterJobFinishes", ..., "shutdownAfterJobFinishes"),
        ("RayJob", "spec/rayClusterSpec", ..., "not valid under any"),
        ("RayJob", "spec/activeDeadlineSeconds", 0, "minimum"),
        ("RayJob", "spec/rayClusterSpec/workerGroupSpecs/0/template/spec/tolerations", {}, "tolerations"),
        ("ServiceAccount", "automount", True, "automount"),
        ("ConfigMap", "data/store", 3, "store"),
    ],
)
def test_an_invalid_object_is_refused(
    overlays: Mapping[str, list[Object]],
    faults: Callable[[Object], list[str]],
    *,
    kind: str,
    path: str,
    value: Any,
    word: str,
) -> None:
    broken = copy.deepcopy(_of(overlays["aws"], kind)[-1])
    _set(broken, path, value)
    assert word in "\n".join(faults(broken))


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_rayjob_has_the_overlays_cluster(overlays: Mapping[str, list[Object]], name: str) -> None:
    shared = _cluster(overlays[name])
    for job in _of(overlays[name], "RayJob"):
        job_cluster = copy.deepcopy(job["spec"]["rayClusterSpec"])
        for group, base in zip(job_cluster["workerGroupSpecs"], shared["workerGroupSpecs"], strict=True):
            group["replicas"], group["minReplicas"] = base["replicas"], base["minReplicas"]
        assert job_cluster == shared


@pytest.mark.parametrize("name", CLOUDS)
def test_a_step_that_counts_gpus_finds_them_at_its_start(overlays: Mapping[str, list[Object]], name: str) -> None:
    there = {}
    for job in _of(overlays[name], "RayJob"):
        group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]
        there[job["metadata"]["name"]] = (group["replicas"], group["minReplicas"])
    most = _cluster(overlays[name])["workerGroupSpecs"][1]["maxReplicas"]
    counts = {"raystp-embed", "raystp-pipeline"}
    assert there == {job: (most, most) if job in counts else (0, 0) for job in there}


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_head_runs_no_tasks_and_requires_the_token(
    overlays: Mapping[str, list[Object]], pins: Mapping[str, str], name: str
) -> None:
    spec = _cluster(overlays[name])
    assert spec["rayVersion"] == pins["ray"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_pod_is_root_or_can_become_root(overlays: Mapping[str, list[Object]], name: str) -> None:
    for pod in _pods(overlays[name]).values():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 1000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("name", OVERLAYS)
def test_whatever_a_pod_refers_to_exists(overlays: Mapping[str, list[Object]], name: str) -> None:
    existing = {(one["kind"], one["metadata"]["name"]) for one in overlays[name]}
    for pod in _pods(overlays[name]).values():
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        mounts = {mount["name"] for box in pod["containers"] for mount in box.get("volumeMounts", [])}
        assert mounts == set(volumes)
        referenced = {("ConfigMap", one["configMap"]["name"]) for one in volumes.values() if "configMap" in one}
        claims = [one["persistentVolumeClaim"] for one in volumes.values() if "persistentVolumeClaim" in one]
        referenced |= {("PersistentVolumeClaim", claim["claimName"]) for claim in claims}
        referenced |= {("ServiceAccount", pod["serviceAccountName"])} if "serviceAccountName" in pod else set()
        assert referenced <= existing


@pytest.mark.parametrize(
    ("name", "label", "value"),
    [("aws", "eks.amazonaws.com/capacityType", "SPOT"), ("gcp", "cloud.google.com/gke-spot", "true")],
)
def test_the_workers_are_on_spot_nodes_and_the_head_is_not(
    overlays: Mapping[str, list[Object]], *, name: str, label: str, value: str
) -> None:
    pods = _pods(overlays[name])
    for group in ("cpu-readers", "gpu-encoders"):
        assert pods[group]["nodeSelector"][label] == value
        assert pods[group]["tolerations"]
        assert pods[group]["terminationGracePeriodSeconds"] <= 30
        assert pods[group]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][:2] == ["ray", "stop"]
    assert pods["head"].get("nodeSelector", {}).get(label) != value
    assert pods["gpu-encoders"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pods["gpu-encoders"][
        "tolerations"
    ]


def test_the_local_overlay_needs_no_gpu_and_no_spot_node(overlays: Mapping[str, list[Object]]) -> None:
    pods = _pods(overlays["local"])
    assert sorted(pods) == ["cpu-readers", "head", "submitter"]
    assert "nvidia.com" not in yaml.safe_dump(overlays["local"])
    assert not any("nodeSelector" in pod for pod in pods.values())


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_label_selects_one_step_and_its_config(overlays: Mapping[str, list[Object]], name: str) -> None:
    """`kubectl apply -k ... -l 'app.kubernetes.io/component in (config, embed)'` starts a single step."""
    for one in overlays[name]:
        labels = one["metadata"]["labels"]
        expected = {"RayCluster": "cluster", "RayJob": one["metadata"]["name"].removeprefix("raystp-")}
        assert labels["app.kubernetes.io/component"] == expected.get(one["kind"], "config")
        assert labels["app.kubernetes.io/part-of"] == "raystp"


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_overlays_share_their_replacements(infra: Path, name: str) -> None:
    ours, aws = (
        yaml.safe_load((infra / "kuberay/overlays" / one / "kustomization.yaml").read_text())["replacements"]
        for one in (name, "aws")
    )
    assert ours == [one for one in aws if name in CLOUDS or "maxReplicas" not in one["source"]["fieldPath"]]


AWS = "overlays/aws/kustomization.yaml"


@pytest.mark.parametrize(
    ("file", "old", "new", "word"),
    [
        (AWS, "\nresources:", "\nresource:", "unknown field"),
        (AWS, "conf/tile.yaml", "conf/tiles.yaml", "tiles.yaml"),
        (AWS, "fieldPath: data.store", "fieldPath: data.shop", "shop"),
        ("base/raycluster.yaml", "groupName: cpu-readers", "groupName: readers", "test"),
        ("base/kustomization.yaml", "rayjob-tile.yaml", "rayjob-tiles.yaml", "rayjob-tiles.yaml"),
    ],
)
def test_a_broken_kustomization_fails_to_build(copied: Copied, *, file: str, old: str, new: str, word: str) -> None:
    copied.change(file, old, new)
    with pytest.raises(ValueError, match=word):
        copied.build()
