"""Gene texts of a training: their source, the encoder that embeds them, and the genes that are held back."""

from typing import Any

import numpy as np
from jaxtyping import Float32

from raystp.encoders.text.hashed import GeneTextEncoder, HashedText, RandomText, WeightedText
from raystp.encoders.text.language_model import read_model_text
from raystp.encoders.text.table import read_table_text
from raystp.errors import ConfigError
from raystp.expression.genes.text import gene_texts, read_descriptions, read_gene_names, read_gmt
from raystp.models.unseen_genes import shuffled_texts
from raystp.steps.train.spots.text_config import TextConfig
from raystp.storage import StoragePath

Texts = Float32[np.ndarray, "gene text"]


def text_rows(config: TextConfig, genes: list[str]) -> tuple[Texts, dict[str, Any]]:
    """Return the embeddings of the genes' texts, and the record of their encoder.

    Raises ConfigError where the encoder needs texts and none are given, SectionError for a gene without one.
    """
    texts = _texts(config, genes)
    encoder = _encoder(config, texts)
    rows = encoder.encode(texts)
    about = encoder.identity if not config.shuffled else {**encoder.identity, "shuffled": config.seed}
    return shuffled_texts(rows, seed=config.seed) if config.shuffled else rows, dict(about)


def _texts(config: TextConfig, genes: list[str]) -> dict[str, str]:
    if config.encoder in {"random", "table"}:
        return {gene: gene for gene in genes}
    if config.descriptions is not None:
        return gene_texts(genes, read_descriptions(StoragePath.of(config.descriptions)), absent=config.absent)
    names = read_gene_names(StoragePath.of(config.names)) if config.names is not None else {}
    sets = read_gmt(StoragePath.of(config.sets)) if config.sets is not None else None
    if not names and sets is None:
        msg = (
            f"text.encoder '{config.encoder}' embeds gene texts: set text.names, text.sets or text.descriptions; "
            "or text.encoder=table with text.table, or text.encoder=random as a control"
        )
        raise ConfigError(msg)
    return gene_texts(genes, names, sets, absent=config.absent)


def _encoder(config: TextConfig, texts: dict[str, str]) -> GeneTextEncoder:
    if config.encoder == "random":
        return RandomText(dim=config.dim, seed=config.seed)
    if config.encoder == "hashed":
        return HashedText(config.dim)
    if config.encoder == "weighted":
        return WeightedText.of(texts, config.dim, hash_rest=config.absent == "symbol")
    path = config.table if config.encoder == "table" else config.folder
    if path is None:
        field = "table" if config.encoder == "table" else "folder"
        msg = f"text.encoder '{config.encoder}' needs text.{field}"
        raise ConfigError(msg)
    place = StoragePath.of(path)
    return read_table_text(place) if config.encoder == "table" else read_model_text(place.local_path)
