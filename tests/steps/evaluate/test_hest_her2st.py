"""Real sections as a task of hest-bench: raystp's steps give the score of an independent script, to the sixth digit."""

import json
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import simplejpeg
from PIL import Image
from scipy.sparse import csr_matrix

from raystp.artifacts import Artifact, resolve
from raystp.evaluate.published.hest import HEST_README
from raystp.evaluate.published.registry import PUBLISHED
from raystp.steps.embed import step as embed
from raystp.steps.evaluate import step as evaluate
from raystp.steps.evaluate.published.checks import gene_counts
from raystp.steps.export import step as export
from raystp.steps.imports import step as imports
from raystp.steps.impute import step as impute
from raystp.steps.spots import step as spots
from raystp.steps.tile import step as tile
from raystp.steps.train import step as train
from tests.conftest import SHARED
from tests.evaluate.published.hest_script import Side, correlations
from tests.interop.sections.foreign import patches_file

DATA, WEIGHTS = SHARED / "data" / "her2st", SHARED / "weights" / "mobilenet_v1_imagenet.safetensors"
FOLDS = {0: ["B4"], 1: ["C2", "C3", "C4"]}
"""Two patients: each is tested once."""
SECTIONS = [name for names in FOLDS.values() for name in names]
MPP, SOURCE_PX, PATCH_PX = 0.687, 163, 224
"""A patch shows 112 um."""

pytestmark = [
    pytest.mark.ray,
    pytest.mark.faults,
    pytest.mark.skipif(not DATA.exists(), reason="no HER2ST sections in ../shared/data/her2st"),
    pytest.mark.skipif(not WEIGHTS.exists(), reason="no MobileNet weights in ../shared/weights"),
    pytest.mark.usefixtures("ray_session"),
]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the four sections as a task of hest-bench, its panel by scanpy, and return its folder."""
    folder = tmp_path_factory.mktemp("bench") / "HER2ST"
    sections = {name: _section(folder, name) for name in SECTIONS}
    (folder / "var_50genes.json").write_text(json.dumps({"genes": scanpy_panel(list(sections.values()))}))
    (folder / "splits").mkdir()
    for number, test in FOLDS.items():
        for side, names in (("test", test), ("train", [one for one in SECTIONS if one not in test])):
            lines = [f"{name},patches/{name}.h5,adata/{name}.h5ad" for name in names]
            text = "\n".join(["sample_id,patches_path,expr_path", *lines])
            (folder / "splits" / f"{side}_{number}.csv").write_text(text)
    return folder


def _section(folder: Path, name: str) -> ad.AnnData:
    counts = pd.read_csv(DATA / "ST-cnts" / f"{name}.tsv.gz", sep="\t", index_col=0)
    places = pd.read_csv(DATA / "ST-spotfiles" / f"{name}_selection.tsv", sep="\t")
    places.index = pd.Index([f"{x}x{y}" for x, y in zip(places["x"], places["y"], strict=True)])
    kept = [spot for spot in counts.index if spot in places.index]
    centres = places.loc[kept, ["pixel_x", "pixel_y"]].to_numpy(float)
    obs = pd.DataFrame({"in_tissue": 1}, index=pd.Index(kept, dtype=object))
    obs["array_row"], obs["array_col"] = places.loc[kept, "y"].to_numpy(), places.loc[kept, "x"].to_numpy()
    obs["pxl_col_in_fullres"], obs["pxl_row_in_fullres"] = centres.T
    var = pd.DataFrame(index=pd.Index(counts.columns, dtype=object))
    section = ad.AnnData(csr_matrix(counts.loc[kept].to_numpy(np.float32)), obs, var)
    section.obsm["spatial"] = centres
    scales = {"tissue_downscaled_fullres_scalef": 0.1, "spot_diameter_fullres": 100 / MPP}
    section.uns["spatial"] = {"ST": {"images": {}, "scalefactors": scales}}
    (folder / "adata").mkdir(parents=True, exist_ok=True)
    section.write_h5ad(folder / "adata" / f"{name}.h5ad")
    (picture,) = (DATA / "ST-imgs" / name[0] / name).glob("*.jpg")
    corners = centres.astype(int) - SOURCE_PX // 2
    image = simplejpeg.decode_jpeg(picture.read_bytes())
    crops = [Image.fromarray(image[y : y + SOURCE_PX, x : x + SOURCE_PX]) for x, y in corners.tolist()]
    pixels = np.stack([np.asarray(one.resize((PATCH_PX, PATCH_PX))) for one in crops])
    patches_file(folder / "patches" / f"{name}.h5", pixels, corners, kept, pixel_size=MPP, patch_size_src=SOURCE_PX)
    return section


def scanpy_panel(sections: list[ad.AnnData]) -> list[str]:
    """Return the panel by the recipe of the benchmark, with scanpy itself."""
    frequent = []
    for one in sections:
        found = sc.pp.filter_genes(one, min_cells=int(np.ceil(0.1 * one.n_obs)), inplace=False)[0]
        frequent.append(set(one.var_names[found]))
    genes = [gene for gene in sorted(set.intersection(*frequent)) if "BLANK" not in gene and "Control" not in gene]
    stacked = ad.concat([one[:, genes] for one in sections], index_unique="-")
    sc.pp.log1p(stacked)
    sc.pp.highly_variable_genes(stacked, n_top_genes=50)
    return list(stacked.var_names[stacked.var["highly_variable"]])


@pytest.fixture(scope="module")
def made(task: Path) -> dict[str, Any]:
    """Import the task and embed its patches; also write the vectors as the benchmark's own files."""
    out, run = task.parent / "imported", {"store": str(task.parent / "store"), "tracking": "none"}
    imports.run(imports.CONFIG.of({"format": "hest-bench", "path": str(task), "out": str(out), "run": {}}))
    slides = {"slides": str(out / "slides.csv"), "run": {"store": run["store"]}}
    spots.run(spots.CONFIG.of({**slides, "min_counts": 0}))
    tile.run(tile.CONFIG.of({**slides, "spots": "spots/default", "tile_um": 112}))
    encoder = {"name": "mobilenet_v1_pw12", "weights": str(WEIGHTS)}
    embed.run(embed.CONFIG.of({"tiles": "tile/default", "encoder": encoder, "run": {"store": run["store"]}}))
    target = {"format": "hest-embeddings", "artifact": "embed/default", "out": str(task.parent / "vectors")}
    export.run(export.CONFIG.of({**target, "encoder_name": "mobilenet", "run": {"store": run["store"]}}))
    return run


