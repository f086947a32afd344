"""What a replica of `serve` holds: the model, its bank, an encoder where there is one, and the slides it may read."""

import dataclasses
import importlib.metadata
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float32, Float64, UInt8

from raystp.artifacts import Artifact, resolve
from raystp.cluster.serving.messages import ImputeRequest, ImputeResponse, RequestOptions, ResponseNeighbours
from raystp.encoders.encoder import BatchEncoder
from raystp.errors import ConfigError, EncoderError, ModelError, RaystpError
from raystp.impute.weights import WEIGHTS
from raystp.index.opened import ReferenceIndex, open_reference_index
from raystp.models.predictor import ContrastivePredictor, predictor
from raystp.models.store import load_model
from raystp.steps.encoder_source import dim_of, source_of
from raystp.steps.impute.imputer import Columns, FoundNeighbours, NeighborImputer, RemoteIndex
from raystp.steps.serve.config import ServeConfig
from raystp.steps.serve.pixels import SlideLibrary, pictures
from raystp.units import TilePixels

FAR = "q99"
"""The quantile of the index's own tiles' distances beyond which a tile counts as far."""


@dataclass(frozen=True)
class CheckedRequest:
    """A question that was checked by itself: features, or pixels that are to be encoded."""

    options: RequestOptions
    genes: list[str]
    columns: Columns | None
    features: Float32[np.ndarray, "tile feature"] | None = None
    pixels: UInt8[np.ndarray, "tile pixel pixel 3"] | None = None
    squares: Float64[np.ndarray, "tile 3"] | None = None

    @property
    def tiles(self) -> int:
        """How many tiles it is about."""
        given = self.features if self.features is not None else self.pixels
        return 0 if given is None else len(given)

    @property
    def alike(self) -> tuple[Any, ...]:
        """What two questions must have in common to be answered by one search."""
        options = self.options
        return options.k, options.weights, options.spread, tuple(options.without), tuple(self.genes)


@dataclass(frozen=True)
class ImputeHandler:
    """The answers of `raystp serve`."""

    imputer: NeighborImputer
    rows: pa.Table
    said: dict[str, Any]
    far: float | None
    exactly: bool
    encoding: BatchEncoder | None
    shelf: SlideLibrary

    def about(self) -> dict[str, Any]:
        """Return what the service says of itself."""
        return self.said

    def prepare(self, asked: ImputeRequest) -> CheckedRequest:
        """Check a question by itself and read its pixels; raises RaystpError: StorageError for an absent slide."""
        options = asked.options
        if options.weights not in WEIGHTS:
            msg = f"weights: there are {', '.join(WEIGHTS)}, got {options.weights[:80]!r}"
            raise ModelError(msg)
        if not 1 <= options.k <= self.rows.num_rows:
            msg = f"k: the bank has {self.rows.num_rows} rows, got {options.k}"
            raise ModelError(msg)
        columns = self.imputer.columns(options.genes)
        genes = self.imputer.genes if options.genes is None else options.genes
        ready = CheckedRequest(options, genes, columns)
        if asked.features is not None:
            return dataclasses.replace(ready, features=self._checked(asked.features))
        if self.encoding is None:
            msg = "this service has no encoder: send `embeddings`, or have it started with one"
            raise ConfigError(msg)
        if asked.pictures is not None:
            return dataclasses.replace(ready, pixels=pictures(asked.pictures, self.shelf.pixels))
        squares, pixels = self.shelf.read(asked)
        return dataclasses.replace(ready, pixels=pixels, squares=squares)

    def answer(self, ready: list[CheckedRequest]) -> list[ImputeResponse | RaystpError]:
        """Answer questions together; one that cannot be answered takes no other along."""
        answers: list[ImputeResponse | RaystpError | None] = [None] * len(ready)
        groups: dict[tuple[Any, ...], list[int]] = {}
        for number, one in enumerate(ready):
            groups.setdefault((one.features is None, *one.alike), []).append(number)
        for numbers in groups.values():
            for number, answer in zip(numbers, self._group([ready[n] for n in numbers]), strict=True):
                answers[number] = answer
        return answers  # type: ignore[return-value]  # each is in one group

    def _group(self, group: list[CheckedRequest]) -> list[ImputeResponse | RaystpError]:
        """Answer questions that differ in their tiles alone."""
        try:
            return list(self._together(group))
        except RaystpError as error:
            if len(group) == 1:
                return [error]
        return [answer for one in group for answer in self._group([one])]

    def _together(self, group: list[CheckedRequest]) -> list[ImputeResponse]:
        first, counts = group[0], [one.tiles for one in group]
        if not sum(counts):
            return [self._none(one) for one in group]
        options, imputer = first.options, dataclasses.replace(self.imputer, weights=first.options.weights)
        allowed = imputer.bank.rows_without(options.without) if options.without else None
        found = imputer.find(self._features(group), options.k, allowed=allowed, exactly=self.exactly)
        expression = imputer.expression(found, first.columns)
        spread = imputer.spread(found, expression, first.columns) if options.spread else None
        distance = imputer.distance(found)
        far = distance > self.far if self.far is not None else np.zeros(len(distance), np.bool_)
        answers, start = [], 0
        for one in group:
            part = slice(start, start + one.tiles)
            start += one.tiles
            near = self._named(found, part) if one.options.neighbours else None
            own = None if spread is None else spread[part]
            answers.append(
                ImputeResponse(one.genes, expression[part], distance[part], far[part], own, near, one.squares)
            )
        return answers

    def _features(self, group: list[CheckedRequest]) -> Float32[np.ndarray, "tile feature"]:
        given = [one.features for one in group if one.features is not None]
        if given:
            return np.concatenate(given)
        assert self.encoding is not None  # a question with pixels was refused without one
        return self.encoding(np.concatenate([one.pixels for one in group if one.pixels is not None]))

    def _none(self, one: CheckedRequest) -> ImputeResponse:
        """Answer a question about no tile."""
        blank, none = np.empty((0, len(one.genes)), np.float32), np.empty(0, np.float32)
        return ImputeResponse(one.genes, blank, none, np.empty(0, np.bool_), blank if one.options.spread else None)

    def _named(self, found: FoundNeighbours, part: slice) -> ResponseNeighbours:
        rows = found.rows[part]
        at = self.rows.take(pa.array(rows.ravel()))
        sections, spots = (np.asarray(at[name].to_pylist(), object).reshape(rows.shape) for name in ("section", "spot"))
        return ResponseNeighbours(rows, found.weights[part], sections.tolist(), spots.tolist())

    def _checked(self, features: Float32[np.ndarray, "tile feature"]) -> Float32[np.ndarray, "tile feature"]:
        wanted = self.imputer.model.d_image
        if len(features) and features.shape[1] != wanted:
            seen = f"these are {features.shape[1]} long"
            msg = f"embeddings: the model reads rows of {wanted} values, {seen}: are they of another encoder?"
            raise ModelError(msg)
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1)).tolist()
        if bad:
            msg = f"embeddings: {len(bad)} of {len(features)} tiles hold nan or infinity (the first is number {bad[0]})"
            raise ModelError(msg)
        return features


