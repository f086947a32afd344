"""Artifacts: named by what is computed, finished by their manifest, refused with a message if they are not valid."""

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from raystp import artifacts, tables
from raystp.artifacts import Artifact, ArtifactWriter, create_or_open, fingerprint, note_of, open_artifact, resolve
from raystp.config import RunConfig, StepConfig
from raystp.digests import digest_of
from raystp.encoders.encoder import EncoderSpec
from raystp.encoders.registry import identity
from raystp.errors import ArtifactError, EncoderError, StorageError
from raystp.storage import StoragePath

TILES = tables.of_rows([{"slide": "A", "tile": 0, "x": 0.0, "y": 0.0, "side": 4.0}], tables.TILES)
FAILED: list[dict[str, object]] = [
    {"slide": "B", "stage": "tile", "reason": "no slide"},
    {"slide": "A", "stage": "tile", "reason": "no mpp"},
]


class Toy(StepConfig[RunConfig]):
    where: ClassVar[frozenset[str]] = frozenset({"slides"})
    slides: str = "slides.csv"
    side: float = 112.0
    run: RunConfig = Field(default_factory=RunConfig)


def _config(store: Path, **fields: Any) -> Toy:
    return Toy(**fields, run=RunConfig(store=str(store)))


def _writer(store: Path, inputs: dict[str, Artifact | str] | None = None, **fields: Any) -> ArtifactWriter:
    writer = create_or_open(_config(store, **fields), "tile", inputs or {})
    assert isinstance(writer, ArtifactWriter)
    return writer


def _alter(artifact: Artifact, **changes: Any) -> None:
    file = artifact.path.local_path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_an_artifact_exists_from_its_manifest_on(tmp_path: Path) -> None:
    writer = _writer(tmp_path, name="her2")
    (writer.path / "tiles.parquet").write_table(TILES)
    with pytest.raises(ArtifactError, match=r"her2-\w{12} has no manifest.json: the step has not finished"):
        resolve(str(tmp_path), "tile/her2", "tile")
    assert isinstance(create_or_open(_config(tmp_path, name="her2"), "tile", {}), ArtifactWriter)
    finished = writer.finish({"tiles": 1}, FAILED, {"pixels": 224})
    assert resolve(str(tmp_path), "tile/her2", "tile") == finished
    assert finished.table("tiles.parquet", tables.TILES).equals(TILES)
    assert finished.path.local_path == tmp_path / "tile" / f"her2-{finished.manifest.fingerprint}"


def test_failures_are_a_table_sorted_by_slide_and_empty_without_failures(tmp_path: Path) -> None:
    finished = _writer(tmp_path).finish({}, FAILED)
    assert (finished.manifest.failures, finished.failures()["slide"].to_pylist()) == (2, ["A", "B"])
    whole = _writer(tmp_path, side=4.0).finish({}, [])
    assert (whole.manifest.failures, whole.failures().num_rows) == (0, 0)
    assert whole.failures().schema.equals(finished.failures().schema)


def test_the_manifest_is_written_last(tmp_path: Path) -> None:
    writer = _writer(tmp_path)
    folder = writer.path / "failures.parquet"  # a folder with the name of the failures table
    (folder / "x").write_bytes(b"")
    with pytest.raises(StorageError, match=r"failures\.parquet"):
        writer.finish({}, FAILED)
    assert not (writer.path / "manifest.json").exists()


def test_the_manifest_holds_inputs_config_and_packages(tmp_path: Path) -> None:
    first = _writer(tmp_path, name="first").finish({"tiles": 3}, [])
    second = _writer(tmp_path, {"tiles": first, "encoder": "seed:0"}, name="second").finish({}, [])
    manifest = json.loads((second.path / "manifest.json").read_bytes())
    assert manifest["inputs"] == {"tiles": f"tile/first-{first.manifest.fingerprint}", "encoder": "seed:0"}
    assert manifest["config"] == {"name": "second", "slides": "slides.csv", "side": 112.0}
    assert {"raystp", "ray", "torch"} <= manifest["packages"].keys()
    assert open_artifact(second.path, "tile") == second


