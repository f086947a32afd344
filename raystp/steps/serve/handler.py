"""What a replica of `serve` runs: a model, its reference index, an optional encoder, and the slides it may read."""

import dataclasses
import importlib.metadata
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float32, Float64, UInt8

from raystp.artifacts import Artifact, resolve
from raystp.cluster.serving.messages import (
    HandlerInfo,
    ImputeRequest,
    ImputeResponse,
    RequestOptions,
    ResponseNeighbours,
)
from raystp.encoders.encoder import BatchEncoder
from raystp.encoders.stages import OWN_ROW, FeatureOptions, with_features
from raystp.errors import ConfigError, EncoderError, ModelError, RaystpError, own_error
from raystp.impute.calibration import Calibration
from raystp.impute.imputer import Columns, FoundNeighbours, NeighborImputer
from raystp.impute.weights import WEIGHTS, weighting_of
from raystp.index.open import ReferenceIndex, open_reference_index
from raystp.index.remote import RemoteIndex
from raystp.models.methods import open_predictor
from raystp.models.predictor import ContrastivePredictor
from raystp.models.store import load_model
from raystp.steps.embedding_source import neighbour_mean_of
from raystp.steps.encoder_source import EncoderConfig, dim_of, features_of_block, source_of
from raystp.steps.serve.config import ServeConfig
from raystp.steps.serve.pixels import SlideLibrary, decode_images
from raystp.steps.train.retrieval import Retrieval
from raystp.units import TilePixels

FAR_QUANTILE = "q99"
"""Without `far_distance`, a tile is far beyond this quantile of the index's own leave-one-out distances."""


class ModelInfo(HandlerInfo):
    """The part of `/v1/info` about the model and its index."""

    model: str
    index: str
    rows: int
    features: int
    encoder: str
    """Of the first block."""
    blocks: list[dict[str, Any]]
    """Encoder and tiles of each block of the features, in the order of the columns; empty for an older model."""
    neighbour_mean: int
    """If not 0: the second half of the columns is the mean of the first half over so many nearest other tiles."""
    metric: str
    kind: str
    weights: list[str]
    retrieval: dict[str, Any]
    far_distance: float | None
    protocol: str
    reads: list[str]


@dataclass(frozen=True)
class CheckedRequest:
    """A validated request with its tiles loaded: features, or pixels to encode."""

    options: RequestOptions
    genes: list[str]
    columns: Columns | None
    features: Float32[np.ndarray, "tile feature"] | None = None
    pixels: UInt8[np.ndarray, "tile pixel pixel 3"] | None = None
    tile_boxes: Float64[np.ndarray, "tile 3"] | None = None

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        loaded = self.features if self.features is not None else self.pixels
        return 0 if loaded is None else len(loaded)

    @property
    def batch_key(self) -> tuple[object, ...]:
        """Equal for two requests that one search can serve."""
        options = self.options
        weights = (options.k, options.weights, options.temperature)
        chosen = (*weights, options.spread, tuple(options.without), tuple(self.genes))
        return self.features is None, *chosen


