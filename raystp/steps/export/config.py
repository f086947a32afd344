"""Configuration of `raystp export`."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator, model_validator

from raystp.config import Choices, Location, StepConfig
from raystp.interop.outputs.registry import PREDICTIONS
from raystp.interop.outputs.slide import Measurements, Ngff, XForm
from raystp.interop.registry import FEATURES
from raystp.steps.run_config import SlideRun

OF_FEATURES = tuple(one.name for one in FEATURES.values() if one.writes)
PATCHES = "patches"
"""HEST's images of spots, which are written of tiles."""
FORMATS = (*OF_FEATURES, *PREDICTIONS, PATCHES)

USED_BY: Mapping[str, Sequence[str]] = {
    "encoder_name": OF_FEATURES,
    "genes": tuple(PREDICTIONS),
    "evaluation": tuple(PREDICTIONS),
    "x": ("spatialdata",),
    "embeddings": ("spatialdata",),
    "ngff": ("omezarr",),
    "measurements": ("qupath",),
}
"""Field -> the formats that it is for."""


class ExportRun(SlideRun):
    """The `run` section of `raystp export`."""

    deadline_s: float = Field(default=1800.0, gt=0)
    """Deadline in seconds for one slide. A worker that exceeds it is stopped; after three such attempts the slide is
    skipped."""


class ExportConfig(StepConfig[ExportRun]):
    """Configuration of `raystp export`: an artifact is written as files of another tool, one slide after the other."""

    command: ClassVar[str | None] = "export"

    positional: ClassVar[str | tuple[str, ...] | None] = ("format", "artifact")

    where: ClassVar[frozenset[str]] = frozenset({"artifact", "evaluation"})

    format: Annotated[str, Choices(FORMATS)]
    """The tool whose files are written; `patches` are HEST's images of spots."""

    artifact: Annotated[str, Location(prefixes=("embed/", "impute/", "predict/", "tile/"))]
    """What is exported: embeddings, `embed/<name>`, for the formats of features; `impute/<name>` or `predict/<name>`
    for those of expression (spatialdata, qupath, omezarr, ometiff, csv); `tile/<name>` for `patches`, which reads the
    slides."""

    out: Annotated[str, Location()]
    """The folder or URI to write. Each file is replaced as a whole; other files there are left as they are."""

    encoder_name: str | None = None
    """Name of the encoder in the files. The default is the name that raystp, or the tool they came from, has for it."""

    genes: Annotated[list[str], Field(min_length=1)] | None = None
    """Genes to write, a list or `ERBB2,GNAS`. The default is all; for `qupath` the 20 best ones of `evaluation`, or
    without it the 20 whose prediction varies most on each slide."""

    evaluation: Annotated[str | None, Location("evaluate")] = None
    """An evaluation of the same model, `evaluate/<name>`: the 20 genes with the greatest held-out PCC are written."""

    x: XForm = "float32"
    """`spatialdata`: how values are stored; `float16` halves them, `csr` leaves out those that are 0."""

    embeddings: bool = False
    """`spatialdata`: also write the embeddings of the first encoder as a table of the tiles."""

    ngff: Ngff = "0.4"
    """`omezarr`: version of the format. 0.4 (zarr v2) is read by most viewers, 0.5 is zarr v3."""

    measurements: Measurements = "geojson"
    """`qupath`: tiles as objects with measurements, or a CSV of the measurements for a project that has the tiles."""

    run: ExportRun = Field(default_factory=ExportRun)

    @field_validator("genes", mode="before")
    @classmethod
    def _split_at_commas(cls, genes: Any) -> Any:
        """Take `ERBB2,GNAS` for a list."""
        return [gene.strip() for gene in genes.split(",") if gene.strip()] if isinstance(genes, str) else genes

    @model_validator(mode="after")
    def _check_used(self) -> "ExportConfig":
        """Raise for a field that the format does not use, and for two that choose genes."""
        for name in sorted(set(self.changed_fields()) & set(USED_BY)):
            if self.format not in USED_BY[name]:
                msg = f"`{name}` is for the formats {', '.join(USED_BY[name])}, not for {self.format}: remove it"
                raise ValueError(msg)
        if self.genes is not None and self.evaluation is not None:
            msg = "`genes` lists the genes, and `evaluation` chooses them: give one of both"
            raise ValueError(msg)
        return self

    @field_validator("format")
    @classmethod
    def _check_format(cls, name: str) -> str:
        if name not in FORMATS:
            msg = f"unknown format {name!r}; the formats are {', '.join(FORMATS)}"
            raise ValueError(msg)
        return name
