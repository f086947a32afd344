"""Choose the slides to predict so that no patient is predicted from their own data.

Two leaks are refused: a slide that the model or the index was built from, and a slide of a patient who is in either.
A protocol may allow the second one; the patients concerned are then recorded beside every score. Alternatively
`leave_out` excludes the index rows of a slide's own patient from that slide's search.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from raystp.errors import ConfigError, LeakError, some
from raystp.impute.hashed_names import names_behind

logger = logging.getLogger("raystp")

SamePatient = Literal["refuse", "allow"]


@dataclass(frozen=True)
class KnownPatients:
    """Patients and slides that the model was trained on, and those in the reference index."""

    model_patients: frozenset[str]
    model_slides: frozenset[str]
    index_patients: frozenset[str] = frozenset()
    index_slides: frozenset[str] = frozenset()

    def among(self, patients: Mapping[str, str], salt: str) -> "KnownPatients":
        """Return which of these slides and patients are known, where this holds hashes (`hashed_names`) of names."""
        return KnownPatients(
            names_behind(self.model_patients, patients.values(), salt),
            names_behind(self.model_slides, patients, salt),
            names_behind(self.index_patients, patients.values(), salt),
            names_behind(self.index_slides, patients, salt),
        )


@dataclass(frozen=True)
class LeakRules:
    """What is allowed between queries and training data."""

    protocol: str
    """Name, for messages."""
    same_patient: SamePatient
    leave_out: bool = False
    """Exclude the index rows of a slide's own patient, rather than refuse the slide."""


@dataclass(frozen=True)
class SlideSelection:
    """Slides to predict, and what the manifest records about leaks."""

    slides: list[str]
    shared: list[str]
    """Patients both among the queries and in the model or index; empty unless the protocol allows it."""
    left_out: dict[str, str]
    """Slide -> its patient, whose index rows are excluded from the slide's search."""


def select_slides(
    patients: Mapping[str, str], known: KnownPatients, rules: LeakRules, *, named: Sequence[str] | None, source: str
) -> SlideSelection:
    """Return the slides to predict: those named, or all that the rules allow.

    `patients` is the patient of each slide with embeddings; `source` is where these are, for messages.

    Raises:
        LeakError: a named slide may not be predicted.
        ConfigError: a named slide has no embeddings, or no slide remains.
    """
    seen_patients, seen_slides = known.model_patients, known.model_slides
    if not rules.leave_out:
        seen_patients, seen_slides = seen_patients | known.index_patients, seen_slides | known.index_slides
    if named is None:
        slides = _allowed_slides(patients, seen_patients, seen_slides, rules.same_patient)
    else:
        slides = _named_slides(patients, named, source)
    own = sorted(set(slides) & seen_slides)
    if own:
        msg = f"slides: the model or its index was built from {some(own)}; no protocol allows predicting these slides"
        raise LeakError(msg)
    if not slides:
        msg = (
            f"slides: protocol '{rules.protocol}' allows no slide of {source}; embed slides of other patients, or name "
            "another protocol"
        )
        raise ConfigError(msg)
    queried = [patients[slide] for slide in slides]
    shared = check_patients(seen_patients, queried, same_patient=rules.same_patient, protocol=rules.protocol)
    if shared:
        logger.info(
            f"impute, protocol `{rules.protocol}`: the model or index contains other sections of patient {some(shared)}"
        )
    return SlideSelection(slides, shared, _left_out(patients, slides, known, rules))


def check_patients(
    index_patients: Iterable[str], query_patients: Iterable[str], *, same_patient: SamePatient, protocol: str
) -> list[str]:
    """Return the patients that are both in the index (or model) and among the queries, sorted.

    Raises:
        LeakError: there are such patients and the protocol does not allow them.
    """
    shared = sorted(set(index_patients) & set(query_patients))
    if shared and same_patient == "refuse":
        who = "patient" if len(shared) == 1 else f"{len(shared)} patients"
        msg = (
            f"the model or index contains the queries' own {who} {some(shared)}: their predictions would come from "
            f"their own data. Protocol '{protocol}' refuses that. Leave these patients out of the index, or use a "
            "protocol with `same_patient: allow`, such as `section`; its name is then printed with every score"
        )
        raise LeakError(msg)
    return shared


def _allowed_slides(
    patients: Mapping[str, str], seen_patients: Collection[str], seen_slides: Collection[str], same_patient: SamePatient
) -> list[str]:
    """Return all slides but those that the model or index has seen, by slide or by patient."""
    refused = () if same_patient == "allow" else seen_patients
    seen = [slide for slide, patient in patients.items() if slide in seen_slides or patient in refused]
    if seen:
        logger.warning(f"impute: {some(seen)} skipped: the model or its index was built from their patients or slides")
    return [slide for slide in patients if slide not in set(seen)]


def _named_slides(patients: Mapping[str, str], named: Sequence[str], source: str) -> list[str]:
    unknown = [slide for slide in named if slide not in patients]
    if unknown:
        msg = f"slides: no embeddings of {some(unknown)} in {source}; it has embeddings of {', '.join(patients)}"
        raise ConfigError(msg)
    return list(named)


def _left_out(
    patients: Mapping[str, str], slides: Iterable[str], known: KnownPatients, rules: LeakRules
) -> dict[str, str]:
    if not rules.leave_out:
        return {}
    own = {slide: patients[slide] for slide in slides if patients[slide] in known.index_patients}
    if own:
        logger.info(f"impute: {len(own)} slides are predicted without the index rows of their own patient")
    return own
