"""What a training on measured spots consists of: inputs, split, panel, learner and the model's record."""

import logging
from typing import Any

import numpy as np
from jaxtyping import Float64

from raystp.artifacts import Artifact, resolve
from raystp.cluster.streams.pixels import ReaderPool
from raystp.digests import digest
from raystp.errors import ConfigError, some
from raystp.evaluate.protocols import EvaluationProtocol, protocol_of
from raystp.expression.embeddings.join import features_record
from raystp.expression.folds import Split, sections_named, split_by_patient, split_by_section
from raystp.expression.genes.panel import choose_panel, panel_aliases
from raystp.expression.normalise import targeted_warning
from raystp.expression.sections import sections_of
from raystp.expression.training_set import SpotTable, TrainingSetSpec, load_measured, with_completed_labels
from raystp.missing import column_means, has_missing
from raystp.models.training.plan import epoch_plan
from raystp.models.unseen_genes import split_genes
from raystp.steps.embedding_source import open_embeddings
from raystp.steps.encoder_source import check_tile_px, dim_of, source_of, spec_of
from raystp.steps.train.plan import Meta, Sources, TrainPlan
from raystp.steps.train.retrieval import Retrieval
from raystp.steps.train.spots.completed import check_completed, completed_sentence, with_completed_record
from raystp.steps.train.spots.config import SpotsTrainConfig
from raystp.steps.train.spots.end_to_end import PixelTraining
from raystp.steps.train.spots.gene_text import text_rows
from raystp.steps.train.spots.learner import SpotsLearner
from raystp.steps.train.spots.members import Member, combine_members, open_members, open_union
from raystp.storage import StoragePath
from raystp.versions import installed_version

logger = logging.getLogger("raystp")


def open_sources(config: SpotsTrainConfig) -> Sources:
    """Open the spots, and the embeddings or tiles."""
    store = config.run.store
    spots = resolve(store, config.spots, "spots")
    completed = resolve(store, config.completed, "complete") if config.completed is not None else None
    if config.method.combines_models:
        return Sources(open_union(config, open_members(config)), spots)
    if config.embeddings is not None:
        mean, tokens = config.neighbour_mean, config.method.tokens(config.options)
        embed = open_embeddings(store, config.embeddings, neighbour_mean=mean, tokens=tokens)
        return Sources(embed, spots, completed)
    return Sources(resolve(store, str(config.tiles), "tile"), spots, completed)


def file_inputs(config: SpotsTrainConfig) -> dict[str, Artifact | str]:
    """Return the digests of the files that the training reads."""
    inputs: dict[str, Artifact | str] = {}
    if config.panel.file is not None:
        inputs["panel"] = digest(StoragePath.of(config.panel.file))
    if config.method.needs_gene_text:
        inputs |= config.text.digests()
    if config.method.combines_models:
        inputs |= {f"member {number}": one.artifact for number, one in enumerate(open_members(config))}
    if config.encoder is not None:
        inputs["encoder"] = source_of(config.encoder, config.run.store).identity
    return inputs


def plan_training(config: SpotsTrainConfig, sources: Sources) -> TrainPlan:
    """Split the sections, choose the panel and read the spots; raises before any worker is started."""
    spots, method = sources.measured, config.method
    protocol = protocol_of(config.split.protocol)
    split = split_sections(config, spots, sources.images, protocol)
    if sources.completed is not None:
        check_completed(sources.completed, spots, split, protocol, labels=config.labels)
    members = open_members(config) if method.combines_models else []
    genes, panel = _panel(config, spots, split, members)
    spec = TrainingSetSpec(
        spots=spots,
        images=sources.images,
        train=split.train,
        validation=split.validation,
        validation_block=config.split.validation_block,
        genes=tuple(genes),
        aliases=panel_aliases(spots, genes),
        completed=sources.completed,
        labels=config.labels,
    )
    measured, validation = load_measured(spec)
    train = measured
    if sources.completed is not None:
        train = with_completed_labels(measured, spec, sources.completed)
    _log(config, protocol, split, train=train, held=validation)
    meta = _meta(config, protocol, split, spec=spec, train=measured) | {"panel": panel}
    if sources.completed is not None:
        meta = with_completed_record(meta, sources.completed, spec)
        logger.info(f"  {completed_sentence(meta['completed'])}")
    texts = None
    if method.needs_gene_text:
        meta |= _gene_split(config, genes, train)
        texts, meta["text_encoder"] = text_rows(config.text, genes)
    if method.needs_index:
        meta["retrieval"] = config.retrieval.model_dump(mode="json", exclude={"compare"})
    if method.compares_samples:
        fit = config.fit
        epoch_plan(
            len(train.group),
            batch_size=fit.batch_size,
            accumulate_batches=fit.accumulate_batches,
            seed=fit.seed,
            epoch=0,
        )
    learner = SpotsLearner(
        kind=method.name,
        spec=spec,
        options=config.options,
        meta=meta,
        seed=config.fit.seed,
        retrieval=Retrieval.of(config.retrieval.model_dump()),
        compared=tuple(
            Retrieval.of(config.retrieval.over(one).model_dump())
            for one in (config.retrieval.compare if method.needs_index else [])
        ),
        calibrate=config.retrieval.calibrate if method.needs_index else "none",
        texts=texts,
        bags=config.bags.model_dump(),
        pixels=_pixels(config, sources.images),
    )
    made = None
    if members:
        made, records = combine_members(config, members, spec, validation)
        meta |= records
    counts = {"genes": len(genes), "spots": len(train.group)}
    warnings = _warnings(spec, [one for one in (train, validation) if one is not None])
    return TrainPlan(learner, meta, counts, spots.manifest.name, (train, validation), made, warnings)


