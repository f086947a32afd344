"""publish: a trained model [+ its index] -> one folder that `raystp predict` reads anywhere.

    card.json            what it reads and predicts, licence, scores, hashes of training patients; written last
    model.json, model.safetensors
    index/               for a model that answers from neighbours: vectors and expression of the reference spots

Equal models give equal bytes. No name of a patient, section or slide is written, and nothing that is unpickled.
"""

import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from raystp import tables
from raystp.artifacts import Artifact, open_artifact, resolve, without_secrets
from raystp.digests import digest
from raystp.errors import ConfigError, ModelError, some
from raystp.evaluate.metrics.cases import CASES
from raystp.evaluate.metrics.score import MEAN
from raystp.evaluate.protocols import protocol_of
from raystp.index.files import file_names
from raystp.models.methods import METHODS
from raystp.models.store import MODEL_FILES, load_model, save_model
from raystp.steps.embedding_source import neighbour_means_of
from raystp.steps.evaluate.predictions import open_models
from raystp.steps.publish.card import (
    CARD,
    INDEX_FOLDER,
    INDEX_JSON,
    FileEntry,
    IndexEntry,
    PublishedCard,
    ScoreEntry,
    TrainingEntry,
    read_card,
)
from raystp.steps.publish.config import NOT_STATED, PublishConfig
from raystp.steps.publish.expression import expression_warning
from raystp.steps.publish.features import FeatureBlock, feature_blocks
from raystp.steps.publish.index_files import published_index
from raystp.steps.publish.record import published_record
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

STEP = "publish"
CONFIG = PublishConfig

ALLOWED_NAMES = frozenset({*MODEL_FILES, INDEX_FOLDER, "README.md", ".gitattributes", ".git"})
"""What a folder without a card may hold: files of an interrupted run, and those of a repository."""


@dataclass(frozen=True)
class _Source:
    """What is published."""

    model: Artifact
    index: Artifact | None
    kind: str
    meta: Mapping[str, Any]
    features: tuple[FeatureBlock, ...]
    scores: tuple[ScoreEntry, ...]
    salt: str
    """Of the hashed names: from the model's own weights, so that equal models have equal cards."""

    @property
    def folders(self) -> tuple[str, str | None]:
        """The folders of model and index in their store."""
        return self.model.manifest.folder, None if self.index is None else self.index.manifest.folder


def run(config: PublishConfig) -> str:
    """Write the folder and return a sentence; a folder that holds the same model is left as it is."""
    source, arrays = _source(config)
    if config.register_as is not None:
        config.registry(source.model.manifest.inputs)  # refuses before anything is written
    kind, meta, salt, index = source.kind, source.meta, source.salt, source.index
    out = StoragePath.of(config.out)
    _check_out(out, source)
    out.check_writable("output", "out")
    before = _content(out / CARD)
    save_model(out, kind, arrays, published_record(meta, salt))
    if index is not None:
        record = published_index(index, out / INDEX_FOLDER, salt)
        (out / INDEX_JSON).write_bytes(json.dumps(record, indent=1, sort_keys=True, allow_nan=False).encode())
    card = _card(config, source, out)
    if before is None and not (out / CARD).write_new(card.to_bytes()):
        before = _content(out / CARD)
    if before is not None and before != card.to_bytes():
        raise _other_model(out)
    if held := expression_warning(kind, meta, index):
        logger.warning(f"publish: {held}: publish it only where these patients' data may be published")
    if card.licence == NOT_STATED:
        logger.warning("publish: the card states no licence, so others have no right to use it: set licence=...")
    done = "was published before" if before is not None else "published"
    size = sum(one.bytes for one in card.files.values())
    files = f"{len(card.files) + 1} files, {size:,} bytes"
    sentence = f"{card.source} {done}: {out} ({files}); use it with model={without_secrets(config.out)}"
    if config.register_as is None:
        return sentence
    from raystp.steps.publish.register import register  # noqa: PLC0415 -- imports MLflow's models, which is slow

    version = register(config, config.register_as, source.model)
    known = "registered in MLflow" if version.is_new else "registered before"
    return f"{sentence}\n{known}: mlflow.pyfunc.load_model({version.uri!r})"


def plan(config: PublishConfig) -> Iterator[str]:
    """Yield what is read, and what the folder holds; raises as `run` does before it writes."""
    source, _ = _source(config)
    out = StoragePath.of(config.out)
    _check_out(out, source)
    yield f"reads model: {source.model.path}"
    if source.index is not None:
        yield f"reads index: {source.index.path}"
    if config.scores is not None:
        yield f"reads scores: {resolve(config.run.store, config.scores, 'evaluate').path}"
    yield f"writes {without_secrets(config.out)}"
    if config.register_as is not None:
        uri = config.registry(source.model.manifest.inputs).uri
        yield f"registers {config.register_as} in {without_secrets(str(uri))}"
    yield "a model is published there: it is left as it is if it is equal" if (out / CARD).exists() else "not done"


