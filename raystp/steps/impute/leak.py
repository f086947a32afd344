"""Which slides may be predicted, and which rows of the bank may answer each of them."""

import logging
from dataclasses import dataclass
from typing import Any

from raystp.artifacts import Artifact
from raystp.errors import ConfigError, LeakError, some
from raystp.evaluate.protocols import EvaluationProtocol
from raystp.impute.leak import check_patients
from raystp.steps.impute.config import ImputeConfig

logger = logging.getLogger("raystp")


@dataclass(frozen=True)
class SlideSelection:
    """Slides to predict, and what must be known of it."""

    slides: list[str]
    shared: list[str]
    """Patients on both sides, as the protocol allows."""
    left_out: dict[str, str]
    """Slide -> its patient, whose rows of the bank do not answer it."""


@dataclass(frozen=True)
class KnownPatients:
    """Who is who: patient of each slide with embeddings, and what the model, and its bank, have learned from."""

    patients: dict[str, str]
    model_patients: set[str]
    model_slides: set[str]
    bank_patients: set[str]
    bank_slides: set[str]

    @classmethod
    def of(cls, embed: Artifact, meta: dict[str, Any], index: Artifact | None) -> "KnownPatients":
        """Read them from the artifacts."""
        banked = index.manifest.notes if index is not None else {"patients": [], "slides": []}
        return cls(
            patients=embed.manifest.notes["patients"],
            model_patients=set(meta["patients"].values()),
            model_slides=set(meta["slides"]),
            bank_patients=set(banked["patients"]),
            bank_slides=set(banked["slides"]),
        )


def select_slides(
    config: ImputeConfig, embed: Artifact, sides: KnownPatients, protocol: EvaluationProtocol
) -> SlideSelection:
    """Return what may be predicted, from which rows.

    Raises LeakError for a slide that was named and may not be predicted, ConfigError where none is left.
    """
    masked = config.own_rows == "leave_out"
    trained = sides.model_patients if masked else sides.model_patients | sides.bank_patients
    learned = sides.model_slides if masked else sides.model_slides | sides.bank_slides
    slides = _chosen(config, embed, sides.patients, protocol, seen=(trained, learned))
    own = sorted(set(slides) & learned)
    if own:
        msg = f"slides: the model or its bank has learned from {some(own)} itself; no protocol predicts it"
        raise LeakError(msg)
    if not slides:
        msg = f"slides: protocol '{protocol.name}' leaves none of {embed.path} to predict; embed other patients' slides"
        raise ConfigError(msg)
    queried = [sides.patients[slide] for slide in slides]
    shared = check_patients(trained, queried, same_patient=protocol.same_patient, protocol=protocol.name)
    if shared:
        logger.info(
            f"impute, protocol `{protocol.name}`: the bank or model knows other sections of patient {some(shared)}"
        )
    theirs = {
        slide: sides.patients[slide] for slide in slides if masked and sides.patients[slide] in sides.bank_patients
    }
    if theirs:
        logger.info(
            f"impute: {len(theirs)} slides of patients in the bank are answered without their own patient's rows"
        )
    return SlideSelection(slides, shared, theirs)


def _chosen(
    config: ImputeConfig,
    embed: Artifact,
    patients: dict[str, str],
    protocol: EvaluationProtocol,
    *,
    seen: tuple[set[str], set[str]],
) -> list[str]:
    """Return the slides that were named, or all but those that the model has seen, as the protocol counts that."""
    trained, learned = seen
    if config.slides is not None:
        unknown = [slide for slide in config.slides if slide not in patients]
        if unknown:
            msg = f"slides: {some(unknown)} has no embeddings in {embed.path}; there are {', '.join(patients)}"
            raise ConfigError(msg)
        return config.slides
    left = learned if protocol.same_patient == "allow" else {s for s, p in patients.items() if p in trained}
    out = [slide for slide in patients if slide in left]
    if out:
        logger.warning(f"impute: {some(out)} left out, the model or its bank has learned from them")
    return [slide for slide in patients if slide not in left]
