"""Paths: written whole or not at all, on this machine and in an object store, and printed without secrets."""

import os
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from raystp import tables
from raystp.artifacts import Artifact, create_or_open, resolve
from raystp.config import RunConfig
from raystp.errors import ArtifactError, StorageError
from raystp.expression.schema import SectionInfo, SpotPositions, make_section, read_section, write_section
from raystp.index.open import open_reference_index
from raystp.index.reference import ReferenceRows
from raystp.index.write import write_reference_index
from raystp.models.baselines.gene_mean import fit_gene_mean
from raystp.models.store import load_model, save_model
from raystp.slides.inputs.survey import read_headers
from raystp.slides.table import read_slide_table
from raystp.steps.spots.config import SpotsConfig
from raystp.storage import StoragePath, is_safe_name
from tests.slides.conftest import write_pyramid
from tests.storage.conftest import CANARY


def test_a_written_file_is_read_listed_and_removed(folder: StoragePath) -> None:
    file = folder / "deep" / "er" / "word.txt"
    file.write_bytes(b"old")
    file.write_bytes(b"new")
    (folder / "other.txt").write_bytes(b"")
    assert (file.read_bytes(), file.size(), file.exists(), file.is_folder()) == (b"new", 3, True, False)
    assert (folder.names(), (folder / "deep").names()) == (["deep", "other.txt"], ["er"])
    assert (folder / "deep").is_folder()
    with file.open() as stream:
        stream.seek(1)
        assert stream.read() == b"ew"
    with file.local() as path:
        assert path.read_bytes() == b"new"
    (folder / "deep").remove()
    (folder / "other.txt").remove()
    (folder / "never.was").remove()
    assert (folder.names(), file.exists()) == ([], False)


def test_a_table_is_read_back_with_its_label(folder: StoragePath) -> None:
    rows: list[dict[str, object]] = [{"slide": "A", "stage": "tile", "reason": "none"}]
    table = tables.of_rows(rows, tables.FAILURES)
    file = folder / "failures.parquet"
    file.write_table(table)
    tables.check(file.read_schema(), tables.FAILURES, str(file))
    assert file.read_table().equals(table)
    assert file.read_table(["reason"]).column_names == ["reason"]


def test_a_column_that_a_table_does_not_have_is_an_error_with_those_that_it_has(folder: StoragePath) -> None:
    path = folder / "rows.parquet"
    path.write_table(pa.table({"tile": [3], "x": [1.5]}))
    assert path.read_table(["x"]).column_names == ["x"]
    with pytest.raises(StorageError, match=r"rows\.parquet: it has no column 'y'; its columns are 'tile', 'x'$"):
        path.read_table(["tile", "y"])


def test_a_failed_write_keeps_the_old_content_and_leaves_no_other_file(folder: StoragePath) -> None:
    file = folder / "model.bin"
    file.write_bytes(b"old")

    def half(path: Path) -> None:
        path.write_bytes(b"ne")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        file.write_file(half)
    assert (file.read_bytes(), folder.names()) == (b"old", ["model.bin"])
    if folder.is_local:
        assert os.listdir(folder.local_path) == ["model.bin"]  # noqa: PTH208 -- names() leaves out what is being written


def test_a_writer_gets_a_path_with_the_final_ending(folder: StoragePath) -> None:
    seen: list[str] = []

    def write(path: Path) -> None:
        seen.append(path.suffix)
        path.write_bytes(b"x")

    (folder / "index.faiss").write_file(write)
    assert seen == [".faiss"]


def test_a_file_being_written_is_not_listed(tmp_path: Path) -> None:
    remote = StoragePath.of(tmp_path)

    def write(path: Path) -> None:
        path.write_bytes(b"half")
        assert remote.names() == []

    (remote / "whole").write_file(write)
    assert remote.names() == ["whole"]


@pytest.mark.parametrize("what", ["open", "read_bytes", "size", "read_table", "read_schema"])
def test_an_absent_file_is_an_error_with_its_path(folder: StoragePath, what: str) -> None:
    with pytest.raises(StorageError, match=f"{(folder / 'none').name}"):
        getattr(folder / "none", what)()
    assert (folder / "none").names() == []


