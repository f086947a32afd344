"""What attention regression learns from where nothing but whole cases was measured: bags of slides, a label each.

The split is by patient, the panel is of training cases alone, and whatever cannot be trained on is said before a worker
starts.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from raystp.artifacts import Artifact
from raystp.errors import ConfigError, LeakError, ModelError, PanelError
from raystp.evaluate.protocols import protocol_of
from raystp.expression.bulk.labels import BulkLabels, labels_of, variable_genes
from raystp.expression.bulk.tables import read_table
from raystp.expression.folds import Split, split_by_patient
from raystp.expression.panel import PanelConfig, read_panel
from raystp.models.training.plan import RankLayout, check_width
from raystp.steps.train.bulk_cases import CaseCohort, check_named, cohort_of, dim_of_embeddings
from raystp.steps.train.bulk_config import NORMALISATION
from raystp.steps.train.bulk_learner import FEWEST_FOR_PCC, BulkLearner, BulkRecipe
from raystp.steps.train.config import TrainConfig
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

FEWEST_FOR_LOSS = 2
"""Validation cases that a loss is taken over."""

Meta = dict[str, Any]


@dataclass(frozen=True)
class BulkPlan:
    """What is known before the fit."""

    learner: BulkLearner
    meta: Meta
    counts: dict[str, int]


def bulk_plan(config: TrainConfig, images: Artifact) -> BulkPlan:
    """Match cases and slides, split, choose the panel; raises in a sentence where this cannot be trained."""
    bulk = config.bulk
    assert bulk is not None  # only then this is called
    protocol = protocol_of(config.split.protocol)
    if protocol.split != "patient":
        msg = f"split.protocol: cases are held out by patient, protocol '{protocol.name}' holds out sections"
        raise ConfigError(msg)
    place = bulk.place(config.run.store)
    table = read_table(place, bulk.case)
    cohort = cohort_of(bulk, images, table.cases)
    split = _split(config, cohort)
    _check_enough(config, split)
    labels = labels_of(table, place, scale=bulk.scale, cases=[*split.train, *split.validation])
    trained = BulkLabels(list(split.train), labels.genes, labels.of(split.train))
    genes, panel = _panel(config.panel, trained, place)
    recipe = BulkRecipe(
        table=place,
        scale=bulk.scale,
        case=bulk.case,
        images=images,
        train=tuple(cohort.cases[name] for name in split.train),
        validation=tuple(cohort.cases[name] for name in split.validation),
        genes=tuple(genes),
        kept_bytes=config.run.memory_gb * 1e9,
    )
    about = {"name": config.panel.name, **panel}
    meta = _meta(config, recipe, split, panel=about, labels=trained.of(split.train, genes))
    _say(config, cohort, split, recipe)
    learner = BulkLearner(recipe, meta, config.fit.seed, config.attention, config.bags.tiles)
    counts = {"genes": len(genes), "cases": len(recipe.train), "tiles": sum(case.tiles for case in recipe.train)}
    return BulkPlan(learner, meta | {"left_out": cohort.left_out}, counts)


def _split(config: TrainConfig, cohort: CaseCohort) -> Split:
    """Split the cases by patient; a name that is no case but a patient stands for all the patient's cases."""
    patients, chosen = cohort.patients(), config.split
    check_named({"test": chosen.test, "validation": chosen.validation, "train": chosen.train or []}, cohort)
    sides = {
        side: [case for name in names for case in _cases_of(side, name, patients)]
        for side, names in (("test", chosen.test), ("validation", chosen.validation), ("train", chosen.train or []))
    }
    train = sides["train"] if chosen.train is not None else None
    _check_apart(sides, patients, train)
    try:
        return split_by_patient(patients, test=sides["test"], validation=sides["validation"], train=train)
    except ConfigError as error:
        raise ConfigError(str(error).replace("section", "case")) from None  # what is split are cases


def _check_apart(sides: Mapping[str, list[str]], patients: Mapping[str, str], train: list[str] | None) -> None:
    """Raise LeakError where a test patient has a case on the training side too."""
    tested = {patients[case] for case in sides["test"]}
    learned = train if train is not None else [case for case in patients if case not in sides["test"]]
    learned = [case for case in (*learned, *sides["validation"]) if case not in sides["test"]]
    both = [case for case in learned if patients[case] in tested]
    if both:
        whose = patients[both[0]]
        test = [case for case in sides["test"] if patients[case] == whose]
        msg = (
            f"patient {whose!r} is on both sides: case {both[0]!r} trains or validates, {test[0]!r} tests; name the "
            "patient in split.test, which stands for all their cases, or neither"
        )
        raise LeakError(msg)