def _pixels(config: SpotsTrainConfig, tiles: Artifact) -> PixelTraining | None:
    """Return what an image encoder is trained from; raises ConfigError for tiles that it does not take."""
    if config.encoder is None:
        return None
    spec, notes = spec_of(config.encoder), tiles.manifest.notes
    check_tile_px(spec, tiles)
    if "scales" in notes:
        msg = (
            f"tiles: {tiles.path} has tiles of several sizes ({some([f'{side} um' for side in notes['scales']])}), and "
            "an encoder is trained on one: run `raystp tile` with one tile_um"
        )
        raise ConfigError(msg)
    readers = ReaderPool(config.run.readers) if config.run.readers else None
    return PixelTraining(tiles, spec, config.augment, config.fit, readers, config.run.node_cache())


def _panel(
    config: SpotsTrainConfig, spots: Artifact, split: Split, members: list[Member]
) -> tuple[list[str], dict[str, object]]:
    """Return the genes, and the entry about them in the model's record; an ensemble has those of its members."""
    if members:
        return members[0].meta["genes"], members[0].meta["panel"]
    zero_absent = config.labels.absent == "zero"
    genes, panel = choose_panel(config.panel, spots, split.train, zero_absent=zero_absent)
    return genes, {"name": config.panel.name, **panel}


def _warnings(spec: TrainingSetSpec, sides: list[SpotTable]) -> dict[str, list[str]]:
    """Return section -> a warning about genes that it has not measured, or about few genes; log each once."""
    known, warnings = sections_of(spec.spots), dict[str, list[str]]()
    for side in sides:
        for number, section in enumerate(side.sections):
            own = side.expression[side.group == number]
            lacking = (
                [spec.genes[gene] for gene in np.flatnonzero(np.isnan(own).all(axis=0)).tolist()] if len(own) else []
            )
            have = len(spec.genes) - len(lacking)
            found = (
                [
                    f"{have} of {len(spec.genes)} genes of the panel are measured here; the section is left out of the "
                    f"loss of {some(lacking)}"
                ]
                if lacking
                else []
            )
            few = targeted_warning(int(known[section]["genes"])) if spec.labels.totals == "all" else None
            found += [few] if few else []
            if found and section not in warnings:
                warnings[section] = found
    named: dict[str, list[str]] = {}
    for section, found in warnings.items():
        for warning in found:
            named.setdefault(warning, []).append(section)
    for warning, sections in named.items():
        logger.warning(f"  {', '.join(sections)}: {warning}")
    return warnings


def split_sections(config: SpotsTrainConfig, spots: Artifact, images: Artifact, protocol: EvaluationProtocol) -> Split:
    """Split the sections whose slides have images; the others are left out, with a warning."""
    sections = sections_of(spots)
    imaged = images.manifest.notes["patients"]
    for name, one in sections.items():
        if one["slide"] not in imaged:
            logger.warning(f"  section {name} is left out: its slide {one['slide']} is not in {images.path}")
    patients = {name: str(one["patient"]) for name, one in sections.items() if one["slide"] in imaged}
    by = split_by_patient if protocol.split == "patient" else split_by_section
    chosen = config.split
    train = sections_named(chosen.train, patients) if chosen.train is not None else None
    test, validation = sections_named(chosen.test, patients), sections_named(chosen.validation, patients)
    try:
        return by(patients, test=test, validation=validation, train=train)
    except ConfigError as error:
        msg = f"split: {error}"
        raise ConfigError(msg) from None


