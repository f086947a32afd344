"""Configuration of `raystp import`."""

from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator, model_validator

from raystp.config import Choices, Location, StepConfig
from raystp.interop.choice import FolderChoice, TableChoice
from raystp.interop.registry import FEATURES, TABLES
from raystp.steps.run_config import SlideRun

FORMATS = (*FEATURES, *TABLES)

OF_TABLES = frozenset({"out", "ids", "only", "task"})
"""Fields that only data sets read."""

OF_FEATURES = frozenset(
    {"slides", "root", "spots", "spot_px", "grid", "encoder_name", "side_px", "side_um", "encoder", "weights"}
    | {"verify", "mixed_sides"}
)
"""Fields that only features of another tool read."""


class ImportRun(SlideRun):
    """The `run` section of `raystp import`."""

    deadline_s: float = Field(default=1800.0, gt=0)
    """Deadline in seconds for one slide. A worker that exceeds it is stopped; after three such attempts the slide is
    skipped."""


class ImportConfig(StepConfig[ImportRun]):
    """Configuration of `raystp import`.

    Tiles and vectors of another tool become `tile/<name>` and `embed/<name>`. A data set of slides with measured spots
    becomes a slide table in the folder `out`.
    """

    command: ClassVar[str | None] = "import"

    positional: ClassVar[str | tuple[str, ...] | None] = ("format", "path")

    where: ClassVar[frozenset[str]] = frozenset({"path", "out", "slides", "root", "spots", "weights"})

    format: Annotated[str, Choices(FORMATS)]
    """The tool that has written the files, or the data set."""

    path: Annotated[str, Location()]
    """The folder of the tool or data set."""

    out: Annotated[str | None, Location()] = None
    """Of a data set: the folder to write `slides.csv` to, and what goes with it. Slides and counts are not copied."""

    ids: tuple[str, ...] = ()
    """Of a data set: the samples to take. The default is all."""

    only: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Of a data set: a column of its own table and the values to take, as in `only: {organ: [Breast]}`."""

    task: str | None = None
    """Of hest-bench: the task, such as IDC. It may be left out where there is one."""

    slides: Annotated[str | None, Location("demo")] = None
    """The slides: a table, folder, glob or prefix, as of `raystp tile`. It gives um/px and patients. It is required for
    a format that stores no um/px; a table with a column `mpp` is enough, and the slides need not be readable."""

    root: Annotated[str | None, Location()] = None
    """Folder or URI that relative paths of the table start from. The default is the table's own folder."""

    spots: Annotated[str | None, Location("spots")] = None
    """The measured spots, `spots/<name>`, for training: each spot takes the tile around it, or of its name where the
    format has names; other tiles are left out. The table of `slides` says which section is on a slide."""

    spot_px: float = Field(default=2.0, gt=0)
    """Largest distance between the centres of a spot and of its tile, in level-0 px. Formats round corners to whole px,
    so 2 finds the tiles that were made around the spots; a grid that was not needs more, half its step."""

    grid: str | None = None
    """Of several grids of tiles, the one to read: the folder's name (`20x_256px_0px_overlap`) or the tile key."""

    encoder_name: str | None = None
    """Of several encoders, the one to read, as the tool calls it; or its name, where no file has it."""

    side_px: float | None = Field(default=None, gt=0)
    """Side of a tile in level-0 px, for files that do not have it."""

    side_um: float | None = Field(default=None, gt=0)
    """The same in um."""

    encoder: str | None = None
    """The raystp encoder that made the vectors (`uni_v2`), if you are sure. The default is a name of its own,
    `imported:<format>:<name>`."""

    weights: Annotated[str | None, Location()] = None
    """Weights of `encoder`. Some tiles are then embedded again. If they are the same, the vectors count as raystp's
    own: models that were trained on them accept slides that raystp embeds."""

    verify: int = Field(default=3, ge=1, le=100)
    """Tiles that are embedded again with `weights`; the cosines are printed."""

    mixed_sides: bool = False
    """Accept slides whose tiles differ in um by more than 15 %."""

    run: ImportRun = Field(default_factory=ImportRun)

    @property
    def choice(self) -> FolderChoice:
        """What is taken from the folder, as the plain value of the package `interop`."""
        return FolderChoice(self.grid, self.encoder_name, self.side_px, self.side_um)

    @property
    def table_choice(self) -> TableChoice:
        """What is taken of a data set, as the plain value of the package `interop`."""
        return TableChoice(self.ids, self.only, self.task)

    @field_validator("only", mode="before")
    @classmethod
    def _one_value_is_a_list(cls, columns: Any) -> Any:
        if not isinstance(columns, dict):
            return columns
        return {
            name: (values,) if isinstance(values, str | int | float) else values for name, values in columns.items()
        }

    @field_validator("format")
    @classmethod
    def _check_format(cls, name: str) -> str:
        if name not in FORMATS:
            msg = f"unknown format {name!r}; the formats are {', '.join(FORMATS)}"
            raise ValueError(msg)
        return name

    @model_validator(mode="after")
    def _check_kind(self) -> "ImportConfig":
        """Raise ValueError for fields that the format does not read, and for a data set without `out`."""
        is_table = self.format in TABLES
        unread = OF_FEATURES if is_table else OF_TABLES
        if given := sorted(unread & set(self.changed_fields())):
            kinds = FEATURES if is_table else TABLES
            msg = f"{', '.join(given)}: not read by format {self.format}, only by {', '.join(kinds)}; remove it"
            raise ValueError(msg)
        if is_table and self.out is None:
            msg = f"out: must be given for {self.format}: the folder to write slides.csv to, as in -o cohort"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _check_fields(self) -> "ImportConfig":
        if self.weights is not None and self.encoder is None:
            msg = "weights: they are the weights of `encoder`, which is not set"
            raise ValueError(msg)
        if self.weights is not None and self.slides is None:
            msg = "weights: tiles are embedded again from the slides: set `slides`"
            raise ValueError(msg)
        if self.spots is not None and self.slides is None:
            msg = "spots: the table of `slides` says which section is on a slide: set `slides`"
            raise ValueError(msg)
        if self.side_px is not None and self.side_um is not None:
            msg = "side_px and side_um: set one of them"
            raise ValueError(msg)
        return self
