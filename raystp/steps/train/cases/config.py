"""Configuration of labels of whole cases, and of a training on them.

A case is one label: the expression of one sample. `train` learns from such labels and `evaluate` scores against them;
both name the table by the same keys.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from raystp.config import Choices, Config, Location
from raystp.config_fields.values import NeighbourCount
from raystp.errors import ConfigError, ModelError, SectionError, some
from raystp.expression.bulk.kinds import Samples, Scale
from raystp.impute.weights import WeightsName, weighting_of
from raystp.models.methods import CASES_DEFAULT, METHODS
from raystp.steps.input_config import EmbeddingNames
from raystp.steps.train.choice.candidates import CV
from raystp.steps.train.config import TrainConfig, is_mapping, with_method_options, with_published_fit

if TYPE_CHECKING:
    import raystp.artifacts
    import raystp.expression.bulk.slides
    import raystp.storage

BARCODES = "tcga"
DEMO = "demo"

NORMALISATION = {
    "counts": "log1p of counts per 10,000 of all genes of the case",
    "expression": "as in the table of cases",
    "signed": "as in the table of cases, values of either sign",
}
"""What a model's record says of its unit."""


class CasesConfig(Config):
    """A case x gene table, and which slides belong to which case."""

    table: Annotated[str, Location(DEMO)]
    """Parquet, CSV, TSV (a row is a case, a column names it, each other column is a gene) or h5ad (obs are cases).
    `demo/<name>`: the pooled counts of a demo's patients."""

    scale: Scale = "expression"
    """Values of the table. `counts`: raw counts, turned into log1p of counts per 10,000. `expression`: values of at
    least 0, such as log1p of TPM, used unchanged. `signed`: any values, such as z-scores, used unchanged."""

    case: str = Field(default="case", min_length=1)
    """The column with the names of the cases; an h5ad has them in obs_names."""

    slides: Annotated[str | None, Location(words=(BARCODES,))] = None
    """A CSV with the columns `slide` and `case`, or `tcga`: the first 12 characters of a slide's name. By default a
    case is a patient of the slide table. A case with several slides is one bag of all their tiles."""

    samples: Samples = "tumour"
    """With `slides: tcga`: which slides to use, by the sample code of their barcodes (01-09 tumour, 10-19 normal, 20-29
    control)."""

    def fingerprint_values(self) -> dict[str, str]:
        """Return what is computed, beside the digests of the files."""
        by = "patient" if self.slides is None else BARCODES if self.slides == BARCODES else "table"
        values = {"scale": self.scale, "case": self.case, "slides": by}
        return values | ({"samples": self.samples} if by == BARCODES else {})

    def path(self, store: str) -> "raystp.storage.StoragePath":
        """Return the path of the table; raises ConfigError where there is none."""
        from raystp.artifacts import resolve  # noqa: PLC0415 -- imports pyarrow
        from raystp.storage import StoragePath  # noqa: PLC0415 -- the same

        is_demo = self.table.startswith(f"{DEMO}/")
        path = resolve(store, self.table, DEMO).path / "bulk.csv" if is_demo else StoragePath.of(self.table)
        if not path.exists():
            hint = "; a demo of an earlier version has none: run `raystp demo` with another name" if is_demo else ""
            msg = f"cases.table: no table of cases at {path}{hint}"
            raise ConfigError(msg)
        return path

    def digests(self, store: str) -> "dict[str, raystp.artifacts.Artifact | str]":
        """Return the digests of the files, for a fingerprint: their content counts, not their path."""
        from raystp.artifacts import Artifact  # noqa: PLC0415 -- imports pyarrow
        from raystp.digests import digest  # noqa: PLC0415 -- imports pyarrow

        found: dict[str, Artifact | str] = {"cases": digest(self.path(store))}
        listed = self.slides not in {None, BARCODES}
        return found | ({"slides of cases": digest(self._slides_path())} if listed else {})

    def case_of_slides(self, patients: dict[str, str]) -> "raystp.expression.bulk.slides.SlideCases":
        """Return the cases of the slides that have one; `patients` is slide -> patient of the slide table.

        Raises ConfigError for a case of two patients, which could be on both sides of a split; SectionError where no
        slide has a case.
        """
        from raystp.expression.bulk.slides import SlideCases  # noqa: PLC0415 -- imports pandas

        unknown = {slide: "it has no `patient` in the slide table" for slide in patients if not patients[slide]}
        patients = {slide: patient for slide, patient in patients.items() if patient}
        found = self._found(patients) if patients or not unknown else SlideCases({}, {})
        return replace(found, left_out={**unknown, **found.left_out})

    def _found(self, patients: dict[str, str]) -> "raystp.expression.bulk.slides.SlideCases":
        """Return the cases of slides whose patients are known."""
        from raystp.expression.bulk.slides import (  # noqa: PLC0415 -- imports pandas
            SlideCases,
            read_slide_cases,
            tcga_cases,
        )

        if self.slides is None:
            return SlideCases(dict(patients), {})
        if self.slides == BARCODES:
            found = tcga_cases(patients, self.samples)
        else:
            listed = read_slide_cases(self._slides_path())
            left = {slide: "it belongs to no case" for slide in patients if slide not in listed}
            found = SlideCases({slide: listed[slide] for slide in patients if slide in listed}, left)
            if not found.case_of:
                msg = f"{self.slides} lists none of the slides {some(sorted(patients))}; it lists {some(list(listed))}"
                raise SectionError(msg)
        whose: dict[str, set[str]] = {}
        for slide, case in found.case_of.items():
            whose.setdefault(case, set()).add(patients[slide])
        shared = [case for case, of in whose.items() if len(of) > 1]
        if shared:
            of = some(sorted(whose[shared[0]]))
            msg = f"cases.slides: case {shared[0]!r} has slides of the patients {of}; a case belongs to one patient"
            raise ConfigError(msg)
        return found

    def _slides_path(self) -> "raystp.storage.StoragePath":
        from raystp.storage import StoragePath  # noqa: PLC0415 -- imports pyarrow

        path = StoragePath.of(str(self.slides))
        if not path.exists():
            msg = f"cases.slides: no table of slides and cases at {path}"
            raise ConfigError(msg)
        return path


