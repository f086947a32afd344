"""Where gene texts come from, and how they are embedded: the part of a config that `gene_text.text_rows` reads."""

from typing import Annotated, Any, Literal

from pydantic import Field

from raystp.config import Config, Location


class TextConfig(Config):
    """Where gene texts come from, and how they are embedded."""

    encoder: Literal["weighted", "hashed", "random", "table", "model"] = "weighted"
    """`weighted` (TF-IDF over the panel's texts) and `hashed` need no weights; `table` reads given embeddings; `model`
    is a Hugging Face model in a local folder; `random` is a control that predicts unseen genes by chance only."""

    names: Annotated[str | None, Location()] = None
    """A table of gene names (TSV with `symbol` and `description` columns, gzipped or not)."""

    sets: Annotated[str | None, Location()] = None
    """A GMT of gene sets; a gene's text lists the smallest sets that contain it."""

    descriptions: Annotated[str | None, Location()] = None
    """Instead of both: one text per gene, as lines `GENE####text`."""

    table: Annotated[str | None, Location()] = None
    """For `table`: embeddings by symbol (parquet, npz, or npy beside a list of names)."""

    folder: Annotated[str | None, Location()] = None
    """For `model`: the folder."""

    absent: Literal["refuse", "symbol"] = "refuse"
    """A gene without a text is an error (`refuse`), or gets its symbol as text (`symbol`), which carries no biology."""

    dim: int = Field(default=1024, ge=8)
    """Length of hashed, weighted and random texts."""

    shuffled: bool = False
    """A control: assign every text to another gene."""

    unseen: float = Field(default=0.0, ge=0, lt=1)
    """Share of the panel that is held back from training and predicted from its texts only."""

    seed: int = 0
    """Seed of the genes held back, of random texts and of `shuffled`."""

    def fingerprint_values(self) -> dict[str, Any]:
        """Return what is computed: the files count by their digests."""
        return self.model_dump(mode="json", exclude=set(_FILES))

    def digests(self) -> dict[str, str]:
        """Return the digests of the files, for a fingerprint."""
        from raystp.digests import digest  # noqa: PLC0415 -- a config is read without pyarrow
        from raystp.storage import StoragePath  # noqa: PLC0415 -- the same

        named = {name: getattr(self, name) for name in _FILES if name != "folder"}
        return {f"text {name}": digest(StoragePath.of(path)) for name, path in named.items() if path is not None}


_FILES = ("names", "sets", "descriptions", "table", "folder")