def test_notes_hold_no_secret_and_lead_to_artifacts_where_the_store_is_now(tmp_path: Path) -> None:
    tiles = _writer(tmp_path / "store").finish({}, [])
    uri = "s3://key:canary@bucket/model?endpoint=http://127.0.0.1:9"
    own, other = (note_of(tiles, StoragePath.of(tmp_path / name)) for name in ("store", "elsewhere"))
    sentence, plain = f"'A' ({uri}) was replaced", "'B' (s3://bucket/b@2.svs) was not"
    notes = {"tiles": own, "encoder": {"trained": uri, "layers": [uri]}, "failed": [sentence, plain]}
    made = _writer(tmp_path / "store", name="embedded").finish({}, [], notes)
    assert b"canary" not in (made.path / "manifest.json").read_bytes()
    assert made.manifest.notes["encoder"]["trained"] == uri.replace("key:canary@", "")
    assert made.manifest.notes["failed"] == [sentence.replace("key:canary@", ""), plain]
    (tmp_path / "store").rename(tmp_path / "moved")
    moved = open_artifact(StoragePath.of(tmp_path / "moved" / made.manifest.folder), "tile")
    assert open_artifact(moved.noted(own), "tile").manifest == tiles.manifest
    assert (own, other) == (tiles.manifest.folder, tiles.path.uri)
    assert moved.noted(other) == tiles.path


def test_equal_work_has_the_same_path_and_is_not_repeated(tmp_path: Path) -> None:
    finished = _writer(tmp_path).finish({}, [])
    for same in (_config(tmp_path), _config(tmp_path, slides="/moved/slides.csv")):
        assert create_or_open(same, "tile", {}) == finished
    assert _writer(tmp_path, side=113.0).path != finished.path
    assert _writer(tmp_path, {"slides": "other content"}).path != finished.path


def test_another_name_or_store_gives_another_folder_with_the_same_fingerprint(tmp_path: Path) -> None:
    here, there = _writer(tmp_path / "a", name="x"), _writer(tmp_path / "b", name="y")
    assert here.fingerprint == there.fingerprint
    assert here.path != there.path


def test_an_input_counts_by_its_fingerprint_not_by_its_name(tmp_path: Path) -> None:
    one, same = (_writer(tmp_path, name=name).finish({}, []) for name in ("one", "same"))
    other = _writer(tmp_path, side=4.0).finish({}, [])
    fingerprints = [_writer(tmp_path, {"tiles": artifact}, side=5.0).fingerprint for artifact in (one, same, other)]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


@given(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3) | st.booleans(), max_size=4))
def test_a_fingerprint_does_not_depend_on_the_order_of_keys(what: dict[str, Any]) -> None:
    backwards = dict(reversed(what.items()))
    assert fingerprint("tile", what, {}) == fingerprint("tile", backwards, {})
    assert digest_of(what) == digest_of(backwards)


def test_a_fingerprint_covers_step_config_inputs_and_schema_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def fingerprints() -> list[str]:
        return [
            fingerprint("tile", {"a": 1}, {}),
            fingerprint("embed", {"a": 1}, {}),
            fingerprint("tile", {"a": 2}, {}),
            fingerprint("tile", {}, {"a": "1"}),
        ]

    before = fingerprints()
    monkeypatch.setattr(artifacts, "SCHEMA_VERSION", 2)
    assert len({*before, *fingerprints()}) == 8


def test_weights_count_by_their_digest_not_by_their_path(tmp_path: Path) -> None:
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    specs = [EncoderSpec("timm:resnet18", str(tmp_path / f"{name}.safetensors")) for name in "abc"]
    fingerprints = [identity(spec) for spec in specs]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
    with pytest.raises(EncoderError, match=r"has sha256 \w{64}, expected 0{64}"):
        identity(EncoderSpec("timm:resnet18", specs[0].weights, "0" * 64))


def test_a_name_refers_to_the_newest_finished_artifact(tmp_path: Path) -> None:
    first = _writer(tmp_path, side=1.0).finish({}, [])
    second = _writer(tmp_path, side=2.0).finish({}, [])
    _writer(tmp_path, side=3.0).path.local_path.mkdir()
    assert resolve(str(tmp_path), "tile/default", "tile") == second
    _alter(first, created="2999-01-01T00:00:00+00:00")
    assert resolve(str(tmp_path), "tile/default", "tile").path == first.path


def test_a_fingerprint_a_path_or_a_uri_refers_to_one_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _writer(tmp_path, side=1.0).finish({}, [])
    _writer(tmp_path, side=2.0).finish({}, [])
    monkeypatch.chdir(tmp_path.parent)
    for reference in (
        first.manifest.folder,
        first.path.uri,
        f"file://{first.path.uri}",
        f"{tmp_path.name}/{first.manifest.folder}",
    ):
        assert resolve(str(tmp_path), reference, "tile") == first


