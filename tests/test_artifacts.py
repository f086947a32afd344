"""Artifacts: named by what is computed, finished by their manifest, and refused in a sentence where they are not."""

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from raystp import artifacts, tables
from raystp.artifacts import (
    Artifact,
    ArtifactWriter,
    content_id,
    create_or_open,
    digest,
    digest_of,
    fingerprint,
    open_artifact,
    resolve,
)
from raystp.config import RunConfig, StepConfig
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


def _draft(store: Path, inputs: dict[str, Artifact | str] | None = None, **fields: Any) -> ArtifactWriter:
    draft = create_or_open(_config(store, **fields), "tile", inputs or {})
    assert isinstance(draft, ArtifactWriter)
    return draft


def _alter(artifact: Artifact, **changes: Any) -> None:
    file = artifact.path.local_path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_an_artifact_exists_from_its_manifest_on(tmp_path: Path) -> None:
    draft = _draft(tmp_path, name="her2")
    (draft.path / "tiles.parquet").write_table(TILES)
    with pytest.raises(ArtifactError, match=r"her2-\w{12} has no manifest.json: the step has not finished there"):
        resolve(str(tmp_path), "tile/her2", "tile")
    assert isinstance(create_or_open(_config(tmp_path, name="her2"), "tile", {}), ArtifactWriter)
    finished = draft.finish({"tiles": 1}, FAILED, {"pixels": 224})
    assert resolve(str(tmp_path), "tile/her2", "tile") == finished
    assert finished.table("tiles.parquet", tables.TILES).equals(TILES)
    assert finished.path.local_path == tmp_path / "tile" / f"her2-{finished.manifest.fingerprint}"


def test_failures_are_a_table_by_slide_and_without_any_an_empty_one(tmp_path: Path) -> None:
    finished = _draft(tmp_path).finish({}, FAILED)
    assert (finished.manifest.failures, finished.failures()["slide"].to_pylist()) == (2, ["A", "B"])
    whole = _draft(tmp_path, side=4.0).finish({}, [])
    assert (whole.manifest.failures, whole.failures().num_rows) == (0, 0)
    assert whole.failures().schema.equals(finished.failures().schema)


def test_the_manifest_is_the_last_that_is_written(tmp_path: Path) -> None:
    draft = _draft(tmp_path)
    folder = draft.path / "failures.parquet"  # a folder is in the way of the failures table
    (folder / "x").write_bytes(b"")
    with pytest.raises(StorageError, match=r"failures\.parquet"):
        draft.finish({}, FAILED)
    assert not (draft.path / "manifest.json").exists()


def test_the_manifest_says_where_it_came_from(tmp_path: Path) -> None:
    first = _draft(tmp_path, name="first").finish({"tiles": 3}, [])
    second = _draft(tmp_path, {"tiles": first, "encoder": "seed:0"}, name="second").finish({}, [])
    said = json.loads((second.path / "manifest.json").read_bytes())
    assert said["inputs"] == {"tiles": f"tile/first-{first.manifest.fingerprint}", "encoder": "seed:0"}
    assert said["config"] == {"name": "second", "slides": "slides.csv", "side": 112.0}
    assert {"raystp", "ray", "torch"} <= said["packages"].keys()
    assert open_artifact(second.path, "tile") == second


def test_equal_work_lands_in_the_same_place_and_is_not_done_twice(tmp_path: Path) -> None:
    finished = _draft(tmp_path).finish({}, [])
    for same in (_config(tmp_path), _config(tmp_path, slides="/moved/slides.csv")):
        assert create_or_open(same, "tile", {}) == finished
    assert _draft(tmp_path, side=113.0).path != finished.path
    assert _draft(tmp_path, {"slides": "other content"}).path != finished.path


def test_another_name_or_store_makes_another_folder_of_the_same_fingerprint(tmp_path: Path) -> None:
    here, there = _draft(tmp_path / "a", name="x"), _draft(tmp_path / "b", name="y")
    assert here.fingerprint == there.fingerprint
    assert here.path != there.path


def test_an_input_counts_by_its_fingerprint_not_by_its_name(tmp_path: Path) -> None:
    one, same = (_draft(tmp_path, name=name).finish({}, []) for name in ("one", "same"))
    other = _draft(tmp_path, side=4.0).finish({}, [])
    marks = [_draft(tmp_path, {"tiles": artifact}, side=5.0).fingerprint for artifact in (one, same, other)]
    assert marks[0] == marks[1] != marks[2]


@given(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3) | st.booleans(), max_size=4))
def test_a_fingerprint_does_not_depend_on_the_order_of_keys(what: dict[str, Any]) -> None:
    backwards = dict(reversed(what.items()))
    assert fingerprint("tile", what, {}) == fingerprint("tile", backwards, {})
    assert digest_of(what) == digest_of(backwards)


def test_a_fingerprint_covers_step_config_inputs_and_schema_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def marks() -> list[str]:
        return [
            fingerprint("tile", {"a": 1}, {}),
            fingerprint("embed", {"a": 1}, {}),
            fingerprint("tile", {"a": 2}, {}),
            fingerprint("tile", {}, {"a": "1"}),
        ]

    before = marks()
    monkeypatch.setattr(artifacts, "SCHEMA_VERSION", 2)
    assert len({*before, *marks()}) == 8


def test_weights_count_by_their_digest_not_by_their_path(tmp_path: Path) -> None:
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    specs = [EncoderSpec("timm:resnet18", str(tmp_path / f"{name}.safetensors")) for name in "abc"]
    marks = [identity(spec) for spec in specs]
    assert marks[0] == marks[1] != marks[2]
    with pytest.raises(EncoderError, match=r"has sha256 \w{64}, but 0{64} was wanted"):
        identity(EncoderSpec("timm:resnet18", specs[0].weights, "0" * 64))


