"""Register a published folder in MLflow: a model version that `mlflow.pyfunc.load_model` opens without a store."""

import importlib.metadata

from raystp.artifacts import Artifact
from raystp.cluster.tracking.pyfunc import tile_signature
from raystp.cluster.tracking.registry import ModelVersionRef, RegisteredModel, register_model
from raystp.cluster.tracking.runs import RunRef
from raystp.cluster.tracking.tags import PROTOCOL_TAG
from raystp.steps.embedding_source import neighbour_means_of
from raystp.steps.publish.card import PublishedCard
from raystp.steps.publish.config import PublishConfig
from raystp.steps.publish.published import PublishedModel, copy_published, open_published, open_with_record
from raystp.steps.publish.tile_table import needs_places, open_tile_table
from raystp.storage import StoragePath


def register(config: PublishConfig, name: str, model: Artifact) -> ModelVersionRef:
    """Register the folder that `config.out` holds under a name; `model` is what it was published from."""
    inputs, tracker = model.manifest.inputs, config.registry(model.manifest.inputs)
    run_ref: RunRef = tracker.run_ref(f"{model.manifest.name}-{model.manifest.fingerprint}", model.manifest.folder)
    published = open_published(config.out)
    return register_model(str(tracker.uri), run_ref, as_registered(published, name), inputs)


def as_registered(published: PublishedModel, name: str) -> RegisteredModel:
    """Return a published folder as MLflow stores it."""
    card = published.card
    model, meta = open_with_record(published)
    places = needs_places(model, neighbour_means_of(meta))
    return RegisteredModel(
        name=name,
        digest=card.digest,
        copy_files=lambda folder: copy_published(published, StoragePath.of(folder)),
        opener=open_tile_table,
        signature=tile_signature(card.genes, protocol=card.protocol, needs_places=places),
        requirements=[f"{package}=={importlib.metadata.version(package)}" for package in ("raystp", "mlflow")],
        description=_description(card),
        tags={PROTOCOL_TAG: card.protocol, "raystp.source": card.source, "raystp.licence": card.licence},
    )


def _description(card: PublishedCard) -> str:
    """Return the card in words, as Markdown."""
    reads = "; ".join(block.sentence for block in card.features)
    scores = [f"{one.metric} {one.genes} {one.value:.4g}" for one in card.scores if one.metric == "PCC"]
    lines = [
        card.description,
        f"{card.kind}, {len(card.genes)} genes (panel {card.panel}), {card.normalisation}.",
        f"Reads {reads}.",
        f"Protocol {card.protocol}: {card.protocol_description}",
        f"Scores: {', '.join(scores)}." if scores else "",
        f"Licence: {card.licence}.",
    ]
    return "\n\n".join(line for line in lines if line)
