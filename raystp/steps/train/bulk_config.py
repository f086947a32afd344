"""The config of labels of whole cases, and what it names: the table, and which slides are of which case.

`train` learns from such labels, `evaluate` scores against them; both read them by the same words.
"""

from typing import Annotated

from pydantic import Field

from raystp.artifacts import Artifact, digest, resolve
from raystp.config import Config, Location
from raystp.errors import ConfigError, SectionError, some
from raystp.expression.bulk.labels import Scale
from raystp.expression.bulk.slides import read_slide_cases, tcga_case
from raystp.storage import StoragePath

BARCODES = "tcga"
DEMO = "demo"

NORMALISATION = {
    "counts": "log1p of counts per 10,000 of all genes of the case",
    "expression": "as in the table of cases",
    "signed": "as in the table of cases, values of either sign",
}
"""What a model's record says of its unit."""


class BulkConfig(Config):
    """A case x gene table, and which slides are of which case."""

    table: Annotated[str, Location(DEMO)]
    """Parquet, CSV, TSV (a row is a case, a column names it, each other column is a gene) or h5ad (obs are cases).
    `demo/<name>`: the pooled counts of a demo's patients."""

    scale: Scale = "expression"
    """What the table holds. `counts`: raw counts, of which log1p of counts per 10,000 is taken; `expression`: values
    that are not negative, such as log1p of TPM, as they are; `signed`: any, such as z-scores, as they are."""

    case: str = Field(default="case", min_length=1)
    """The column that names the cases; of an h5ad, obs_names do."""

    slides: Annotated[str | None, Location(words=(BARCODES,))] = None
    """A CSV with the columns `slide` and `case`, or `tcga`: the first 12 letters of a slide's name. By default a case
    is a patient of the slide table. A case of several slides is one bag of all their tiles."""

    def fingerprint_values(self) -> dict[str, str]:
        """Return what counts beside the digests of the files."""
        by = "patient" if self.slides is None else BARCODES if self.slides == BARCODES else "table"
        return {"scale": self.scale, "case": self.case, "slides": by}

    def place(self, store: str) -> StoragePath:
        """Return where the table lies; raises ConfigError where it is not there."""
        is_demo = self.table.startswith(f"{DEMO}/")
        place = resolve(store, self.table, DEMO).path / "bulk.csv" if is_demo else StoragePath.of(self.table)
        if not place.exists():
            hint = "; a demo of an earlier raystp has none: draw it under another name" if is_demo else ""
            msg = f"bulk.table: there is no table of cases at {place}{hint}"
            raise ConfigError(msg)
        return place

    def digests(self, store: str) -> dict[str, Artifact | str]:
        """Return the digests of the files, for a fingerprint: what they hold counts, not where they lie."""
        found: dict[str, Artifact | str] = {"bulk": digest(self.place(store))}
        listed = self.slides not in {None, BARCODES}
        return found | ({"cases": digest(self._listed())} if listed else {})

    def cases(self, patients: dict[str, str]) -> dict[str, str]:
        """Return slide -> case of those slides that have one; `patients` is slide -> patient of the slide table.

        Raises ConfigError for a case of two patients, which could be on both sides of a split; SectionError where no
        slide has a case.
        """
        if self.slides is None:
            return dict(patients)
        if self.slides == BARCODES:
            found = {slide: tcga_case(slide) for slide in patients}
        else:
            listed = read_slide_cases(self._listed())
            found = {slide: listed[slide] for slide in patients if slide in listed}
            if not found:
                msg = f"{self.slides} names none of the slides {some(sorted(patients))}; it names {some(list(listed))}"
                raise SectionError(msg)
        whose: dict[str, set[str]] = {}
        for slide, case in found.items():
            whose.setdefault(case, set()).add(patients[slide])
        shared = [case for case, of in whose.items() if len(of) > 1]
        if shared:
            of = some(sorted(whose[shared[0]]))
            msg = f"bulk.slides: case {shared[0]!r} has slides of the patients {of}: a case is of one patient"
            raise ConfigError(msg)
        return found

    def _listed(self) -> StoragePath:
        place = StoragePath.of(str(self.slides))
        if not place.exists():
            msg = f"bulk.slides: there is no table of slides and cases at {place}"
            raise ConfigError(msg)
        return place
