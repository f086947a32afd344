"""index: a contrastive model + reference spots -> a bank: FAISS shards, and expression rows in the same order."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from raystp.artifacts import Artifact, begin, find
from raystp.cluster.progress import say
from raystp.config import Run, StepConfig, Where
from raystp.errors import ModelError
from raystp.index.bank import write_bank
from raystp.index.reference import Reference
from raystp.models.predictor import Contrastive, predictor
from raystp.models.store import load_model
from raystp.steps.training_set import Stack, join, stack

STEP = "index"


class IndexConfig(StepConfig[Run]):
    """Which model's space, and which measured spots to put into it."""

    where: ClassVar[frozenset[str]] = frozenset({"model", "spots", "embeddings"})

    model: Annotated[str, Where("train")]
    """A contrastive model, `train/<name>`."""

    spots: Annotated[str, Where("spots")]
    """The measured spots, `spots/<name>`."""

    embeddings: Annotated[str, Where("embed")]
    """Their tiles' embeddings, `embed/<name>`."""

    reference: list[str] | None = None
    """Sections of the bank; by default those that the model was trained and validated on."""

    bank: Literal["spot", "image"] = "spot"
    """Whether queries are compared with the references' expression (the published code) or with their images."""

    metric: Literal["cosine", "l2"] = "cosine"

    shards: int = Field(default=2, ge=1)
    """Parts that the rows are cut into; any number gives the same answers."""

    run: Run = Field(default_factory=Run)


CONFIG = IndexConfig


def run(config: IndexConfig) -> Artifact:
    """Embed the reference spots and leave the bank."""
    store = config.run.store
    model, spots = find(store, config.model, "train"), find(store, config.spots, "spots")
    embed = find(store, config.embeddings, "embed")
    draft = begin(config, STEP, {"model": model, "spots": spots, "embeddings": embed})
    if isinstance(draft, Artifact):
        return draft
    kind, arrays, meta = load_model(model.place)
    ready = predictor(kind, arrays, meta)
    if not isinstance(ready, Contrastive):
        msg = f"{model.place} is a {kind} model, which answers by itself: run `raystp impute` without an index"
        raise ModelError(msg)
    names = config.reference or [*meta["train"], *meta["validation"]]
    rows = stack([join(spots, embed, name) for name in names], tuple(ready.genes))
    vectors = ready.embed_spots(rows.expression) if config.bank == "spot" else ready.embed_images(rows.features)
    patients = {name: one["patient"] for name, one in spots.manifest.notes["sections"].items()}
    reference = Reference(
        vectors=vectors,
        expression=rows.expression,
        genes=ready.genes,
        sections=_of_group(rows),
        spots=list(rows.spots),
        patients=[patients[name] for name in _of_group(rows)],
    )
    described = write_bank(draft.place, reference, shards=config.shards, metric=config.metric)
    say(f"index: {len(vectors)} spots of {', '.join(names)} in {config.shards} shards, {config.metric}")
    notes = {
        "bank": described,
        "model": model.manifest.folder,
        "patients": described["patients"],
        "slides": list(rows.slides),
    }
    return draft.finish({"rows": len(vectors), "shards": config.shards}, [], notes)


def _of_group(rows: Stack) -> list[str]:
    """Return the section of each row."""
    return [rows.sections[number] for number in rows.group.tolist()]
