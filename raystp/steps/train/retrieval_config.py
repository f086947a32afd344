"""Configuration of the retrieval of a training, light to import."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from raystp.config import Config
from raystp.config_fields.values import NeighbourCount
from raystp.errors import ModelError
from raystp.impute.calibration import CalibrateTo
from raystp.impute.weights import WeightsName, all_rows_weights, weighting_of


class RetrievalConfig(Config):
    """How expression is retrieved while an epoch is chosen; `index`, `impute` and `serve` use the same by default."""

    vectors: Literal["expression", "image"] = "expression"
    """Embeddings that queries are compared with: of the references' expression, or of their images."""

    metric: Literal["cosine", "l2"] = "cosine"

    k: NeighbourCount = 50
    """Neighbours that are averaged, or `all` reference rows; of a small training set at most a quarter, if a number."""

    weights: WeightsName = "mean"
    """Weights of the neighbours, see `raystp.impute.weights`."""

    temperature: float | None = Field(default=None, gt=0)
    """Of the weights `softmax` (default 0.1) and `weighted_average` (default 1); a higher one makes weights more equal.
    Its unit is that of the scores: a cosine, or a squared distance for `l2` and for `weighted_average`."""

    calibrate: CalibrateTo = "none"
    """Correct predictions by a slope that is fitted on the validation spots: `spread` (or `true`) gives them the spread
    of the measurements, `mse` the least squared error. PCC does not change."""

    compare: list[dict[str, Any]] = Field(default_factory=list)
    """Other values of these fields, such as `{k: all, weights: softmax}`, whose score in each epoch is stored beside
    that of these (`validation.parquet`)."""

    @field_validator("calibrate", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        """Take `true` for `spread`, and `false` or `null` for `none`."""
        if value is None or isinstance(value, bool):
            return "spread" if value else "none"
        return value

    def over(self, changes: Mapping[str, Any]) -> "RetrievalConfig":
        """Return the retrieval with other values of some fields; other weights have their own default temperature.

        Raises ValueError where they do not fit.
        """
        own = self.model_dump(mode="json", exclude={"compare"})
        if "weights" in changes:
            own["temperature"] = None
        try:
            return RetrievalConfig.model_validate({**own, **changes})
        except ValidationError as error:
            fault = error.errors()[0]
            msg = f"retrieval {dict(changes)}: {fault['msg'].removeprefix('Value error, ')}"
            raise ValueError(msg) from None

    @model_validator(mode="after")
    def _weights_fit(self) -> "RetrievalConfig":
        try:
            weighting_of(self.weights, self.temperature)
            if self.k == "all":
                all_rows_weights(self.weights, self.temperature)
        except ModelError as error:
            raise ValueError(str(error)) from None
        for changes in self.compare:
            self.over(changes)
        return self