def _by_raystp(task: Path, run: dict[str, Any], protocol: str) -> Artifact:
    sources = {"spots": "spots/default", "embeddings": "embed/default"}
    record = PUBLISHED[protocol]
    for number, test in FOLDS.items():
        name = f"{protocol}-fold{number}"
        split = task.parent / "imported" / "splits" / f"fold{number}.yaml"
        given = [
            f"{key}={json.dumps(value)}"
            for key, value in {**sources, **record.train, **record.method, "name": name}.items()
        ]
        train.run(train.CONFIG.load(split, [*given, *(f"run.{key}={value}" for key, value in run.items())]))
        values = {"embeddings": "embed/default", "model": f"train/{name}", "name": name, "slides": test}
        impute.run(impute.CONFIG.of({**values, "run": {"store": run["store"]}}))
    predictions = [f"impute/{protocol}-fold{number}" for number in FOLDS]
    scored = {"spots": "spots/default", "predictions": predictions, "protocol": protocol, "run": run}
    return evaluate.run(evaluate.CONFIG.of(scored))


def _official(task: Path, *, reduce: bool) -> tuple[float, float]:
    """Return mean and deviation over folds, from the files of the benchmark alone."""
    genes = json.loads((task / "var_50genes.json").read_text())["genes"]
    folds = []
    for number in FOLDS:
        sides = []
        for side in ("train", "test"):
            names = pd.read_csv(task / "splits" / f"{side}_{number}.csv")["sample_id"]
            sides.append(_side([_sample(task, name, genes) for name in names]))
        folds.append(correlations(sides[0], sides[1], reduce=reduce).mean())
    return float(np.mean(folds)), float(np.std(folds))


def _sample(task: Path, name: str, genes: list[str]) -> Side:
    with h5py.File(task.parent / "vectors" / "mobilenet" / f"{name}.h5") as file:
        vectors = np.asarray(file["embeddings"])
        barcodes = [one.decode() for one in np.ravel(file["barcodes"])]
    section = ad.read_h5ad(task / "adata" / f"{name}.h5ad")[barcodes, genes]
    return vectors, np.log1p(np.asarray(section.X.toarray(), np.float64))


def _side(samples: list[Side]) -> Side:
    return np.concatenate([one for one, _ in samples]), np.concatenate([one for _, one in samples])


@pytest.mark.parametrize(("protocol", "reduce"), [("hest-readme", True), ("hest-paper", False)])
def test_the_score_on_real_sections_is_that_of_the_benchmarks_script(
    task: Path, made: dict[str, Any], protocol: str, *, reduce: bool
) -> None:
    artifact = _by_raystp(task, made, protocol)
    expected = _official(task, reduce=reduce)
    text = pd.read_csv(artifact.path.local_path / "protocol.csv")
    own = text[(text["protocol"] == protocol) & (text["model"] == "hest_ridge")].set_index("fold")["value"]
    print(protocol, dict(own), expected)  # noqa: T201
    assert (own["all"], own["sd"]) == pytest.approx(expected, abs=1e-6)
    assert 0 < expected[0] < 0.6


def test_the_panel_is_that_of_scanpy(task: Path, made: dict[str, Any]) -> None:
    assert HEST_README.panel is not None
    found = HEST_README.panel(gene_counts(HEST_README, resolve(made["store"], "spots/default", "spots")))
    assert sorted(found) == sorted(json.loads((task / "var_50genes.json").read_text())["genes"])
