"""Several embeddings of the same places are one: columns in the order of the list, rows matched by place."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raystp import tables
from raystp.artifacts import Artifact, resolve
from raystp.errors import ConfigError, ModelError
from raystp.expression.embeddings.join import blocks_of, features_record, input_roles
from raystp.expression.sections import embeddings_of, join_embeddings, load_counts
from raystp.models.methods import open_predictor
from raystp.models.predict import predict_slide
from raystp.models.predictor import DirectPredictor
from raystp.models.store import load_model
from raystp.steps.embedding_source import check_features, input_folders, open_embeddings, reopen_embeddings
from raystp.steps.evaluate.spots.null import SpotNullTask, null_pcc
from raystp.steps.impute.work import SlidePredictor, SlideTask
from raystp.steps.index.work import PanelNames
from raystp.steps.train import step as train
from raystp.steps.train.cases.cohort import _tiles_of, dim_of_embeddings
from raystp.steps.train.retrieval import Retrieval
from raystp.storage import StoragePath
from tests.steps.conftest import predict_options

Finish = Callable[[StoragePath, str, str, Mapping[str, Any]], Artifact]
SPOT_COLUMN = tables.TILES.names.index("spot")


def _add(
    store: StoragePath, finished: Finish, name: str, change: Callable[[pa.Table], pa.Table], **notes: Any
) -> Artifact:
    """Add `embed/<name>` of the toy's tiles, changed: vector (100 + m, 100 + n, 7) for tile n of slide number m."""
    first = resolve(store.uri, "embed/toy", "embed")
    artifact = finished(store, "embed", name, {**first.manifest.notes, "encoder_identity": f"seed:{name}", **notes})
    for slide, units in artifact.manifest.notes["units"].items():
        for unit in units:
            old = (first.path / "embeddings" / slide / f"{unit}.parquet").read_table()
            rows = np.column_stack([tables.matrix(old["vector"]) + 100, np.full(old.num_rows, 7.0)])
            made = [*(old[one] for one in tables.TILES.names), tables.vectors(rows.astype(np.float32))]
            table = change(tables.of_columns(made, tables.embeddings(3)))
            (artifact.path / "embeddings" / slide / f"{unit}.parquet").write_table(table)
    return artifact


def _larger(table: pa.Table) -> pa.Table:
    """Return tiles of twice the side around the same centres."""
    half = table["side"].to_numpy() / 2
    for name, values in (("x", table["x"].to_numpy() - half), ("y", table["y"].to_numpy() - half), ("side", 4 * half)):
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), pa.array(values))
    return table


def _without_spots(table: pa.Table) -> pa.Table:
    return table.set_column(SPOT_COLUMN, table.schema.field("spot"), pa.nulls(table.num_rows, pa.string()))


def _vectors(embed: Artifact, slide: str = "S2") -> np.ndarray:
    return tables.matrix(embeddings_of(embed, slide)["vector"])


def test_one_embedding_is_read_as_it_is(toy_store: StoragePath) -> None:
    for names in ("embed/toy", ["embed/toy"]):
        assert open_embeddings(toy_store.uri, names) == resolve(toy_store.uri, "embed/toy", "embed")


def test_spots_are_joined_by_id_whatever_the_order_and_size_of_their_tiles(
    toy_store: StoragePath, finished: Finish
) -> None:
    _add(toy_store, finished, "wide", lambda table: _larger(table.take([2, 0, 1])))
    joined = open_embeddings(toy_store.uri, ["embed/toy", "embed/wide"])
    expected = [[1, n, 101, 100 + n, 7] for n in range(6)]
    assert _vectors(joined).tolist() == expected
    swapped = open_embeddings(toy_store.uri, ["embed/wide", "embed/toy"])
    section = join_embeddings(load_counts(resolve(toy_store.uri, "spots/toy", "spots"), "S2"), swapped)
    assert section.features.tolist() == [[*row[2:], *row[:2]] for row in expected]
    assert section.boxes[:, 2].tolist() == [64.0] * 6
    assert dim_of_embeddings(joined, "S2") == 5


def test_tiles_of_a_grid_are_joined_by_their_centre(toy_store: StoragePath, finished: Finish) -> None:
    _add(toy_store, finished, "grid", _without_spots)
    _add(toy_store, finished, "wide", lambda table: _without_spots(_larger(table.take([1, 2, 0]))))
    joined = open_embeddings(toy_store.uri, ["embed/grid", "embed/wide"])
    assert _vectors(joined).tolist() == [[101, 100 + n, 7] * 2 for n in range(6)]


def test_a_place_without_a_tile_in_one_of_them_is_left_out(toy_store: StoragePath, finished: Finish) -> None:
    _add(toy_store, finished, "fewer", lambda table: table.slice(1))
    joined = open_embeddings(toy_store.uri, ["embed/toy", "embed/fewer"])
    assert _vectors(joined)[:, 1].tolist() == [1, 2, 4, 5]
    assert _tiles_of(joined)["S2"] == 4
    _add(toy_store, finished, "few", lambda table: table.slice(2))
    with pytest.raises(ConfigError, match=r"only 2 of the 6 tiles of slide 'S2' .* have a tile at the same place"):
        _vectors(open_embeddings(toy_store.uri, ["embed/toy", "embed/few"]))


