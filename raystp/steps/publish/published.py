"""Open a published model: a folder, a URI or a repository of the hub; and put it into a store as artifacts.

In the store it is `train/published-<name>` and `index/published-<name>`, so every step reads it as any model. Its
fingerprint is that of the card, which states the digests of all files: equal models are put into a store once.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raystp import tables
from raystp.artifacts import MANIFEST, Artifact, ArtifactWriter, fingerprint, open_artifact
from raystp.digests import digest
from raystp.errors import ModelError
from raystp.index.files import file_names
from raystp.index.open import ReferenceIndex, open_reference_index
from raystp.models.methods import METHODS
from raystp.models.predictor import Predictor
from raystp.models.store import MODEL_FILES, load_model
from raystp.steps.publish.card import (
    CARD,
    INDEX_FOLDER,
    INDEX_JSON,
    MAX_RECORD_BYTES,
    FileEntry,
    PublishedCard,
    read_card,
)
from raystp.steps.train.reference import open_model
from raystp.storage import StoragePath
from raystp.storage.text_files import read_object

HUB = "hf-hub:"
"""Start of a reference to a repository of the hub."""

MAX_OPTION = 1_000_000
"""Largest number among a published model's options."""

DAMAGED = (KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError)
"""What a record with missing or wrong entries makes a method or an index raise."""


@dataclass(frozen=True)
class PublishedModel:
    """A published folder and its card; the files are checked when they are read."""

    folder: StoragePath
    card: PublishedCard


@dataclass(frozen=True)
class ModelArtifacts:
    """A model in a store, with its reference index where it answers from one."""

    model: Artifact
    index: Artifact | None


def open_published(reference: str) -> PublishedModel:
    """Open a folder, a URI, or `hf-hub:<owner>/<name>[@<revision>]`; raises ModelError where it is not one."""
    folder = _download(reference) if reference.startswith(HUB) else StoragePath.of(reference)
    return PublishedModel(folder, read_card(folder))


def is_published(reference: str) -> bool:
    """Return whether a reference is to a repository of the hub, or to a folder with a card.

    Raises ModelError for the card itself.
    """
    if reference.endswith(f"/{CARD}") or reference == CARD:
        msg = f"model: {StoragePath.of(reference)} is the card of a published model: give its folder"
        raise ModelError(msg)
    return reference.startswith(HUB) or (StoragePath.of(reference) / CARD).exists()


def put_into_store(published: PublishedModel, store: str) -> ModelArtifacts:
    """Copy a published model into a store, unless it is there; return its artifacts.

    Raises ModelError for a file of another size or digest, and for a model or an index that cannot be opened.
    """
    card = published.card
    model = _artifact(published, store, "train")
    if isinstance(model, ArtifactWriter):
        for name in MODEL_FILES:
            _copy(published, name, model.path / name)
        _, meta = _open_model(card, model.path)
        (model.path / "epochs.parquet").write_table(tables.EPOCHS.empty_table())
        counts = {"genes": len(card.genes), "epochs": 0}
        model = model.finish(counts, [], _model_notes(card, meta))
    return ModelArtifacts(model, None if card.index is None else _put_index(published, store, model))


def open_published_model(published: PublishedModel) -> Predictor:
    """Open the model in its folder, without a store; raises ModelError as `put_into_store` does."""
    return open_with_record(published)[0]


def open_with_record(published: PublishedModel) -> tuple[Predictor, dict[str, Any]]:
    """Return the model in its folder, and its record; raises ModelError as `put_into_store` does."""
    for name in MODEL_FILES:
        _check_file(published, name, published.folder / name)
    return _open_model(published.card, published.folder)


def copy_published(published: PublishedModel, target: StoragePath) -> None:
    """Copy the card and the files that it lists, and nothing else; raises ModelError for a damaged one."""
    for name in published.card.files:
        _copy(published, name, target / name)
    (target / CARD).write_bytes(published.card.to_bytes())


def open_published_index(published: PublishedModel) -> ReferenceIndex:
    """Open the index in its folder, without a store; raises ModelError for a model without one, or a damaged file."""
    file = published.folder / INDEX_JSON
    if published.card.index is None:
        msg = f"{published.folder} is a {published.card.kind} model, which has no reference index"
        raise ModelError(msg)
    record = read_object(file, MAX_RECORD_BYTES, ModelError)
    _check_file(published, INDEX_JSON, file)
    try:
        for name in file_names(record["bank"]):
            _check_file(published, f"{INDEX_FOLDER}/{name}", published.folder / INDEX_FOLDER / name)
        return _open_index(published.card, published.folder / INDEX_FOLDER, record["bank"])
    except DAMAGED as error:
        raise _wrong(file, error) from None


def _put_index(published: PublishedModel, store: str, model: Artifact) -> Artifact:
    index = _artifact(published, store, "index")
    if isinstance(index, Artifact):
        return index
    record = read_object(published.folder / INDEX_JSON, MAX_RECORD_BYTES, ModelError)
    _check_file(published, INDEX_JSON, published.folder / INDEX_JSON)
    try:
        description = record["bank"]
        for name in file_names(description):
            _copy(published, f"{INDEX_FOLDER}/{name}", index.path / name)
        _open_index(published.card, index.path, description)
        shards = len(description["shards"])
        kept = ("bank", "patients", "slides", "vectors", "distance")
        notes: dict[str, object] = {key: record[key] for key in kept if key in record}
        notes["model"] = model.manifest.folder
    except DAMAGED as error:
        raise _wrong(published.folder / INDEX_JSON, error) from None
    rows = sum(shard["rows"] for shard in description["shards"])
    return index.finish({"rows": rows, "shards": shards}, [], notes)


