"""train: spots + embeddings (or tiles) -> a model. BLEEP on Ray Train; the baselines in this process."""

from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float64
from pydantic import Field

from raystp import tables
from raystp.artifacts import Artifact, Draft, begin, digest, find
from raystp.cluster.progress import say
from raystp.cluster.session import session
from raystp.cluster.tracking import tracked
from raystp.cluster.train_workers import Width, train
from raystp.config import Config, Run, StepConfig
from raystp.encoders.registry import describe
from raystp.errors import ConfigError
from raystp.evaluate.protocols import EvaluationProtocol, protocol_of
from raystp.expression.folds import Split, split_by_patient, split_by_section
from raystp.models.baselines import Arrays, fit_gene_mean, fit_knn
from raystp.models.bleep import BleepOptions
from raystp.models.fit import FitOptions
from raystp.models.ridge import fit_ridge
from raystp.models.store import save_model
from raystp.steps.embed import EncoderConfig
from raystp.steps.pairs import sections_of
from raystp.steps.panel import PanelConfig, choose_panel
from raystp.steps.train_bleep import BleepWork, Tracking
from raystp.steps.training_set import Recipe, Stack, assemble
from raystp.storage import Place

STEP = "train"


class SplitConfig(Config):
    """Who is learned from and who is held out."""

    protocol: str = "patient"
    """`patient` holds out whole patients; `section` holds out sections, whose patients may be trained on."""

    test: list[str] = Field(min_length=1)
    """Held out: sections, or patients, which stand for all their sections."""

    validation: list[str] = Field(default_factory=list)
    """Sections or patients of the training side that pick the epoch instead of being learned from."""

    train: list[str] | None = None
    """Sections or patients to learn from; by default all the rest."""

    validation_block: float = Field(default=0.0, ge=0, lt=1)
    """Instead of `validation`: the share of each training section's spots, one spatial block, that validates."""


class TrainRun(Run):
    """How wide to train; nothing here changes the result beyond rounding."""

    workers: int = Field(default=1, ge=1)
    """Training processes."""

    gather: bool = False
    """Spread each contrast set over the workers and gather its embeddings; by default whole sets are dealt to
    workers."""

    use_gpu: bool = False
    """One GPU for each worker."""

    cpus_per_worker: float = Field(default=1.0, gt=0)

    checkpoint_every: int = Field(default=10, ge=1)
    """Epochs between checkpoints."""

    tracking: str | None = None
    """MLflow's tracking URI; by default `mlflow.db` (SQLite) in a local store."""

    experiment: str = "raystp"
    """MLflow's experiment."""


class TrainConfig(StepConfig[TrainRun]):
    """Which model to train, on what, and who is held out."""

    where: ClassVar[frozenset[str]] = frozenset({"spots", "embeddings", "tiles"})

    spots: str
    """The measured spots, `spots/<name>`."""

    embeddings: str | None = None
    """Cached features, `embed/<name>`: the frozen tower."""

    tiles: str | None = None
    """Tiles as pixels, `tile/<name>`: the tower `encoder` is trained along, end to end."""

    encoder: EncoderConfig | None = None
    """The tower to train with `tiles`."""

    model: Literal["bleep", "ridge", "knn", "gene_mean"] = "bleep"

    panel: PanelConfig = Field(default_factory=PanelConfig)

    split: SplitConfig

    bleep: BleepOptions = Field(default_factory=BleepOptions)

    fit: FitOptions = Field(default_factory=FitOptions)

    k: int = Field(default=50, ge=1)
    """Neighbours of the `knn` baseline."""

    run: TrainRun = Field(default_factory=TrainRun)


CONFIG = TrainConfig


