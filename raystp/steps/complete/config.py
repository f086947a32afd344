"""Configuration of `raystp complete`: the spots, the method, and the sections that it is fitted on."""

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, field_validator

from raystp.config import Config, Location, RunConfig, StepConfig
from raystp.expression.labels import Labels
from raystp.models.completion.options import LinearOptions, MedianOptions, SpackleOptions

Method = Literal["median", "linear", "spackle"]
"""Names of the methods; each has a part with its options."""


class CompletedGenes(Config):
    """The genes to complete, chosen on the training sections; other genes keep their measured labels."""

    share: float = Field(default=0.7, gt=0, le=1)
    """Least mean share of spots with a count: genes of the highest shares are taken while their mean is above it."""

    count: int = Field(default=128, ge=1)
    """Of these, at most this many genes of the highest mean Moran's I."""

    file: Annotated[str | None, Location()] = None
    """Instead of both: a list of genes, as for `panel.file` of `raystp train`."""


class CompletionSplit(Config):
    """The sections that the completion is fitted on."""

    train: list[str] = Field(min_length=1)
    """Sections to fit on, or patients, which stand for all of theirs. Leave out those that a model is tested on."""

    validation: list[str] = Field(default_factory=list)
    """Sections or patients that choose the step of a method trained in steps, and that the table of errors is of. They
    may not be tested on either."""


class CompleteRun(RunConfig):
    """The `run` section: resources; they change the result by rounding at most."""

    fit_cpus: float = Field(default=1.0, gt=0)
    """CPUs of the task that fits the completion; each section is completed on one."""


class CompleteConfig(StepConfig[CompleteRun]):
    """Which zeros to replace, and how."""

    command: ClassVar[str | None] = "complete"
    where: ClassVar[frozenset[str]] = frozenset({"spots"})

    spots: Annotated[str, Location("spots")]
    """The measured spots, `spots/<name>`."""

    method: Method = "spackle"
    """`median` grows a neighbourhood until its median is above 0. `linear` is a ridge regression on the spot's other
    genes and its neighbours. `spackle` is a Transformer over the spot and its neighbours."""

    genes: CompletedGenes = Field(default_factory=CompletedGenes)
    """The genes to complete."""

    split: CompletionSplit

    labels: Labels = Field(default_factory=Labels)
    """Values to complete, as `labels` of `raystp train`: `totals` and `log` may be set."""

    sections: Annotated[list[str], Field(min_length=1)] | None = None
    """Sections to complete, or patients; all by default. Each is completed from itself alone."""

    median: MedianOptions = Field(default_factory=MedianOptions, description="For the adaptive median.")

    linear: LinearOptions = Field(default_factory=LinearOptions, description="For the linear completion.")

    spackle: SpackleOptions = Field(default_factory=SpackleOptions, description="For SpaCKLE.")

    run: CompleteRun = Field(default_factory=CompleteRun)

    @property
    def options(self) -> MedianOptions | LinearOptions | SpackleOptions:
        """The method's own options."""
        found: MedianOptions | LinearOptions | SpackleOptions = getattr(self, self.method)
        return found

    @field_validator("labels")
    @classmethod
    def _can_be_completed(cls, labels: Labels) -> Labels:
        allowed = Labels(totals="none" if labels.totals == "none" else "all", log=labels.log)
        if labels != allowed:
            msg = (
                f"a completion replaces zeros of single spots over its own genes, and labels have {labels.changed}: "
                "only totals=all or none, and log, may be set"
            )
            raise ValueError(msg)
        return labels

    def fingerprint_values(self) -> dict[str, Any]:
        """Return what is computed; options of other methods and the path of the list of genes are left out."""
        values = super().fingerprint_values()
        if self.labels.is_default:
            values.pop("labels")  # as before the field existed
        values["genes"] = {"listed": True} if self.genes.file is not None else values["genes"]
        return {key: value for key, value in values.items() if key == self.method or key not in get_args(Method)}
