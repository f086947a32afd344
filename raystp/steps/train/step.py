"""train: spots (or cases) + embeddings (or tiles) -> a model. Baselines in this process, all else on Ray Train."""

import logging
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Float64

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter, create_or_open, digest, resolve
from raystp.cluster.session import session
from raystp.cluster.tracking.delivery import RunRef
from raystp.cluster.tracking.outbox import Tracker, tracked
from raystp.cluster.training.workers import TrainResources, train
from raystp.errors import ConfigError
from raystp.evaluate.metrics.genes import pcc_per_gene
from raystp.evaluate.protocols import EvaluationProtocol, protocol_of
from raystp.expression.folds import Split, split_by_patient, split_by_section
from raystp.expression.panel import choose_panel
from raystp.expression.sections import sections_of
from raystp.expression.training_set import SpotTable, TrainingSetSpec, load_training_set
from raystp.models.predictor import DirectPredictor, predictor
from raystp.models.store import MODEL_FILES, save_model
from raystp.models.training.plan import epoch_plan
from raystp.steps.encoder_source import dim_of, source_of
from raystp.steps.train.baselines import fit_baseline
from raystp.steps.train.bulk import bulk_plan
from raystp.steps.train.config import CONTRASTIVE, TrainConfig
from raystp.steps.train.learners import LEARNERS, learner_of, texts_meta
from raystp.steps.train.work import Learner, TrainWork
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

STEP = "train"
CONFIG = TrainConfig


@dataclass(frozen=True)
class _Task:
    """What is known before the fit: who is learned from, under which protocol, over which genes."""

    config: TrainConfig
    protocol: EvaluationProtocol
    split: Split
    recipe: TrainingSetSpec
    panel: dict[str, Any]


def run(config: TrainConfig) -> Artifact:
    """Train the model and leave `model.safetensors`, `model.json` and, for BLEEP, a score per epoch."""
    spots, images = opened(config)
    draft = create_or_open(config, STEP, inputs_of(config, spots, images))
    if isinstance(draft, Artifact):
        return draft
    return _on_cases(config, draft, images) if spots is None else _on_spots(config, draft, spots, images)


def _on_cases(config: TrainConfig, draft: ArtifactWriter, images: Artifact) -> Artifact:
    plan = bulk_plan(config, images)
    rows, score = _train(config, draft, plan.learner.meta, plan.learner, cohort=images.manifest.name)
    return _finish(draft, plan.meta, rows, score=score, counts={**plan.counts, "epochs": len(rows)})


def _on_spots(config: TrainConfig, draft: ArtifactWriter, spots: Artifact, images: Artifact) -> Artifact:
    protocol = protocol_of(config.split.protocol)
    split = _split(config, spots, images, protocol)
    genes, panel = choose_panel(config.panel, spots, split.train)
    recipe = TrainingSetSpec(spots, images, split.train, split.validation, config.split.validation_block, tuple(genes))
    task = _Task(config, protocol, split, recipe, {"name": config.panel.name, **panel})
    learned, held = load_training_set(recipe)
    _say(task, learned, held)
    meta = _meta(task, learned) | texts_meta(config, genes, learned)
    if config.model in LEARNERS:
        if config.model in CONTRASTIVE:  # said here, before any worker is started
            fit = config.fit
            epoch_plan(len(learned.group), contrast=fit.contrast, step=fit.step, seed=fit.seed, epoch=0)
        learner = learner_of(config, recipe, meta)
        rows, score = _train(config, draft, meta, learner, cohort=spots.manifest.name)
    else:
        rows, score = [], _fit(task, draft, meta, learned=learned, held=held)
    counts = {"genes": len(genes), "spots": len(learned.group), "epochs": len(rows)}
    return _finish(draft, meta, rows, score=score, counts=counts)