ABLE = [method for method in METHODS.values() if method.on_cases is not None]
"""Methods that learn from labels of whole cases."""


class CaseRetrievalConfig(Config):
    """How expression is retrieved from training cases; `index` and `impute` use the same by default."""

    metric: Literal["cosine", "l2"] = "cosine"

    k: NeighbourCount | None = None
    """Neighbours that are averaged, or `all` training cases. By default the one of 5, 10, 20 and 50 with the highest
    PCC over validation cases, at most a quarter of the training cases; without validation 10."""

    weights: WeightsName = "mean"
    """Weights of the neighbours, see `raystp.impute.weights`."""

    temperature: float | None = Field(default=None, gt=0)
    """Of the weights `softmax` (default 0.1) and `weighted_average` (default 1); a higher one makes weights more equal.
    """

    @model_validator(mode="after")
    def _weights_fit(self) -> "CaseRetrievalConfig":
        try:
            weighting_of(self.weights, self.temperature)
        except ModelError as error:
            raise ValueError(str(error)) from None
        return self


@with_method_options(ABLE, targets="cases")
class CasesTrainConfig(TrainConfig):
    """Which model to train on labels of whole cases, and who is held out."""

    RENAMED: ClassVar[Mapping[str, str]] = {"bags": "`bags.tiles` is now `bag_tiles`; parts are cut of sections only"}

    targets: Literal["cases"]

    cases: CasesConfig
    """The table of labels. A bag is all tiles of a case's slides; `split` lists cases or patients."""

    embeddings: EmbeddingNames
    """Cached image features, `embed/<name>`."""

    model: Annotated[str, Choices(tuple(method.name for method in ABLE))] = CASES_DEFAULT
    """Method to train."""

    bag_tiles: int | None = Field(default=None, ge=1)
    """Maximum number of tiles of a bag in one epoch, sampled again in each. By default all, and 2,048 for a method that
    compares bags. `null` is all."""

    retrieval: CaseRetrievalConfig = Field(default_factory=CaseRetrievalConfig)
    """For a method that predicts through a reference index of cases."""

    @field_validator("model")
    @classmethod
    def _learns_from_cases(cls, name: str) -> str:
        if name in METHODS and METHODS[name].on_cases is None:
            able = ", ".join(method.name for method in ABLE)
            msg = f"this method needs measured spots (targets: spots); from cases can learn: {able}"
            raise ValueError(msg)
        return name

    @model_validator(mode="before")
    @classmethod
    def _published(cls, values: Any) -> Any:
        return cls.with_computed(values)

    @classmethod
    def with_computed(cls, values: Any) -> Any:
        """Return plain values with the published training options of the method."""
        method = METHODS.get(values.get("model", CASES_DEFAULT)) if is_mapping(values) else None
        if method is None or method.on_cases is None:
            return values
        split, options = values.get("split"), values.get(method.name)
        validated = isinstance(split, dict) and bool(split.get("validation"))
        published = method.on_cases.fit(options if isinstance(options, dict) else {})
        return with_published_fit({"bag_tiles": method.on_cases.bag_tiles, **values}, published, validated=validated)

    @model_validator(mode="after")
    def _has_validation(self) -> "CasesTrainConfig":
        if self.fit.select == CV:
            msg = (
                f"fit.select={CV} needs measured spots; with `targets: cases`, set split.validation and fit.select=best"
            )
            raise ValueError(msg)
        return self

    def fingerprint_values(self) -> dict[str, Any]:
        """Return what is computed; files count by their digests."""
        values = {**super().fingerprint_values(), "cases": self.cases.fingerprint_values()}
        return {key: value for key, value in values.items() if key != "retrieval" or self.method.needs_index}