@dataclass(frozen=True)
class ImputeHandler:
    """The request handler of `raystp serve`."""

    imputer: NeighborImputer
    rows: pa.Table
    model_info: ModelInfo
    far_distance: float | None
    exact: bool
    encode: BatchEncoder | None
    library: SlideLibrary
    retrieval: Retrieval = field(default_factory=Retrieval)
    """The model's own, for requests that set nothing else; the imputer's calibration was fitted for it."""
    all_rows_limit: int = 200_000

    def info(self) -> ModelInfo:
        """Return the body of `/v1/info`, without the limits."""
        return self.model_info

    def prepare(self, request: ImputeRequest) -> CheckedRequest:
        """Validate a request and load its tiles; raise RaystpError, and StorageError for an unknown slide."""
        options = request.options
        self._check_retrieval(self._retrieval(options), neighbours=options.neighbours)
        columns = self.imputer.columns(options.genes)
        genes = self.imputer.genes if options.genes is None else options.genes
        checked = CheckedRequest(options, genes, columns)
        if request.features is not None:
            return dataclasses.replace(checked, features=self._check_features(request.features))
        if self.encode is None:
            msg = "this service has no encoder: send `embeddings`, or start the service with `encoder`"
            raise ConfigError(msg)
        if request.images is not None:
            return dataclasses.replace(checked, pixels=decode_images(request.images, self.library.tile_px))
        tile_boxes, pixels = self.library.read(request)
        return dataclasses.replace(checked, pixels=pixels, tile_boxes=tile_boxes)

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
        responses: dict[int, ImputeResponse | RaystpError] = {}
        groups: dict[tuple[object, ...], list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(request.batch_key, []).append(number)
        for numbers in groups.values():
            responses |= zip(numbers, self._impute_group([requests[n] for n in numbers]), strict=True)
        return [responses[number] for number in range(len(requests))]

    def _impute_group(self, group: list[CheckedRequest]) -> list[ImputeResponse | RaystpError]:
        """Predict requests that differ only in their tiles; after an error, predict each alone."""
        try:
            return list(self._impute_together(group))
        except Exception as error:  # noqa: BLE001 -- one request's fault, of whatever kind, does not end the others
            if len(group) == 1:
                return [own_error(error)]
        return [response for request in group for response in self._impute_group([request])]

    def _impute_together(self, group: list[CheckedRequest]) -> list[ImputeResponse]:
        first, total = group[0], sum(request.tiles for request in group)
        if not total:
            return [self._empty_response(request) for request in group]
        options, how = first.options, self._retrieval(first.options)
        imputer = dataclasses.replace(
            self.imputer,
            weights=how.weights,
            temperature=how.temperature,
            calibration=self.imputer.calibration if how.averages_as(self.retrieval) else None,
        )
        allowed = imputer.index.rows_without(options.without) if options.without else None
        imputed = imputer.impute(
            self._features(group),
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

    def _features(self, group: list[CheckedRequest]) -> Float32[np.ndarray, "tile feature"]:
        features = [request.features for request in group if request.features is not None]
        if features:
            return np.concatenate(features)
        assert self.encode is not None  # `prepare` refuses pixels without an encoder
        return self.encode(np.concatenate([request.pixels for request in group if request.pixels is not None]))

    def _empty_response(self, request: CheckedRequest) -> ImputeResponse:
        rows, values = np.empty((0, len(request.genes)), np.float32), np.empty(0, np.float32)
        return ImputeResponse(
            request.genes, rows, values, np.empty(0, np.bool_), spread=rows if request.options.spread else None
        )

    def _neighbours(self, found: FoundNeighbours | None, part: slice) -> ResponseNeighbours:
        assert found is not None  # `prepare` refuses other requests for neighbours
        rows = found.rows[part]
        table = self.rows.take(pa.array(rows.ravel()))
        sections, spots = (
            np.asarray(table[name].to_pylist(), object).reshape(rows.shape) for name in ("section", "spot")
        )
        return ResponseNeighbours(rows, found.weights[part], sections.tolist(), spots.tolist())

    def _check_features(self, features: Float32[np.ndarray, "tile feature"]) -> Float32[np.ndarray, "tile feature"]:
        d_image = self.imputer.model.d_image
        if len(features) and features.shape[1] != d_image:
            msg = (
                f"embeddings: the model reads rows of {d_image} values, got rows of {features.shape[1]}; "
                f"use the encoder that `/v1/info` names"
            )
            raise ModelError(msg)
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1)).tolist()
        if bad:
            msg = f"embeddings: {len(bad)} of {len(features)} tiles contain nan or infinity (first: tile {bad[0]})"
            raise ModelError(msg)
        return features


def check_inputs(config: ServeConfig) -> tuple[Artifact, Artifact]:
    """Return model and index; raise ModelError or EncoderError where they, or the encoder, do not match."""
    model, index = resolve(config.run.store, config.model, "train"), resolve(config.run.store, config.index, "index")
    if index.manifest.notes["model"] != model.manifest.folder:
        msg = (
            f"the index {index.path} was built with model {index.manifest.notes['model']}, not with "
            f"{model.manifest.folder}: build an index with this model, or serve that model"
        )
        raise ModelError(msg)
    _, _, meta = load_model(model.path)
    if config.encoder is not None:
        _check_encoder(config.encoder, config.run.store, model, meta)
    return model, index