def run(config: TrainConfig) -> Artifact:
    """Train the model and leave `model.safetensors`, `model.json` and, for BLEEP, a score per epoch."""
    spots, images = _inputs(config)
    inputs: dict[str, Artifact | str] = {"spots": spots, "images": images}
    if config.panel.file is not None:
        inputs["panel"] = digest(Place.of(config.panel.file))
    if config.encoder is not None:
        inputs["encoder"] = describe(config.encoder.spec()).identity
    draft = begin(config, STEP, inputs)
    if isinstance(draft, Artifact):
        return draft
    protocol = protocol_of(config.split.protocol)
    split = _split(config, spots, images, protocol)
    genes, report = choose_panel(config.panel, spots, split.train)
    recipe = Recipe(spots, images, split.train, split.validation, config.split.validation_block, tuple(genes))
    learned, validation = assemble(recipe)
    _say(config, protocol, split, learned, validation)
    meta = _meta(config, recipe, split, protocol, learned, images) | {"panel": {"name": config.panel.name, **report}}
    if config.model == "bleep":
        rows = _train_bleep(config, recipe, draft, meta, len(learned.group))
    else:
        rows = []
        arrays = fit_baseline(config, learned)
        save_model(draft.place, config.model, arrays, meta)
        _log_baseline(config, draft, arrays)
    (draft.place / "epochs.parquet").write_table(tables.of_rows(rows, tables.EPOCHS))
    (draft.place / "training").remove()
    return draft.finish({"genes": len(genes), "spots": len(learned.group), "epochs": len(rows)}, [], _notes(meta))


def fit_baseline(config: TrainConfig, learned: Stack) -> Arrays:
    """Fit a baseline to stacked spots."""
    if config.model == "gene_mean":
        return fit_gene_mean(learned.expression)
    if config.model == "knn":
        return fit_knn(learned.features, learned.expression, k=config.k)
    return fit_ridge(learned.features, learned.expression, groups=learned.group, seed=config.fit.seed)


def _inputs(config: TrainConfig) -> tuple[Artifact, Artifact]:
    """Open the spots, and the embeddings or the tiles; raises ConfigError unless exactly one of these is named."""
    if (config.embeddings is None) == (config.tiles is None):
        msg = "train reads either `embeddings` (a frozen tower) or `tiles` with an `encoder` (end to end): name one"
        raise ConfigError(msg)
    if (config.tiles is None) != (config.encoder is None):
        msg = "`tiles` and `encoder` belong together: the tower is trained on pixels"
        raise ConfigError(msg)
    if config.tiles is not None and config.model != "bleep":
        msg = f"model '{config.model}' reads `embeddings`; only bleep is trained end to end from `tiles`"
        raise ConfigError(msg)
    spots = find(config.run.store, config.spots, "spots")
    if config.embeddings is not None:
        return spots, find(config.run.store, config.embeddings, "embed")
    return spots, find(config.run.store, str(config.tiles), "tile")


def _split(config: TrainConfig, spots: Artifact, images: Artifact, protocol: EvaluationProtocol) -> Split:
    """Split the sections whose slides have images; the others are named, and left out."""
    sections = sections_of(spots)
    there = images.manifest.notes.get("patients") or {s["slide"] for s in _slides(images)}
    missing = [name for name, one in sections.items() if one["slide"] not in there]
    for name in missing:
        say(f"  section {name} is left out: its slide {sections[name]['slide']} is not in {images.place}")
    patients = {name: str(one["patient"]) for name, one in sections.items() if name not in missing}
    chosen = config.split
    by = split_by_patient if protocol.split == "patient" else split_by_section
    train = _named(chosen.train, patients) if chosen.train is not None else None
    return by(patients, test=_named(chosen.test, patients), validation=_named(chosen.validation, patients), train=train)


def _named(names: list[str], patients: dict[str, str]) -> list[str]:
    """Return sections; a name that is no section but a patient stands for all the patient's sections."""
    return [
        section
        for name in names
        for section in ([name] if name in patients else [s for s, p in patients.items() if p == name] or [name])
    ]


def _slides(tile: Artifact) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = tile.table("slides.parquet", tables.SLIDES).to_pylist()
    return rows


