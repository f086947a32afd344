"""`raystp import` and `raystp export`: features of another tool become artifacts as `tile` and `embed` write them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from raystp import tables
from raystp.artifacts import Artifact, resolve
from raystp.cluster.session import session
from raystp.errors import ConfigError, FormatError
from raystp.expression.embeddings.read import read_embeddings
from raystp.steps.imports import step as imports
from raystp.steps.imports import work
from raystp.steps.imports.config import ImportConfig
from tests.interop.features.trident_maker import GRID, Maker, tissue


@pytest.fixture(autouse=True)
def _tasks_as_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the tasks in this process: Ray's own part is tested with the other steps."""
    monkeypatch.setattr(imports, "map_tasks", lambda function, items, **_: enumerate(map(function, items)))
    monkeypatch.setattr(imports, "session", lambda _: __import__("contextlib").nullcontext())


def _import(folder: Path, job: Path, **fields: Any) -> Artifact:
    config = ImportConfig.of({"format": "trident", "path": str(job), "run": {"store": str(folder / "store")}, **fields})
    imported = imports.run(config)
    assert isinstance(imported, Artifact)
    return imported


def _table(folder: Path, mpp: Mapping[str, float]) -> str:
    rows = [f"{slide},{slide}.svs,P-{slide},{value}" for slide, value in mpp.items()]
    (folder / "slides.csv").write_text("\n".join(["slide,path,patient,mpp", *rows]))
    return str(folder / "slides.csv")


def test_the_artifacts_are_those_of_tile_and_embed(tmp_path: Path) -> None:
    tissue(tmp_path / "job")
    job, table = Maker(tmp_path / "job").write(), _table(tmp_path, {"S1": 0.25})
    embed = _import(tmp_path, job, slides=table, name="x")
    tiles = resolve(str(tmp_path / "store"), "tile/x", "tile")
    read = read_embeddings(embed, "S1")
    np.testing.assert_array_equal(tables.matrix(read["vector"]), Maker(tmp_path).vectors)
    assert read["x"].to_pylist() == [0, 512, 1024, 0, 512, 1024]
    assert read["tile"].to_pylist() == list(range(6))
    assert embed.manifest.notes["encoder"]["name"] == "imported:trident:uni_v1"
    assert embed.manifest.notes["patients"] == {"S1": "P-S1"}
    assert (embed.manifest.notes["side"], embed.manifest.notes["pixels"]) == (128.0, 256)
    (slide,) = tiles.table("slides.parquet", tables.SLIDES).to_pylist()
    assert (slide["mpp"], slide["mpp_from"], slide["width"], slide["tiles"]) == (0.25, "table", 4000, 6)
    assert (tiles.path / "masks" / "S1.geojson").exists()
    assert (tiles.path / "thumbnails" / "S1.png").exists()
    assert json.loads((tiles.path / "source" / "S1.json").read_bytes())["attributes"]["level0_magnification"] == 40
    assert embed.manifest.inputs["tiles"] == tiles.manifest.folder


def test_um_per_px_is_never_guessed(tmp_path: Path) -> None:
    for slide in ("S1", "S2", "S3", "S4", "S5"):
        Maker(tmp_path / "job", slide=slide).write()
    with pytest.raises(ConfigError, match=r"TRIDENT features carry no um/px.*missing for 'S1', 'S2' and 3 more"):
        _import(tmp_path, tmp_path / "job")
    (tmp_path / "slides.csv").write_text("slide,path\nS1,S1.svs\n")
    with pytest.raises(ConfigError, match="missing for 'S1'"):
        _import(tmp_path, tmp_path / "job", slides=str(tmp_path / "slides.csv"))


def test_sides_in_um_are_those_of_the_scanners_and_too_different_ones_are_refused(tmp_path: Path) -> None:
    for slide in ("S1", "S2", "S3"):
        Maker(tmp_path / "job", slide=slide).write()
    job = tmp_path / "job"
    _import(tmp_path, job, slides=_table(tmp_path, {"S1": 0.25, "S2": 0.265, "S3": 0.265}), name="two")
    tiles = resolve(str(tmp_path / "store"), "tile/two", "tile")
    assert tiles.manifest.notes["sides"] == {"128.0": 1, "135.7": 2}
    table = _table(tmp_path, {"S1": 0.25, "S2": 0.5, "S3": 0.25})
    with pytest.raises(ConfigError, match=r"128.0 um on 2, 256.0 um on 1.*mixed_sides=true"):
        _import(tmp_path, job, slides=table)
    assert _import(tmp_path, job, slides=table, mixed_sides=True).manifest.rows["slides"] == 3


