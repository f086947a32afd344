"""The record of GeneQuery."""

from collections.abc import Mapping

from raystp.models.genequery.options import GENEQUERY_FIT, GENEQUERY_SPOT_FIT, GeneQueryOptions
from raystp.models.method import Method
from raystp.models.training.options import FitOptions


def _published_fit(options: Mapping[str, object]) -> FitOptions:
    return GENEQUERY_SPOT_FIT if options.get("context") == "spot" else GENEQUERY_FIT


def _why_frozen(options: Mapping[str, object]) -> str:
    context = options.get("context", "gene")
    if context in {"gene", "none"}:
        return ""
    why = "reads a map of each tile, where a trained encoder gives one row"
    if context == "spot":
        why = "reads all spots of a section in each batch of genes, so every tile is encoded once per batch"
    return f"genequery.context={context} {why}: set genequery.context to gene or none"


GENEQUERY = Method(
    name="genequery",
    title="GeneQuery",
    options=GeneQueryOptions,
    module="raystp.models.genequery.learner",
    published_fit=_published_fit,
    needs_gene_text=True,
    feature_inputs=(0,),
    why_frozen=_why_frozen,
    tokens=lambda options: options.tokens if options.context == "tokens" else 0,
    small={
        "genequery": {"dim": 64, "depth": 1, "heads": 2, "head_dim": 32, "feedforward": 128},
        "fit": {"epochs": 30, "batch_size": 32, "lr": 1e-3},
    },
)
"""Prediction of a gene from its text and the image; Xiong et al., arXiv 2411.18391."""
