"""Cases with their slides and tiles: bags whose features are read when they are needed.

A cohort's features may exceed a machine's memory, and every epoch reads all of them. So a case's tiles are read from
the embeddings when its bag is used, and as many cases as fit into a memory budget are kept.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int64

from raystp import tables
from raystp.artifacts import Artifact, open_artifact
from raystp.errors import ModelError, some
from raystp.expression.bulk.slides import slides_of_cases
from raystp.expression.embeddings.join import JoinedEmbeddings, block_widths
from raystp.expression.sections import embeddings_of
from raystp.models.training.bags import BagSamples
from raystp.steps.train.cases.config import CasesConfig

logger = logging.getLogger("raystp")


@dataclass(frozen=True)
class Case:
    """A case with the slides that have tiles."""

    name: str
    patient: str
    slides: tuple[str, ...]
    tiles: int


@dataclass(frozen=True)
class CaseCohort:
    """Cases with a label and tiles, and why others are left out."""

    cases: dict[str, Case]
    left_out: dict[str, str]
    """Case or slide -> the reason."""

    def patients(self) -> dict[str, str]:
        """Return case -> patient."""
        return {name: case.patient for name, case in self.cases.items()}


def cohort_of(cases: CasesConfig, embed: Artifact, labelled: Collection[str]) -> CaseCohort:
    """Match embedded slides with labelled cases; raises ModelError, listing both, where no case has both.

    Slides without a label and cases without a slide or tile are left out, each with its reason.
    """
    patients = dict(embed.manifest.notes["patients"])
    listed = cases.case_of_slides(patients)
    case_of, known = listed.case_of, set(labelled)
    if listed.summary:
        logger.info(f"  slides by TCGA barcode: {listed.summary}; {len(listed.left_out)} are left out")
    left = {f"slide {slide}": reason for slide, reason in listed.left_out.items()}
    left |= {f"slide {slide}": f"its case {case} has no label" for slide, case in case_of.items() if case not in known}
    wanted = {slide: case for slide, case in case_of.items() if case in known}
    if not wanted:
        msg = (
            f"no slide of {embed.path} belongs to a case in {cases.table}: the slides' cases are "
            f"{some(sorted(case_of.values()))}, the table has {some(sorted(known))}; set cases.slides to a table of "
            "slides and cases"
        )
        raise ModelError(msg)
    slides, count = slides_of_cases(wanted, known), _tiles_of(embed)
    left |= {f"case {case}": f"it has no slide in {embed.path}" for case in labelled if case not in slides}
    found = {
        name: Case(name, patients[of[0]], tuple(s for s in of if count[s]), sum(count[s] for s in of))
        for name, of in slides.items()
    }
    left |= {
        f"case {name}": f"no tile was found on {some(slides[name])}: check their tissue masks"
        for name, case in found.items()
        if not case.tiles
    }
    return CaseCohort({name: case for name, case in found.items() if case.tiles}, left)


def _tiles_of(embed: Artifact) -> dict[str, int]:
    """Return the number of embedded tiles of each slide."""
    if isinstance(embed, JoinedEmbeddings):
        return {slide: embed.count(slide) for slide in embed.manifest.notes["patients"]}
    failed: dict[str, int] = embed.manifest.notes.get("failed_tiles", {})
    tiles = open_artifact(embed.noted(embed.manifest.notes["tiles"]), "tile").table("slides.parquet", tables.SLIDES)
    counted = zip(tiles["slide"].to_pylist(), tiles["tiles"].to_pylist(), strict=True)
    return {slide: count - failed.get(slide, 0) for slide, count in counted}


def features_of(embed: Artifact, slides: Sequence[str]) -> Float32[np.ndarray, "tile feature"]:
    """Return the features of all tiles of some slides, in the order of the slides."""
    return np.concatenate([tables.matrix(embeddings_of(embed, slide)["vector"]) for slide in slides])


def dim_of_embeddings(embed: Artifact, slide: str) -> int:
    """Return the length of the features, from the first file of a slide that has tiles."""
    means = len(embed.neighbour_means) if isinstance(embed, JoinedEmbeddings) else 0
    return (1 + means) * sum(block_widths(embed, slide))


@dataclass
class CaseTiles:
    """Read the tiles of cases; keep the first ones that fit the budget, since every epoch reads all cases."""

    embed: Artifact
    slides: Sequence[tuple[str, ...]]
    """Slides of each bag."""
    budget: float
    """Bytes that may still be kept."""
    kept: dict[int, Float32[np.ndarray, "tile feature"]] = field(default_factory=dict)

    def __call__(self, bag: int, chosen: Int64[np.ndarray, "tile"] | None) -> Float32[np.ndarray, "tile feature"]:
        """Return the features of a bag, all or the chosen ones."""
        features = self.kept.get(bag)
        if features is None:
            features = features_of(self.embed, self.slides[bag])
            if features.nbytes <= self.budget:
                self.budget -= features.nbytes
                self.kept[bag] = features
        return features if chosen is None else features[chosen]


def bags_of(
    embed: Artifact, cases: Sequence[Case], labels: Float32[np.ndarray, "bag gene"], *, budget: float = 0.0
) -> BagSamples:
    """Return the bags of cases with their labels; `budget` is the bytes of features that may be kept in memory.

    Raises ModelError for a label with nan.
    """
    sizes = np.array([case.tiles for case in cases], dtype=np.int64)
    return BagSamples(
        CaseTiles(embed, [case.slides for case in cases], budget), sizes, labels, [case.name for case in cases]
    )


def check_listed(split: Mapping[str, Sequence[str]], cohort: CaseCohort) -> None:
    """Raise ModelError, with the reason, where a split lists a case that is left out."""
    for side, names in split.items():
        lost = [name for name in names if f"case {name}" in cohort.left_out]
        if lost:
            msg = f"split.{side}: case {lost[0]!r} cannot be used: {cohort.left_out[f'case {lost[0]}']}"
            raise ModelError(msg)