def _source(config: PublishConfig) -> tuple[_Source, Mapping[str, Any]]:
    """Return what is published, and the arrays of the model; raises for what cannot be, before anything is written."""
    model = resolve(config.run.store, config.model, "train")
    index = resolve(config.run.store, config.index, "index") if config.index else None
    kind, arrays, meta = load_model(model.path)
    check_index(model, kind, index)
    salt = hashlib.sha256((model.path / MODEL_FILES[0]).read_bytes()).hexdigest()[:32]
    features = tuple(feature_blocks(model, meta, config.run.store))
    return _Source(model, index, kind, meta, features, tuple(_scores(config, model)), salt), arrays


def check_index(model: Artifact, kind: str, index: Artifact | None) -> None:
    """Raise unless the model has an index exactly where it needs one, and this one was made with it."""
    if METHODS[kind].needs_index and index is None:
        msg = f"{model.path} is a {kind} model, which answers from a reference index: set index=index/<name>"
        raise ConfigError(msg)
    if index is None:
        return
    if not METHODS[kind].needs_index:
        msg = f"{model.path} is a {kind} model, which predicts without an index: remove `index`"
        raise ConfigError(msg)
    if index.manifest.notes["model"] != model.manifest.folder:
        msg = (
            f"the index {index.path} was made with model {index.manifest.notes['model']}, not with "
            f"{model.manifest.folder}: run `raystp index` with this model"
        )
        raise ModelError(msg)


def _card(config: PublishConfig, source: _Source, out: StoragePath) -> PublishedCard:
    model, meta, record = source.model, source.meta, published_record(source.meta, source.salt)
    protocol, names = protocol_of(meta["protocol"]), list(MODEL_FILES)
    patients, slides, entry = set(record["patients"].values()), set(record["slides"]), None
    if source.index is not None:
        published = json.loads((out / INDEX_JSON).read_bytes())
        patients, slides = patients | set(published["patients"]), slides | set(published["slides"])
        bank = published["bank"]
        entry = IndexEntry(
            source=source.index.manifest.folder,
            rows=sum(shard["rows"] for shard in bank["shards"]),
            vectors=str(published.get("vectors")),
            metric=bank["metric"],
        )
        names += [INDEX_JSON, *(f"{INDEX_FOLDER}/{name}" for name in file_names(bank))]
    pcc = (model.manifest.notes.get("score") or {}).get("validation_pcc")
    return PublishedCard(
        name=config.name if "name" in config.model_fields_set else model.manifest.name,
        kind=source.kind,
        raystp=importlib.metadata.version("raystp"),
        source=model.manifest.folder,
        licence=config.licence,
        description=config.description,
        panel=meta["panel"]["name"],
        genes=tuple(meta["genes"]),
        normalisation=meta.get("normalisation", "log1p of counts per 10,000"),
        features=source.features,
        neighbour_means=tuple(neighbour_means_of(meta)),
        protocol=protocol.name,
        protocol_description=protocol.description,
        validation_pcc=None if pcc is None else float(pcc),
        scores=source.scores,
        training=TrainingEntry(
            sections=len(meta["train"]),
            salt=source.salt,
            patients=tuple(sorted(patients)),
            slides=tuple(sorted(slides)),
        ),
        index=entry,
        files={name: FileEntry(bytes=(out / name).size(), sha256=digest(out / name)) for name in sorted(names)},
    )


def _scores(config: PublishConfig, model: Artifact) -> list[ScoreEntry]:
    """Return the mean scores of this model in an evaluation; raises ConfigError for one without it."""
    if config.scores is None:
        return []
    store = StoragePath.of(config.run.store)
    scored = resolve(config.run.store, config.scores, "evaluate")
    folders = [folder for role, folder in scored.manifest.inputs.items() if role.startswith("prediction ")]
    models = open_models([open_artifact(store / folder, "impute") for folder in folders], config.run.store)
    names = [one.name for one in models if one.model.manifest.folder == model.manifest.folder]
    if not names:
        known = some([one.model.manifest.folder for one in models])
        msg = f"scores: {scored.path} scores {known}, not {model.manifest.folder}: choose an evaluation of this model"
        raise ConfigError(msg)
    rows = scored.table("scores.parquet", tables.SCORES).to_pylist()
    kept = [row for row in rows if row["model"] == names[0] and row["section"] in {MEAN, CASES}]
    return [ScoreEntry(**{key: row[key] for key in ScoreEntry.model_fields}) for row in kept]


def _check_out(out: StoragePath, source: _Source) -> None:
    """Raise ConfigError for a folder with another published model, or with other files than one has."""
    if out.exists() and not out.is_folder():
        msg = f"out: {out} is a file; give a new or empty folder, or a URI"
        raise ConfigError(msg)
    other = sorted(set(out.names()) - ALLOWED_NAMES - {CARD})
    if other:
        msg = f"out: {out} holds other files ({some(other)}): choose a new or empty folder"
        raise ConfigError(msg)
    if (out / CARD).exists():
        card = read_card(out)
        if (card.source, None if card.index is None else card.index.source) != source.folders:
            raise _other_model(out)


def _content(file: StoragePath) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def _other_model(out: StoragePath) -> ConfigError:
    return ConfigError(f"out: {out} already holds another published model: choose another folder, or remove that one")