def test_a_slide_that_fails_is_a_row_and_the_others_are_imported(tmp_path: Path) -> None:
    job = Maker(tmp_path / "job").write()
    Maker(job, slide="S2", vectors=np.full((6, 4), np.nan, np.float32)).write()
    Maker(job, slide="S3", vectors=np.ones((6, 8), np.float32)).write()
    Maker(job, slide="S4", corners=np.empty((0, 2), int), vectors=np.empty((0, 4), np.float32)).write()
    Maker(job, slide="S5").write()
    embed = _import(tmp_path, job, slides=_table(tmp_path, {f"S{n}": 0.25 for n in range(1, 6)}))
    assert list(embed.manifest.notes["units"]) == ["S1", "S5"]
    reasons = {row["slide"]: row["reason"] for row in embed.failures().to_pylist()}
    assert "NaN or infinity in 6 of 6 vectors" in reasons["S2"]
    assert "its vectors have 8 values of float32, those of most slides 4" in reasons["S3"]
    assert "the tool found no tissue" in reasons["S4"]


def test_coordinates_outside_the_slide_are_of_another_slide(tmp_path: Path) -> None:
    maker = Maker(tmp_path / "job")
    maker.attributes["level0_width"] = 400
    embed = _import(tmp_path, maker.write(), slides=_table(tmp_path, {"S1": 0.25}))
    (row,) = embed.failures().to_pylist()
    assert "4 of 6 tiles lie outside the slide of 400 x 3000 px, the first at x 512, y 0" in row["reason"]


