"""What a training on labels of whole cases consists of: inputs, split, panel, learner and the model's record.

The split is by patient, training cases alone choose the panel, and every fault is raised before a worker is started.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from jaxtyping import Float32

from raystp.artifacts import Artifact
from raystp.digests import digest
from raystp.errors import ConfigError, LeakError, ModelError, PanelError
from raystp.evaluate.protocols import protocol_of
from raystp.expression.bulk.labels import BulkLabels, labels_of, variable_genes
from raystp.expression.bulk.tables import read_table
from raystp.expression.embeddings.join import features_record
from raystp.expression.folds import Split, split_by_patient
from raystp.expression.genes.panel import read_panel
from raystp.expression.genes.panel_config import PanelConfig
from raystp.models.method import BagBatch, Method
from raystp.models.training.options import FitOptions
from raystp.models.training.plan import RankLayout, check_workers
from raystp.steps.embedding_source import open_embeddings
from raystp.steps.train.cases.cohort import CaseCohort, check_listed, cohort_of, dim_of_embeddings
from raystp.steps.train.cases.config import NORMALISATION, CasesTrainConfig
from raystp.steps.train.cases.learner import MIN_CASES_PCC, CasesLearner, CasesSpec
from raystp.steps.train.cases.retrieval import UNVALIDATED_K, candidates
from raystp.steps.train.plan import Meta, Sources, TrainPlan
from raystp.steps.train.retrieval import Retrieval
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

MIN_CASES_LOSS = 2
"""Fewest validation cases for a loss."""

PAIR = 2
"""Fewest samples that a loss can compare."""

LISTED = 5
"""Cases that are listed in a message; the manifest has all."""


def open_sources(config: CasesTrainConfig) -> Sources:
    """Open the embeddings."""
    return Sources(open_embeddings(config.run.store, config.embeddings, neighbour_mean=config.neighbour_mean))


def file_inputs(config: CasesTrainConfig) -> dict[str, Artifact | str]:
    """Return the digests of the files that the training reads."""
    inputs = config.cases.digests(config.run.store)
    return inputs | ({"panel": digest(StoragePath.of(config.panel.file))} if config.panel.file is not None else {})


def plan_training(config: CasesTrainConfig, sources: Sources) -> TrainPlan:
    """Match cases and slides, split the cases and choose the panel; raises before any worker is started."""
    cases, images = config.cases, sources.images
    protocol = protocol_of(config.split.protocol)
    if protocol.split != "patient":
        msg = f"split.protocol: cases are held out by patient, protocol '{protocol.name}' holds out sections"
        raise ConfigError(msg)
    path = cases.path(config.run.store)
    table = read_table(path, cases.case)
    cohort = cohort_of(cases, images, table.cases)
    split = _split(config, cohort)
    _check_enough(config, split, _fit_of(config, len(split.train)))
    labels = labels_of(table, path, scale=cases.scale, cases=[*split.train, *split.validation])
    trained = BulkLabels(list(split.train), labels.genes, labels.of(split.train))
    genes, panel = _panel(config.panel, trained, path)
    spec = CasesSpec(
        table=path,
        scale=cases.scale,
        case=cases.case,
        images=images,
        train=tuple(cohort.cases[name] for name in split.train),
        validation=tuple(cohort.cases[name] for name in split.validation),
        genes=tuple(genes),
        cache_bytes=config.run.memory_gb * 1e9,
    )
    _check_memory(config, spec)
    panel = {"name": config.panel.name, **panel}
    meta = _meta(config, spec, split, labels=trained.of(split.train, genes)) | {"panel": panel}
    _log(config, cohort, split, spec)
    retrievals = _retrievals(config, len(spec.train), validated=len(spec.validation) >= MIN_CASES_PCC)
    if config.method.needs_index:
        meta["retrieval"] = asdict(retrievals[0])
    learner = CasesLearner(config.model, spec, config.options, meta, config.fit.seed, config.bag_tiles, retrievals)
    fit = _fit_of(config, len(split.train))
    if fit.batch_size != config.fit.batch_size:
        meta["batch_size"] = fit.batch_size
    counts = {"genes": len(genes), "cases": len(spec.train), "tiles": sum(case.tiles for case in spec.train)}
    plan = TrainPlan(learner, meta | {"left_out": cohort.left_out}, counts, images.manifest.name)
    return replace(plan, fit=fit)


def limited_fit(fit: FitOptions, method: Method, cases: int, *, parts: int = 1) -> FitOptions:
    """Return the training options with a batch of at most all training cases, for a method that compares them.

    A lowered batch divides into `parts`, the workers that share one.
    """
    if not method.compares_samples or fit.batch_size <= cases:
        return fit
    return replace(fit, batch_size=max(PAIR, parts, cases // fit.accumulate_batches // parts * parts))


def _fit_of(config: CasesTrainConfig, cases: int) -> FitOptions:
    return limited_fit(config.fit, config.method, cases, parts=config.run.workers if config.run.gather else 1)


def _retrievals(config: CasesTrainConfig, cases: int, *, validated: bool) -> tuple[Retrieval, ...]:
    """Return the retrievals that a validation chooses from; without one there is one."""
    chosen = config.retrieval
    given = Retrieval(
        metric=chosen.metric, k=chosen.k or UNVALIDATED_K, weights=chosen.weights, temperature=chosen.temperature
    )
    if validated:
        return tuple(candidates(given, chosen.k, cases))
    return (given if chosen.k is not None else given.limited(cases),)


def _split(config: CasesTrainConfig, cohort: CaseCohort) -> Split:
    """Split the cases by patient; the name of a patient stands for all of the patient's cases."""
    patients, chosen = cohort.patients(), config.split
    named = {"test": chosen.test, "validation": chosen.validation, "train": chosen.train or []}
    check_listed(named, cohort)
    sides = {side: [case for name in names for case in _cases(side, name, patients)] for side, names in named.items()}
    train = sides["train"] if chosen.train is not None else None
    _check_leak(sides, patients, train)
    try:
        return split_by_patient(patients, test=sides["test"], validation=sides["validation"], train=train)
    except ConfigError as error:
        raise ConfigError(str(error).replace("section", "case")) from None  # cases are split here, by the same function


