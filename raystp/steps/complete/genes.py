"""The genes that `complete` completes: a given list, or those that are expressed widely and in a spatial pattern."""

import logging
from collections.abc import Sequence

import anndata as ad
import numpy as np
from jaxtyping import Float64, Int64

from raystp.artifacts import Artifact
from raystp.errors import PanelError, RaystpError, some
from raystp.expression.genes.names import GeneNames, gene_aliases, unify_names
from raystp.expression.genes.panel import match_panel, read_panel
from raystp.expression.normalise import log1p_cp10k
from raystp.expression.schema import read_section
from raystp.expression.sections import gene_names_of, sections_of
from raystp.models.completion.genes import expressed_genes, most_spatial
from raystp.models.completion.values import SectionValues
from raystp.steps.complete.config import CompletedGenes
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")


def choose_genes(config: CompletedGenes, spots: Artifact, train: tuple[str, ...]) -> tuple[list[str], str]:
    """Return the genes and a sentence about their choice, which reads the training sections only.

    Only genes that every training section measured are chosen. Raises PanelError where no gene is expressed widely
    enough, or where no training section has a gene of the list.
    """
    sections = {name: read_section(spots.path / "sections" / f"{name}.h5ad") for name in train}
    if config.file is not None:
        listed = read_panel(StoragePath.of(config.file))
        return match_panel(listed, sections, aliases=aliases_of(spots, listed)).genes, "a given list of genes"
    names = unify_names({name: GeneNames.of(section) for name, section in sections.items()})
    common = sorted(set.intersection(*(set(own) for own in names.values())))
    columns = {name: _columns(own, common) for name, own in names.items()}
    kept = _expressed(sections, columns, config.share)
    if not len(kept):
        msg = (
            f"genes.share={config.share}: no gene of {some(list(train))} has a count in so many spots ({len(common)} "
            "genes are measured in all of them); choose a lower share, or list the genes in genes.file"
        )
        raise PanelError(msg)
    values = [
        SectionValues(
            log1p_cp10k(section.X, columns=columns[name][kept]), np.asarray(section.obsm["spatial"], np.float64)
        )
        for name, section in sections.items()
    ]
    chosen = kept[most_spatial(values, config.count)]
    about = (
        f"the {len(chosen)} genes of highest mean Moran's I of {len(kept)} with a count in {config.share:.0%} of the "
        f"spots of {', '.join(train)}"
    )
    return [common[gene] for gene in chosen.tolist()], about


def aliases_of(spots: Artifact, genes: Sequence[str]) -> dict[str, list[str]]:
    """Return the other names of the genes, as those sections give them that can be read."""
    names: list[GeneNames] = []
    for section in sections_of(spots):
        try:
            names += gene_names_of(spots, [section]).values()
        except RaystpError as error:  # it fails later, on its own
            logger.debug(f"{section}: {error}")
    return gene_aliases(genes, names)


def _columns(own: list[str], common: list[str]) -> Int64[np.ndarray, "_"]:
    column_of = {name: column for column, name in enumerate(own)}
    return np.asarray([column_of[name] for name in common], np.int64)


def _expressed(
    sections: dict[str, ad.AnnData], columns: dict[str, Int64[np.ndarray, "_"]], least: float
) -> Int64[np.ndarray, "_"]:
    detected = np.stack([section.X.getnnz(axis=0)[columns[name]] for name, section in sections.items()])
    spots = np.asarray([section.n_obs for section in sections.values()], np.float64)
    shares: Float64[np.ndarray, "section gene"] = detected / spots[:, None]
    return expressed_genes(shares, detected.sum(axis=0) / spots.sum(), least)
