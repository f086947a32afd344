"""Gene text encoders that need no weights: words counted (`HashedText`, `WeightedText`), and random numbers.

All gene text encoders are called in the same way; `table.py` and `language_model.py` have two more. They take texts by
symbol and return one row per gene, in the order of the texts. A row depends only on its own gene and text, so a new
gene can be encoded after training. `identity` says which encoder a row must come from.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64

from raystp.errors import EncoderError, some

WORD = r"(?u)\b\w[\w-]*\b"
"""A word may be one letter or digit, and may contain hyphens: `T`, `p53`, `beta-catenin`."""

NGRAMS = (1, 2)
"""Single words, and pairs of adjacent words."""


@runtime_checkable
class GeneTextEncoder(Protocol):
    """The interface of all gene text encoders."""

    @property
    def identity(self) -> dict[str, object]:
        """Name, options and digest, as plain JSON values: equal identities give equal rows."""
        ...

    @property
    def dim(self) -> int:
        """Length of a row."""
        ...

    def encode(self, texts: Mapping[str, str]) -> Float32[np.ndarray, "gene dim"]:
        """Return a row per gene; raises EncoderError for a gene without a usable text."""
        ...


@dataclass(frozen=True)
class HashedText:
    """Counts of words and pairs of words, each assigned to one of `dim` columns by its hash; rows of length 1."""

    dim: int = 1024

    @property
    def identity(self) -> dict[str, object]:
        """Name and options."""
        return {"name": "hashed", "dim": self.dim}

    def encode(self, texts: Mapping[str, str]) -> Float32[np.ndarray, "gene dim"]:
        """Return a row per gene; raises EncoderError for a text without words."""
        from sklearn.feature_extraction.text import HashingVectorizer  # noqa: PLC0415 -- imports scipy.stats: a second

        check_texts(texts)
        words = HashingVectorizer(n_features=self.dim, ngram_range=NGRAMS, token_pattern=WORD, norm="l2")
        return _check_rows(texts, words.transform(texts.values()).toarray().astype(np.float32))


@dataclass(frozen=True)
class WeightedText:
    """Counts of a corpus' words and pairs of words, with larger weights for rarer ones (TF-IDF); rows of length 1.

    The weight is `log((1 + texts) / (1 + texts with the word)) + 1`, times the count in the gene's text.
    """

    words: dict[str, int]
    """Word -> its column."""
    weights: Float64[np.ndarray, "dim"]
    hash_rest: bool = False
    """Whether a text without a word of the corpus is encoded by `HashedText`, which only distinguishes it from others.
    """

    @classmethod
    def of(cls, corpus: Mapping[str, str], dim: int = 2048, *, hash_rest: bool = False) -> "WeightedText":
        """Return the encoder of a corpus: the `dim` most frequent words that occur in at least two texts, ties by word.

        The corpus may contain all known genes, since texts are not measurements. Raises EncoderError where no word is
        left.
        """
        from sklearn.feature_extraction.text import CountVectorizer  # noqa: PLC0415 -- the same

        check_texts(corpus)
        vectorizer = CountVectorizer(ngram_range=NGRAMS, token_pattern=WORD, binary=True)
        try:
            occurrences = vectorizer.fit_transform(corpus.values())
        except ValueError:  # scikit-learn's error for a corpus without words
            msg = f"the texts of {len(corpus)} genes contain no words: {some(list(corpus))}"
            raise EncoderError(msg) from None
        names = vectorizer.get_feature_names_out().tolist()
        texts = np.asarray(occurrences.sum(axis=0)).ravel()
        kept = [column for column in np.lexsort((names, -texts)).tolist() if texts[column] > 1][:dim]
        if not kept:
            msg = f"no word occurs in two of the {len(corpus)} texts, so no genes are similar: give more texts"
            raise EncoderError(msg)
        kept.sort(key=lambda column: str(names[column]))
        weights = np.log((1 + len(corpus)) / (1 + texts[kept])) + 1
        return cls({str(names[column]): number for number, column in enumerate(kept)}, weights, hash_rest)

    @property
    def dim(self) -> int:
        """Number of words that are counted."""
        return len(self.words)

    @property
    def identity(self) -> dict[str, object]:
        """Name, length, and a digest of words and weights."""
        digest = hashlib.sha256("\n".join(self.words).encode())
        digest.update(np.round(self.weights, 9).tobytes())
        rest = {"rest": "hashed"} if self.hash_rest else {}
        return {"name": "weighted", "dim": self.dim, "sha256": digest.hexdigest(), **rest}

    def encode(self, texts: Mapping[str, str]) -> Float32[np.ndarray, "gene dim"]:
        """Return a row per gene; raises EncoderError for a text without words of the corpus, unless `hash_rest`."""
        from sklearn.feature_extraction.text import CountVectorizer  # noqa: PLC0415 -- the same

        check_texts(texts)
        vectorizer = CountVectorizer(vocabulary=self.words, ngram_range=NGRAMS, token_pattern=WORD)
        rows = vectorizer.transform(texts.values()).toarray() * self.weights
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        unit = (rows / np.where(length > 0, length, 1)).astype(np.float32)
        rest = {gene: text for (gene, text), row in zip(texts.items(), unit, strict=True) if not row.any()}
        if rest and self.hash_rest:
            unit[~unit.any(axis=1)] = HashedText(self.dim).encode(rest)
        return _check_rows(texts, unit)


@dataclass(frozen=True)
class RandomText:
    """Normal random numbers by symbol, the published control: a row identifies its gene and describes nothing."""

    dim: int = 768
    seed: int = 0

    @property
    def identity(self) -> dict[str, object]:
        """Name and options."""
        return {"name": "random", "dim": self.dim, "seed": self.seed}

    def encode(self, texts: Mapping[str, str]) -> Float32[np.ndarray, "gene dim"]:
        """Return a row per symbol, independent of its text and of the other genes."""
        rows = [self._generator(gene).standard_normal(self.dim, dtype=np.float32) for gene in texts]
        return np.stack(rows) if rows else np.empty((0, self.dim), dtype=np.float32)

    def _generator(self, gene: str) -> np.random.Generator:
        digest = hashlib.sha256(gene.encode()).digest()
        return np.random.default_rng([self.seed, int.from_bytes(digest[:16], "big")])


def check_texts(texts: Mapping[str, str]) -> None:
    """Raise EncoderError for a gene without a text."""
    missing = [gene for gene, text in texts.items() if not text.strip()]
    if missing or not texts:
        fault = (
            f"{len(missing)} of {len(texts)} genes have no text: {some(missing)}" if missing else "no genes are given"
        )
        msg = f"{fault}; give each gene a name or a description, or leave it out"
        raise EncoderError(msg)


def _check_rows(texts: Mapping[str, str], rows: Float32[np.ndarray, "gene dim"]) -> Float32[np.ndarray, "gene dim"]:
    """Return the rows; raises EncoderError for a row of zeros, whose text has no known word."""
    without = [gene for gene, row in zip(texts, rows, strict=True) if not row.any()]
    if without:
        first = f"the first is {texts[without[0]][:60]!r}"
        msg = f"the texts of {len(without)} of {len(texts)} genes contain no known word: {some(without)}; {first}"
        raise EncoderError(msg)
    return rows