def _check_encoder(encoder: EncoderConfig, store: str, model: Artifact, meta: dict[str, Any]) -> None:
    source = source_of(encoder, store)
    if meta["trained_tower"] and source.identity != f"tower:{model.manifest.fingerprint}":
        msg = f"{model.path} has its own image tower: set encoder.trained to this model"
        raise EncoderError(msg)
    blocks = meta.get("features", {}).get("blocks", [])
    if len(blocks) > 1 or neighbour_mean_of(meta) or any("scales" in block for block in blocks):
        msg = (
            f"{model.path} reads joined embeddings or several sizes of tiles, which one tile does not give: remove "
            "`encoder`, and send `embeddings` with the columns of all blocks, in the order that `/v1/info` gives"
        )
        raise EncoderError(msg)
    name = meta["encoder"]["name"]
    if source.spec.name != name or dim_of(encoder, _features(meta)) != meta["d_image"]:
        msg = f"{model.path} reads {meta['d_image']} features of encoder '{name}', got encoder '{source.spec.name}'"
        raise EncoderError(msg)


def open_handler(config: ServeConfig, index_actors: ReferenceIndex | RemoteIndex | None = None) -> ImputeHandler:
    """Open what a replica needs; without `index_actors` the index is memory-mapped in this process."""
    model, index = check_inputs(config)
    method, arrays, meta = load_model(model.path)
    opened_model = open_predictor(method, arrays, meta)
    if not isinstance(opened_model, ContrastivePredictor):
        msg = f"{model.path} is a {method} model, which needs no reference index: predict slides with `raystp impute`"
        raise ModelError(msg)
    description = index.manifest.notes["bank"]
    opened = index_actors or open_reference_index(index.path, description)
    encode, tile_px = None, TilePixels(0)
    if config.encoder is not None:
        encoder = with_features(source_of(config.encoder, config.run.store).build(), _features(meta))
        encode = BatchEncoder(encoder, device="cuda" if torch.cuda.is_available() else "cpu", batch="fit")
        tile_px = encoder.tile_px
    return ImputeHandler(
        imputer=NeighborImputer(opened_model, opened, calibration=_calibration(config, meta)),
        rows=opened.rows,
        model_info=_model_info(config, meta, model, index),
        far_distance=_far_distance(config, index),
        exact=config.search == "exact",
        encode=encode,
        library=SlideLibrary(tuple(config.slides), config.tile_um, tile_px),
        retrieval=Retrieval.of(meta.get("retrieval", {})),
        all_rows_limit=config.limits.all_rows,
    )


def _features(meta: dict[str, Any]) -> FeatureOptions:
    """Return the layers and views of the encoder that the model reads."""
    blocks = meta.get("features", {}).get("blocks", [])
    return features_of_block(blocks[0]) if blocks else OWN_ROW


def _calibration(config: ServeConfig, meta: dict[str, Any]) -> Calibration | None:
    return Calibration.from_json(meta["calibration"]) if config.calibrate and "calibration" in meta else None


def _far_distance(config: ServeConfig, index: Artifact) -> float | None:
    """Return the distance beyond which a tile is flagged; None for an index that records no distances."""
    if config.far_distance is not None:
        return config.far_distance
    recorded: float | None = index.manifest.notes.get("distance", {}).get(FAR_QUANTILE)
    return recorded


def _model_info(config: ServeConfig, meta: dict[str, Any], model: Artifact, index: Artifact) -> ModelInfo:
    description, own = index.manifest.notes["bank"], Retrieval.of(meta.get("retrieval", {}))
    how = {"k": own.k, "weights": own.weights, "temperature": own.temperature}
    return {
        "model": model.manifest.folder,
        "index": index.manifest.folder,
        "rows": index.manifest.rows["rows"],
        "features": meta["d_image"],
        "encoder": meta["encoder"]["name"],
        "blocks": meta.get("features", {}).get("blocks", []),
        "neighbour_mean": neighbour_mean_of(meta),
        "genes": description["genes"],
        "metric": description["metric"],
        "kind": description.get("kind", "exact"),
        "weights": list(WEIGHTS),
        "retrieval": {**how, "calibrated": config.calibrate and "calibration" in meta},
        "far_distance": _far_distance(config, index),
        "protocol": meta["protocol"],
        "reads": ["embeddings", *(["pixels"] if config.encoder else []), *(["slide"] if config.slides else [])],
        "versions": {"raystp": importlib.metadata.version("raystp"), "torch": torch.__version__},
    }
