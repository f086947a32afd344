"""inspect: what a thing is and what made it, back to slides and weights; nothing that is damaged is an exception."""

import gzip
import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pytest
import safetensors.numpy
import torch

from raystp import cli, tables
from raystp.artifacts import Artifact, ArtifactWriter
from raystp.cli.commands import STEPS
from raystp.errors import ConfigError, RaystpError
from raystp.impute.writer import TileTable, prediction_to_anndata, write_prediction
from raystp.steps.inspect.config import ARTIFACTS, InspectConfig
from raystp.steps.inspect.step import inspect_item
from raystp.storage import StoragePath
from raystp.units import Level0Pixels
from tests.interop.features.lazyslide_maker import LazySlide
from tests.interop.features.makers import AtlasPatch, Clam, Slide2vec, Stamp
from tests.slides.conftest import write_pyramid

SLIDES = {"S1": "11aa", "S2": "22bb"}


def _finish(store: StoragePath, step: str, inputs: dict[str, str]) -> Artifact:
    mark = "0123456789ab"
    return ArtifactWriter(store / step / f"toy-{mark}", step, "toy", mark, inputs, {}).finish({"rows": 2}, [])


@pytest.fixture
def chain(tmp_path: Path) -> StoragePath:
    """A store with tiles of two slides, their embeddings, a model and a prediction of S1."""
    store = StoragePath.of(tmp_path / "store")
    tiles = _finish(store, "tile", {"slides": "5511de5"})
    values = [[name, f"/x/{name}.svs", "P", one, 0.5, "slide", 9, 9, True, 0.5, 1] for name, one in SLIDES.items()]
    rows = [dict(zip(tables.SLIDES.names, one, strict=True)) for one in values]
    (tiles.path / "slides.parquet").write_table(tables.of_rows(rows, tables.SLIDES))
    images = _finish(store, "embed", {"tiles": tiles.manifest.folder, "encoder": "e7c0de5"})
    model = _finish(store, "train", {"images": images.manifest.folder, "spots": "spots/gone-0123456789ab"})
    used = {"embeddings": images.manifest.folder, "model": model.manifest.folder}
    made = _finish(store, "impute", used)
    tile_table = TileTable("S1", ["a", "b"], np.zeros((2, 2)), Level0Pixels(9.0))
    found = prediction_to_anndata(np.ones((2, 3), np.float32), list("XYZ"), tile_table, provenance=used)
    write_prediction(made.path / "anndata" / "S1.h5ad", found)
    return store


def test_an_artifact_is_traced_to_its_slides_and_weights_each_step_once(chain: StoragePath) -> None:
    found = inspect_item("impute/toy", chain.uri)
    assert (found.kind, found.problem) == ("artifact of impute", "")
    steps = [one.artifact.partition("/")[0] for one in found.made_from]
    assert steps == ["embed", "train", "tile", "spots"]
    embed, _, tile, gone = found.made_from
    assert embed.inputs == {"tiles": "tile/toy-0123456789ab", "weights of the encoder": "e7c0de5"}
    assert {one["slide"]: one["content"] for one in tile.slides} == SLIDES
    assert "does not exist" in gone.facts["problem"]
    assert "slide S2: content 22bb, /x/S2.svs" in found.text()


def test_a_predicted_h5ad_leads_to_the_digest_of_its_own_slide(chain: StoragePath) -> None:
    found = inspect_item((chain / "impute/toy-0123456789ab/anndata/S1.h5ad").uri, "/none")
    assert found.kind == "predicted expression of raystp (AnnData)"
    assert found.facts["model"] == "train/toy-0123456789ab"
    (tile,) = [one for one in found.made_from if one.artifact.startswith("tile/")]
    assert [one["content"] for one in tile.slides] == ["11aa"]


def test_a_slide_whose_name_has_a_dot_is_found_by_its_whole_name(chain: StoragePath) -> None:
    tiles = chain / "tile/toy-0123456789ab"
    values = [[name, "/x", "P", name, 0.5, "slide", 9, 9, True, 0.5, 1] for name in ("A", "A.B1", "C")]
    rows = [dict(zip(tables.SLIDES.names, one, strict=True)) for one in values]
    (tiles / "slides.parquet").write_table(tables.of_rows(rows, tables.SLIDES))
    (tiles / "tiles" / "A.B1.parquet").write_table(tables.of_rows([], tables.FAILURES))
    (made,) = inspect_item((tiles / "tiles" / "A.B1.parquet").uri, "/none").made_from
    assert [one["slide"] for one in made.slides] == ["A.B1"]


