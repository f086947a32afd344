"""Completed sections on disk: labels for training, never what a score is taken on.

A file is an AnnData over the completed genes. `X` is raw counts (CSR), the layer `completed` is the labels (by default
log1p CP10k) with each missing entry replaced, and the layer `real` says which entries were counted. A gene that the
section has not measured is NaN in `completed` and false in `var["measured"]`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Bool, Float32

from raystp.artifacts import Artifact
from raystp.errors import SectionError, some
from raystp.expression.genes.names import NO_ALIASES, Aliases
from raystp.expression.schema import read_h5ad
from raystp.expression.sections import SectionCounts
from raystp.storage import StoragePath

SCHEMA_VERSION = 1
"""Version of `uns["raystp_completed"]` and of the content of a completed section."""

LABEL = "raystp_completed"


@dataclass(frozen=True)
class CompletedSection:
    """The completed labels of a section."""

    spots: list[str]
    genes: list[str]
    values: Float32[np.ndarray, "spot gene"]
    """Labels, by default log1p CP10k, completed; NaN where the section has not measured the gene."""
    real: Bool[np.ndarray, "spot gene"]
    """Which entries were counted."""


def write_completed(
    path: StoragePath,
    counts: SectionCounts,
    genes: list[str],
    values: Float32[np.ndarray, "spot gene"],
    *,
    aliases: Aliases = NO_ALIASES,
) -> None:
    """Write the completed values of a section beside its counts, completely or not at all."""
    columns = counts.gene_names.find(genes, aliases)
    measured = columns >= 0
    own = np.zeros((len(counts.spots), len(genes)), np.float32)
    own[:, measured] = counts.matrix[:, columns[measured]].toarray()
    obs = pd.DataFrame({"total_counts": counts.totals}, index=pd.Index(counts.spots, dtype=object))
    adata = ad.AnnData(
        X=sp.csr_matrix(own),
        obs=obs,
        var=pd.DataFrame({"measured": measured}, index=pd.Index(genes, dtype=object)),
        obsm={"spatial": counts.xy},
        layers={"completed": values, "real": own > 0},
        uns={
            LABEL: {
                "schema_version": SCHEMA_VERSION,
                "section": counts.section,
                "patient": counts.patient,
                "slide": counts.slide,
            }
        },
    )
    path.write_file(lambda local: adata.write_h5ad(local, compression="gzip"))


def read_completed(path: StoragePath) -> CompletedSection:
    """Read a section that `write_completed` wrote; raises SectionError for any other file."""
    adata = read_h5ad(path)
    label = adata.uns.get(LABEL)
    version = label.get("schema_version") if isinstance(label, Mapping) else None
    if version != SCHEMA_VERSION or not {"completed", "real"} <= set(adata.layers):
        msg = (
            f"{path} is not a completed section of version {SCHEMA_VERSION} (its version is {version}): run "
            "`raystp complete` again with this version"
        )
        raise SectionError(msg)
    return CompletedSection(
        spots=[str(name) for name in adata.obs_names],
        genes=[str(name) for name in adata.var_names],
        values=np.asarray(adata.layers["completed"], np.float32),
        real=np.asarray(adata.layers["real"], bool),
    )


def load_completed(completed: Artifact, section: str) -> CompletedSection:
    """Read a section of a `complete` artifact; raises SectionError, with the reason, for one that it lacks."""
    known = completed.manifest.notes["sections"]
    if section not in known:
        failed = {row["slide"]: row["reason"] for row in completed.failures().to_pylist()}
        reason = f"it failed: {failed[section]}" if section in failed else f"there are {some(list(known), 20)}"
        msg = f"section '{section}' is not completed in {completed.path}; {reason}"
        raise SectionError(msg)
    return read_completed(completed.path / "sections" / f"{section}.h5ad")
