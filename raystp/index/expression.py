"""A shard's expression: its file, and its share of a weighted sum."""

import numpy as np
import torch
from jaxtyping import Float32, Int64

from raystp import artifacts
from raystp.errors import ArtifactError, ModelError, some
from raystp.storage import Place


def write_expression(place: Place, expression: Float32[np.ndarray, "row gene"]) -> str:
    """Write expression as a plain .npy and return the file's sha256; raises ModelError for values not finite."""
    bad = [str(row) for row in range(len(expression)) if not np.isfinite(expression[row]).all()]
    if bad:
        msg = f"the expression for {place.name} is not finite in {len(bad)} of its rows ({some(bad)}): leave them out"
        raise ModelError(msg)
    place.write_file(lambda path: np.save(path, np.ascontiguousarray(expression), allow_pickle=False))
    return artifacts.digest(place)


def open_expression(place: Place, sha256: str) -> Float32[np.ndarray, "row gene"]:
    """Map a shard's expression after checking its sha256; raises ArtifactError for any other content.

    The mapping is copy-on-write: what a caller changes never reaches the file.
    """
    with place.local() as path:
        found = artifacts.digest(Place.of(path))
        if found != sha256:
            msg = (
                f"{place} is not the file that its index was written with: sha256 {found[:12]}..., {sha256[:12]}... "
                "was wanted; it is damaged or altered, run `raystp index` again"
            )
            raise ArtifactError(msg)
        values: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)
    return values


def share_of_sum(
    weights: Float32[np.ndarray, "query k"],
    rows: Int64[np.ndarray, "query k"],
    expression: Float32[np.ndarray, "row gene"],
    first_row: int = 0,
) -> Float32[np.ndarray, "query gene"]:
    """Return the part of each query's weighted sum that lies in this shard: the shares of all shards add to the whole.

    `rows` are the bank's; those outside this shard count nothing and are not read.
    """
    query, column = np.nonzero((rows >= first_row) & (rows < first_row + len(expression)))
    starts = np.searchsorted(query, np.arange(len(rows)))
    with torch.inference_mode():
        share = torch.nn.functional.embedding_bag(
            torch.from_numpy(rows[query, column] - first_row),
            torch.from_numpy(expression),
            torch.from_numpy(starts),
            mode="sum",
            per_sample_weights=torch.from_numpy(weights[query, column]),
        )
    found: np.ndarray = share.numpy()
    return found