def test_artifacts_of_every_step_are_found_and_are_no_relative_paths(tmp_path: Path) -> None:
    assert {*ARTIFACTS} == {*STEPS} - {"serve", "import", "export"}
    store = StoragePath.of(tmp_path)
    for step in ARTIFACTS:
        made = _finish(store, step, {})
        assert inspect_item(f"{step}/toy", store.uri).facts["artifact"] == made.manifest.folder
        InspectConfig.of({"item": f"{step}/toy", "run": {"store": store.uri}}).check_absolute()


def test_the_command_prints_json_and_its_status_says_whether_it_would_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pyramid(tmp_path / "TCGA-A1-A0SB-01Z.tif", np.zeros((300, 500, 3), np.uint8))
    (tmp_path / "b.svs").write_bytes(b"no slide")
    assert cli.main(["inspect", str(tmp_path / "TCGA-A1-A0SB-01Z.tif"), "--set", "json=true"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["kind"], values["row"]["patient"], values["facts"]["width"]) == ("slide", "TCGA-A1-A0SB", "500")
    assert cli.main(["inspect", str(tmp_path / "b.svs")]) == 3
    assert "problem: slide 'b'" in capsys.readouterr().out


PYTORCH = "PyTorch file (tensors and a pickle, which was not opened)"


class Trap:
    """What leaves a file if it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch unpickled",)


class Loader:
    """What would download and run code of others if it were unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return torch.hub.load, ("owner/name", "model")


def torch_file(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def npy(value: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, value)
    return buffer.getvalue()


def npz(value: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, value=value)
    return buffer.getvalue()


def _write(folder: Path, name: str, content: Any) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with h5py.File(path, "w") as file:
            for key, value in content.items():
                file[key] = value
    return str(path)


@pytest.mark.parametrize(
    ("name", "content", "kind", "problem"),
    [
        ("a.h5", {"features": np.ones((2, 3)), "coords": np.ones((2, 2))}, "tile features, as of CLAM", ""),
        ("a.h5", {"feats": np.ones((2, 3)), "coords": np.ones((2, 2))}, "tile features, as of STAMP 1 to 2", ""),
        (
            "a.h5",
            {"features": np.ones((2, 3)), "coords": np.ones((1, 2))},
            "tile features, as of CLAM",
            "features has 2 rows and coords 1",
        ),
        ("a.h5", {"patch_embeddings": np.ones((2, 3))}, "tile features, as of STAMP 1 to 2", "and no coordinates"),
        ("a.h5", {"img": np.ones(3), "coords": np.ones((2, 2))}, "image patches", "patches are N x px x px x 3"),
        ("a.h5", {"matrix/data": np.ones(3)}, "count matrix of Space Ranger", ""),
        ("a.h5", {"x": np.ones(3)}, "HDF5 file", "none of the groups"),
        ("a.h5", {"x": h5py.ExternalLink("/etc/passwd", "/")}, "file that cannot be read", "links to another file"),
        ("a.h5", b"\x89HDF\r\n\x1a\n0000", "file that cannot be read", "is not a readable HDF5 file"),
        ("s.csv", b"slide,path,patient\nA,a.svs,P\n", "slide table", ""),
        ("s.csv", b"wsi\na.svs\n", "slide table of TRIDENT", ""),
        ("s.csv", b"a,b\n1,2\n", "table", "lacks the column 'path'"),
        ("w.safetensors", safetensors.numpy.save({"w": np.ones(2)}), "weights (safetensors)", ""),
        ("w.safetensors", b"\xff" * 20, "safetensors file", "it is damaged"),
        ("model.pt", b"PK\x03\x04....", "zip archive", "it is damaged"),
        ("w.pt", torch_file({"w": torch.ones(2)}), PYTORCH, ""),
        ("w.pt", torch_file(np.ones(2)), PYTORCH, "raystp opens no pickle"),
        ("w.pt", torch_file(Trap()), PYTORCH, "its pickle names 'posix.system'. raystp opens no pickle"),
        ("w.pt", torch_file(Loader()), PYTORCH, "its pickle names 'torch.hub.load'. raystp opens no pickle"),
        ("high.dat", b"\x80", "file of an unknown kind", "is not a slide"),
        ("genes.pkl", pickle.dumps(Trap()), "pickle", "raystp opens no pickle"),
        ("old.pt", pickle.dumps({"w": 1}), "pickle", "raystp opens no pickle"),
        ("a.npy", npy(np.ones((2, 3))), "NumPy array", "as embeddings of genes alone (text.table of train)"),
        ("a.npy", npy(np.array([{}])), "NumPy array", "raystp opens no pickle"),
        ("a.gz2", gzip.compress(b"x", mtime=0), "gzip file", "unpack"),
        ("a.npz", npz(np.ones(2)), "NumPy archive", "as embeddings of genes alone (text.table of train)"),
        ("sets.gmt", b"HALLMARK\tx\tTP53\n", "gene sets (GMT)", ""),
        ("notes.md", b"# Notes\nnothing\n", "text file", "its name is not that of a slide table"),
        ("empty.bin", b"", "empty file", "it has 0 bytes"),
        ("noise.dat", bytes(range(255, 120, -1)), "file of an unknown kind", "is not a slide"),
        ("p.parquet", b"PAR1....", "file that cannot be read", "parquet"),
        ("z/zarr.json", b'{"attributes": {"spatialdata_attrs": {}}}', "SpatialData store", "zarr stores"),
        ("z/.zattrs", b"[" * 9, "zarr", "zarr stores"),
        ("o/spatial/x.json", b"{}", "folder", "has no slide file"),
        ("card.json", b"{}", "file that cannot be read", "card.json"),
    ],
)
def test_files_are_known_by_their_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, name: str, content: Any, kind: str, problem: str
) -> None:
    path = _write(tmp_path, name, content)
    monkeypatch.chdir(tmp_path)
    is_folder = name.startswith(("z/", "o/"))
    found = inspect_item(str(Path(path).parent) if is_folder else path, "/none")
    assert (found.kind, bool(found.problem)) == (kind, bool(problem))
    assert problem in found.problem
    assert not Path("unpickled").exists()


def test_a_job_folder_of_trident_is_named_with_its_encoders_and_tiles(tmp_path: Path) -> None:
    grid = tmp_path / "20x_256px_0px_overlap"
    file = _write(grid, "features_uni_v2/S1.h5", {"features": np.ones((4, 3)), "coords": np.ones((4, 2))})
    with h5py.File(file, "a") as opened:
        opened["coords"].attrs["patch_size_level0"] = 512
        opened["features"].attrs["encoder"] = "uni_v2"
    places = _write(grid, "patches/S1_patches.h5", {"coords": np.ones((4, 2))})
    assert inspect_item(places, "/none").read_as == f"raystp import trident {grid} --slides TABLE"
    found = inspect_item(str(tmp_path), "/none")
    assert found.kind == "tiles and vectors of TRIDENT 0.1 to 0.3"
    assert found.facts[grid.name] == {"features_uni_v2": 1, "patches": 1}
    assert (found.facts["slides"], found.facts["encoder"]) == (1, "uni_v2")
    assert inspect_item(str(grid), "/none").facts["20x_256px_0px_overlap"]["patches"] == 1
    one = inspect_item(file, "/none")
    assert (one.facts["patch_size_level0"], one.facts["features"]) == ("512", "[4, 3] float64")
    assert one.facts["encoder uni_v2"].endswith("is no encoder that raystp knows: 'uni_v2' has 1536 values")
    for path in (tmp_path, grid, grid / "features_uni_v2"):
        found = inspect_item(str(path), "/none")
        assert (found.read_as, found.problem) == (f"raystp import trident {path} --slides TABLE", "")
    assert one.read_as == f"raystp import trident {Path(file).parent} --slides TABLE"
    _write(grid, "features_conch_v1/S1.h5", {"features": np.ones((4, 3)), "coords": np.ones((4, 2))})
    assert "choose one with --set encoder_name=" in inspect_item(str(grid), "/none").problem


def test_folders_and_stores_of_other_tools_are_named_with_the_command_that_imports_them(tmp_path: Path) -> None:
    makers = (Clam, Stamp, Slide2vec, AtlasPatch, LazySlide)
    folders = {maker: tmp_path / f"a folder/{maker.__name__}" for maker in makers}
    for maker, folder in folders.items():
        maker(folder).write()
    read = {maker: inspect_item(str(folder), "/none").read_as for maker, folder in folders.items()}
    assert read == {
        Clam: f"raystp import clam '{folders[Clam]}' --slides TABLE --encoder-name NAME",
        Stamp: f"raystp import stamp '{folders[Stamp]}' --slides TABLE",
        Slide2vec: f"raystp import slide2vec '{folders[Slide2vec]}'",
        AtlasPatch: f"raystp import atlaspatch '{folders[AtlasPatch]}' --encoder-name resnet50",
        LazySlide: f"raystp import lazyslide '{folders[LazySlide]}'",
    }
    store = inspect_item(str(folders[LazySlide] / "S1.zarr"), "/none")
    assert store.read_as == f"raystp import lazyslide '{folders[LazySlide]}/S1.zarr'"
    assert inspect_item(str(folders[AtlasPatch]), "/none").facts["encoders"] == ["resnet50", "uni_v2"]
    Stamp(tmp_path / "out" / "uni2-0123abcd").write()
    assert inspect_item(str(tmp_path / "out"), "/none").facts["encoder"] == "uni2"


def test_a_folder_of_slides_may_hold_other_files(tmp_path: Path) -> None:
    _write(tmp_path, "S1.h5", {"features": np.ones((4, 3)), "coords": np.ones((4, 2))})
    (tmp_path / "sub.h5").mkdir()
    assert inspect_item(str(tmp_path), "/none").kind.startswith("folder of HDF5 files")
    (tmp_path / "S1.svs").write_bytes(b"II")
    assert inspect_item(str(tmp_path), "/none").kind == "folder of slides"


def test_measured_sections_and_folders_show_their_row_of_a_slide_table(tmp_path: Path) -> None:
    section = ad.AnnData(np.ones((2, 3), np.float32), obsm={"spatial": np.ones((2, 2))})
    section.write_h5ad(tmp_path / "a.h5ad")
    found = inspect_item(str(tmp_path / "a.h5ad"), "/none")
    assert (found.row["layout"], found.row["counts"], found.problem) == ("scverse", str(tmp_path / "a.h5ad"), "")
    del section.obsm["spatial"]
    section.write_h5ad(tmp_path / "b.h5ad")
    assert "no obsm['spatial']" in inspect_item(str(tmp_path / "b.h5ad"), "/none").problem
    _write(tmp_path, "outs/spatial/x.json", b"{}")
    _write(tmp_path, "outs/filtered_feature_bc_matrix.h5", b"")
    assert inspect_item(str(tmp_path / "outs"), "/none").row["layout"] == "space_ranger"
    _write(tmp_path, "hd/binned_outputs/square_008um/spatial/x.json", b"{}")
    for folder in ("hd", "hd/binned_outputs/square_008um"):
        assert inspect_item(str(tmp_path / folder), "/none").row["layout"] == "visium_hd"
    _write(tmp_path, "bundle/experiment.xenium", b"{}")
    _write(tmp_path, "bundle/cell_feature_matrix.h5", {"matrix/barcodes": np.array([b"aaaabbbb-1"])})
    for item in ("bundle", "bundle/experiment.xenium", "bundle/cell_feature_matrix.h5"):
        row = inspect_item(str(tmp_path / item), "/none").row
        assert (row["layout"], row["counts"]) == ("xenium", str(tmp_path / "bundle"))
    _write(tmp_path, "metadata/c.json", b"{}")
    section.write_h5ad(tmp_path / "outs" / "c.h5ad")
    assert inspect_item(str(tmp_path / "outs" / "c.h5ad"), "/none").row["layout"] == "hest"


@pytest.mark.parametrize(
    ("barcode", "layout"), [("s_008um_00012_00345-1", "visium_hd"), ("ACGT-1", "space_ranger"), ("cellid_1-1", None)]
)
def test_the_layout_of_a_count_matrix_is_that_of_its_barcodes(tmp_path: Path, barcode: str, layout: str | None) -> None:
    path = _write(tmp_path, "filtered_feature_bc_matrix.h5", {"matrix/barcodes": np.array([barcode.encode()])})
    found = inspect_item(path, "/none")
    assert (found.row.get("layout"), bool(found.problem)) == (layout, layout is None)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("hest", ["HEST_v1_1_0.csv", "st/A.h5ad", "wsis/A.tif"]),
        ("stimage", ["meta/meta_all_gene.csv", "ST/gene_exp/a_count.csv", "ST/image/a.png"]),
        ("her2st", ["ST-cnts/A1.tsv.gz", "ST-imgs/A/A1/a.jpg"]),
        ("her2st", ["data/ST-cnts/A1.tsv.gz", "data/ST-imgs/A/A1/a.jpg"]),
        ("hest-bench", ["IDC/splits/train_0.csv", "IDC/patches/A.h5"]),
        ("hest-bench", ["splits/train_0.csv", "patches/A.h5"]),
    ],
)
def test_folders_of_data_sets_are_named_with_the_command_that_imports_them(
    tmp_path: Path, name: str, files: list[str]
) -> None:
    for file in files:
        _write(tmp_path, file, b"")
    found = inspect_item(str(tmp_path), "/none")
    assert (found.read_as, found.problem) == (f"raystp import {name} {tmp_path} -o FOLDER", "")


def test_a_damaged_manifest_and_an_absent_item_are_sentences(tmp_path: Path) -> None:
    _write(tmp_path, "tile/a-1/manifest.json", b"{")
    with pytest.raises(RaystpError, match="is not a manifest"):
        inspect_item(str(tmp_path / "tile" / "a-1"), "/none")
    with pytest.raises(ConfigError, match=r"there is nothing at /none/x; give a path"):
        inspect_item("/none/x", "/none")
