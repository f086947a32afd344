"""Requests of the service, whatever the model: tiles as features or pixels, loaded, checked and batched."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from raystp.cluster.serving.messages import ImputeRequest, ImputeResponse, RequestOptions
from raystp.encoders.encoder import BatchEncoder
from raystp.errors import ConfigError, ModelError, RaystpError, own_error
from raystp.steps.serve.pixels import SlideLibrary, decode_images

Features = Float32[np.ndarray, "tile feature"]


@dataclass(frozen=True)
class CheckedRequest:
    """A validated request with its tiles loaded: features, or pixels to encode."""

    options: RequestOptions
    genes: list[str]
    columns: Int64[np.ndarray, " gene"] | None
    features: Features | None = None
    pixels: UInt8[np.ndarray, "tile pixel pixel 3"] | None = None
    tile_boxes: Float64[np.ndarray, "tile 3"] | None = None

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        loaded = self.features if self.features is not None else self.pixels
        return 0 if loaded is None else len(loaded)

    @property
    def batch_key(self) -> tuple[object, ...]:
        """Equal for two requests that one prediction can serve."""
        options = self.options
        weights = (options.k, options.weights, options.temperature)
        chosen = (*weights, options.spread, tuple(options.without), tuple(self.genes))
        return self.features is None, *chosen


@dataclass(frozen=True)
class TileReader:
    """What turns requests into the features that a model reads."""

    d_image: int
    """Length of the model's image features."""
    encode: BatchEncoder | None
    library: SlideLibrary

    def load(
        self, request: ImputeRequest, genes: list[str], columns: Int64[np.ndarray, " gene"] | None
    ) -> CheckedRequest:
        """Return the request with its tiles; raise RaystpError, and StorageError for an unknown slide."""
        options = request.options
        if request.features is not None:
            return CheckedRequest(options, genes, columns, features=self._checked(request.features))
        if self.encode is None:
            msg = "this service has no encoder: send `embeddings`, or start the service with `encoder`"
            raise ConfigError(msg)
        if request.images is not None:
            return CheckedRequest(options, genes, columns, pixels=decode_images(request.images, self.library.tile_px))
        tile_boxes, pixels = self.library.read(request)
        return CheckedRequest(options, genes, columns, pixels=pixels, tile_boxes=tile_boxes)

    def features(self, group: list[CheckedRequest]) -> Features:
        """Return the features of all tiles of some requests, which have all features or all pixels."""
        features = [request.features for request in group if request.features is not None]
        if features:
            return np.concatenate(features)
        assert self.encode is not None  # `load` refuses pixels without an encoder
        return self.encode(np.concatenate([request.pixels for request in group if request.pixels is not None]))

    def _checked(self, features: Features) -> Features:
        if len(features) and features.shape[1] != self.d_image:
            msg = (
                f"embeddings: the model reads rows of {self.d_image} values, got rows of {features.shape[1]}; "
                f"use the encoder that `/v1/info` names"
            )
            raise ModelError(msg)
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1)).tolist()
        if bad:
            msg = f"embeddings: {len(bad)} of {len(features)} tiles contain nan or infinity (first: tile {bad[0]})"
            raise ModelError(msg)
        return features


Predict = Callable[[list[CheckedRequest]], list[ImputeResponse]]
"""Requests that differ only in their tiles -> a response for each."""


def predict_in_groups(requests: list[CheckedRequest], predict: Predict) -> list[ImputeResponse | RaystpError]:
    """Predict a batch, requests with the same options together; one that fails does not affect the others."""
    responses: dict[int, ImputeResponse | RaystpError] = {}
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, request in enumerate(requests):
        groups.setdefault(request.batch_key, []).append(number)
    for numbers in groups.values():
        responses |= zip(numbers, _predict_group([requests[n] for n in numbers], predict), strict=True)
    return [responses[number] for number in range(len(requests))]


def empty_response(request: CheckedRequest) -> ImputeResponse:
    """Return the response to a request without tiles."""
    rows, values = np.empty((0, len(request.genes)), np.float32), np.empty(0, np.float32)
    return ImputeResponse(
        request.genes, rows, values, np.empty(0, np.bool_), spread=rows if request.options.spread else None
    )


def _predict_group(group: list[CheckedRequest], predict: Predict) -> list[ImputeResponse | RaystpError]:
    """Predict requests that differ only in their tiles; after an error, predict each alone."""
    try:
        if not sum(request.tiles for request in group):
            return [empty_response(request) for request in group]
        return list(predict(group))
    except Exception as error:  # noqa: BLE001 -- one request's fault, of whatever kind, does not end the others
        if len(group) == 1:
            return [own_error(error)]
    return [response for request in group for response in _predict_group([request], predict)]