def _meta(
    config: SpotsTrainConfig, protocol: EvaluationProtocol, split: Split, *, spec: TrainingSetSpec, train: SpotTable
) -> Meta:
    """Return the model's record: enough to apply it, to detect leaks, and to score it on its own gene sets.

    `train` has measured labels, so that completed ones change no gene set.
    """
    known, seen = sections_of(spec.spots), (*spec.train, *spec.validation)
    notes = spec.images.manifest.notes
    return {
        "genes": list(spec.genes),
        "gene_aliases": {gene: list(names) for gene, names in spec.aliases.items()},
        "d_image": dim_of(config.encoder) if config.encoder else train.features.shape[1],
        "options": config.model_dump(mode="json").get(config.model, {}),
        "encoder": config.encoder.model_dump(mode="json") if config.encoder else notes["encoder"],
        "trained_tower": config.encoder is not None,
        **({} if config.encoder else {"features": features_record(spec.images)}),
        "tile": {"side": notes["side"], "pixels": notes["pixels"]},
        "protocol": protocol.name,
        "train": list(spec.train),
        "validation": list(spec.validation),
        "test": list(split.test),
        "patients": {name: known[name]["patient"] for name in seen},
        "slides": [known[name]["slide"] for name in seen],
        "training_mean": column_means(train.expression).tolist(),
        "training_variance": _variance_within(train).tolist(),
        "normalisation": spec.labels.sentence,
        "labels": spec.labels.record,
        **({"packages": {one: installed_version(one) for one in used}} if (used := config.method.packages) else {}),
    }


def _gene_split(config: SpotsTrainConfig, genes: list[str], train: SpotTable) -> Meta:
    """Return which genes are trained on and which are held back."""
    text = config.text
    if not text.unseen:
        return {"seen": list(genes), "unseen": []}
    expression = train.expression
    mean = column_means(expression) if has_missing(expression) else expression.mean(axis=0)
    seen, unseen = split_genes(genes, mean, unseen=text.unseen, seed=text.seed)
    return {"seen": seen, "unseen": unseen}


def _variance_within(train: SpotTable) -> Float64[np.ndarray, " gene"]:
    """Return each gene's variance around the mean of its section: differences between sections do not count.

    Over the sections that measured the gene.
    """
    centred, own = train.expression.astype(np.float64), [train.group == number for number in range(len(train.sections))]
    for rows in own:
        centred[rows] -= column_means(centred[rows])
    sections = np.sum([~np.isnan(centred[rows]).all(axis=0) for rows in own], axis=0)
    spots = (~np.isnan(centred)).sum(axis=0)
    variance: Float64[np.ndarray, " gene"] = np.nansum(np.square(centred), axis=0) / np.maximum(1, spots - sections)
    return variance


def _log(
    config: SpotsTrainConfig, protocol: EvaluationProtocol, split: Split, *, train: SpotTable, held: SpotTable | None
) -> None:
    sections = ", ".join(split.train)
    logger.info(f"train {config.model}, protocol `{protocol.name}`: {len(train.group)} spots of {sections}")
    if held is not None:
        names = ", ".join(split.validation or split.train)
        logger.info(f"  validation on {len(held.group)} spots of {names}")
    logger.info(f"  held out: {', '.join(split.test)}")
    if not config.labels.is_default:
        logger.info(f"  labels: {config.labels.sentence}")
    if split.same_patient:
        logger.info(f"  {protocol.leak}")
    if config.method.needs_bags:
        logger.info(f"  {_bags(config, train)}")
    if config.method.is_trained:
        fit: Any = config.fit
        batches = f"batches of {fit.batch_size}, {fit.accumulate_batches} per optimiser step"
        logger.info(f"  {batches}, {fit.epochs} epochs")


def _bags(config: SpotsTrainConfig, train: SpotTable) -> str:
    """Return how many bags each training section is cut into: a section of fewer spots than parts has one per spot."""
    parts, spots = config.bags.parts, np.bincount(train.group, minlength=len(train.sections))
    few = {name: int(count) for name, count in zip(train.sections, spots, strict=True) if count < parts}
    lacking = f"; with one per spot: {some([f'{name}: {count}' for name, count in few.items()])}" if few else ""
    total = int(np.minimum(spots, parts).sum())
    return f"{total} bags, {parts} of each section{lacking}; labels: {config.bags.labels}"