def _meta(
    config: TrainConfig, recipe: Recipe, split: Split, protocol: EvaluationProtocol, learned: Stack, images: Artifact
) -> dict[str, Any]:
    """Return what the model's JSON says: enough to apply it, to guard it, and to score it on its own gene sets."""
    known, seen = sections_of(recipe.spots), (*recipe.train, *recipe.validation)
    width = learned.features.shape[1] or describe(config.encoder.spec()).dim  # type: ignore[union-attr]  # with tiles
    notes = images.manifest.notes
    return {
        "genes": list(recipe.genes),
        "d_image": width,
        "options": config.model_dump(mode="json")["bleep"] if config.model == "bleep" else {},
        "encoder": config.encoder.model_dump(mode="json") if config.encoder else notes["encoder"],
        "trained_tower": config.encoder is not None,
        "tile": {"side": notes["side"], "pixels": notes["pixels"]},
        "protocol": protocol.name,
        "train": list(recipe.train),
        "validation": list(recipe.validation),
        "test": list(split.test),
        "patients": {name: known[name]["patient"] for name in seen},
        "slides": [known[name]["slide"] for name in seen],
        "training_mean": learned.expression.mean(axis=0, dtype=np.float64).tolist(),
        "training_variance": _within(learned).tolist(),
        "normalisation": "log1p of counts per 10,000 of all genes of the section",
    }


def _within(learned: Stack) -> Float64[np.ndarray, "gene"]:
    """Return each gene's variance around its section's own mean: offsets between sections make no gene variable."""
    centred = learned.expression.astype(np.float64)
    for number in range(len(learned.sections)):
        centred[learned.group == number] -= centred[learned.group == number].mean(axis=0)
    around: Float64[np.ndarray, "gene"] = np.square(centred).sum(axis=0)
    return around / max(1, len(centred) - len(learned.sections))


def _notes(meta: dict[str, Any]) -> dict[str, Any]:
    """Return the part of the meta that a reader of the manifest wants; the rest is in `model.json`."""
    return {key: meta[key] for key in ("protocol", "train", "validation", "test", "patients", "panel", "d_image")}


def _say(config: TrainConfig, protocol: EvaluationProtocol, split: Split, learned: Stack, held: Stack | None) -> None:
    say(f"train {config.model}, protocol `{protocol.name}`: {len(learned.group)} spots of {', '.join(split.train)}")
    if held is not None:
        say(f"  validation on {len(held.group)} spots of {', '.join(split.validation or split.train)}")
    say(f"  held out: {', '.join(split.test)}")
    if protocol.same_patient == "allow":
        say(f"  {protocol.leak}")
    if config.model == "bleep":
        geometry = config.fit
        say(
            f"  contrast sets of {geometry.contrast} pairs, {geometry.step} per optimiser step, {geometry.epochs} epochs"
        )


def _train_bleep(
    config: TrainConfig, recipe: Recipe, draft: Draft, meta: dict[str, Any], spots: int
) -> list[dict[str, Any]]:
    width = Width(config.run.workers, config.run.cpus_per_worker, 1.0 if config.run.use_gpu else 0.0)
    work = BleepWork(
        recipe=recipe,
        options=config.bleep,
        fit=config.fit,
        encoder=config.encoder.spec() if config.encoder else None,
        spread_sets=config.run.gather,
        checkpoint_every=config.run.checkpoint_every,
        target=draft.place,
        meta=meta,
        tracking=_tracking(config, draft),
    )
    with session(config.run.address):
        answer = train(work, width, folder=draft.place / "training", name=draft.fingerprint)
    rows: list[dict[str, Any]] = answer["epochs"]
    return rows


def _tracking(config: TrainConfig, draft: Draft) -> Tracking:
    parameters = {key: value for key, value in draft.config.items() if value is not None}
    name = f"{draft.name}-{draft.fingerprint}"
    return Tracking(tracking_uri(config.run), config.run.experiment, name, draft.fingerprint, parameters)


def tracking_uri(run: TrainRun) -> str:
    """Return MLflow's URI: the one that is named, else SQLite in the local store."""
    if run.tracking is not None:
        return run.tracking
    store = Place.of(run.store)
    if not store.is_local:
        msg = f"run.tracking must be given with the remote store {store}: an MLflow server's URI, or sqlite:///<path>"
        raise ConfigError(msg)
    store.path.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{store.path / 'mlflow.db'}"


def _log_baseline(config: TrainConfig, draft: Draft, arrays: Arrays) -> None:
    tracking = _tracking(config, draft)
    with tracked(tracking.uri, tracking.experiment, tracking.name, fingerprint=tracking.fingerprint) as one:
        one.parameters(tracking.parameters)
        one.metrics({name: float(value) for name, value in arrays.items() if value.ndim == 0}, step=0)
