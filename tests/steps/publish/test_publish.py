"""publish: equal bytes, no name of a patient, nothing but the listed files; a changed folder is refused by name."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystp.cluster.serving.messages import ImputeRequest, ImputeResponse, RequestOptions
from raystp.errors import ConfigError, ModelError, RaystpError
from raystp.impute.hashed_names import hash_name, stored_values
from raystp.impute.imputer import NeighborImputer
from raystp.index.open import open_reference_index
from raystp.models.store import load_model
from raystp.steps.impute.bags import allowed_rows
from raystp.steps.publish import step as publish
from raystp.steps.publish.card import CARD, read_card
from raystp.steps.publish.expression import expression_warning
from raystp.steps.publish.published import open_published, put_into_store
from raystp.steps.serve.config import ServeConfig
from raystp.steps.serve.handler import ImputeHandler, open_handler
from raystp.storage import StoragePath
from tests.steps.publish.published import PATIENTS, SECTIONS, SLIDES, WEIGHTS_PATH, add_index

SECRET = re.compile(rb"ALPHA|BETA|GAMMA|DELTA|somebody")


def _publish(store: StoragePath, out: Path, **fields: Any) -> str:
    values = {"model": "train/joint", "index": "index/joint", "out": str(out), **fields}
    return publish.run(publish.CONFIG.of({**values, "run": {"store": store.uri}}))


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def store(toy_store: StoragePath) -> StoragePath:
    add_index(toy_store)
    return toy_store


@pytest.fixture
def folder(store: StoragePath, tmp_path: Path) -> Path:
    _publish(store, tmp_path / "published", licence="CC-BY-4.0")
    return tmp_path / "published"


def test_publishing_twice_gives_equal_bytes(store: StoragePath, folder: Path, tmp_path: Path) -> None:
    _publish(store, tmp_path / "again", licence="CC-BY-4.0")
    assert _files(tmp_path / "again") == _files(folder)
    before = _files(folder)
    assert "was published before" in _publish(store, folder, licence="CC-BY-4.0")
    assert _files(folder) == before


def test_no_patient_section_slide_or_path_is_named(folder: Path) -> None:
    assert {name for name, content in _files(folder).items() if SECRET.search(content)} == set()
    card = read_card(StoragePath.of(folder))
    salt = card.training.salt
    assert set(card.training.patients) == {hash_name(one, salt) for one in PATIENTS}
    assert set(card.training.slides) == {hash_name(one, salt) for one in SLIDES}


def test_the_card_states_what_the_model_reads(folder: Path) -> None:
    card = read_card(StoragePath.of(folder))
    (block,) = card.features
    assert (block.encoder, block.identity, block.tile_um, block.tile_px) == ("tiny", "seed:0", (16.0,), 224)
    assert (card.kind, card.genes, card.protocol, card.licence) == (
        "bleep",
        ("A", "B", "C", "D"),
        "patient",
        "CC-BY-4.0",
    )
    assert card.index is not None
    assert card.index.rows == 300
    assert set(card.files) == set(_files(folder)) - {CARD}


def test_a_published_model_in_another_store_is_the_model_and_its_index(
    store: StoragePath, folder: Path, tmp_path: Path
) -> None:
    own = add_index(store)
    found = put_into_store(open_published(str(folder)), str(tmp_path / "other"))
    assert found.model.path.name.startswith("published-joint-")
    _, arrays, meta = load_model(found.model.path)
    _, expected, _ = load_model(own[0].path)
    assert arrays.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(arrays[name], value)
    assert set(meta["patients"]) == {hash_name(one, meta["names_salt"]) for one in SECTIONS}
    assert WEIGHTS_PATH not in json.dumps(meta)
    assert found.index is not None
    assert found.index.manifest.notes["model"] == found.model.manifest.folder
    queries = np.random.default_rng(1).standard_normal((20, 8)).astype(np.float32)
    opened = [open_reference_index(one.path, one.manifest.notes["bank"]) for one in (own[1], found.index)]
    scores, rows = opened[0].search(queries, 5)
    np.testing.assert_array_equal(opened[1].search(queries, 5)[1], rows)
    np.testing.assert_array_equal(opened[1].search(queries, 5)[0], scores)
    weights = np.full(rows.shape, 0.2, np.float32)
    np.testing.assert_array_equal(opened[1].weighted_mean(weights, rows), opened[0].weighted_mean(weights, rows))
    again = put_into_store(open_published(str(folder)), str(tmp_path / "other"))
    assert again.model.manifest == found.model.manifest


@pytest.mark.parametrize("excluded", [{"patient": PATIENTS[:1]}, {"section": SECTIONS[:1]}])
def test_names_exclude_the_rows_of_a_published_index_as_those_of_its_source(
    store: StoragePath, folder: Path, tmp_path: Path, excluded: dict[str, tuple[str, ...]]
) -> None:
    source = add_index(store)[1]
    found = put_into_store(open_published(str(folder)), str(tmp_path / "other"))
    assert found.index is not None
    salt = load_model(found.model.path)[2]["names_salt"]
    masks = []
    for index, own_salt in ((source, None), (found.index, salt)):
        opened = open_reference_index(index.path, index.manifest.notes["bank"])
        masks.append(allowed_rows(opened, stored_values(excluded, own_salt), None))
    assert masks[0] is not None
    assert int(masks[0].sum()) == 150
    np.testing.assert_array_equal(masks[1], masks[0])


def test_a_service_of_a_published_model_excludes_a_patient_by_name(
    store: StoragePath, folder: Path, tmp_path: Path
) -> None:
    source, other = add_index(store)[1], tmp_path / "other"
    found = put_into_store(open_published(str(folder)), str(other))
    assert found.index is not None
    values = {"model": found.model.path.uri, "index": found.index.path.uri, "run": {"store": str(other)}}
    handler = open_handler(ServeConfig.of(values))
    assert isinstance(handler, ImputeHandler)
    tiles = np.random.default_rng(2).standard_normal((6, handler.imputer.model.d_image)).astype(np.float32)
    options = RequestOptions(k=5, without=[PATIENTS[0]])
    (answer,) = handler.impute([handler.prepare(ImputeRequest(options, tiles))])
    assert isinstance(answer, ImputeResponse)
    opened = open_reference_index(source.path, source.manifest.notes["bank"])
    imputer = NeighborImputer(handler.imputer.model, opened)
    expected = imputer.impute(tiles, 5, allowed=opened.rows_without([PATIENTS[0]]), exact=True).expression
    np.testing.assert_array_equal(answer.expression, expected)
    assert not np.array_equal(expected, imputer.impute(tiles, 5, exact=True).expression)


def test_an_approximate_index_is_published_as_an_exact_one(store: StoragePath, tmp_path: Path) -> None:
    add_index(store, kind="ivf")
    _publish(store, tmp_path / "ivf")
    assert not [name for name in _files(tmp_path / "ivf") if name.endswith((".faiss", ".index"))]
    found = put_into_store(open_published(str(tmp_path / "ivf")), str(tmp_path / "other"))
    assert found.index is not None
    assert found.index.manifest.notes["bank"]["kind"] == "exact"


def _edit_json(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        values = json.loads((folder / name).read_bytes())
        change(values)
        (folder / name).write_text(json.dumps(values))

    return edit


def _flip(name: str) -> Callable[[Path], None]:
    def flip(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    return flip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_flip("model.safetensors"), r"model.safetensors has .* and card.json states .* a damaged or altered file"),
        (_flip("index/shard-00001.vectors.npy"), "shard-00001.vectors.npy has .* a damaged or altered file"),
        (_flip("index/index.json"), "index.json .* copy"),
        (lambda folder: (folder / CARD).unlink(), "has no card.json, so it is not a finished published model"),
        (lambda folder: (folder / CARD).write_text("{"), "card.json is not readable JSON"),
        (lambda folder: (folder / CARD).write_text("[" * 100_000), "card.json is not readable JSON"),
        (_edit_json(CARD, lambda card: card.update(schema_version=2)), "has schema version 2, and this raystp reads"),
        (_edit_json(CARD, lambda card: card.update(extra=1)), "is not a valid card: extra"),
        (_edit_json(CARD, lambda card: card.update(kind="pickle")), "is not a valid card: kind"),
        (
            _edit_json(CARD, lambda card: card["files"].update({"index/../../x": card["files"]["model.json"]})),
            "is not a file of a published folder",
        ),
        (_edit_json(CARD, lambda card: card["files"].pop("model.json")), "lists no file 'model.json'"),
        (_edit_json(CARD, lambda card: card["genes"].append("E")), "is not the model of its card"),
    ],
)
def test_a_changed_folder_is_refused_and_the_store_gets_nothing(
    folder: Path, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    change(folder)
    with pytest.raises(RaystpError, match=message):
        put_into_store(open_published(str(folder)), str(tmp_path / "other"))
    assert not list((tmp_path / "other").rglob("index/*/manifest.json"))


def test_an_index_file_outside_its_folder_is_refused(store: StoragePath, folder: Path, tmp_path: Path) -> None:
    """A card and a description that agree with each other, of a publisher with bad intentions."""
    record = json.loads((folder / "index/index.json").read_bytes())
    record["bank"]["rows"]["file"] = "../../../etc/passwd"
    (folder / "index/index.json").write_text(json.dumps(record))
    card = json.loads((folder / CARD).read_bytes())
    content = (folder / "index/index.json").read_bytes()
    card["files"]["index/index.json"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(ModelError, match=r"lists no file 'index/../../../etc/passwd'"):
        put_into_store(open_published(str(folder)), str(tmp_path / "other"))
    assert store.exists()


def test_a_folder_with_other_files_or_another_model_is_left_as_it_is(
    store: StoragePath, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"holds other files \('thesis.tex'\): choose a new or empty folder"):
        _publish(store, tmp_path / "home")
    shutil.copytree(store.local_path, tmp_path / "second")
    before = _files(folder)
    with pytest.raises(ConfigError, match="already holds another published model"):
        _publish(store, folder, licence="MIT")
    card = json.loads((folder / CARD).read_bytes())
    (folder / CARD).write_text(json.dumps({**card, "source": "train/other-000000000000"}))
    altered = _files(folder)
    with pytest.raises(ConfigError, match="already holds another published model"):
        _publish(store, folder, licence="CC-BY-4.0")
    assert _files(folder) == altered
    assert before.keys() == altered.keys()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"index": None}, "answers from a reference index: set index=index/<name>"),
        ({"model": "train/toy"}, "predicts without an index: remove `index`"),
        ({"model": "train/toy", "index": None}, "does not record its encoder and tiles: train it again"),
    ],
)
def test_what_cannot_be_published_is_refused_with_the_reason(
    store: StoragePath, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(RaystpError, match=message):
        _publish(store, tmp_path / "no", **changed)
    assert not (tmp_path / "no").exists()


def test_a_model_of_the_hub_is_opened_from_its_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--lab--model"
    shutil.copytree(folder, repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert open_published("hf-hub:lab/model").card == read_card(StoragePath.of(folder))
    with pytest.raises(ModelError, match="cannot download hf-hub:lab/other"):
        open_published("hf-hub:lab/other")


def test_publishing_measured_expression_is_a_warning_with_the_number_of_patients(
    store: StoragePath, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _publish(store, tmp_path / "published")
    assert "the index holds the measured expression of 300 rows of 2 patients: publish it only where" in caplog.text


def test_models_that_keep_measured_expression_are_named_also_within_an_ensemble() -> None:
    one = {"train": ["S1", "S2"], "patients": {"S1": "P1", "S2": "P1", "S3": "P2"}}
    assert expression_warning("ridge", one, None) == ""
    assert expression_warning("knn", one, None).startswith("the kNN model holds the measured expression of the")
    assert "of the training spots of 1 patient, or" in expression_warning("knn", one, None)
    two = {"train": ["S1", "S3"], "patients": one["patients"]}
    members = [{"kind": "ridge", "meta": one}, {"kind": "bleep", "meta": two}, {"kind": "knn", "meta": one}]
    said = expression_warning("ensemble", {"members": members}, None)
    assert said.startswith("the BLEEP and kNN model holds")
    assert "of 2 patients" in said
    assert expression_warning("ensemble", {"members": members[:1]}, None) == ""
