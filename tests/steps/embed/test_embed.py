"""embed on the smoke cohort: the same artifact with any resources, no work repeated, and resuming after a kill."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import torch
import yaml

from raystp.artifacts import Artifact, ArtifactWriter, create_or_open, resolve
from raystp.cluster.streams.units import WorkUnit
from raystp.errors import ConfigError, EncoderError
from raystp.steps.embed import step as embed
from raystp.steps.embed.config import EmbedConfig
from raystp.steps.embed.outputs import EncoderOutput
from raystp.steps.embed.work import EmbedWork
from raystp.steps.encoder_source import source_of
from raystp.steps.input_config import EncoderConfig
from raystp.storage import StoragePath
from raystp.units import TilePixels

pytestmark = pytest.mark.ray

UNIT_TILES = 16
SEED = 0


def _config(smoke_store: Path, store: Path, **run: Any) -> EmbedConfig:
    values = {"tiles": _tiles(smoke_store), "unit_tiles": UNIT_TILES, "run": {"store": str(store), **run}}
    return embed.CONFIG.of(values)


def _tiles(smoke_store: Path) -> str:
    """Return the folder of the demo's tiles."""
    return resolve(str(smoke_store), "tile/smoke", "tile").path.uri


def _tables(artifact: Artifact) -> dict[str, Any]:
    """Return each unit's table by name: ids in order, and vectors."""
    files = Path(artifact.path.uri).glob("embeddings/*/*.parquet")
    return {file.stem: pq.read_table(file) for file in sorted(files)}


def _vectors(table: Any) -> np.ndarray:
    return np.stack(table["vector"].to_numpy())


def _check_equal(found: Artifact, expected: Artifact) -> None:
    """Check for the same folder name, units, ids and order; vectors within 1e-5."""
    assert found.manifest.folder == expected.manifest.folder
    assert found.manifest.rows == expected.manifest.rows
    assert found.manifest.notes == expected.manifest.notes
    ours, theirs = _tables(found), _tables(expected)
    assert list(ours) == list(theirs)
    for name, table in ours.items():
        assert table.drop_columns("vector").equals(theirs[name].drop_columns("vector"))
        np.testing.assert_allclose(_vectors(table), _vectors(theirs[name]), atol=1e-5, rtol=0)