def _finish(
    draft: ArtifactWriter,
    meta: dict[str, Any],
    rows: list[dict[str, Any]],
    *,
    score: dict[str, Any],
    counts: dict[str, int],
) -> Artifact:
    (draft.path / "epochs.parquet").write_table(tables.of_rows(rows, tables.EPOCHS))
    (draft.path / "training").remove()
    kept = ["protocol", "train", "validation", "test", "patients", "panel", "d_image"]
    kept += [key for key in ("unseen", "bulk", "left_out") if key in meta]
    return draft.finish(counts, [], {key: meta[key] for key in kept} | {"score": score})


def opened(config: TrainConfig) -> tuple[Artifact | None, Artifact]:
    """Open the spots, and the embeddings or the tiles; raises ConfigError unless exactly one of these is named.

    No spots are there where labels of whole cases are learned from.
    """
    if (config.embeddings is None) == (config.tiles is None):
        msg = "train reads either `embeddings` (a frozen tower) or `tiles` with an `encoder` (end to end): name one"
        raise ConfigError(msg)
    if (config.tiles is None) != (config.encoder is None):
        msg = "`tiles` and `encoder` belong together: the tower is trained on pixels"
        raise ConfigError(msg)
    if config.tiles is not None and config.model != "bleep":
        msg = f"model '{config.model}' reads `embeddings`; only bleep is trained end to end from `tiles`"
        raise ConfigError(msg)
    spots = resolve(config.run.store, config.spots, "spots") if config.spots is not None else None
    if config.embeddings is not None:
        return spots, resolve(config.run.store, config.embeddings, "embed")
    return spots, resolve(config.run.store, str(config.tiles), "tile")


def inputs_of(config: TrainConfig, spots: Artifact | None, images: Artifact) -> dict[str, Artifact | str]:
    """Return what a training's fingerprint covers beside its config."""
    inputs: dict[str, Artifact | str] = {"images": images} if spots is None else {"spots": spots, "images": images}
    if config.bulk is not None:
        inputs |= config.bulk.digests(config.run.store)
    if config.panel.file is not None:
        inputs["panel"] = digest(StoragePath.of(config.panel.file))
    if config.model == "genequery":
        inputs |= config.text.digests()
    if config.encoder is not None:
        inputs["encoder"] = source_of(config.encoder, config.run.store).identity
    return inputs


def _split(config: TrainConfig, spots: Artifact, images: Artifact, protocol: EvaluationProtocol) -> Split:
    """Split the sections whose slides have images; the others are named, and left out."""
    sections = sections_of(spots)
    there = images.manifest.notes["patients"]
    for name, one in sections.items():
        if one["slide"] not in there:
            logger.warning(f"  section {name} is left out: its slide {one['slide']} is not in {images.path}")
    patients = {name: str(one["patient"]) for name, one in sections.items() if one["slide"] in there}
    by = split_by_patient if protocol.split == "patient" else split_by_section
    chosen = config.split
    train = _named(chosen.train, patients) if chosen.train is not None else None
    return by(patients, test=_named(chosen.test, patients), validation=_named(chosen.validation, patients), train=train)


def _named(names: list[str], patients: dict[str, str]) -> list[str]:
    """Return sections; a name that is no section but a patient stands for all the patient's sections."""
    return [
        section
        for name in names
        for section in ([name] if name in patients else [s for s, p in patients.items() if p == name] or [name])
    ]


def _meta(task: _Task, learned: SpotTable) -> dict[str, Any]:
    """Return what the model's JSON says: enough to apply it, to guard it, and to score it on its own gene sets."""
    config, recipe = task.config, task.recipe
    known, seen = sections_of(recipe.spots), (*recipe.train, *recipe.validation)
    notes = recipe.images.manifest.notes
    return {
        "genes": list(recipe.genes),
        "d_image": dim_of(config.encoder) if config.encoder else learned.features.shape[1],
        "options": config.model_dump(mode="json")[config.model] if config.model in LEARNERS else {},
        "encoder": config.encoder.model_dump(mode="json") if config.encoder else notes["encoder"],
        "trained_tower": config.encoder is not None,
        "tile": {"side": notes["side"], "pixels": notes["pixels"]},
        "protocol": task.protocol.name,
        "panel": task.panel,
        "train": list(recipe.train),
        "validation": list(recipe.validation),
        "test": list(task.split.test),
        "patients": {name: known[name]["patient"] for name in seen},
        "slides": [known[name]["slide"] for name in seen],
        "training_mean": learned.expression.mean(axis=0, dtype=np.float64).tolist(),
        "training_variance": _within(learned).tolist(),
        "normalisation": "log1p of counts per 10,000 of all genes of the section",
    }


