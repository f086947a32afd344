"""Gene sets of a GMT, which has many: each has a map, but no row of scores."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int64

from raystp.errors import ConfigError
from raystp.evaluate.metrics.genes import GeneSets, named_sets
from raystp.expression.genes.text import read_gmt
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

FEWEST_GENES = 3
"""A set with fewer genes in the panel has no map: it would be the map of a gene or two."""

MOST_SETS = 500
"""Sets of all GMTs in a page: those with the most genes in the panel."""


def is_gmt(file: str) -> bool:
    """Return whether a file of gene sets is a GMT, by its name."""
    return file.lower().endswith(".gmt")


def gmt_sets(files: Mapping[str, str], panel: Sequence[str], known: GeneSets) -> dict[str, Int64[np.ndarray, "_"]]:
    """Return the sets of those files that are GMTs; one with the name of a known set has the file's name before it.

    Raises ConfigError for a GMT none of whose sets has enough genes in the panel, SectionError for one that is no GMT.
    """
    found: dict[str, Int64[np.ndarray, _]] = {}
    for name, file in files.items():
        if not is_gmt(file):
            continue
        members = read_gmt(StoragePath.of(file))
        sets = {one: list(dict.fromkeys(genes)) for one, genes in members.items()}
        large = {one: genes for one, genes in named_sets(sets, panel).items() if len(genes) >= FEWEST_GENES}
        if not large:
            msg = f"sets.{name}: none of the {len(members)} sets of {file} has {FEWEST_GENES} genes in the panel of "
            raise ConfigError(f"{msg}{len(panel)} genes: train with a panel that has them, or remove the file")
        found |= {f"{name}: {one}" if one in known or one in found else one: genes for one, genes in large.items()}
        logger.info(f"  gene sets {name}: {len(large)} of {len(members)} have {FEWEST_GENES} genes in the panel")
    kept = sorted(found, key=lambda one: -len(found[one]))[:MOST_SETS]
    if len(kept) < len(found):
        logger.warning(f"  maps of {len(kept)} of {len(found)} gene sets are in the report: those with the most genes")
    return {one: found[one] for one in kept}
