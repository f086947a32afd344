"""Gene text encoders: texts by symbol in, one row of numbers per gene out, in the order of the texts.

Four of them behind one call: words counted (`HashedText`, `WeightedText`), random numbers (`RandomText`, the control),
a table that somebody made (`gene_text_table`) and a language model (`gene_text_model`). Rows belong to symbols. A row
depends on its own gene and text alone, so that a gene may be asked for after training, and `identity` says which
encoder it must come from.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer

from raystp.errors import EncoderError, some

WORD = r"(?u)\b\w[\w-]*\b"
"""A word may be one letter or digit, and hyphens are part of it: `T`, `p53`, `beta-catenin`."""

PAIRS = (1, 2)
"""Words, and words next to each other."""


@runtime_checkable
class GeneTextEncoder(Protocol):
    """What any of them does."""

    @property
    def identity(self) -> dict[str, Any]:
        """Name, options and digest, as plain JSON values: equal identities give equal rows."""
        ...

    @property
    def dim(self) -> int:
        """Length of a row."""
        ...

    def encode(self, texts: Mapping[str, str]) -> Float32[np.ndarray, "gene dim"]:
        """Return a row per gene; raises EncoderError where a gene has no text, or none that can be used."""
        ...


@dataclass(frozen=True)
class HashedText:
    """Words and pairs of words, each counted in one of `dim` places by its hash; rows of length 1."""

    dim: int = 1024

    @property
    def identity(self) -> dict[str, Any]:
        """Name and options: there is nothing else to it."""
        return {"name": "hashed", "dim": self.dim}

    def encode(self, texts: Mapping[str, str]) -> Float32[np.ndarray, "gene dim"]:
        """Return a row per gene; raises EncoderError for a text without words."""
        check_texts(texts)
        words = HashingVectorizer(n_features=self.dim, ngram_range=PAIRS, token_pattern=WORD, norm="l2")
        return _with_words(texts, words.transform(texts.values()).toarray().astype(np.float32))


@dataclass(frozen=True)
class WeightedText:
    """Words and pairs of words of a corpus, the rarer the heavier (TF-IDF); rows of length 1.

    The weight is `log((1 + texts) / (1 + texts with the word)) + 1`, times the count in the gene's text.
    """

    words: dict[str, int]
    """Word -> its place in a row."""
    weights: Float64[np.ndarray, "dim"]
    hash_rest: bool = False
    """Whether a text without a word of the corpus has its own words hashed, which tells it apart and no more."""

    @classmethod
    def of(cls, corpus: Mapping[str, str], dim: int = 2048, *, hash_rest: bool = False) -> "WeightedText":
        """Return the encoder of a corpus: its `dim` most frequent words that two texts or more have, ties by word.

        The corpus may hold all genes there are: a text is no measurement. Raises EncoderError where no word is left.
        """
        check_texts(corpus)
        counted = CountVectorizer(ngram_range=PAIRS, token_pattern=WORD, binary=True)
        try:
            found = counted.fit_transform(corpus.values())
        except ValueError:  # the library's word for a corpus without words
            msg = f"the texts of {len(corpus)} genes hold no words: {some(list(corpus))}"
            raise EncoderError(msg) from None
        names = counted.get_feature_names_out().tolist()
        texts = np.asarray(found.sum(axis=0)).ravel()
        kept = [place for place in np.lexsort((names, -texts)).tolist() if texts[place] > 1][:dim]
        if not kept:
            msg = f"no word is in two of the {len(corpus)} texts, so none would tell genes alike: give more of them"
            raise EncoderError(msg)
        kept.sort(key=lambda place: str(names[place]))
        weights = np.log((1 + len(corpus)) / (1 + texts[kept])) + 1
        return cls({str(names[place]): at for at, place in enumerate(kept)}, weights, hash_rest)

    @property
    def dim(self) -> int:
        """Words that are counted."""
        return len(self.words)

    @property
    def identity(self) -> dict[str, Any]:
        """Name, length, and a digest of words and weights."""
        total = hashlib.sha256("\n".join(self.words).encode())
        total.update(np.round(self.weights, 9).tobytes())
        rest = {"rest": "hashed"} if self.hash_rest else {}
        return {"name": "weighted", "dim": self.dim, "sha256": total.hexdigest(), **rest}

    def encode(self, texts: Mapping[str, str]) -> Float32[np.ndarray, "gene dim"]:
        """Return a row per gene; raises EncoderError for a text without the corpus' words, unless those are hashed."""
        check_texts(texts)
        counted = CountVectorizer(vocabulary=self.words, ngram_range=PAIRS, token_pattern=WORD)
        rows = counted.transform(texts.values()).toarray() * self.weights
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        unit = (rows / np.where(length > 0, length, 1)).astype(np.float32)
        rest = {gene: text for (gene, text), row in zip(texts.items(), unit, strict=True) if not row.any()}
        if rest and self.hash_rest:
            unit[~unit.any(axis=1)] = HashedText(self.dim).encode(rest)
        return _with_words(texts, unit)