def checked(config: ServeConfig) -> tuple[Artifact, Artifact]:
    """Return model and index; raises ModelError or EncoderError where they, or the encoder, do not belong together."""
    model, index = resolve(config.run.store, config.model, "train"), resolve(config.run.store, config.index, "index")
    if index.manifest.notes["model"] != model.manifest.folder:
        msg = (
            f"the index {index.path} was made with model {index.manifest.notes['model']}, not with "
            f"{model.manifest.folder}: make one with this model, or serve that one"
        )
        raise ModelError(msg)
    _, _, meta = load_model(model.path)
    if config.encoder is not None:
        _check_encoder(config, model, meta)
    return model, index


def _check_encoder(config: ServeConfig, model: Artifact, meta: dict[str, Any]) -> None:
    assert config.encoder is not None  # asked only where there is one
    source = source_of(config.encoder, config.run.store)
    if meta["trained_tower"] and source.identity != f"tower:{model.manifest.fingerprint}":
        msg = f"{model.path} has an image tower of its own: set encoder.trained to it"
        raise EncoderError(msg)
    named = meta["encoder"]["name"]
    if source.spec.name != named or dim_of(config.encoder) != meta["d_image"]:
        msg = f"{model.path} reads {meta['d_image']} features of encoder '{named}', got encoder '{source.spec.name}'"
        raise EncoderError(msg)


def open_handler(config: ServeConfig, bank: ReferenceIndex | RemoteIndex | None = None) -> ImputeHandler:
    """Open all that a replica needs; a bank whose shards actors hold is given, any other is mapped here."""
    model, index = checked(config)
    kind, arrays, meta = load_model(model.path)
    ready = predictor(kind, arrays, meta)
    if not isinstance(ready, ContrastivePredictor):
        msg = f"{model.path} is a {kind} model, which answers without a bank: `raystp impute` predicts slides with it"
        raise ModelError(msg)
    described = index.manifest.notes["bank"]
    opened = bank or open_reference_index(index.path, described)
    encoding, pixels = None, TilePixels(0)
    if config.encoder is not None:
        encoder = source_of(config.encoder, config.run.store).build()
        encoding = BatchEncoder(encoder, device="cuda" if torch.cuda.is_available() else "cpu", batch="fit")
        pixels = encoder.pixels
    return ImputeHandler(
        imputer=NeighborImputer(ready, opened, described["metric"]),
        rows=opened.head.rows if isinstance(opened, RemoteIndex) else opened.rows,
        said=_said(config, meta, model, index),
        far=_far(config, index),
        exactly=config.search == "exact",
        encoding=encoding,
        shelf=SlideLibrary(tuple(config.slides), config.side, pixels),
    )


def _far(config: ServeConfig, index: Artifact) -> float | None:
    """Return the distance beyond which a tile is flagged, if anybody says one."""
    if config.far is not None:
        return config.far
    own: float | None = index.manifest.notes.get("distance", {}).get(FAR)
    return own


def _said(config: ServeConfig, meta: dict[str, Any], model: Artifact, index: Artifact) -> dict[str, Any]:
    reads = ["embeddings", *(["pixels"] if config.encoder else []), *(["slide"] if config.slides else [])]
    return {
        "model": model.manifest.folder,
        "index": index.manifest.folder,
        "rows": index.manifest.rows["rows"],
        "features": meta["d_image"],
        "encoder": meta["encoder"]["name"],
        "genes": index.manifest.notes["bank"]["genes"],
        "metric": index.manifest.notes["bank"]["metric"],
        "kind": index.manifest.notes["bank"].get("kind", "exact"),
        "weights": list(WEIGHTS),
        "far": _far(config, index),
        "protocol": meta["protocol"],
        "reads": reads,
        "versions": {"raystp": importlib.metadata.version("raystp"), "torch": torch.__version__},
    }
