"""The handler of a model that predicts from features alone: no reference index, and so no neighbours."""

from dataclasses import dataclass, field

import numpy as np

from raystp.cluster.serving.messages import ImputeRequest, ImputeResponse, RequestOptions
from raystp.errors import ModelError, RaystpError, some
from raystp.models.predictor import DirectPredictor, NeighbourPredictor
from raystp.steps.serve.info import DirectInfo
from raystp.steps.serve.requests import CheckedRequest, TileReader, predict_in_groups

_OF_AN_INDEX = ("k", "weights", "temperature", "spread", "neighbours", "without")
"""Options of a request that need a reference index."""


@dataclass(frozen=True)
class DirectHandler:
    """Predicts each tile by itself; its distance from an index is null, and no tile is far."""

    model: DirectPredictor
    model_info: DirectInfo
    reader: TileReader
    column_of: dict[str, int] = field(default_factory=dict)
    """Column of each gene of the model."""

    def __post_init__(self) -> None:
        if isinstance(self.model, NeighbourPredictor) and self.model.needs_neighbours:
            msg = (
                f"this {self.model.kind} model reads the neighbours of each tile, which a request does not have: "
                "predict slides with `raystp impute`"
            )
            raise ModelError(msg)
        self.column_of.update({gene: column for column, gene in enumerate(self.model.genes)})

    def info(self) -> DirectInfo:
        """Return the body of `/v1/info`, without the limits."""
        return self.model_info

    def prepare(self, request: ImputeRequest) -> CheckedRequest:
        """Validate a request and load its tiles; raise RaystpError, and StorageError for an unknown slide."""
        options = request.options
        empty = RequestOptions()
        given = [name for name in _OF_AN_INDEX if getattr(options, name) != getattr(empty, name)]
        if given:
            msg = f"{', '.join(given)}: this {self.model.kind} model has no reference index: remove these options"
            raise ModelError(msg)
        genes = self.model.genes if options.genes is None else options.genes
        unknown = [gene for gene in genes if gene not in self.column_of]
        if unknown:
            msg = (
                f"the model has no genes {some(unknown)}; it has {len(self.column_of)} genes, such as "
                f"{', '.join(self.model.genes[:5])}"
            )
            raise ModelError(msg)
        columns = None if options.genes is None else np.asarray([self.column_of[gene] for gene in genes], np.int64)
        return self.reader.load(request, genes, columns)

    def impute(self, requests: list[CheckedRequest]) -> list[ImputeResponse | RaystpError]:
        """Predict a batch; a request that fails does not affect the others."""
        return predict_in_groups(requests, self._predict)

    def _predict(self, group: list[CheckedRequest]) -> list[ImputeResponse]:
        predicted = self.model.predict(self.reader.features(group))
        columns = group[0].columns
        expression = predicted if columns is None else np.ascontiguousarray(predicted[:, columns])
        ends = np.cumsum([request.tiles for request in group])[:-1]
        return [
            ImputeResponse(
                genes=request.genes,
                expression=part,
                distance=np.full(len(part), np.nan, np.float32),
                far=np.zeros(len(part), np.bool_),
                tile_boxes=request.tile_boxes,
            )
            for request, part in zip(group, np.split(expression, ends), strict=True)
        ]
