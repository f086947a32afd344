"""index: shards do not change results; an extended index equals one built at once; removed patients are in no file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystp.artifacts import Artifact, resolve
from raystp.errors import ArtifactError, ConfigError, ModelError
from raystp.index.open import ReferenceIndex, open_reference_index
from raystp.index.queries import read_queries
from raystp.models.mclstexp.model import seeded_mclstexp
from raystp.models.mclstexp.options import MclstexpOptions
from raystp.models.store import load_model, save_model
from raystp.steps.index import step as index
from raystp.storage import StoragePath
from tests.steps.conftest import PATIENTS, finish

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

QUERIES = np.random.default_rng(3).standard_normal((5, 8)).astype(np.float32)


def _built(joint_store: StoragePath, **changes: Any) -> Artifact:
    sources = {"model": "train/joint", "spots": "spots/toy", "embeddings": "embed/toy"}
    return index.run(index.CONFIG.of({**sources, "run": {"store": joint_store.uri}, **changes}))


def _changed(joint_store: StoragePath, **changes: Any) -> Artifact:
    return index.run(index.CONFIG.of({"run": {"store": joint_store.uri}, **changes}))


def _open(artifact: Artifact) -> ReferenceIndex:
    return open_reference_index(artifact.path, artifact.manifest.notes["bank"])


def _sources(opened: ReferenceIndex) -> list[tuple[str, str]]:
    return list(zip(opened.rows["section"].to_pylist(), opened.rows["spot"].to_pylist(), strict=True))


def test_any_number_of_shards_gives_the_same_rows_and_results(joint_store: StoragePath) -> None:
    sections = list(PATIENTS)
    indexes = [_open(_built(joint_store, reference=sections, shards=shards)) for shards in (1, 2, 7)]
    assert [len(index.shards) for index in indexes] == [1, 2, 7]
    first = indexes[0].search(QUERIES, 24)
    for other in indexes[1:]:
        np.testing.assert_array_equal(other.search(QUERIES, 24), first)
        assert _sources(other) == _sources(indexes[0])
        rows = np.arange(24)
        np.testing.assert_array_equal(other.expression(rows), indexes[0].expression(rows))


def test_no_temporary_files_are_left_and_the_manifest_has_calibrated_distances(joint_store: StoragePath) -> None:
    artifact = _built(joint_store)
    assert not (artifact.path / "parts").exists()
    distance = artifact.manifest.notes["distance"]
    assert 0 <= distance["q50"] <= distance["q95"] <= distance["q99"] <= 2
    assert (distance["without"], distance["tiles"]) == ("the tile's own patient", 12)
    assert artifact.manifest.notes["bank"]["why"].startswith("auto: exact search is fast enough for 12 rows")


def test_an_extended_index_gives_the_results_of_the_index_of_all(joint_store: StoragePath) -> None:
    _built(joint_store, name="few", reference=["S1", "S2"], shards=2)
    sources = {"spots": "spots/toy", "embeddings": "embed/toy", "reference": ["S3"]}
    extended = _changed(joint_store, name="more", base="index/few", **sources)
    whole = _built(joint_store, name="all", reference=["S1", "S2", "S3"])
    np.testing.assert_array_equal(_open(extended).search(QUERIES, 18), _open(whole).search(QUERIES, 18))
    assert sorted(extended.manifest.notes["slides"]) == ["S1", "S2", "S3"]
    assert extended.manifest.notes["patients"] == ["P1", "P2", "P3"]
    assert extended.manifest.notes["distance"] == whole.manifest.notes["distance"]
    with pytest.raises(ArtifactError, match=r"'S3' are in index/more-\w+ already"):
        _changed(joint_store, name="again", base="index/more", **sources)


def test_an_extended_index_of_a_model_that_reads_sections_is_the_index_of_all(joint_store: StoragePath) -> None:
    """Acceptance 4 of mclSTExp."""
    _, _, meta = load_model(resolve(joint_store.uri, "train/toy", "train").path)
    options = MclstexpOptions(positions="learned", dim=8, heads=1, head_dim=4)
    model = seeded_mclstexp(2, len(meta["genes"]), options, seed=0)
    artifact = finish(joint_store, "train", "sections", {})
    save_model(artifact.path, "mclstexp", dict(model.state_dict()), {**meta, "options": vars(options)})
    _built(joint_store, model="train/sections", name="few", reference=["S1", "S2"], shards=2)
    sources = {"spots": "spots/toy", "embeddings": "embed/toy", "reference": ["S3"]}
    extended = _changed(joint_store, name="more", base="index/few", **sources)
    whole = _built(joint_store, model="train/sections", name="all", reference=["S1", "S2", "S3"])
    np.testing.assert_array_equal(_open(extended).search(QUERIES, 18), _open(whole).search(QUERIES, 18))
    assert len(np.unique(_open(whole).search(QUERIES, 18)[0])) > 18


def test_a_removed_patient_is_in_no_file_once_the_base_is_deleted(
    joint_store: StoragePath, capsys: pytest.CaptureFixture[str]
) -> None:
    base = _built(joint_store, name="all", reference=list(PATIENTS), shards=2)
    index = _open(base)
    gone = ~index.rows_without(["P1"])
    vectors = [shard.vectors[row].tobytes() for shard in index.shards for row in range(len(shard.vectors))]
    theirs = {vector for vector, removed in zip(vectors, gone.tolist(), strict=True) if removed}
    patterns = theirs - {vector for vector, removed in zip(vectors, gone.tolist(), strict=True) if not removed}
    assert patterns
    left = _changed(joint_store, name="left", base="index/all", without=["P1"])
    assert "run.delete_base=true deletes these indexes" in capsys.readouterr().err
    assert left.manifest.notes["patients"] == ["P2", "P3"]
    assert left.manifest.notes["slides"] == ["S2", "S3"]
    others = _built(joint_store, name="others", reference=["S2", "S3"])
    assert left.manifest.notes["distance"] == others.manifest.notes["distance"] != base.manifest.notes["distance"]
    queries = read_queries(left.path, left.manifest.notes)
    assert queries is not None
    assert set(queries["patient"].to_pylist()) == {"P2", "P3"}
    run = {"store": joint_store.uri, "delete_base": True}
    _changed(joint_store, name="left", base="index/all", without=["P1"], run=run)
    assert not base.path.exists()
    written = [path.read_bytes() for path in (joint_store / "index").local_path.rglob("*") if path.is_file()]
    assert written
    assert not [1 for content in written for pattern in patterns if pattern in content]
    assert not [1 for content in written if b"S1" in content or b"S4" in content]


def test_an_index_whose_base_has_no_queries_has_no_distances(
    joint_store: StoragePath, capsys: pytest.CaptureFixture[str]
) -> None:
    base = _built(joint_store, name="all", reference=list(PATIENTS))
    manifest = json.loads((base.path / "manifest.json").read_bytes())
    del manifest["notes"]["queries"]
    (base.path / "manifest.json").write_bytes(json.dumps(manifest).encode())
    left = _changed(joint_store, name="left", base="index/all", without=["P1"])
    assert "the base has no calibration queries" in capsys.readouterr().err
    assert "distance" not in left.manifest.notes


def test_a_section_that_cannot_be_embedded_is_a_failure_and_is_not_in_the_index(joint_store: StoragePath) -> None:
    embed = resolve(joint_store.uri, "embed/toy", "embed").path
    manifest = json.loads((embed / "manifest.json").read_bytes())
    del manifest["notes"]["units"]["S2"]
    (embed / "manifest.json").write_bytes(json.dumps(manifest).encode())
    artifact = _built(joint_store)
    (failure,) = artifact.failures().to_pylist()
    assert failure["slide"] == "S2"
    assert failure["reason"].startswith("slide 'S2' has no embeddings in")
    assert artifact.manifest.notes["patients"] == ["P1"]


def test_a_direct_model_needs_no_index(joint_store: StoragePath) -> None:
    with pytest.raises(ModelError, match="is a gene_mean model, which needs no index"):
        _built(joint_store, model="train/toy")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "train/joint"}, "a new index needs spots, embeddings"),
        ({"base": "index/all"}, "a `base` has one change at a time"),
        ({"base": "index/all", "without": ["P1"], "model": "train/joint"}, "and keeps its model"),
    ],
)
def test_a_config_that_neither_builds_nor_changes_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        index.CONFIG.of(values)


def test_a_truncated_shard_is_refused_by_name(joint_store: StoragePath) -> None:
    artifact = _built(joint_store)
    file = Path(artifact.path.uri) / "shard-00000.vectors.npy"
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(ArtifactError, match=r"shard-00000\.vectors\.npy"):
        _open(artifact)
