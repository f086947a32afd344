"""What GeneQuery's training says of its genes: where their texts come from, and which genes are held back."""

from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float32
from pydantic import Field

from raystp.artifacts import digest
from raystp.config import Config, Location
from raystp.encoders.text.hashed import GeneTextEncoder, HashedText, RandomText, WeightedText
from raystp.encoders.text.language_model import read_model_text
from raystp.encoders.text.table import read_table_text
from raystp.errors import ConfigError
from raystp.expression.gene_text import gene_texts, read_descriptions, read_gene_names, read_gmt
from raystp.models.unseen_genes import shuffled_texts
from raystp.storage import StoragePath

Texts = Float32[np.ndarray, "gene text"]


class TextConfig(Config):
    """What is said of each gene, and what turns it into numbers."""

    encoder: Literal["weighted", "hashed", "random", "table", "model"] = "weighted"
    """`weighted` (TF-IDF over the panel's texts) and `hashed` need no weights; `table` is embeddings made elsewhere,
    `model` a Hugging Face model in a local folder; `random` is a control: chance for genes never trained on."""

    names: Annotated[str | None, Location()] = None
    """A table of gene names (TSV with `symbol` and `description` columns, gzipped or not)."""

    sets: Annotated[str | None, Location()] = None
    """A GMT of gene sets: the smallest sets that a gene is in are named in its text."""

    descriptions: Annotated[str | None, Location()] = None
    """Instead of both: a sentence a gene, lines of `GENE####text`."""

    table: Annotated[str | None, Location()] = None
    """For `table`: embeddings by symbol (parquet, npz, or npy beside a list of names)."""

    folder: Annotated[str | None, Location()] = None
    """For `model`: the folder."""

    absent: Literal["refuse", "symbol"] = "refuse"
    """A gene without a text is an error, or has its symbol for a text, which tells it apart and no more."""

    dim: int = Field(default=1024, ge=8)
    """Length of hashed, weighted and random texts."""

    shuffled: bool = False
    """A control: every text is dealt to another gene than its own."""

    unseen: float = Field(default=0.0, ge=0, lt=1)
    """Share of the panel that is held back from training and predicted from its texts alone."""

    seed: int = 0
    """Of what is drawn: the genes held back, random texts, the deal."""

    def fingerprint_values(self) -> dict[str, Any]:
        """Return what is computed: the files count by their digests."""
        return self.model_dump(mode="json", exclude=set(_FILES))

    def digests(self) -> dict[str, str]:
        """Return what the files count as in a fingerprint."""
        named = {name: getattr(self, name) for name in _FILES if name != "folder"}
        return {f"text {name}": digest(StoragePath.of(path)) for name, path in named.items() if path is not None}


_FILES = ("names", "sets", "descriptions", "table", "folder")


def text_rows(config: TextConfig, genes: list[str]) -> tuple[Texts, dict[str, Any]]:
    """Return the genes' texts as numbers, and what their encoder says of itself.

    Raises ConfigError where no texts are named that the encoder would need, SectionError for a gene without one.
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
            f"text.encoder '{config.encoder}' reads what is said of genes: give text.names, text.sets or "
            "text.descriptions; or text.encoder=table with text.table, or =random as a control"
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
