"""export of predictions: what is read of an artifact of `impute`, which genes are chosen, and what is refused."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import shapely

from raystp.api.results import StepResult
from raystp.artifacts import Artifact, ArtifactWriter, resolve
from raystp.errors import ArtifactError, ConfigError
from raystp.steps.export import step as export
from raystp.steps.export.config import ExportConfig
from raystp.steps.export.expression import open_expression
from raystp.steps.export.features import Exported
from raystp.steps.export.genes import few_genes
from raystp.steps.export.predictions import export_prediction, open_predictions, prediction_tasks
from raystp.steps.impute.work import SlidePredictor, SlideTask
from raystp.storage import StoragePath
from tests.interop.outputs.toy import contents
from tests.steps.conftest import CENTRES, GENES, MPP, SIDE, SPOTS, predict_options


def predicted(store: StoragePath, *, name: str = "toy", x: str = "float32", output: str = "dense") -> Artifact:
    """Predict S3 by the toy model, as `impute` does; return the artifact."""
    inputs = {"embeddings": "embed/toy", "model": "train/toy", "spots": "spots/toy"}
    found = {role: resolve(store.uri, reference, reference.partition("/")[0]) for role, reference in inputs.items()}
    path = store / "impute" / f"{name}-000000000000"
    folders = {role: one.manifest.folder for role, one in found.items()}
    writer = ArtifactWriter(path, "impute", name, "000000000000", folders, {"genes": None})
    task = SlideTask(found["model"], found["embeddings"], None, found["spots"], None, predict_options(1, x=x), {}, path)
    if output == "dense":
        SlidePredictor(task)("S3")
    notes = {"kind": "gene_mean", "protocol": "patient", "panel": "all", "output": output, "slides": ["S3"]}
    return writer.finish({}, [], notes)


@pytest.fixture
def predictions(toy_store: StoragePath) -> Artifact:
    tiles = resolve(toy_store.uri, "tile/toy", "tile")
    noted(resolve(toy_store.uri, "embed/toy", "embed"), tiles=tiles.manifest.folder)  # of this copy of the store
    return predicted(toy_store)


def noted(artifact: Artifact, **notes: Any) -> None:
    """Change notes of a manifest."""
    file = artifact.path / "manifest.json"
    manifest = json.loads(file.read_bytes())
    manifest["notes"] |= notes
    file.write_bytes(json.dumps(manifest).encode())


def config(form: str, out: Path, **changes: Any) -> ExportConfig:
    return ExportConfig.of({"format": form, "artifact": "impute/toy", "out": str(out), **changes})


def exported(predictions: Artifact, chosen: ExportConfig, evaluation: Artifact | None = None) -> Exported:
    (task,) = prediction_tasks(predictions, chosen, evaluation)
    result = export_prediction(task)
    assert isinstance(result, Exported), result
    return result


def stored(predictions: Artifact) -> ad.AnnData:
    return ad.read_h5ad(predictions.path.local_path / "anndata" / "S3.h5ad")


def evaluation_of(store: StoragePath, prediction: str, rows: Sequence[tuple[str, str, str]]) -> Artifact:
    path = store / "evaluate" / "toy-000000000000"
    lines = ["model,gene,sections,pcc,mse", *(f"{model},{gene},1,{pcc},1" for model, gene, pcc in rows)]
    (path / "genes.csv").write_bytes("\n".join(lines).encode())
    return ArtifactWriter(path, "evaluate", "toy", "000000000000", {"prediction 0": prediction}, {}).finish({}, [])


def test_a_slide_is_read_with_its_places_values_spots_and_source(predictions: Artifact) -> None:
    with open_expression(predictions, "S3", vectors=True) as slide:
        np.testing.assert_array_equal(slide.boxes, np.column_stack([CENTRES - SIDE / 2, np.full(6, SIDE)]))
        assert (slide.mpp, slide.size, slide.tile_px, slide.model) == (MPP, (160, 192), 32, "toy")
        assert slide.genes == tuple(GENES)
        np.testing.assert_array_equal(slide.values.read(), stored(predictions).X)
        spots = slide.measured
        assert spots is not None
        assert spots.names == tuple(SPOTS)
        assert spots.diameter == 10.0  # 5 um at .5 um/px
        np.testing.assert_array_equal(spots.values.read(), stored(predictions).layers["measured"])
        assert slide.embeddings is not None
        assert slide.embeddings.read().tolist() == [[2.0, n] for n in range(6)]
        assert slide.thumbnail is not None
        assert slide.provenance["artifact"] == predictions.manifest.folder


@pytest.mark.parametrize("x", ["float16", "csr"])
def test_a_prediction_of_any_form_is_exported_alike(toy_store: StoragePath, tmp_path: Path, x: str) -> None:
    written = {}
    for form in ("float32", x):
        exported(predicted(toy_store, name=form, x=form), config("csv", tmp_path / form))
        written[form] = list(csv.reader((tmp_path / form / "S3.csv").read_text().splitlines()))
    assert written[x][0] == written["float32"][0]
    first, second = (np.asarray([row[1:] for row in one[1:]], float) for one in (written["float32"], written[x]))
    np.testing.assert_allclose(second, first, rtol=0 if x == "csr" else 1e-3)


def test_the_frame_of_a_slide_with_bounds_is_the_slides_and_in_qupath_the_bounds(
    predictions: Artifact, tmp_path: Path
) -> None:
    tiles = resolve(predictions.path.parent.parent.uri, "tile/toy", "tile")
    noted(tiles, bounds={"S3": [10, 20, 100, 100]})
    square = {"type": "Feature", "geometry": shapely.geometry.mapping(shapely.box(0, 0, 50, 60)), "properties": {}}
    mask = {"type": "FeatureCollection", "features": [square]}
    (tiles.path / "masks" / "S3.geojson").write_bytes(json.dumps(mask).encode())
    with open_expression(predictions, "S3") as slide:
        assert slide.tissue is not None
        assert slide.tissue.bounds == (10, 20, 60, 80)
        corner = slide.boxes[0, :2].tolist()
    exported(predictions, config("qupath", tmp_path))
    (first, *_) = json.loads((tmp_path / "S3.geojson").read_text())["features"]
    assert first["geometry"]["coordinates"][0][0] == [corner[0] - 10, corner[1] - 20]


def test_genes_are_written_in_the_order_in_which_they_are_listed(predictions: Artifact, tmp_path: Path) -> None:
    exported(predictions, config("spatialdata", tmp_path, genes="C,A"))
    table = ad.read_zarr(tmp_path / "S3.zarr" / "tables" / "predicted_toy")
    assert table.var_names.tolist() == ["C", "A"]
    np.testing.assert_array_equal(table.X, stored(predictions)[:, ["C", "A"]].X)
    with pytest.raises(ConfigError, match="has no prediction of 'X'; it has 4 genes, 'A'"):
        prediction_tasks(predictions, config("csv", tmp_path, genes=["A", "X"]), None)


def test_an_evaluation_of_the_same_model_chooses_its_best_genes(
    predictions: Artifact, toy_store: StoragePath, tmp_path: Path
) -> None:
    rows = [("gene_mean", "A", "0.1"), ("gene_mean", "B", ""), ("gene_mean", "C", "0.7"), ("ridge", "D", "0.9")]
    evaluation = evaluation_of(toy_store, predictions.manifest.folder, rows)
    exported(predictions, config("qupath", tmp_path, measurements="csv", evaluation="evaluate/toy"), evaluation)
    header = (tmp_path / "S3.csv").read_text().splitlines()[0]
    assert header == "tile_id,x_um,y_um,pred C,pred A"


def test_an_evaluation_of_another_model_is_refused(predictions: Artifact, toy_store: StoragePath) -> None:
    other = predicted(toy_store, name="other")
    writer = ArtifactWriter(other.path, "impute", "other", "000000000000", {"model": "train/ridge-1"}, {})
    evaluation = evaluation_of(toy_store, writer.finish({}, []).manifest.folder, [("gene_mean", "A", "0.1")])
    with pytest.raises(ConfigError, match=r"scores 'train/ridge-1', and .* is of train/toy-"):
        prediction_tasks(predictions, config("csv", Path("/x")), evaluation)


def test_a_few_genes_are_all_of_few_and_the_most_variable_of_many(predictions: Artifact) -> None:
    with open_expression(predictions, "S3") as slide:
        assert few_genes(slide) == (GENES, [])
        values = np.zeros((6, 30), np.float32)
        values[0] = np.arange(30)
        many = replace(slide, genes=tuple(f"g{n}" for n in range(30)), values=type(slide.values)(values), measured=None)
        genes, (note,) = few_genes(many)
    assert genes == [f"g{n}" for n in range(29, 9, -1)]
    assert "20 genes whose prediction varies most" in note


def test_a_prediction_of_predict_is_that_of_its_impute(predictions: Artifact, toy_store: StoragePath) -> None:
    path = toy_store / "predict" / "mine-000000000000"
    inputs = {"predictions": predictions.manifest.folder}
    ArtifactWriter(path, "predict", "mine", "000000000000", inputs, {}).finish({}, [])
    for reference in ("predict/mine", path.uri, "impute/toy", predictions.path.uri):
        assert open_predictions(toy_store.uri, reference).path == predictions.path


def test_what_has_no_expression_or_no_tiles_is_refused_with_what_to_do(toy_store: StoragePath) -> None:
    predicted(toy_store, name="near", output="neighbours")
    with pytest.raises(ConfigError, match="run `raystp impute` with neighbours=impute/near"):
        open_predictions(toy_store.uri, "impute/near")
    found = predicted(toy_store)
    resolve(toy_store.uri, "embed/toy", "embed").path.remove()
    with (
        pytest.raises(ArtifactError, match=r"is not in the store, .* run `raystp embed`"),
        open_expression(found, "S3"),
    ):
        pass


def test_a_result_in_python_writes_the_store_that_the_command_writes(predictions: Artifact, tmp_path: Path) -> None:
    result = StepResult(predictions)
    exported(predictions, config("spatialdata", tmp_path / "command", genes=["C", "A"]))
    path = Path(result.to_spatialdata("S3", tmp_path / "python", genes=["C", "A"]))
    assert contents(path.parent) == contents(tmp_path / "command")
    with pytest.raises(ArtifactError, match="has no prediction of 'S9'; it has 'S3'"):
        result.to_spatialdata("S9", tmp_path)


@pytest.mark.parametrize(
    ("form", "changes", "message"),
    [
        ("csv", {"x": "csr"}, "`x` is for the formats spatialdata, not for csv: remove it"),
        ("trident", {"genes": ["A"]}, "`genes` is for the formats spatialdata, qupath"),
        ("csv", {"genes": ["A"], "evaluation": "evaluate/toy"}, "give one of both"),
        ("zarr", {}, "unknown format 'zarr'; the formats are trident"),
    ],
)
def test_fields_that_a_format_does_not_use_are_refused(form: str, changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(form, Path("/x"), **changes)


@pytest.mark.ray
def test_a_cohort_is_exported_twice_with_the_same_bytes(
    predictions: Artifact,
    toy_store: StoragePath,
    tmp_path: Path,
    ray_session: None,  # noqa: ARG001 -- starts Ray
) -> None:
    found = {}
    for name in ("a", "b"):
        values = {"format": "csv", "artifact": "impute/toy", "out": str(tmp_path / name), "name": name}
        artifact = export.run(ExportConfig.of({**values, "run": {"store": toy_store.uri}}))
        assert artifact.manifest.rows == {"slides": 1, "tiles": 6}
        assert artifact.manifest.inputs == {"artifact": predictions.manifest.folder}
        found[name] = (tmp_path / name / "S3.csv").read_bytes()
    assert found["a"] == found["b"]