def _cases_of(side: str, name: str, patients: Mapping[str, str]) -> list[str]:
    found = [name] if name in patients else [case for case, patient in patients.items() if patient == name]
    if not found:
        known = ", ".join(repr(case) for case in list(patients)[:5])
        msg = f"split.{side}: no case or patient {name!r} has both a label and a slide; there are "
        msg += f"{len(patients)}: {known}"
        raise ConfigError(msg)
    return found


def _check_enough(config: TrainConfig, split: Split) -> None:
    """Raise, before a worker starts, where the cases do not fill a step, or too few of them validate."""
    fit, workers = config.fit, config.run.workers
    check_width(
        fit.contrast, fit.step, RankLayout(world=workers, gather=(lambda rows: rows) if config.run.gather else None)
    )
    wanted, there = fit.contrast * fit.step, len(split.train)
    if there < wanted:
        msg = (
            f"one step takes {fit.step} sets of {fit.contrast} cases, shared by {workers} workers: {wanted} training "
            f"cases are needed, and {there} have both a label and tiles: "
            f"fit.contrast={max(1, there // fit.step)} would do"
        )
        raise ModelError(msg)
    held = len(split.validation)
    if held and held < FEWEST_FOR_LOSS:
        msg = f"split.validation: {held} case is too few to choose an epoch by, {FEWEST_FOR_LOSS} are needed at least"
        raise ModelError(msg)
    if fit.select == "best_pcc" and held < FEWEST_FOR_PCC:
        msg = (
            f"fit.select: best_pcc correlates over validation cases and needs {FEWEST_FOR_PCC} of them, there are "
            f"{held}: name more in split.validation, or choose by the loss (fit.select=best)"
        )
        raise ModelError(msg)


def _panel(config: PanelConfig, trained: BulkLabels, place: StoragePath) -> tuple[list[str], dict[str, Any]]:
    """Return the genes, and what the model's record says of them; training cases alone choose."""
    if config.file is None:
        chosen = f"the {config.variable} genes that differ most between {len(trained.cases)} training cases"
        return variable_genes(trained, config.variable), {"chosen": chosen, "dropped": []}
    wanted, known = read_panel(StoragePath.of(config.file)), set(trained.genes)
    missing = [gene for gene in wanted if gene not in known]
    kept = [gene for gene in wanted if gene in known]
    if not kept or (missing and config.absent == "refuse"):
        try:
            trained.of(trained.cases[:1], wanted)
        except PanelError as error:
            msg = f"panel.file {config.file} and {place}: {error}" + (
                "; panel.absent=drop leaves them out" if kept else ""
            )
            raise PanelError(msg) from None
    return kept, {"chosen": f"a list of {len(wanted)} genes that was given", "dropped": missing}


def _meta(
    config: TrainConfig,
    recipe: BulkRecipe,
    split: Split,
    *,
    panel: dict[str, Any],
    labels: Float32[np.ndarray, "case gene"],
) -> Meta:
    """Return what the model's JSON says: enough to apply it, to guard it, and to score it on its own gene sets."""
    notes, seen = recipe.images.manifest.notes, (*recipe.train, *recipe.validation)
    return {
        "genes": list(recipe.genes),
        "d_image": dim_of_embeddings(recipe.images, seen[0].slides[0]),
        "options": config.model_dump(mode="json")["attention"],
        "encoder": notes["encoder"],
        "trained_tower": False,
        "tile": {"side": notes["side"], "pixels": notes["pixels"]},
        "protocol": config.split.protocol,
        "panel": panel,
        "bulk": {"scale": recipe.scale},
        "train": list(split.train),
        "validation": list(split.validation),
        "test": list(split.test),
        "patients": {case.name: case.patient for case in seen},
        "slides": [slide for case in seen for slide in case.slides],
        "training_mean": labels.mean(axis=0, dtype=np.float64).tolist(),
        "training_variance": labels.var(axis=0, dtype=np.float64).tolist(),
        "normalisation": NORMALISATION[recipe.scale],
    }


def _say(config: TrainConfig, cohort: CaseCohort, split: Split, recipe: BulkRecipe) -> None:
    tiles = sum(case.tiles for case in recipe.train)
    logger.info(
        f"train attention from bulk labels, protocol `{config.split.protocol}`: {len(split.train)} cases, {tiles} tiles"
    )
    if split.validation:
        logger.info(f"  validation on {len(split.validation)} cases")
    logger.warning(f"  held out: {', '.join(split.test)}")
    for name, reason in list(cohort.left_out.items())[:5]:
        logger.warning(f"  {name} is left out: {reason}")
    if len(cohort.left_out) > 5:  # noqa: PLR2004 -- the first few say what is the matter
        logger.warning(f"  and {len(cohort.left_out) - 5} more, named in the model's manifest")
    logger.info(f"  sets of {config.fit.contrast}, {config.fit.step} per optimiser step, {config.fit.epochs} epochs")