def test_a_file_that_is_not_a_table_is_an_error_with_its_path(folder: StoragePath) -> None:
    (folder / "tiles.parquet").write_bytes(b"not a table")
    for read in (StoragePath.read_table, StoragePath.read_schema):
        with pytest.raises(StorageError, match=r"cannot read .*/tiles.parquet: "):
            read(folder / "tiles.parquet")


def test_a_store_below_a_plain_file_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    store = StoragePath.of(tmp_path / "file" / "store")
    with pytest.raises(StorageError) as caught:
        store.check_writable()
    message = f"the store {store} is not writable: Not a directory; choose another one with --set run.store=..."
    assert str(caught.value) == message
    with pytest.raises(StorageError, match=f"cannot write {store / 'a'}: Not a directory"):
        (store / "a").write_bytes(b"")


def test_a_store_in_an_absent_bucket_is_not_writable(bucket: StoragePath) -> None:
    store = StoragePath.of(bucket.uri.replace("//bucket/", "//none/"))
    with pytest.raises(
        StorageError, match=r"the store s3://none/\S* is not writable: not found .404 NoSuchBucket"
    ) as caught:
        store.check_writable()
    assert "endpoint" not in str(caught.value)


def test_the_check_whether_a_store_is_writable_leaves_no_file(folder: StoragePath) -> None:
    folder.check_writable()
    assert folder.names() == []


@pytest.mark.parametrize("name", ["A1", "patient-3.section_2", "a" * 128, "...a", "-"])
def test_a_safe_name_has_letters_digits_and_a_few_signs(name: str) -> None:
    assert is_safe_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a b", "ä", "a\n", "a" * 129, "a?b", "a:b", ".aside-1"])
def test_a_name_that_leaves_its_folder_or_is_hidden_is_not_safe(name: str) -> None:
    assert not is_safe_name(name)


def test_a_path_becomes_absolute_and_a_uri_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert StoragePath.of("store").uri == StoragePath.of(f"file://{tmp_path}/store").uri == str(tmp_path / "store")
    assert StoragePath.of("~/store").uri == str(Path.home() / "store")
    assert StoragePath.of("s3://b/k?region=x").uri == "s3://b/k?region=x"


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket?region=eu", "gs://bucket/", "/"])
def test_a_bucket_and_the_root_are_their_own_parents(uri: str) -> None:
    assert StoragePath.of(uri).parent == StoragePath.of(uri)
    assert (StoragePath.of(uri) / "a").parent.uri in {uri, uri.rstrip("/")}


@pytest.mark.parametrize("uri", ["/data/store", "/data/what?", "s3://b/k", "s3://b/k?region=x&scheme=http"])
def test_name_and_parent_are_inverse_to_joining(uri: str) -> None:
    remote = StoragePath.of(uri)
    assert ((remote / "a.b").name, (remote / "a.b").parent) == ("a.b", remote)


def test_a_question_mark_in_a_local_path_is_part_of_it(tmp_path: Path) -> None:
    (StoragePath.of(tmp_path / "what?") / "a").write_bytes(b"x")
    assert (tmp_path / "what?" / "a").read_bytes() == b"x"


def test_a_remote_path_has_no_local_path() -> None:
    with pytest.raises(StorageError, match="s3://b/k is in an object store; give a path on this machine"):
        _ = StoragePath.of("s3://b/k").local_path


SECRET = [
    f"s3://b/k?endpoint_override=h&secret={CANARY}",
    f"s3://key:{CANARY}@b/k?secret={CANARY}",
    f"ftp://b/k?{CANARY}",
    f"s3://b/k k?{CANARY}",
]
"""None of them can be opened, so each is an error."""