def _artifact(published: PublishedModel, store: str, step: str) -> Artifact | ArtifactWriter:
    """Return the artifact of a published model, or a writer where the store lacks it."""
    card = published.card
    name = f"published-{card.name}"[:64]
    of_card = fingerprint(step, {"published": card.digest}, {})
    path = StoragePath.of(store) / step / f"{name}-{of_card}"
    if (path / MANIFEST).exists():
        return open_artifact(path, step)
    StoragePath.of(store).check_writable()
    return ArtifactWriter(path, step, name, of_card, {"published": card.digest[:16]}, {})


def _copy(published: PublishedModel, name: str, target: StoragePath) -> None:
    """Copy a file that the card lists, after a check of its size and digest."""
    with (published.folder / name).local() as local:
        _check_file(published, name, StoragePath.of(local))
        target.write_file(lambda path: shutil.copyfile(local, path))


def _check_file(published: PublishedModel, name: str, file: StoragePath) -> None:
    entry: FileEntry | None = published.card.files.get(name)
    if entry is None:
        msg = f"{published.folder / CARD} lists no file {name[:200]!r}, which the model needs: publish it again"
        raise ModelError(msg)
    found = FileEntry(bytes=file.size(), sha256=digest(file))
    if found != entry:
        msg = (
            f"{published.folder / name} has {found.bytes:,} bytes and sha256 {found.sha256[:12]}..., and card.json "
            f"states {entry.bytes:,} and {entry.sha256[:12]}...: a damaged or altered file; copy the folder again"
        )
        raise ModelError(msg)


def _open_model(card: PublishedCard, folder: StoragePath) -> tuple[Predictor, dict[str, Any]]:
    """Return a model and its record; raises ModelError unless it opens and agrees with its card."""
    if (folder / MODEL_FILES[1]).size() > MAX_RECORD_BYTES:
        msg = f"{folder / MODEL_FILES[1]} has more than {MAX_RECORD_BYTES:,} bytes: not the record of a model"
        raise ModelError(msg)
    try:
        kind, arrays, meta = load_model(folder)
        _check_options([meta["options"], *(one["meta"]["options"] for one in meta.get("members", []))], folder)
        opened = open_model(kind, arrays, meta)
        facts = (kind, tuple(opened.genes), meta["protocol"], meta["names_salt"])
        _ = (meta["patients"].values(), meta["slides"], meta["train"], meta["panel"]["name"])
    except DAMAGED as error:
        raise _wrong(folder / MODEL_FILES[1], error) from None
    if facts != (card.kind, card.genes, card.protocol, card.training.salt):
        msg = f"{folder / MODEL_FILES[1]} is not the model of its card (method, genes, protocol or salt): publish again"
        raise ModelError(msg)
    if METHODS[kind].needs_index != (card.index is not None):
        msg = f"the card of {card.name} has {'no' if card.index is None else 'an'} index; a {kind} model differs"
        raise ModelError(msg)
    return opened, meta


def _check_options(options: Any, folder: StoragePath) -> None:
    """Raise ModelError for a number in the options that no method has: a network is built before its tensors fit."""
    values = options.values() if isinstance(options, Mapping) else options
    for value in values:
        if isinstance(value, Mapping | list):
            _check_options(value, folder)
        elif isinstance(value, int | float) and abs(value) > MAX_OPTION:
            msg = f"{folder / MODEL_FILES[1]} has the option value {value!r}; at most {MAX_OPTION:,} is allowed"
            raise ModelError(msg)


def _open_index(card: PublishedCard, folder: StoragePath, description: Any) -> ReferenceIndex:
    """Return an index; raises ModelError for one with FAISS files, ArtifactError where a file is not as described."""
    has_faiss = description["quantizer"] is not None or any(one["index"] is not None for one in description["shards"])
    if has_faiss or description["kind"] != "exact" or description["version"] == 1:
        msg = f"the index of {card.name} has FAISS files, which are not read from a published folder: publish it again"
        raise ModelError(msg)
    opened = open_reference_index(folder, description)
    if tuple(opened.genes) != card.genes:
        msg = f"the index of {card.name} has other genes than its model: publish it again"
        raise ModelError(msg)
    return opened


def _model_notes(card: PublishedCard, meta: Mapping[str, Any]) -> dict[str, object]:
    kept = ("protocol", "train", "validation", "test", "patients", "panel", "d_image")
    notes: dict[str, object] = {key: meta[key] for key in kept if key in meta}
    return {**notes, "score": {"validation_pcc": card.validation_pcc}, "licence": card.licence}


def _download(reference: str) -> StoragePath:
    """Return the local copy of a repository of the hub, or of its cache; only files of a published model."""
    name, _, revision = reference.removeprefix(HUB).partition("@")
    try:
        import huggingface_hub  # noqa: PLC0415 -- slow to import, and optional
    except ImportError:
        msg = f"model: {reference} needs the package huggingface_hub: install it, or give a folder or URI"
        raise ModelError(msg) from None
    files = [CARD, *MODEL_FILES, f"{INDEX_FOLDER}/*"]
    try:
        return StoragePath.of(
            Path(huggingface_hub.snapshot_download(name, revision=revision or None, allow_patterns=files))
        )
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        msg = f"model: cannot download {reference} ({reason}): check the name and the token, or give a folder or URI"
        raise ModelError(msg) from error


def _wrong(file: StoragePath, error: Exception) -> ModelError:
    reason = " ".join(str(error).split())[:200]
    return ModelError(f"{file} cannot be used ({type(error).__name__}: {reason}): damaged or altered; copy it again")
