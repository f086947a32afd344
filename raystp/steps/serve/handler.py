"""What a replica of `serve` runs: a model, its reference index, an optional encoder, and the slides it may read."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raystp.artifacts import Artifact, resolve
from raystp.cluster.serving.messages import (
    ImputeRequest,
    ImputeResponse,
    RequestOptions,
    ResponseNeighbours,
)
from raystp.encoders.encoder import BatchEncoder
from raystp.errors import ConfigError, ModelError, RaystpError
from raystp.impute.calibration import Calibration
from raystp.impute.hashed_names import stored_values
from raystp.impute.imputer import FoundNeighbours, NeighborImputer
from raystp.impute.weights import weighting_of
from raystp.index.open import ReferenceIndex, open_reference_index
from raystp.index.remote import RemoteIndex
from raystp.models.methods import METHODS
from raystp.models.predictor import ContrastivePredictor, DirectPredictor
from raystp.models.store import load_model
from raystp.steps.encoder_source import source_of
from raystp.steps.serve.config import ServeConfig
from raystp.steps.serve.direct import DirectHandler
from raystp.steps.serve.encoder import check_encoder, encoder_for, tile_um_for
from raystp.steps.serve.info import ModelInfo, direct_info, far_distance, model_info
from raystp.steps.serve.pixels import SlideLibrary
from raystp.steps.serve.requests import CheckedRequest, TileReader, predict_in_groups
from raystp.steps.train.reference import open_model
from raystp.steps.train.retrieval import Retrieval
from raystp.units import TilePixels


@dataclass(frozen=True)
class ImputeHandler:
    """The request handler of `raystp serve`."""

    imputer: NeighborImputer
    rows: pa.Table
    model_info: ModelInfo
    far_distance: float | None
    exact: bool
    reader: TileReader
    retrieval: Retrieval = field(default_factory=Retrieval)
    """The model's own, for requests that set nothing else; the imputer's calibration was fitted for it."""
    all_rows_limit: int = 200_000
    names_salt: str | None = None
    """Of a published model, whose rows have hashes of names."""

    def info(self) -> ModelInfo:
        """Return the body of `/v1/info`, without the limits."""
        return self.model_info

    def prepare(self, request: ImputeRequest) -> CheckedRequest:
        """Validate a request and load its tiles; raise RaystpError, and StorageError for an unknown slide."""
        options = request.options
        self._check_retrieval(self._retrieval(options), neighbours=options.neighbours)
        columns = self.imputer.columns(options.genes)
        genes = self.imputer.genes if options.genes is None else options.genes
        return self.reader.load(request, genes, columns)

    def _retrieval(self, options: RequestOptions) -> Retrieval:
        return self.retrieval.changed(k=options.k, weights=options.weights, temperature=options.temperature)

    def _check_retrieval(self, retrieval: Retrieval, *, neighbours: bool) -> None:
        weighting_of(retrieval.weights, retrieval.temperature)
        rows, k = self.rows.num_rows, retrieval.k
        if k != "all" and not 1 <= k <= rows:
            msg = f"k: {k} neighbours were requested, the reference index has {rows} rows"
            raise ModelError(msg)
        if retrieval.neighbours is None and neighbours:
            msg = "neighbours: with k=all every row has a vote, and there is no list; send a number as k"
            raise ModelError(msg)
        if retrieval.neighbours is None and rows > self.all_rows_limit:
            msg = f"k: all rows were requested; the index has {rows}, the limit is {self.all_rows_limit}: send a number"
            raise ModelError(msg)

    def impute(self, requests: list[CheckedRequest]) -> list[ImputeResponse | RaystpError]:
        """Predict a batch; a request that fails does not affect the others."""
        return predict_in_groups(requests, self._impute_together)

    def _impute_together(self, group: list[CheckedRequest]) -> list[ImputeResponse]:
        first, total = group[0], sum(request.tiles for request in group)
        options, how = first.options, self._retrieval(first.options)
        imputer = dataclasses.replace(
            self.imputer,
            weights=how.weights,
            temperature=how.temperature,
            calibration=self.imputer.calibration if how.averages_as(self.retrieval) else None,
        )
        without = stored_values({"patient": options.without}, self.names_salt)["patient"]
        allowed = imputer.index.rows_without(without) if without else None
        imputed = imputer.impute(
            self.reader.features(group),
            how.k,
            genes=first.columns,
            spread=options.spread,
            allowed=allowed,
            exact=self.exact,
        )
        expression, spread, distance = imputed.expression, imputed.spread, imputed.distance
        far = distance > self.far_distance if self.far_distance is not None else np.zeros(total, np.bool_)
        responses, start = [], 0
        for request in group:
            part = slice(start, start + request.tiles)
            start += request.tiles
            response = ImputeResponse(
                genes=request.genes,
                expression=expression[part],
                distance=distance[part],
                far=far[part],
                spread=None if spread is None else spread[part],
                neighbours=self._neighbours(imputed.neighbours, part) if request.options.neighbours else None,
                tile_boxes=request.tile_boxes,
            )
            responses.append(response)
        return responses

    def _neighbours(self, found: FoundNeighbours | None, part: slice) -> ResponseNeighbours:
        assert found is not None  # `prepare` refuses other requests for neighbours
        rows = found.rows[part]
        table = self.rows.take(pa.array(rows.ravel()))
        sections, spots = (
            np.asarray(table[name].to_pylist(), object).reshape(rows.shape) for name in ("section", "spot")
        )
        return ResponseNeighbours(rows, found.weights[part], sections.tolist(), spots.tolist())


def check_inputs(config: ServeConfig) -> tuple[Artifact, Artifact | None]:
    """Return model and index; raise ModelError or EncoderError where they, or the encoder, do not match."""
    store, model = config.run.store, resolve(config.run.store, config.model, "train")
    index = resolve(store, config.index, "index") if config.index is not None else None
    if index is not None and index.manifest.notes["model"] != model.manifest.folder:
        msg = (
            f"the index {index.path} was built with model {index.manifest.notes['model']}, not with "
            f"{model.manifest.folder}: build an index with this model, or serve that model"
        )
        raise ModelError(msg)
    kind, _, meta = load_model(model.path)
    if METHODS[kind].needs_index and index is None:
        msg = f"{model.path} is a {kind} model, which needs a reference index: run `raystp index`, then set `index`"
        raise ModelError(msg)
    if index is None and (config.run.shard_actors or config.far_distance is not None):
        msg = f"{model.path} is a {kind} model without an index: remove run.shard_actors and far_distance"
        raise ModelError(msg)
    if config.encoder is not None:
        check_encoder(config.encoder, config.run.store, model, meta)
    if tile_um_for(config.tile_um, meta, model) is None and config.slides:
        msg = f"{model.path} does not record the side of its tiles: set tile_um (um), which `slides` needs"
        raise ConfigError(msg)
    return model, index


def open_handler(
    config: ServeConfig, index_actors: ReferenceIndex | RemoteIndex | None = None
) -> ImputeHandler | DirectHandler:
    """Open what a replica needs; without `index_actors` the index is memory-mapped in this process."""
    model, index = check_inputs(config)
    method, arrays, meta = load_model(model.path)
    opened_model = open_model(method, arrays, meta)
    encode, tile_px = None, TilePixels(0)
    if config.encoder is not None:
        encoder = encoder_for(meta, source_of(config.encoder, config.run.store))
        encode = BatchEncoder(encoder, device="cuda" if torch.cuda.is_available() else "cpu", batch="fit")
        tile_px = encoder.tile_px
    library = SlideLibrary(tuple(config.slides), tile_um_for(config.tile_um, meta, model), tile_px)
    reader = TileReader(opened_model.d_image, encode, library)
    if index is None:
        assert isinstance(opened_model, DirectPredictor)  # as `check_inputs` has it
        return DirectHandler(opened_model, direct_info(config, meta, model, method), reader)
    if not isinstance(opened_model, ContrastivePredictor):
        msg = f"{model.path} is a {method} model, which needs no reference index: remove `index`"
        raise ModelError(msg)
    opened = index_actors or open_reference_index(index.path, index.manifest.notes["bank"])
    return ImputeHandler(
        imputer=NeighborImputer(opened_model, opened, calibration=_calibration(config, meta)),
        rows=opened.rows,
        model_info=model_info(config, meta, model, index),
        far_distance=far_distance(config, index),
        exact=config.search == "exact",
        reader=reader,
        retrieval=Retrieval.of(meta.get("retrieval", {})),
        all_rows_limit=config.limits.all_rows,
        names_salt=meta.get("names_salt"),
    )


def _calibration(config: ServeConfig, meta: dict[str, Any]) -> Calibration | None:
    return Calibration.from_json(meta["calibration"]) if config.calibrate and "calibration" in meta else None
