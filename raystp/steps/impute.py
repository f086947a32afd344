"""impute: embeddings + a model [+ index] -> predicted expression: AnnData per slide, parquet for the cohort."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from raystp.artifacts import Artifact, Draft, begin, find
from raystp.cluster.progress import Progress, say
from raystp.cluster.session import session
from raystp.cluster.tasks import each
from raystp.config import Run, StepConfig, Where
from raystp.errors import ConfigError, LeakError, ModelError, some
from raystp.evaluate.protocols import EvaluationProtocol, protocol_of
from raystp.impute.leak import check_patients
from raystp.impute.weights import WEIGHTS
from raystp.models.store import load_model
from raystp.steps.impute_work import ImputeWork, impute_slide

STEP = "impute"


class ImputeRun(Run):
    """Where and by which search; nothing here changes a row."""

    search: Literal["faiss", "exact"] = "faiss"
    """FAISS's flat shards, or exact search without FAISS: the same answers, to the bit."""


class ImputeConfig(StepConfig[ImputeRun]):
    """Which slides to predict, by which model, under which protocol."""

    where: ClassVar[frozenset[str]] = frozenset({"embeddings", "model", "index", "spots"})

    embeddings: Annotated[str, Where("embed")]
    """The queries, `embed/<name>`."""

    model: Annotated[str, Where("train")]
    """`train/<name>`."""

    index: Annotated[str | None, Where("index")] = None
    """The bank of a contrastive model, `index/<name>`."""

    spots: Annotated[str | None, Where("spots")] = None
    """Measured spots, `spots/<name>`: where a slide has them, they stand beside the prediction in a layer."""

    slides: list[str] | None = None
    """Slides to predict; by default all that the protocol allows, which leaves out what the model was trained on."""

    protocol: str | None = None
    """By default the model's own."""

    k: int = Field(default=50, ge=1)
    """Neighbours of a contrastive model."""

    weights: str = "mean"
    """How neighbours are weighed: mean, top1, softmax or bleep."""

    run: ImputeRun = Field(default_factory=ImputeRun)


CONFIG = ImputeConfig


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
        ImputeWork(
            slide=slide,
            section=sections.get(slide),
            model=model,
            embed=embed,
            index=index,
            spots=spots,
            k=config.k,
            weights=config.weights,
            exactly=config.run.search == "exact",
            protocol=protocol.name,
            target=draft.place,
        )
        for slide in slides
    ]
    return _predict(draft, config, work, {"kind": kind, "shared_patients": shared} | _about(embed, meta, protocol))


def _predict(draft: Draft, config: ImputeConfig, work: list[ImputeWork], notes: dict[str, Any]) -> Artifact:
    rows: dict[str, int] = {}
    failures: list[dict[str, object]] = []
    with session(config.run.address), Progress(STEP, len(work), "slide") as progress:
        for position, answer in each(impute_slide, work):
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
