"""The manifests that a report shows."""

from raystp.artifacts import Artifact, Manifest
from raystp.steps.evaluate.report import manifests_of
from raystp.steps.evaluate.spots.report import compared_with
from raystp.storage import StoragePath


def test_a_manifest_is_shown_without_the_queries_of_its_uris() -> None:
    signed = "s3://bucket/spots?key=AKIA&secret=abc"
    manifest = Manifest("spots", "a", "0f", config={"path": signed, "note": "is it? yes"}, inputs={"file": signed})
    (shown,) = manifests_of({"spots": Artifact(StoragePath.of("/store/spots/a-0f"), manifest)}).values()
    assert "secret" not in str(shown)
    assert shown["config"] == {"path": "s3://bucket/spots", "note": "is it? yes"}


def test_a_model_is_compared_with_another_model_or_alone_with_the_depth_of_its_spots() -> None:
    control = "log total counts"
    assert compared_with(["bleep", "ridge", "knn"], {control}) == "ridge"
    assert compared_with(["bleep", "knn"], {control}) == "knn"
    assert compared_with(["ridge", "bleep"], {control}) == "bleep"
    assert compared_with(["bleep"], {"bleep", control}) == control
    assert compared_with(["bleep"], {"bleep"}) == "bleep"  # its training sections were not measured