def _within(learned: SpotTable) -> Float64[np.ndarray, " gene"]:
    """Return each gene's variance around its section's own mean: offsets between sections make no gene variable."""
    centred = learned.expression.astype(np.float64)
    for number in range(len(learned.sections)):
        centred[learned.group == number] -= centred[learned.group == number].mean(axis=0)
    around: Float64[np.ndarray, " gene"] = np.square(centred).sum(axis=0)
    return around / max(1, len(centred) - len(learned.sections))


def _say(task: _Task, learned: SpotTable, held: SpotTable | None) -> None:
    config, split = task.config, task.split
    logger.info(
        f"train {config.model}, protocol `{task.protocol.name}`: {len(learned.group)} spots of {', '.join(split.train)}"
    )
    if held is not None:
        logger.info(f"  validation on {len(held.group)} spots of {', '.join(split.validation or split.train)}")
    logger.info(f"  held out: {', '.join(split.test)}")
    if split.same_patient:
        logger.info(f"  {task.protocol.leak}")
    if config.model in LEARNERS:
        fit = config.fit
        logger.info(f"  sets of {fit.contrast}, {fit.step} per optimiser step, {fit.epochs} epochs")


def _train(
    config: TrainConfig, draft: ArtifactWriter, meta: dict[str, Any], learner: Learner, *, cohort: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows of the epochs table, and the one of the epoch that was chosen."""
    tracker, book = _tracking(config, draft, cohort)
    width = TrainResources(config.run.workers, config.run.cpus_per_worker, 1.0 if config.run.use_gpu else 0.0)
    work = TrainWork(
        learner=learner,
        fit=config.fit,
        spread_sets=config.run.gather,
        checkpoint_every=config.run.checkpoint_every,
        target=draft.path,
        meta=meta,
        tracker=tracker,
        book=book,
        parameters=draft.config,
    )
    with session(config.run.address):
        answer = train(work, width, folder=draft.path / "training", name=draft.fingerprint)
    _say_left(answer["untracked"])
    rows: list[dict[str, Any]] = answer["epochs"]
    return rows, next(row for row in rows if row["epoch"] == answer["chosen"])


def _fit(
    task: _Task, draft: ArtifactWriter, meta: dict[str, Any], *, learned: SpotTable, held: SpotTable | None
) -> dict[str, float | None]:
    """Fit a baseline here and now; its figures of a single value (alpha, k) are logged, its validation PCC returned."""
    arrays = fit_baseline(task.config, learned)
    save_model(draft.path, task.config.model, arrays, meta)
    pcc = None
    if held is not None:
        predicted = cast("DirectPredictor", predictor(task.config.model, arrays, meta)).predict(held.features)
        pcc = float(pcc_per_gene(predicted, held.expression)[0].mean())
    tracker, book = _tracking(task.config, draft, task.recipe.spots.manifest.name)
    with tracked(tracker, book, draft.config) as one:
        single = {name: float(value) for name, value in arrays.items() if value.ndim == 0}
        one.metrics({**single, "validation_pcc": pcc}, step=0)
        for name in MODEL_FILES:
            one.file(f"{draft.folder}/{name}", "model")
    _say_left(one.left)
    return {"validation_pcc": pcc}


def _tracking(config: TrainConfig, draft: ArtifactWriter, cohort: str) -> tuple[Tracker, RunRef]:
    tracker = config.run.tracker(cohort)
    return tracker, tracker.book(f"{draft.name}-{draft.fingerprint}", draft.folder)


def _say_left(left: str) -> None:
    if left:
        logger.warning(f"  {left}")