@pytest.mark.parametrize("uri", SECRET)
def test_a_path_is_never_printed_with_its_secret(uri: str) -> None:
    remote = StoragePath.of(uri) / "file"
    assert CANARY in remote.uri
    assert CANARY not in f"{remote} {remote!r} {remote.name} {remote.parent}"
    with pytest.raises(StorageError) as caught:
        remote.read_bytes()
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("uri", [*SECRET[:2], f"s3://b/k?{CANARY}"])
def test_a_manifest_never_holds_a_secret(tmp_path: Path, uri: str) -> None:
    config = SpotsConfig(slides=uri, root=uri, run=RunConfig(store=str(tmp_path)))
    writer = create_or_open(config, "spots", {})
    assert not isinstance(writer, Artifact)
    manifest = writer.finish({}, []).path / "manifest.json"
    assert CANARY not in manifest.read_bytes().decode()
    assert "b/k" in manifest.read_bytes().decode()


def test_artifacts_work_in_an_object_store_as_in_a_folder(bucket: StoragePath) -> None:
    config = SpotsConfig(slides="slides.csv", name="proxied", run=RunConfig(store=bucket.uri))
    with pytest.raises(
        ArtifactError, match=r"no artifact 'spots/proxied' in s3://bucket/\S*: the 'spots' step has no artifact there"
    ):
        resolve(bucket.uri, "spots/proxied", "spots")
    writer = create_or_open(config, "spots", {"sections": "abc"})
    assert not isinstance(writer, Artifact)
    with pytest.raises(ArtifactError, match="no artifact 'spots/proxied'"):
        resolve(bucket.uri, "spots/proxied", "spots")  # a folder without files does not exist there
    (writer.path / "slides.parquet").write_table(tables.SLIDES.empty_table())
    with pytest.raises(ArtifactError, match=r"has no manifest.json: the step has not finished"):
        resolve(bucket.uri, "spots/proxied", "spots")
    finished = writer.finish({"slides": 0}, [{"slide": "A", "stage": "spots", "reason": "none"}])
    found = resolve(bucket.uri, "spots/proxied", "spots")
    assert found == finished == create_or_open(config, "spots", {"sections": "abc"})
    assert resolve(bucket.uri, found.path.uri, "spots") == finished
    assert found.table("slides.parquet", tables.SLIDES).num_rows == 0
    assert found.failures()["slide"].to_pylist() == ["A"]
    found.path.remove()
    assert not found.path.exists()


def test_paths_of_a_slide_table_in_an_object_store_start_at_its_folder(bucket: StoragePath) -> None:
    (bucket / "slides.csv").write_bytes(b"slide,path,patient\nA,slides/A.svs,P\n")
    (row,) = read_slide_table((bucket / "slides.csv").uri, None, "store")
    assert row.path == bucket / "slides" / "A.svs"


@pytest.fixture
def pyramid_file(tmp_path: Path) -> Path:
    return write_pyramid(tmp_path / "p.tif", np.zeros((300, 500, 3), np.uint8))


def test_files_are_listed_to_any_depth(folder: StoragePath) -> None:
    assert (folder / "none").files() == []
    for name in ("b", "a/c d", "a/e/f#g"):
        path = folder / "x" / (name if folder.is_local else quote(name))
        path.write_bytes(b"1")
    assert (folder / "x").files() == ["a/c d", "a/e/f#g", "b"]


def test_an_object_that_stands_for_a_folder_is_no_file(bucket: StoragePath) -> None:
    folder = bucket / "x"
    for name in ("a/b/file", "a/empty"):
        (folder / name).write_bytes(b"1" if name == "a/b/file" else b"")
    arguments = folder.for_ray()
    for name in ("", "/a", "/a/b", "/a/none"):
        arguments["storage_filesystem"].create_dir(f"{arguments['storage_path']}{name}")
    assert folder.files() == ["a/b/file", "a/empty"]
    assert (folder / "a").files() == ["b/file", "empty"]
    assert folder.names() == ["a"]
    assert (folder / "a").names() == ["b", "empty", "none"]
    assert (folder / "a" / "none").files() == (folder / "a" / "none").names() == []


