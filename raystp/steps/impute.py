"""impute: embeddings + a model [+ index] -> predicted expression: AnnData per slide, parquet for the cohort."""

import functools
import io
from dataclasses import dataclass
from typing import Any, ClassVar

import anndata as ad
import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float32
from PIL import Image
from pydantic import Field

from raystp import tables
from raystp.artifacts import Artifact, Draft, begin, find, open_place
from raystp.cluster.progress import Progress, say
from raystp.cluster.session import session
from raystp.cluster.tasks import each
from raystp.config import Run, StepConfig
from raystp.errors import ConfigError, LeakError, ModelError, RaystpError, some
from raystp.evaluate.protocols import EvaluationProtocol, protocol_of
from raystp.expression.schema import read_section
from raystp.impute.leak import check_patients
from raystp.impute.weights import WEIGHTS
from raystp.impute.writer import Places, Thumbnail, prediction_to_anndata, write_prediction
from raystp.index.bank import Bank, open_bank
from raystp.models.predictor import Contrastive, Predictor, predictor
from raystp.models.store import load_model
from raystp.steps.pairs import embeddings_of, load_counts
from raystp.storage import Place
from raystp.units import Level0Pixels

STEP = "impute"


class ImputeConfig(StepConfig[Run]):
    """Which slides to predict, by which model, under which protocol."""

    where: ClassVar[frozenset[str]] = frozenset({"embeddings", "model", "index", "spots"})

    embeddings: str
    """The queries, `embed/<name>`."""

    model: str
    """`train/<name>`."""

    index: str | None = None
    """The bank of a contrastive model, `index/<name>`."""

    spots: str | None = None
    """Measured spots, `spots/<name>`: where a slide has them, they stand beside the prediction in a layer."""

    slides: list[str] | None = None
    """Slides to predict; by default all that the protocol allows, which leaves out what the model was trained on."""

    protocol: str | None = None
    """By default the model's own."""

    k: int = Field(default=50, ge=1)
    """Neighbours of a contrastive model."""

    weights: str = "mean"
    """How neighbours are weighed: mean, top1, softmax or bleep."""

    run: Run = Field(default_factory=Run)


CONFIG = ImputeConfig


@dataclass(frozen=True)
class _Impute:
    """One slide to predict, and all that is needed for it."""

    slide: str
    section: str | None
    model: Artifact
    embed: Artifact
    index: Artifact | None
    spots: Artifact | None
    k: int
    weights: str
    protocol: str
    target: Place


def run(config: ImputeConfig) -> Artifact:
    """Predict every slide that the protocol allows; a slide that fails is a row in the failures table."""
    store = config.run.store
    embed, model = find(store, config.embeddings, "embed"), find(store, config.model, "train")
    index = find(store, config.index, "index") if config.index else None
    spots = find(store, config.spots, "spots") if config.spots else None
    _check_weights(config)
    inputs: dict[str, Artifact | str] = {"embeddings": embed, "model": model}
    inputs |= {role: one for role, one in (("index", index), ("spots", spots)) if one is not None}
    draft = begin(config, STEP, inputs)
    if isinstance(draft, Artifact):
        return draft
    kind, _, meta = load_model(model.place)
    _check_index(kind, model, index)
    protocol = protocol_of(config.protocol or meta["protocol"])
    slides, shared = _allowed(config, embed, meta, index=index, protocol=protocol)
    sections = {one["slide"]: name for name, one in spots.manifest.notes["sections"].items()} if spots else {}
    work = [
        _Impute(s, sections.get(s), model, embed, index, spots, config.k, config.weights, protocol.name, draft.place)
        for s in slides
    ]
    return _predict(draft, config, work, {"kind": kind, "shared_patients": shared} | _about(embed, meta, protocol))


def _predict(draft: Draft, config: ImputeConfig, work: list[_Impute], notes: dict[str, Any]) -> Artifact:
    rows: dict[str, int] = {}
    failures: list[dict[str, object]] = []
    with session(config.run.address), Progress(STEP, len(work), "slide") as progress:
        for position, answer in each(_impute, work):
            slide = work[position].slide
            if isinstance(answer, str):
                failures.append({"slide": slide, "stage": STEP, "reason": answer})
            else:
                rows[slide] = answer
            progress.add(1, failed=isinstance(answer, str))
    done = [one.slide for one in work if one.slide in rows]
    return draft.finish({"slides": len(done), "tiles": sum(rows.values())}, failures, notes | {"slides": done})


def _about(embed: Artifact, meta: dict[str, Any], protocol: EvaluationProtocol) -> dict[str, Any]:
    return {
        "protocol": protocol.name,
        "panel": meta["panel"]["name"],
        "genes": len(meta["genes"]),
        "encoder": embed.manifest.notes["encoder"]["name"],
    }


def _check_weights(config: ImputeConfig) -> None:
    if config.weights not in WEIGHTS:
        msg = f"weights: there are {', '.join(WEIGHTS)}, got {config.weights!r}"
        raise ConfigError(msg)


def _check_index(kind: str, model: Artifact, index: Artifact | None) -> None:
    """Raise where a contrastive model has no bank, or one of another model; the bank's own files are checked later."""
    if kind == "bleep" and index is None:
        msg = f"{model.place} is a bleep model, which answers from a bank: run `raystp index`, then give `index`"
        raise ConfigError(msg)
    if index is not None and index.manifest.notes["model"] != model.manifest.folder:
        msg = (
            f"the index {index.place} was made with model {index.manifest.notes['model']}, not with "
            f"{model.manifest.folder}: make one with this model"
        )
        raise ModelError(msg)