def test_the_neighbours_mean_is_of_the_nearest_other_tiles_of_the_slide(toy_store: StoragePath) -> None:
    # Spots 0 1 2 / 3 4 5 lie 40 px apart in a row, 60 px between rows; the vector of tile n is (1, n).
    joined = open_embeddings(toy_store.uri, "embed/toy", neighbour_mean=2)
    assert _vectors(joined)[:, 2:].tolist() == [[1, n] for n in (2, 1, 3, 2, 4, 3)]
    everyone = _vectors(open_embeddings(toy_store.uri, "embed/toy", neighbour_mean=50))
    np.testing.assert_allclose(everyone[:, 3], (15 - np.arange(6)) / 5)
    assert dim_of_embeddings(joined, "S2") == 4


@pytest.mark.parametrize(
    ("patients", "match"),
    [({"S9": "P9"}, "no slide in common"), ({"S1": "P7"}, r"'S1' is of patient 'P1' .* of 'P7'")],
)
def test_embeddings_that_do_not_belong_together_are_refused(
    toy_store: StoragePath, finished: Finish, patients: dict[str, str], match: str
) -> None:
    first = resolve(toy_store.uri, "embed/toy", "embed")
    finished(toy_store, "embed", "other", {**first.manifest.notes, "patients": patients})
    with pytest.raises(ConfigError, match=match):
        open_embeddings(toy_store.uri, ["embed/toy", "embed/other"])
    with pytest.raises(ConfigError, match="listed twice"):
        open_embeddings(toy_store.uri, ["embed/toy", "embed/toy"])


def test_a_model_reads_the_embeddings_it_was_trained_on_in_their_order(
    toy_store: StoragePath, finished: Finish
) -> None:
    _add(toy_store, finished, "wide", _larger, side=32.0)
    values = {
        "model": "ridge",
        "spots": "spots/toy",
        "embeddings": ["embed/toy", "embed/wide"],
        "neighbour_mean": 3,
        "split": {"test": ["S3"]},
        "panel": {"variable": 4},
        "run": {"store": toy_store.uri, "tracking": "none"},
    }
    model = train.run(train.CONFIG.of(values))
    kind, arrays, meta = load_model(model.path)
    assert meta["d_image"] == 10
    assert [block["tile"]["side"] for block in meta["features"]["blocks"]] == [16.0, 32.0]
    folders = input_folders(model.manifest.inputs, "images")
    assert [folder.partition("-")[0] for folder in folders] == ["embed/toy", "embed/wide"]
    again = reopen_embeddings(meta, [toy_store / folder for folder in folders])
    assert features_record(again) == meta["features"]
    check_features(meta, again, model.path)
    predictor = open_predictor(kind, arrays, meta)
    assert isinstance(predictor, DirectPredictor)
    expected = predict_slide(predictor, _vectors(again, "S3"), np.zeros((6, 3)))
    np.testing.assert_allclose(_imputed(toy_store, model, again), expected, atol=1e-6)
    assert np.isfinite(_null(toy_store, model, folders)["S3"]).all()
    swapped = open_embeddings(toy_store.uri, ["embed/wide", "embed/toy"])
    with pytest.raises(
        ModelError, match=r"number 1 has encoder 'tiny' \(seed:wide\) on tiles of 32.0 um, and .* was tr"
    ):
        check_features(meta, swapped, model.path)
    with pytest.raises(ModelError, match=r"reads 2 embeddings .* got 1"):
        check_features(meta, blocks_of(again)[0], model.path)


def _imputed(store: StoragePath, model: Artifact, embed: Artifact) -> np.ndarray:
    """Return what `impute` writes for slide S3, without Ray."""
    options = predict_options(k=1, exact=True, chunk_tiles=2)
    task = SlideTask(model, embed, None, None, None, options, {}, store / "impute" / "joined-0")
    assert SlidePredictor(task)("S3") == 6
    table = (task.target / "predictions" / "S3.parquet").read_table()
    return tables.matrix(table["expression"])


def _null(store: StoragePath, model: Artifact, folders: list[str]) -> dict[str, np.ndarray]:
    """Return one permutation of a model on joined embeddings."""
    spots, paths = resolve(store.uri, "spots/toy", "spots").path, tuple(store / folder for folder in folders)
    return null_pcc(SpotNullTask(model.path, spots, paths, ("S3",), 1, Retrieval(), seed=0))


def test_a_reference_index_is_of_the_joined_features(toy_store: StoragePath, finished: Finish) -> None:
    _add(toy_store, finished, "wide", _larger)
    joined = open_embeddings(toy_store.uri, ["embed/toy", "embed/wide"], neighbour_mean=2)
    names = PanelNames(("A", "B", "C", "D"), {}, ("S1",))
    table = names.table(resolve(toy_store.uri, "spots/toy", "spots"), joined, ["S2", "S1"])
    np.testing.assert_array_equal(table.features, np.concatenate([_vectors(joined, "S2"), _vectors(joined, "S1")]))


def test_a_single_embedding_keeps_its_role_and_fingerprint(toy_store: StoragePath, finished: Finish) -> None:
    first = resolve(toy_store.uri, "embed/toy", "embed")
    _add(toy_store, finished, "wide", _larger)
    assert input_roles("images", first) == {"images": first}
    joined = open_embeddings(toy_store.uri, ["embed/toy", "embed/wide"])
    assert list(input_roles("images", joined)) == ["images", "images 2"]
    values = {"model": "ridge", "spots": "spots/toy", "embeddings": "embed/toy", "split": {"test": ["S3"]}}
    plain = train.CONFIG.of({**values, "run": {}})
    assert "neighbour_mean" not in plain.fingerprint_values()
    assert (
        plain.fingerprint_values() == train.CONFIG.of({**values, "embeddings": ["x"], "run": {}}).fingerprint_values()
    )