def test_a_name_means_the_newest_finished_one(tmp_path: Path) -> None:
    first = _draft(tmp_path, side=1.0).finish({}, [])
    second = _draft(tmp_path, side=2.0).finish({}, [])
    _draft(tmp_path, side=3.0).path.local_path.mkdir()
    assert resolve(str(tmp_path), "tile/default", "tile") == second
    _alter(first, created="2999-01-01T00:00:00+00:00")
    assert resolve(str(tmp_path), "tile/default", "tile").path == first.path


def test_one_is_named_exactly_by_fingerprint_by_path_or_by_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _draft(tmp_path, side=1.0).finish({}, [])
    _draft(tmp_path, side=2.0).finish({}, [])
    monkeypatch.chdir(tmp_path.parent)
    for reference in (
        first.manifest.folder,
        first.path.uri,
        f"file://{first.path.uri}",
        f"{tmp_path.name}/{first.manifest.folder}",
    ):
        assert resolve(str(tmp_path), reference, "tile") == first


def test_a_name_is_not_found_by_its_beginning(tmp_path: Path) -> None:
    _draft(tmp_path, name="a-b").finish({}, [])
    _draft(tmp_path, name="c").finish({}, [])
    with pytest.raises(
        ArtifactError, match=r"no artifact 'tile/a' in \S+: the 'tile' step left a-b, c there; run `ray"
    ):
        resolve(str(tmp_path), "tile/a", "tile")
    with pytest.raises(
        ArtifactError, match=r"no artifact 'embed/a' .*the 'embed' step has left nothing there; run `ra"
    ):
        resolve(str(tmp_path), "embed/a", "embed")


def test_an_artifact_of_another_step_is_refused(tmp_path: Path) -> None:
    place = _draft(tmp_path).finish({}, []).path
    with pytest.raises(
        ArtifactError, match=f"{place} was left by the 'tile' step, an artifact of the 'embed' step was"
    ):
        resolve(str(tmp_path), place.uri, "embed")
    with pytest.raises(ArtifactError, match=r"tile/default is not there \(one in the store is named embed/<name>\)"):
        resolve(str(tmp_path), "tile/default", "embed")


def test_an_artifact_of_another_schema_version_is_refused(tmp_path: Path) -> None:
    finished = _draft(tmp_path).finish({}, [])
    _alter(finished, schema_version=2, news="a field that this raystp does not know")
    said = (
        r"manifest.json is of schema version 2, this raystp reads version 1: run `raystp tile` again with this version"
    )
    with pytest.raises(ArtifactError, match=said):
        resolve(str(tmp_path), "tile/default", "tile")
    with pytest.raises(ArtifactError, match=said):
        create_or_open(_config(tmp_path), "tile", {})


def test_one_of_another_schema_version_does_not_hide_what_was_made_again(tmp_path: Path) -> None:
    old = _draft(tmp_path, side=1.0).finish({}, [])
    _alter(old, schema_version=2, created="2999-01-01T00:00:00+00:00")
    again = _draft(tmp_path, side=2.0).finish({}, [])
    assert resolve(str(tmp_path), "tile/default", "tile") == again


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"{}", b"\xff", b'{"schema_version": 1, "step": "tile"}'])
def test_a_damaged_manifest_is_refused_and_not_passed_over_for_an_older_one(tmp_path: Path, content: bytes) -> None:
    _draft(tmp_path, side=1.0).finish({}, [])
    newest = _draft(tmp_path, side=2.0).finish({}, [])
    (newest.path / "manifest.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"manifest.json is not a manifest \(.*\): a damaged or altered file"):
        resolve(str(tmp_path), "tile/default", "tile")


def test_a_table_of_another_version_is_refused_before_it_is_used(tmp_path: Path) -> None:
    draft = _draft(tmp_path)
    marks = {**tables.TILES.metadata, tables.VERSION: b"2"}
    (draft.path / "tiles.parquet").write_table(TILES.replace_schema_metadata(marks))
    with pytest.raises(
        ArtifactError, match=r"tiles.parquet holds table 'tiles' version 2, this raystp reads table 'til"
    ):
        draft.finish({}, []).table("tiles.parquet", tables.TILES)


def test_a_store_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        StorageError, match=r"nothing can be written under \S+/file/store: Not a directory; name another"
    ):
        create_or_open(_config(tmp_path / "file" / "store"), "tile", {})


def test_a_number_that_json_does_not_have_is_no_part_of_a_fingerprint() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint("tile", {"side": np.inf}, {})


def test_a_files_digest_is_that_of_its_whole_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    (tmp_path / "b").write_bytes(b"x" * 1_500_000 + b"y" + b"x" * 1_499_999)
    one, other = (digest(StoragePath.of(tmp_path / name)) for name in "ab")
    assert one != other
    assert content_id(StoragePath.of(tmp_path / "a")) == content_id(
        StoragePath.of(tmp_path / "b")
    )  # its documented blind spot


def test_a_content_id_changes_with_size_head_tail_and_names(tmp_path: Path) -> None:
    contents = {"a": b"1234567890", "b": b"12345678901", "c": b"x234567890", "d": b"123456789x", "e": b""}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    ids = {name: content_id(StoragePath.of(tmp_path / name), edge=3) for name in contents}
    whole = content_id(StoragePath.of(tmp_path), edge=3)
    assert len({*ids.values(), whole, content_id(StoragePath.of(tmp_path / "none"))}) == 7
    assert content_id(StoragePath.of(tmp_path / "none")) == "absent"
    (tmp_path / "a").rename(tmp_path / "A")
    assert content_id(StoragePath.of(tmp_path), edge=3) != whole