def _allowed(
    config: ImputeConfig,
    embed: Artifact,
    meta: dict[str, Any],
    *,
    index: Artifact | None,
    protocol: EvaluationProtocol,
) -> tuple[list[str], list[str]]:
    """Return the slides to predict and the patients that they share with the training side, as the protocol allows.

    Raises LeakError for a slide that was named and may not be predicted, ConfigError where none is left.
    """
    patients: dict[str, str] = embed.manifest.notes["patients"]
    trained = {*meta["patients"].values(), *(index.manifest.notes["patients"] if index else [])}
    learned = {*meta["slides"], *(index.manifest.notes["slides"] if index else [])}
    if config.slides is not None:
        unknown = [slide for slide in config.slides if slide not in patients]
        if unknown:
            msg = f"slides: {some(unknown)} has no embeddings in {embed.place}; there are {', '.join(patients)}"
            raise ConfigError(msg)
        slides = config.slides
    else:
        seen = learned if protocol.same_patient == "allow" else {s for s, p in patients.items() if p in trained}
        slides = [slide for slide in patients if slide not in seen]
        left = [slide for slide in patients if slide in seen]
        if left:
            say(f"impute: {some(left)} left out, the model or its bank has learned from them")
    own = sorted(set(slides) & learned)
    if own:
        msg = f"slides: the model or its bank has learned from {some(own)} itself; no protocol predicts it"
        raise LeakError(msg)
    if not slides:
        msg = (
            f"slides: protocol '{protocol.name}' leaves none of {embed.place} to predict; embed other patients' slides"
        )
        raise ConfigError(msg)
    queried = [patients[slide] for slide in slides]
    shared = check_patients(trained, queried, same_patient=protocol.same_patient, protocol=protocol.name)
    if shared:
        say(f"impute, protocol `{protocol.name}`: the bank or model knows other sections of patient {some(shared)}")
    return slides, shared


def _impute(work: _Impute) -> int | str:
    """Predict one slide and write it; return its rows, or the sentence of a failure."""
    try:
        table = embeddings_of(work.embed, work.slide)
        ready, bank = _ready(work.model.place, work.index.place if work.index else None)
        expression = answer(ready, bank, tables.matrix(table["vector"]), k=work.k, weights=work.weights)
        spots = expression.shape[0]
        columns = [*(table[name].combine_chunks() for name in tables.TILES.names), tables.vectors(expression)]
        cohort = pa.Table.from_arrays(columns, schema=tables.predictions(len(ready.genes)))
        (work.target / "predictions" / f"{work.slide}.parquet").write_table(cohort)
        write_prediction(work.target / "anndata" / f"{work.slide}.h5ad", _anndata(work, table, expression, ready.genes))
    except RaystpError as error:
        return str(error)
    return int(spots)


@functools.lru_cache(maxsize=2)
def _ready(model: Place, index: Place | None) -> tuple[Predictor, Bank | None]:
    """Open a model and its bank once per process."""
    kind, arrays, meta = load_model(model)
    bank = open_bank(index, open_place(index, "index").manifest.notes["bank"]) if index else None
    return predictor(kind, arrays, meta), bank


def answer(
    ready: Predictor, bank: Bank | None, features: Float32[np.ndarray, "query feature"], *, k: int, weights: str
) -> Float32[np.ndarray, "query gene"]:
    """Predict expression from features: directly, or through the k nearest rows of the bank."""
    if not isinstance(ready, Contrastive):
        return ready.predict(features)
    assert bank is not None  # checked before any slide was begun
    queries = ready.embed_images(features)
    scores, rows = bank.search(queries, k)
    way = WEIGHTS[weights]
    read = scores if way.reads == "scores" else bank.squared_distances(queries, rows)
    return bank.weighted_sum(way.weigh(read), rows)


def _anndata(
    work: _Impute, table: pa.Table, expression: Float32[np.ndarray, "tile gene"], genes: list[str]
) -> ad.AnnData:
    x, y, side = (table[name].to_numpy() for name in ("x", "y", "side"))
    spots = table["spot"].to_pylist()
    names = [spot or f"{work.slide}-{tile:06d}" for spot, tile in zip(spots, table["tile"].to_pylist(), strict=True)]
    centres = np.stack([x + side / 2, y + side / 2], axis=1)
    measured, diameter = None, float(side[0]) if len(side) else 1.0
    if work.spots is not None and work.section is not None and all(spots):
        counts = load_counts(work.spots, work.section)
        diameter = counts.diameter_px
        at = {spot: row for row, spot in enumerate(counts.spots)}
        centres = counts.xy[[at[name] for name in names]]  # as measured; a tile's corner is rounded to a whole pixel
        source = read_section(work.spots.place / "sections" / f"{work.section}.h5ad")
        measured = ad.AnnData(counts.expression(genes), obs=source.obs, var=pd.DataFrame(index=pd.Index(genes)))
    places = Places(
        library=work.slide,
        names=names,
        centres=centres,
        diameter=Level0Pixels(diameter),
        thumbnail=thumbnail_of(work.embed, work.slide),
    )
    provenance = {"model": work.model.manifest.folder, "protocol": work.protocol, "schema_version": 1}
    return prediction_to_anndata(expression, genes, places, measured=measured, provenance=provenance)


def thumbnail_of(embed: Artifact, slide: str) -> Thumbnail:
    """Return the slide's small picture, from the tiles that the embeddings were made of."""
    tile = open_place(Place(embed.manifest.notes["tiles"]), "tile")
    content = (tile.place / "thumbnails" / f"{slide}.png").read_bytes()
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    rows = tile.table("slides.parquet", tables.SLIDES).to_pylist()
    width = next(row["width"] for row in rows if row["slide"] == slide)
    return Thumbnail(pixels, pixels.shape[1] / width)
