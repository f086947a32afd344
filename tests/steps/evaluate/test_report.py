"""The manifests that a report shows."""

from raystp.artifacts import Artifact, Manifest
from raystp.steps.evaluate.report import manifests_of
from raystp.storage import StoragePath


def test_a_manifest_is_shown_without_the_queries_of_its_uris() -> None:
    signed = "s3://bucket/spots?key=AKIA&secret=abc"
    manifest = Manifest("spots", "a", "0f", config={"path": signed, "note": "is it? yes"}, inputs={"file": signed})
    (shown,) = manifests_of({"spots": Artifact(StoragePath.of("/store/spots/a-0f"), manifest)}).values()
    assert "secret" not in str(shown)
    assert shown["config"] == {"path": "s3://bucket/spots", "note": "is it? yes"}