def _check_leak(sides: Mapping[str, list[str]], patients: Mapping[str, str], train: list[str] | None) -> None:
    """Raise LeakError where a test patient has a case on the training side too."""
    tested = {patients[case] for case in sides["test"]}
    learned = train if train is not None else [case for case in patients if case not in sides["test"]]
    learned = [case for case in (*learned, *sides["validation"]) if case not in sides["test"]]
    both = [case for case in learned if patients[case] in tested]
    if both:
        patient = patients[both[0]]
        test = [case for case in sides["test"] if patients[case] == patient]
        msg = (
            f"patient {patient!r} is on both sides: case {both[0]!r} trains or validates, {test[0]!r} tests; name the "
            "patient in split.test, which stands for all their cases, or neither case"
        )
        raise LeakError(msg)


def _cases(side: str, name: str, patients: Mapping[str, str]) -> list[str]:
    found = [name] if name in patients else [case for case, patient in patients.items() if patient == name]
    if not found:
        known = ", ".join(repr(case) for case in list(patients)[:LISTED])
        msg = f"split.{side}: no case or patient {name!r} has both a label and a slide; the {len(patients)} that have: "
        raise ConfigError(msg + known)
    return found


def _check_enough(config: CasesTrainConfig, split: Split, fit: FitOptions) -> None:
    """Raise where the cases do not fill an optimiser step, or too few of them validate."""
    workers = config.run.workers
    size, count = fit.batch_size, fit.accumulate_batches
    gather = (lambda rows: rows) if config.run.gather else None
    check_workers(size, count, RankLayout(world=workers, gather=gather))
    labelled = len(split.train)
    if labelled < size * count:
        msg = (
            f"an optimiser step of {count} batches of {size} cases needs {size * count} training cases, {labelled} "
            f"have both a label and tiles: set fit.batch_size={max(1, labelled // count)}"
        )
        raise ModelError(msg)
    held = len(split.validation)
    if held and held < MIN_CASES_LOSS:
        msg = f"split.validation: {held} case is too few to choose an epoch; name at least {MIN_CASES_LOSS}"
        raise ModelError(msg)
    if fit.select == "best_pcc" and held < MIN_CASES_PCC:
        msg = (
            f"fit.select: best_pcc correlates over validation cases and needs {MIN_CASES_PCC}, got {held}: "
            "name more in split.validation, or choose by the loss (fit.select=best)"
        )
        raise ModelError(msg)


