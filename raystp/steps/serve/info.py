"""What `/v1/info` tells of a model: its features, genes and index."""

import importlib.metadata
from typing import Any

import torch

from raystp.artifacts import Artifact
from raystp.cluster.serving.messages import HandlerInfo
from raystp.impute.weights import WEIGHTS
from raystp.steps.embedding_source import tokens_of
from raystp.steps.serve.config import ServeConfig
from raystp.steps.train.retrieval import Retrieval

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
    tokens: int
    """If not 0: the columns are so many spatial tokens of the tile, one after the other."""
    metric: str
    kind: str
    weights: list[str]
    retrieval: dict[str, Any]
    far_distance: float | None
    protocol: str
    reads: list[str]


class DirectInfo(HandlerInfo):
    """The part of `/v1/info` about the model."""

    model: str
    method: str
    features: int
    encoder: str
    """Of the first block."""
    blocks: list[dict[str, object]]
    """Encoder and tiles of each block of the features, in the order of the columns; empty for an older model."""
    neighbour_mean: int | list[int]
    """If not 0: the mean of all blocks over so many nearest other tiles follows the blocks, for each number."""
    tokens: int
    """If not 0: the columns are so many spatial tokens of the tile, one after the other."""
    protocol: str
    reads: list[str]


def far_distance(config: ServeConfig, index: Artifact) -> float | None:
    """Return the distance beyond which a tile is flagged; None for an index that records no distances."""
    if config.far_distance is not None:
        return config.far_distance
    recorded: float | None = index.manifest.notes.get("distance", {}).get(FAR_QUANTILE)
    return recorded


def _reads(config: ServeConfig) -> list[str]:
    return ["embeddings", *(["pixels"] if config.encoder else []), *(["slide"] if config.slides else [])]


def _versions() -> dict[str, str]:
    return {"raystp": importlib.metadata.version("raystp"), "torch": torch.__version__}


def direct_info(config: ServeConfig, meta: dict[str, Any], model: Artifact, method: str) -> DirectInfo:
    """Return the body of `/v1/info` for a model without an index."""
    return {
        "model": model.manifest.folder,
        "method": method,
        "features": meta["d_image"],
        "encoder": meta["encoder"]["name"],
        "blocks": meta.get("features", {}).get("blocks", []),
        "neighbour_mean": meta.get("features", {}).get("neighbour_mean", 0),
        "tokens": tokens_of(meta),
        "genes": meta["genes"],
        "protocol": meta["protocol"],
        "reads": _reads(config),
        "versions": _versions(),
    }


def model_info(config: ServeConfig, meta: dict[str, Any], model: Artifact, index: Artifact) -> ModelInfo:
    """Return the body of `/v1/info` for a model and its index."""
    description, own = index.manifest.notes["bank"], Retrieval.of(meta.get("retrieval", {}))
    how = {"k": own.k, "weights": own.weights, "temperature": own.temperature}
    return {
        "model": model.manifest.folder,
        "index": index.manifest.folder,
        "rows": index.manifest.rows["rows"],
        "features": meta["d_image"],
        "encoder": meta["encoder"]["name"],
        "blocks": meta.get("features", {}).get("blocks", []),
        "neighbour_mean": meta.get("features", {}).get("neighbour_mean", 0),
        "tokens": tokens_of(meta),
        "genes": description["genes"],
        "metric": description["metric"],
        "kind": description.get("kind", "exact"),
        "weights": list(WEIGHTS),
        "retrieval": {**how, "calibrated": config.calibrate and "calibration" in meta},
        "far_distance": far_distance(config, index),
        "protocol": meta["protocol"],
        "reads": _reads(config),
        "versions": _versions(),
    }