@dataclass(frozen=True)
class RandomText:
    """Normal random numbers by symbol: the published control. Its text tells nothing of a gene but which one it is."""

    dim: int = 768
    seed: int = 0

    @property
    def identity(self) -> dict[str, Any]:
        """Name and options: there is nothing else to it."""
        return {"name": "random", "dim": self.dim, "seed": self.seed}

    def encode(self, texts: Mapping[str, str]) -> Float32[np.ndarray, "gene dim"]:
        """Return a row per symbol, whatever its text, and whichever others are asked for."""
        rows = [self._generator(gene).standard_normal(self.dim, dtype=np.float32) for gene in texts]
        return np.stack(rows) if rows else np.empty((0, self.dim), dtype=np.float32)

    def _generator(self, gene: str) -> np.random.Generator:
        digest = hashlib.sha256(gene.encode()).digest()
        return np.random.default_rng([self.seed, int.from_bytes(digest[:16], "big")])


@dataclass(frozen=True)
class TableText:
    """Rows that were made elsewhere, by symbol; `gene_text_table.read_table_text` reads them."""

    rows: Float32[np.ndarray, "known dim"]
    at: dict[str, int] = field(repr=False)
    where: str
    sha256: str

    @property
    def dim(self) -> int:
        """Length of a row."""
        return int(self.rows.shape[1])

    @property
    def identity(self) -> dict[str, Any]:
        """Name, length and the digest of the file, wherever it lies."""
        return {"name": "table", "dim": self.dim, "sha256": self.sha256}

    def encode(self, texts: Mapping[str, str]) -> Float32[np.ndarray, "gene dim"]:
        """Return the table's row of each gene, whatever its text; raises EncoderError where it has none."""
        missing = [gene for gene in texts if gene not in self.at]
        if missing:
            msg = (
                f"{len(missing)} of {len(texts)} genes have no row in {self.where}: {some(missing)}; it knows "
                f"{some(list(self.at), 3)}: add them, or leave these genes out"
            )
            raise EncoderError(msg)
        return self.rows[[self.at[gene] for gene in texts]]


def check_texts(texts: Mapping[str, str]) -> None:
    """Raise EncoderError where a gene's text is missing."""
    missing = [gene for gene, text in texts.items() if not text.strip()]
    if missing or not texts:
        seen = f"{len(missing)} of {len(texts)} genes have no text: {some(missing)}" if missing else "there is no gene"
        msg = f"{seen}; give each a name or a description, or leave it out"
        raise EncoderError(msg)


def _with_words(texts: Mapping[str, str], rows: Float32[np.ndarray, "gene dim"]) -> Float32[np.ndarray, "gene dim"]:
    """Return the rows where each is of a text with words, else raise EncoderError."""
    without = [gene for gene, row in zip(texts, rows, strict=True) if not row.any()]
    if without:
        first = f"the first is {texts[without[0]][:60]!r}"
        msg = f"the texts of {len(without)} of {len(texts)} genes hold no word that counts: {some(without)}; {first}"
        raise EncoderError(msg)
    return rows