def test_an_interrupted_import_leaves_no_artifact_and_continues_to_the_same_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slide in ("S1", "S2", "S3"):
        Maker(tmp_path / "job", slide=slide).write()
    table, job = _table(tmp_path, {"S1": 0.25, "S2": 0.25, "S3": 0.25}), tmp_path / "job"
    whole = _import(tmp_path / "whole", job, slides=table)

    def interrupted(function: Any, items: Any, **_: Any) -> Any:
        yield 0, function(items[0])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(imports, "map_tasks", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _import(tmp_path, job, slides=table)
    assert not list((tmp_path / "store").glob("*/*/manifest.json"))
    read, original = list[str](), work._import

    def counted(task: work.ImportTask) -> work.ImportedSlide:
        read.append(task.source.slide)
        return original(task)

    monkeypatch.setattr(work, "_import", counted)
    again = _import(tmp_path, job, slides=table)
    assert read == ["S2", "S3"]
    assert again.manifest.fingerprint == whole.manifest.fingerprint
    for one in ("S1", "S2", "S3"):
        assert read_embeddings(again, one).equals(read_embeddings(whole, one))


def test_a_changed_file_is_other_work(tmp_path: Path) -> None:
    maker, table = Maker(tmp_path / "job"), _table(tmp_path, {"S1": 0.25})
    first = _import(tmp_path, maker.write(), slides=table)
    assert _import(tmp_path, maker.job, slides=table).manifest.created == first.manifest.created
    with h5py.File(maker.features, "a") as file:
        file["features"][0, 0] = 7
    second = _import(tmp_path, maker.job, slides=table)
    assert second.manifest.fingerprint != first.manifest.fingerprint
    assert tables.matrix(read_embeddings(second, "S1")["vector"])[0, 0] == 7


def test_the_table_and_the_folder_must_share_slides(tmp_path: Path) -> None:
    job = Maker(tmp_path / "job").write()
    with pytest.raises(
        ConfigError, match=r"none of the 1 slides has files in .*the table has 'other', the folder 'S1'"
    ):
        _import(tmp_path, job, slides=_table(tmp_path, {"other": 0.25}))
    (tmp_path / "slides.csv").write_text("slide,path,mpp\nmine,scans/S1.svs,0.25\n")
    assert list(_import(tmp_path, job, slides=str(tmp_path / "slides.csv")).manifest.notes["units"]) == ["mine"]
    Maker(tmp_path / "job", slide="S2").write()
    (tmp_path / "slides.csv").write_text("slide,path,mpp\nS1,scans/S2.svs,0.25\nS2,scans/S1.svs,0.25\n")
    with pytest.raises(ConfigError, match=r"files named 'S1', the slide's id, and files named 'S2', its file's name"):
        _import(tmp_path, job, slides=str(tmp_path / "slides.csv"))


def test_an_encoder_of_raystp_is_claimed_only_where_its_dimension_fits(tmp_path: Path) -> None:
    job, table = Maker(tmp_path / "job").write(), _table(tmp_path, {"S1": 0.25})
    with pytest.raises(FormatError, match="uni_v2: it has 1536 values a tile, and these vectors have 4"):
        _import(tmp_path, job, slides=table, encoder="uni_v2")
    named: dict[str, Any] = {"encoder": "uni_v2", "own": {"encoder": "uni_v2"}}
    wide = Maker(tmp_path / "wide", vectors=np.ones((6, 1536), np.float16), **named).write()
    embed = _import(tmp_path, wide, slides=table, encoder="uni_v2")
    assert embed.manifest.notes["encoder"]["name"] == "uni_v2"
    assert embed.manifest.notes["encoder_identity"] == "imported:trident:uni_v2"  # nobody has compared them
    assert embed.manifest.notes["precision"] == "float16"


def test_files_that_name_another_encoder_than_their_folder_are_said_and_are_not_claimed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    named: dict[str, Any] = {"encoder": "gigapath", "own": {"encoder": "hoptimus0"}}
    job = Maker(tmp_path / "job", vectors=np.ones((6, 1536), np.float16), **named).write()
    table = _table(tmp_path, {"S1": 0.25})
    with caplog.at_level("WARNING", logger="raystp"):
        _import(tmp_path, job, slides=table)
    assert "the files name the encoder 'hoptimus0'; by their folder or encoder_name it is 'gigapath'" in caplog.text
    with pytest.raises(FormatError, match="encoder=gigapath: trident's 'hoptimus0' of 1536 values is raystp's 'hopt"):
        _import(tmp_path, job, slides=table, encoder="gigapath")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": "absent"}, "does not exist; give the folder that TRIDENT"),
        ({"format": "tridnet"}, "unknown format 'tridnet'"),
        ({"weights": "w.pt"}, "weights of `encoder`, which is not set"),
        ({"spots": "spots/a"}, "set `slides`"),
        ({"side_px": 1, "side_um": 1}, "set one of them"),
    ],
)
def test_wrong_fields_have_a_sentence(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    (tmp_path / GRID).mkdir()
    with pytest.raises(ConfigError, match=message):
        _import(tmp_path, tmp_path, **fields)


@pytest.mark.ray
@pytest.mark.slow
def test_what_is_exported_and_imported_again_is_the_same(smoke_store: Path, tmp_path: Path) -> None:
    from raystp.cli import main  # noqa: PLC0415 -- the command as it is

    store, out = ["--run.store", str(smoke_store)], str(tmp_path / "out")
    with session():
        assert main(["export", "trident", "embed/smoke", "-o", out, *store]) == 0
        given = ["--slides", "demo/smoke", "--spots", "spots/smoke", "--encoder", "tiny", "--name", "again"]
        main(["import", "trident", out, *given, *store])
    own, again = (resolve(str(smoke_store), f"embed/{name}", "embed") for name in ("smoke", "again"))
    measured = [slide for slide in own.manifest.notes["units"] if slide in again.manifest.notes["units"]]
    assert len(measured) >= 3
    for slide in measured:
        # One tile of a damaged slide is lost, so the later ones have other numbers.
        assert read_embeddings(again, slide).drop("tile").equals(read_embeddings(own, slide).drop("tile"))
    assert again.manifest.notes["encoder_identity"] == own.manifest.notes["encoder_identity"]  # verified
    assert min(again.manifest.notes["imported"]["cosines"]) >= 0.999