def test_slides_below_a_prefix_and_of_a_glob_are_opened_by_their_headers(
    bucket: StoragePath, pyramid_file: Path
) -> None:
    for name in ("s/a 1.tif", "s/t/b.tif", "s/t/notes.txt"):
        (bucket / quote(name)).write_bytes(pyramid_file.read_bytes())
    rows = read_slide_table((bucket / "s").uri, None, "/none")
    assert [row.slide for row in rows] == ["a_1", "b"]
    assert {one.width for one in read_headers(rows, threads=2)} == {500}
    address, mark, query = bucket.uri.partition("?")
    (row,) = read_slide_table(f"{address}/s/*/*.tif{mark}{query}", None, "/none")
    assert (row.slide, row.path) == ("b", bucket / "s/t/b.tif")


def test_ray_writes_to_the_folder(folder: StoragePath) -> None:
    arguments = folder.for_ray()
    fs = arguments.get("storage_filesystem", pafs.LocalFileSystem())
    with fs.open_output_stream(f"{arguments['storage_path']}/checkpoint") as file:
        file.write(pa.py_buffer(b"x"))
    assert (folder / "checkpoint").read_bytes() == b"x"


def test_sections_models_and_indexes_are_read_back_from_either(folder: StoragePath) -> None:
    expression = np.arange(6, dtype=np.float32).reshape(2, 3)
    at, genes, names = np.arange(2.0), ["A", "B", "C"], ["s0", "s1"]
    about = SectionInfo("S", "P", "S", mpp=0.5, spot_diameter_um=55.0, pitch_um=100.0, layout="toy")
    section = make_section(expression + 1, genes, SpotPositions(names, np.stack([at, at], axis=1), at, at), about)
    write_section(folder / "S.h5ad", section)
    np.testing.assert_array_equal(read_section(folder / "S.h5ad").X.toarray(), expression + 1)
    save_model(folder / "model", "gene_mean", fit_gene_mean(expression), {"genes": genes, "d_image": 2})
    assert load_model(folder / "model")[0] == "gene_mean"
    reference = ReferenceRows(expression[:, :2], expression, genes, ["S", "S"], names, ["P", "P"])
    described = write_reference_index(folder / "index", reference, shards=2, metric="l2")
    index = open_reference_index(folder / "index", described)
    np.testing.assert_array_equal(index.expression(np.array([1, 0])), expression[::-1])


NAMES = [
    "a%41b",
    "100%",
    "a?b=c",
    "a#b",
    " a b ",
    "ä ö'\"",
    "a&b;c",
    "[a]*",
    "~x",
    "$HOME",
    "a:b",
    "-x",
    "e\u0301",
    "x\\y",
]
"""Names that mean something else in a URI, a shell or a glob."""


@pytest.mark.parametrize("name", NAMES)
def test_a_local_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    folder = StoragePath.of(tmp_path / name)
    file = folder / f"{name}.bin"
    assert not folder.exists()
    assert file.write_new(b"abc")
    assert not file.write_new(b"xyz")
    table = pa.table({"x": [1]})
    (folder / "t.parquet").write_table(table)
    assert (folder.names(), file.read_bytes(), file.size()) == (sorted([f"{name}.bin", "t.parquet"]), b"abc", 3)
    assert (folder / "t.parquet").read_table().equals(table)
    assert (file.parent, file.name, file.read_range(1, 2, version=file.version())) == (folder, f"{name}.bin", b"bc")
    assert (tmp_path / name / f"{name}.bin").read_bytes() == b"abc"
    with file.local() as local:
        assert local.read_bytes() == b"abc"
    for uri in (file.local_path.as_uri(), file.local_path.as_uri().replace("file://", "FILE://localhost")):
        assert StoragePath.of(uri) == file
    assert StoragePath.of(str(file)) == file
    folder.remove()
    assert [one.name for one in tmp_path.iterdir()] == []


def test_the_home_folder_is_a_tilde_with_a_slash_and_no_other_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert StoragePath.of("~/a~b") == StoragePath(f"{tmp_path}/a~b")
    assert StoragePath.of("~nobody.tif") == StoragePath(f"{tmp_path}/~nobody.tif")


def test_a_scheme_in_capitals_is_the_same_store() -> None:
    assert StoragePath.of("S3://Bucket/Key?region=x") == StoragePath.of("s3://Bucket/Key?region=x")