def test_a_prefix_of_a_name_finds_nothing(tmp_path: Path) -> None:
    _writer(tmp_path, name="a-b").finish({}, [])
    _writer(tmp_path, name="c").finish({}, [])
    with pytest.raises(
        ArtifactError, match=r"no artifact 'tile/a' in \S+: the 'tile' step has the artifacts a-b, c; run `ray"
    ):
        resolve(str(tmp_path), "tile/a", "tile")
    with pytest.raises(ArtifactError, match=r"no artifact 'embed/a' .*the 'embed' step has no artifact there; run `ra"):
        resolve(str(tmp_path), "embed/a", "embed")


def test_an_artifact_of_another_step_is_refused(tmp_path: Path) -> None:
    path = _writer(tmp_path).finish({}, []).path
    with pytest.raises(ArtifactError, match=f"{path} is an artifact of the 'tile' step; give one of the 'embed' step"):
        resolve(str(tmp_path), path.uri, "embed")
    with pytest.raises(
        ArtifactError,
        match="tile/default is an artifact of the 'tile' step; give one of the 'embed' step, embed/<name>",
    ):
        resolve(str(tmp_path), "tile/default", "embed")


def test_an_artifact_of_another_schema_version_is_refused(tmp_path: Path) -> None:
    finished = _writer(tmp_path).finish({}, [])
    _alter(finished, schema_version=2, news="a field that this raystp does not know")
    refusal = r"has schema version 2, and this raystp reads version 1: run `raystp tile` again with this version"
    with pytest.raises(ArtifactError, match=refusal):
        resolve(str(tmp_path), "tile/default", "tile")
    with pytest.raises(ArtifactError, match=refusal):
        create_or_open(_config(tmp_path), "tile", {})


def test_an_artifact_of_another_schema_version_does_not_hide_a_newer_one(tmp_path: Path) -> None:
    old = _writer(tmp_path, side=1.0).finish({}, [])
    _alter(old, schema_version=2, created="2999-01-01T00:00:00+00:00")
    again = _writer(tmp_path, side=2.0).finish({}, [])
    assert resolve(str(tmp_path), "tile/default", "tile") == again


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"{}", b"\xff", b'{"schema_version": 1, "step": "tile"}'])
def test_a_damaged_manifest_is_refused_even_if_an_older_artifact_is_valid(tmp_path: Path, content: bytes) -> None:
    _writer(tmp_path, side=1.0).finish({}, [])
    newest = _writer(tmp_path, side=2.0).finish({}, [])
    (newest.path / "manifest.json").write_bytes(content)
    with pytest.raises(
        ArtifactError, match=r"manifest.json is not a manifest \(.*\): the file is damaged or was changed"
    ):
        resolve(str(tmp_path), "tile/default", "tile")


def test_a_table_of_another_version_is_refused(tmp_path: Path) -> None:
    writer = _writer(tmp_path)
    metadata = {**tables.TILES.metadata, tables.VERSION: b"2"}
    (writer.path / "tiles.parquet").write_table(TILES.replace_schema_metadata(metadata))
    with pytest.raises(
        ArtifactError, match=r"tiles.parquet is table 'tiles' version 2, and this raystp reads table 'til"
    ):
        writer.finish({}, []).table("tiles.parquet", tables.TILES)


def test_a_store_that_is_not_writable_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        StorageError, match=r"the store \S+/file/store is not writable: Not a directory; choose another"
    ):
        create_or_open(_config(tmp_path / "file" / "store"), "tile", {})


def test_infinity_is_refused_in_a_fingerprint() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint("tile", {"side": np.inf}, {})


def test_an_input_that_lacks_fewer_tiles_of_a_slide_has_another_fingerprint(tmp_path: Path) -> None:
    writer = ArtifactWriter(StoragePath.of(tmp_path) / "embed" / "a-0", "embed", "a", "0", {}, {})
    rows: list[dict[str, object]] = [{"slide": "S", "stage": "embed", "reason": f"tile {n}: damaged"} for n in range(3)]
    folders = {
        str(create_or_open(_config(tmp_path), "x", {"embeddings": writer.finish({}, rows[:count])}).path)
        for count in (0, 1, 3)
    }
    assert len(folders) == 3
