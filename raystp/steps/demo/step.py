"""demo: draw a synthetic cohort and run all steps on it, in one Ray session.

Four patients' sections are drawn, with counts from planted gene programs and noise, and predicted across patients. A
fifth slide is never measured and a sixth is damaged on purpose. The noise model (`expression.synthetic`) was fixed
before any model was trained on it.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from raystp.artifacts import Artifact, create_or_open
from raystp.cluster.progress import Progress
from raystp.cluster.session import session
from raystp.cluster.streams.tasks import map_tasks
from raystp.expression.schema import read_section
from raystp.expression.synthetic.programs import gene_descriptions, plant_programs
from raystp.models.baselines.method import KNN
from raystp.models.methods import METHODS
from raystp.planned import plan_only
from raystp.slides.synthetic.slide import TISSUES
from raystp.steps.demo.config import DemoConfig
from raystp.steps.demo.draw import DAMAGED, UNMEASURED, DrawTask, draw
from raystp.steps.pipeline import step as pipeline
from raystp.steps.pipeline.config import PipelineConfig
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

STEP = "demo"
CONFIG = DemoConfig


def run(config: DemoConfig) -> Artifact:
    """Draw the cohort, run all steps on it and return the evaluation; the damaged slide is expected to fail."""
    with session(config.run.address):
        cohort = _cohort(config)
        return _path(config, cohort.path)


def plan(config: DemoConfig) -> Iterator[str]:
    """Yield a line for each step; of the steps on a cohort that is not drawn yet, only that they follow."""
    drawn = plan_only(lambda: create_or_open(config, STEP, {}))
    if drawn.finished is None:
        yield f"draw: not done, writes {drawn.path}"
        yield "then all steps of the pipeline on it"
        return
    yield f"draw: done already, {drawn.path}"
    yield from pipeline.plan(_pipeline_config(config, drawn.path))


def _cohort(config: DemoConfig) -> Artifact:
    """Draw slides and counts; write the slide table and the planted truth."""
    writer = create_or_open(config, STEP, {})
    if isinstance(writer, Artifact):
        logger.info(f"demo: reusing the cohort {writer.path}")
        return writer
    programs = plant_programs(np.random.default_rng([config.seed, 0]), [tissue.name for tissue in TISSUES])
    patients = _patients(config)
    names = [*patients, UNMEASURED, DAMAGED]
    work = [DrawTask(name, n, config.pixels, config.seed, programs, writer.path) for n, name in enumerate(names)]
    with Progress("draw", len(work), "slide") as progress:
        for _ in map_tasks(draw, work):
            progress.add(1)
    rows = ["slide,path,patient,layout,counts"]
    rows += [f"{name},slides/{name}.svs,{name},scverse,counts/{name}.h5ad" for name in patients]
    rows += [f"{name},slides/{name}.svs,{name},," for name in (UNMEASURED, DAMAGED)]
    (writer.path / "slides.csv").write_bytes("\n".join(rows).encode() + b"\n")
    genes = np.asarray(programs.genes)
    planted = {"planted": genes[programs.planted].tolist(), "no signal": genes[~programs.planted].tolist()}
    (writer.path / "planted" / "genes.json").write_bytes(json.dumps(planted).encode())
    (writer.path / "genes.txt").write_bytes("\n".join(programs.genes).encode())
    texts = [f"{gene}####{text}" for gene, text in gene_descriptions(programs).items()]
    (writer.path / "texts.txt").write_bytes("\n".join(texts).encode())
    (writer.path / "bulk.csv").write_bytes(_pooled(writer.path, patients, programs.genes).encode())
    return writer.finish({"slides": len(work), "genes": len(programs.genes)}, [])


def _pooled(cohort: StoragePath, patients: list[str], genes: Sequence[str]) -> str:
    """Return each patient's counts summed over all spots, one row per patient, as CSV."""
    rows = [f"case,{','.join(genes)}"]
    for name in patients:
        section = read_section(cohort / "counts" / f"{name}.h5ad")[:, list(genes)]
        counts = np.asarray(section.X.sum(axis=0), np.int64).ravel().tolist()
        rows.append(",".join([name, *(str(count) for count in counts)]))
    return "\n".join(rows) + "\n"


def _patients(config: DemoConfig) -> list[str]:
    return [f"patient-{chr(ord('A') + number)}" for number in range(config.patients)]


def _train_values(config: DemoConfig, model: str, shared: dict[str, Any], cohort: StoragePath) -> dict[str, Any]:
    """Return the train config of one method, small enough for two CPU cores.

    An ensemble averages the other methods that read the image, by weights of the validation patient.
    """
    method = METHODS[model]
    if method.combines_models:
        others = [f"train/{config.name}-{one}" for one in config.methods if _is_member(one)]
        return {"model": model, "split": shared["split"], model: {"members": others, "weights": "validation"}}
    fit: dict[str, Any] = {"accumulate_batches": 1, "select": "best_pcc", "seed": config.seed}
    small = method.small or {"fit": {"epochs": config.epochs, "batch_size": config.batch_size}}
    text = {"text": {"descriptions": (cohort / "texts.txt").uri}} if method.needs_gene_text else {}
    return {"model": model, **shared, **small, **text, "fit": {**fit, **small["fit"]}}


def _is_member(model: str) -> bool:
    return METHODS[model].is_learned and not METHODS[model].combines_models


def _path(config: DemoConfig, cohort: StoragePath) -> Artifact:
    """Run the pipeline on the cohort and return the evaluation, with the failures that the demo draws on purpose."""
    found = pipeline.path(_pipeline_config(config, cohort))
    scored, failures = found["evaluate"], [row for one in found.values() for row in one.failures().to_pylist()]
    notes = {**scored.manifest.notes, "expected_failures": failures}
    return replace(scored, manifest=replace(scored.manifest, notes=notes))


def _pipeline_config(config: DemoConfig, cohort: StoragePath) -> PipelineConfig:
    """Return the pipeline's config on the drawn cohort."""
    patients = _patients(config)
    trained: dict[str, Any] = {
        KNN.name: {"k": config.neighbours},
        "panel": {"name": "all genes", "file": (cohort / "genes.txt").uri},
        "split": {"test": patients[-1:], "validation": patients[-2:-1]},
    }
    values: dict[str, Any] = {
        "name": config.name,
        "slides": (cohort / "slides.csv").uri,
        "train": [_train_values(config, model, trained, cohort) for model in config.methods],
        "index": {"shards": 2},
        "impute": {"k": config.neighbours, "spread": True},
        "evaluate": {
            "genes": ["TUM_UP01", "IMM_UP01", "STR_DN01"],
            "permutations": config.permutations,
            "planted": (cohort / "planted").uri,
        },
        "run": {"store": config.run.store},
    }
    return pipeline.CONFIG.of(values)