def _check_memory(config: CasesTrainConfig, spec: CasesSpec) -> None:
    """Raise ModelError where a batch holds too many values of every gene at every tile."""
    on_cases, fit = config.method.on_cases, _fit_of(config, len(spec.train))
    assert on_cases is not None  # the config allows no other method
    longest = max(min(case.tiles, config.bag_tiles or case.tiles) for case in spec.train)
    batch = BagBatch(fit.batch_size * longest, fit.batch_size, len(spec.genes))
    needed = on_cases.gene_bytes(config.options, batch) if on_cases.gene_bytes is not None else 0
    if needed > config.run.batch_gb * 1e9:
        msg = (
            f"a batch of {batch.bags} bags of up to {longest} tiles holds a value of each of {batch.genes} genes at "
            f"every tile, {needed / 1e9:.3g} GB, above run.batch_gb={config.run.batch_gb:g}: set {on_cases.smaller}, "
            "or lower fit.batch_size or bag_tiles"
        )
        raise ModelError(msg)


def _panel(config: PanelConfig, trained: BulkLabels, table: StoragePath) -> tuple[list[str], dict[str, Any]]:
    """Return the genes, chosen by training cases alone, and the panel's record."""
    if config.file is None and config.variable == "all":
        return list(trained.genes), {"chosen": f"all {len(trained.genes)} genes of the table", "dropped": []}
    if config.file is None:
        assert config.variable != "all"  # returned above
        chosen = f"the {config.variable} genes that vary most between {len(trained.cases)} training cases"
        return variable_genes(trained, config.variable), {"chosen": chosen, "dropped": []}
    wanted, known = read_panel(StoragePath.of(config.file)), set(trained.genes)
    missing = [gene for gene in wanted if gene not in known]
    kept = [gene for gene in wanted if gene in known]
    if not kept or (missing and config.absent in {"mask", "refuse"}):  # a table measures a gene of all cases
        try:
            trained.of(trained.cases[:1], wanted)
        except PanelError as error:
            hint = "; panel.absent=drop leaves them out" if kept else ""
            msg = f"panel.file {config.file} and {table}: {error}{hint}"
            raise PanelError(msg) from None
    return kept, {"chosen": f"a given list of {len(wanted)} genes", "dropped": missing}


def _meta(config: CasesTrainConfig, spec: CasesSpec, split: Split, *, labels: Float32[np.ndarray, "case gene"]) -> Meta:
    """Return the model's record: enough to apply it, to detect leaks, and to score it on its own gene sets."""
    notes, seen = spec.images.manifest.notes, (*spec.train, *spec.validation)
    return {
        "genes": list(spec.genes),
        "d_image": dim_of_embeddings(spec.images, seen[0].slides[0]),
        "options": config.model_dump(mode="json").get(config.model, {}),
        "encoder": notes["encoder"],
        "trained_tower": False,
        "features": features_record(spec.images),
        "tile": {"side": notes["side"], "pixels": notes["pixels"]},
        "protocol": config.split.protocol,
        "bulk": {"scale": spec.scale},
        "train": list(split.train),
        "validation": list(split.validation),
        "test": list(split.test),
        "patients": {case.name: case.patient for case in seen},
        "slides": [slide for case in seen for slide in case.slides],
        "training_mean": labels.mean(axis=0, dtype=np.float64).tolist(),
        "training_variance": labels.var(axis=0, dtype=np.float64).tolist(),
        "normalisation": NORMALISATION[spec.scale],
    }


def _log(config: CasesTrainConfig, cohort: CaseCohort, split: Split, spec: CasesSpec) -> None:
    fit = _fit_of(config, len(split.train))
    tiles = sum(case.tiles for case in spec.train)
    protocol = f"protocol `{config.split.protocol}`"
    logger.info(f"train {config.model} on cases, {protocol}: {len(split.train)} cases, {tiles} tiles")
    if split.validation:
        logger.info(f"  validation on {len(split.validation)} cases")
    logger.info(f"  held out: {', '.join(split.test)}")
    for name, reason in list(cohort.left_out.items())[:LISTED]:
        logger.warning(f"  {name} is left out: {reason}")
    if len(cohort.left_out) > LISTED:
        logger.warning(f"  and {len(cohort.left_out) - LISTED} more; the model's manifest lists all")
    batches = f"batches of {fit.batch_size}, {fit.accumulate_batches} per optimiser step"
    logger.info(f"  {batches}, {fit.epochs} epochs")
