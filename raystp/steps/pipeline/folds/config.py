"""Configuration of the folds and of the learning curve of a pipeline."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from raystp.config import Config, Location


class FoldsConfig(Config):
    """Cross-validation over patients, over sections, or over sides that others have chosen."""

    count: Annotated[int, Field(ge=2)] | Literal["patient", "section"] = 5
    """Folds of about equally many patients; `patient` makes one fold per patient (leave one patient out), and `section`
    one per section, under the protocol `section`."""

    files: Annotated[str | None, Location()] = None
    """Folder of `fold0.yaml`, `fold1.yaml` ... with the sides of each fold (`split`) and its panel, as `raystp import
    hest-bench` writes them. A training's own `panel` takes precedence."""

    seed: int = 0
    """Of the random division of the patients."""

    stratify: Annotated[str, Field(pattern=r"^x_.+$")] | None = None
    """Covariate of the slide table, such as `x_subtype`: each of its values is spread evenly over the folds."""

    validation: bool = False
    """Whether the patients of the next fold validate: they choose epoch and k, and are not trained on."""

    @model_validator(mode="after")
    def _check_files(self) -> "FoldsConfig":
        fields = type(self).model_fields.items()  # a dry run writes the defaults out
        given = sorted(name for name, one in fields if name != "files" and getattr(self, name) != one.default)
        if self.files is not None and given:
            msg = f"the files of the folds say who is held out: remove `{given[0]}`, or `files`"
            raise ValueError(msg)
        return self

    def computed_values(self) -> dict[str, Any]:
        """Return what is computed; the sides that files state are in the trainings of the folds."""
        if self.files is not None:
            return {"files": True}
        values = self.model_dump(mode="json", exclude={"files"})
        return {key: one for key, one in values.items() if key != "stratify" or one is not None}


class LearningCurveConfig(Config):
    """Trainings on fewer sections, beside that on all."""

    sections: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)
    """Numbers of training sections, each below the number that there are."""

    orders: list[int] = Field(default_factory=lambda: [0], min_length=1)
    """Seeds of the order of the training sections; a point trains on the first sections of it. Several orders show how
    much depends on which sections they are."""

    @field_validator("sections", "orders")
    @classmethod
    def _distinct(cls, numbers: list[int]) -> list[int]:
        if len(set(numbers)) != len(numbers):
            msg = f"a number is listed twice in {numbers}"
            raise ValueError(msg)
        return numbers
