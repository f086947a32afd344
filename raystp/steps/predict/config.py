"""Configuration of `raystp predict`."""

from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from raystp.config import Location, StepConfig
from raystp.config_fields.values import ValuesOf
from raystp.steps.embed.config import EmbedConfig
from raystp.steps.impute.config import ImputeConfig
from raystp.steps.run_config import SlideRun
from raystp.steps.tile.config import TileConfig

Values = dict[str, Any]
TileValues = Annotated[Values, ValuesOf(TileConfig)]
EmbedValues = Annotated[Values, ValuesOf(EmbedConfig)]
ImputeValues = Annotated[Values, ValuesOf(ImputeConfig)]
OneOrManyFiles = str | Annotated[tuple[str, ...], Field(min_length=1)]

DECIDED = {
    "tile": ("name", "slides", "root", "masks", "spots", "tile_um", "tile_px"),
    "embed": ("name", "tiles", "encoder", "also", "layers", "views", "tokens", "precision"),
    "impute": ("name", "embeddings", "model", "index", "genes", "protocol", "slides", "spots", "output", "neighbours"),
}
"""Fields of each step that the model, or a field of `predict` itself, decides."""


class PredictConfig(StepConfig[SlideRun]):
    """Slides and the model that predicts their expression; tiles and encoder are those of the model."""

    command: ClassVar[str | None] = "predict"
    where: ClassVar[frozenset[str]] = frozenset({"slides", "root", "masks", "model", "index", "out", "weights"})

    positional: ClassVar[str | None] = "slides"

    slides: Annotated[str, Location("demo")]
    """The slides, as `raystp tile` takes them."""

    model: Annotated[str, Location("train", prefixes=("hf-hub:",))]
    """A published model (a folder, a URI, or `hf-hub:<owner>/<name>`), or `train/<name>` of the store."""

    index: Annotated[str | None, Location("index")] = None
    """With `train/<name>`: its reference index, where it needs one. A published model brings its own."""

    genes: Annotated[list[str], Field(min_length=1)] | None = None
    """Genes to predict, a list or `ERBB2,GNAS`. The default is the model's panel."""

    out: Annotated[str | None, Location()] = None
    """Folder or URI for the results: `<slide>.h5ad` for each slide, `summary.md` and `slides.csv`. They are in the
    artifact in any case; on one disk, `out` shares its files. A folder with predictions of other slides is refused, and
    one with files of these names that `predict` has not written."""

    weights: Annotated[OneOrManyFiles | None, Location()] = None
    """File or URI of the encoder's weights, where they are not on the hub or in its cache. A model of several encoders
    needs a list, in its order; empty text for one that needs no file."""

    root: Annotated[str | None, Location()] = None
    """Folder or URI that relative paths of the table start from. The default is the table's own folder."""

    masks: Annotated[str | None, Location()] = None
    """A folder of your own tissue masks, as for `raystp tile`."""

    protocol: str | None = None
    """The default is the model's own. It decides whether slides of training patients are predicted."""

    tile: TileValues = Field(default_factory=dict)
    """Further fields, as for `raystp tile`."""

    embed: EmbedValues = Field(default_factory=dict)
    """Further fields, as for `raystp embed`."""

    impute: ImputeValues = Field(default_factory=dict)
    """Further fields, as for `raystp impute`."""

    run: SlideRun = Field(default_factory=SlideRun)

    @field_validator("genes", mode="before")
    @classmethod
    def _split_at_commas(cls, genes: Any) -> Any:
        """Take `ERBB2,GNAS` for a list."""
        return [gene.strip() for gene in genes.split(",") if gene.strip()] if isinstance(genes, str) else genes

    @field_validator(*DECIDED)
    @classmethod
    def _check_decided(cls, values: Values, info: Any) -> Values:
        for key in DECIDED[info.field_name]:
            if key in values:
                msg = f"`{key}` is decided by the model or by a field of predict itself; remove it here"
                raise ValueError(msg)
        return values

    def fingerprint_values(self) -> dict[str, Any]:
        """Return nothing: tiles and predictions are inputs, and their fingerprints cover all fields."""
        return {}

    def of_step(self, step: Any, values: Values, decided: Values) -> Any:
        """Return a step's config: the given values, what is decided for it, and the shared part of `run`."""
        run_fields = set(step.CONFIG.model_fields["run"].annotation.model_fields)
        shared = {key: value for key, value in self.run.model_dump(exclude_none=True).items() if key in run_fields}
        filled = {key: value for key, value in decided.items() if value is not None}
        run = {**shared, **(values.get("run") or {})}
        return step.CONFIG.of({**values, **filled, "run": run}, f"predict: {step.STEP}")