def _times(store: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in store.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def reference(smoke_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Return the artifact of one actor that reads and encodes 64 tiles at a time."""
    store = tmp_path_factory.mktemp("alone")
    return embed.run(_config(smoke_store, store, encoders=1, batch_tiles=64))


def test_every_tile_has_a_finite_vector_in_its_slides_order(reference: Artifact, smoke_store: Path) -> None:
    slides = reference.manifest.notes["units"]
    assert sorted(slides) == ["damaged", "patient-A", "patient-B", "patient-C", "unmeasured"]
    tables, failed = _tables(reference), reference.manifest.notes["failed_tiles"]
    assert list(failed) == ["damaged"]
    for slide, units in slides.items():
        rows = [tables[unit] for unit in units]
        expected = pq.read_table(Path(_tiles(smoke_store)) / "tiles" / f"{slide}.parquet")["tile"].to_pylist()
        tiles = [tile for table in rows for tile in table["tile"].to_pylist()]
        assert tiles == [tile for tile in expected if tile in set(tiles)]
        assert len(tiles) == len(expected) - failed.get(slide, 0)
        vectors = np.concatenate([_vectors(table) for table in rows])
        assert np.isfinite(vectors).all()
        assert len(np.unique(vectors, axis=0)) > 0.9 * len(vectors)


@pytest.mark.parametrize(
    "run",
    [{"encoders": [1, 2], "batch_tiles": 7, "threads": 2}, {"encoders": 2, "batch_tiles": 7, "readers": 1}],
    ids=["two encoders", "a separate reader"],
)
def test_any_resources_give_the_same_artifact(
    run: dict[str, Any], reference: Artifact, smoke_store: Path, tmp_path: Path
) -> None:
    found = embed.run(_config(smoke_store, tmp_path, **run))
    _check_equal(found, reference)
    assert not (Path(found.path.uri) / "parts").exists()


def test_a_finished_step_does_nothing_and_only_a_lost_unit_is_computed_again(
    smoke_store: Path, tmp_path: Path, reference: Artifact
) -> None:
    config = _config(smoke_store, tmp_path, encoders=1, batch_tiles=64)
    folder = tmp_path / reference.manifest.folder
    folder.parent.mkdir()
    subprocess.run(["cp", "-a", reference.path.uri, str(folder)], check=True)
    before = _times(tmp_path)
    embed.run(config)
    assert _times(tmp_path) == before

    (folder / "manifest.json").unlink()
    (folder / "commits" / "patient-B.00001.json").unlink()
    (folder / "embeddings" / "patient-B" / "patient-B.00001.parquet").unlink()
    _check_equal(embed.run(config), reference)
    changed = {str(file.relative_to(folder)) for file, when in _times(tmp_path).items() if before[file] != when}
    lost = {"commits/patient-B.00001.json", "embeddings/patient-B/patient-B.00001.parquet"}
    assert changed == {"manifest.json", "failures.parquet", *lost}  # the demo's damaged tile is in the failures


def test_a_killed_run_resumes_from_committed_units(reference: Artifact, smoke_store: Path, tmp_path: Path) -> None:
    store, address = tmp_path / "store", ray.get_runtime_context().gcs_address
    config = _config(smoke_store, store, address=address, encoders=1, batch_tiles=1)
    file, folder = tmp_path / "killed.yaml", store / reference.manifest.folder
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    enough = int(np.random.default_rng(SEED).integers(1, 4))
    command = [str(Path(sys.executable).with_name("raystp")), "embed", "--config", str(file)]
    with (tmp_path / "output.txt").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        while len(list(folder.glob("commits/*.json"))) < enough:
            assert process.poll() is None, (tmp_path / "output.txt").read_text()
            time.sleep(0.002)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (folder / "manifest.json").exists()
    kept = {one: when for one, when in _times(store).items() if one.parent.name == "commits"}
    assert enough <= len(kept) < len(_tables(reference))

    _check_equal(embed.run(config), reference)
    after = _times(store)
    assert {one: after[one] for one in kept} == kept


def test_a_unit_that_crashed_three_workers_is_skipped_until_retry_failed(
    reference: Artifact, smoke_store: Path, tmp_path: Path
) -> None:
    config = _config(smoke_store, tmp_path / "store", encoders=1)
    folder = tmp_path / "store" / reference.manifest.folder
    (folder / "attempts").mkdir(parents=True)
    (folder / "attempts" / "patient-B.00001.json").write_text('{"host": "node-7", "process": 1, "attempts": 3}')
    lacking = embed.run(config)
    (row,) = [row for row in lacking.failures().to_pylist() if row["slide"] != "damaged"]
    assert (row["slide"], row["stage"]) == ("patient-B", "embed")
    assert "of slide 'patient-B' crashed 3 workers (last on node-7); the slide is skipped" in row["reason"]
    assert embed.run(config).manifest == lacking.manifest
    again = embed.run(_config(smoke_store, tmp_path / "store", encoders=1, retry_failed=True))
    _check_equal(again, reference)
    assert not list((folder / "attempts").glob("*"))
    assert again.failures().equals(reference.failures())


@pytest.mark.parametrize("readers", [0, pytest.param(1, marks=pytest.mark.faults)], ids=["inside", "separate"])
def test_several_encoders_in_one_pass_give_the_artifacts_of_single_runs(
    readers: int, reference: Artifact, smoke_store: Path, tmp_path: Path
) -> None:
    seeded = {"name": "tiny", "seed": 1}
    both = {"tiles": _tiles(smoke_store), "unit_tiles": UNIT_TILES, "also": {"seeded": seeded}}
    first = embed.run(embed.CONFIG.of({**both, "run": {"store": str(tmp_path), "encoders": 1, "readers": readers}}))
    _check_equal(first, reference)
    config = {"name": "seeded", "tiles": _tiles(smoke_store), "unit_tiles": UNIT_TILES, "encoder": seeded}
    other = resolve(str(tmp_path), "embed/seeded", "embed")
    _check_equal(other, embed.run(embed.CONFIG.of({**config, "run": {"store": str(tmp_path / "alone")}})))
    assert other.manifest.config == embed.CONFIG.of(config).manifest_values()
    assert embed.run(embed.CONFIG.of({**config, "run": {"store": str(tmp_path)}})).manifest == other.manifest


def test_a_finished_encoder_is_not_run_again_with_another(
    reference: Artifact, smoke_store: Path, tmp_path: Path
) -> None:
    folder = tmp_path / reference.manifest.folder
    folder.parent.mkdir()
    subprocess.run(["cp", "-a", reference.path.uri, str(folder)], check=True)
    before = _times(folder)
    both = {"tiles": _tiles(smoke_store), "unit_tiles": UNIT_TILES, "also": {"seeded": {"name": "tiny", "seed": 1}}}
    assert embed.run(embed.CONFIG.of({**both, "run": {"store": str(tmp_path)}})).manifest == reference.manifest
    assert _times(folder) == before
    assert resolve(str(tmp_path), "embed/seeded", "embed").manifest.rows == reference.manifest.rows


def test_the_manifest_has_statistics_and_the_reader_of_each_slide(reference: Artifact) -> None:
    found = reference.manifest.statistics
    assert found["tiles"] == reference.manifest.rows["tiles"] + reference.manifest.failures
    assert 0 < found["encoders_waited"] < 1
    assert any("EncodeUnit" in line for line in found["operators"])
    assert set(reference.manifest.notes["readers"]) == set(reference.manifest.notes["patients"])
    assert set(reference.manifest.notes["readers"].values()) <= {"tiled", "openslide", "flat"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"also": {"default": {}}}, "'default' is already the name of the main encoder; choose another"),
        ({"also": {"../x": {}}}, "String should match pattern"),
        ({"run": {"encoders": [3, 2]}}, "encoders: expected [min, max] with min <= max"),
        ({"run": {"readers": [0, 2]}}, "greater than or equal to 1"),
    ],
)
def test_invalid_resources_and_names_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        embed.CONFIG.of({"tiles": "tile/smoke", **changes})


def test_a_unit_is_committed_only_once(smoke_store: Path, tmp_path: Path) -> None:
    tiles, unit = resolve(str(smoke_store), _tiles(smoke_store), "tile"), WorkUnit("patient-A.00000", "patient-A", 0, 2)
    source = source_of(EncoderConfig(), str(smoke_store))
    work = EmbedWork(tiles.path, (EncoderOutput(StoragePath.of(tmp_path), source, 3),), {}, TilePixels(224), "float32")
    work.commit(unit, [(np.ones((2, 3), np.float32),)], {})
    first = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    work.commit(unit, [(np.zeros((2, 3), np.float32),)], {})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == first
    (tmp_path / "commits" / "patient-A.00000.json").unlink()  # as if the first worker had died before its commit record
    work.commit(unit, [(np.zeros((2, 3), np.float32),)], {})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == first


def test_an_input_without_a_failed_slide_has_another_fingerprint(tmp_path: Path) -> None:
    config = embed.CONFIG.of({"tiles": "tile/a", "run": {"store": str(tmp_path)}})
    draft = ArtifactWriter(StoragePath.of(tmp_path) / "tile" / "a-0", "tile", "a", "0", {}, {})
    lacking = draft.finish({}, [{"slide": "S", "stage": "tile", "reason": "damaged"}])
    first = create_or_open(config, "embed", {"tiles": lacking})
    second = create_or_open(config, "embed", {"tiles": draft.finish({}, [])})
    assert first.path != second.path


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_gpu_that_torch_does_not_see_is_an_error(tmp_path: Path) -> None:
    output = EncoderOutput(StoragePath.of(tmp_path), source_of(EncoderConfig(), str(tmp_path)), 3)
    work = EmbedWork(StoragePath.of(tmp_path), (output,), {}, TilePixels(224), "float32", on_gpu=True)
    with pytest.raises(EncoderError, match=r"sees no CUDA device there: .* set run\.gpus_per_encoder=0 for the CPU$"):
        work.make_encoder()
