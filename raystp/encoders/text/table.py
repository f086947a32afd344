"""A table of gene text vectors from a file: parquet, npz, or npy with its symbols beside it. Nothing is unpickled."""

import hashlib
import io
import zipfile
from collections import Counter
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from raystp.encoders.text.hashed import TableText
from raystp.errors import EncoderError, some
from raystp.storage import StoragePath

Table = tuple[list[str], Float[np.ndarray, "gene dim"]]


def read_table_text(place: StoragePath, *, names: StoragePath | None = None) -> TableText:
    """Read rows by symbol.

    `.parquet`: columns `gene` and `vector` (a list of numbers of one length). `.npz`: arrays `genes` (strings) and
    `vectors`. `.npy`: the rows alone, and in `names` their symbols, one a line: without them nobody can say whose they
    are. Raises EncoderError for other endings, for rows that do not fit the names, and for values that are no numbers.
    """
    ending = place.name.rpartition(".")[2].lower()
    readers: dict[str, Callable[[bytes], Table]] = {
        "parquet": _parquet,
        "npz": _npz,
        "npy": lambda content: _npy(content, place, names),
    }
    if ending not in readers:
        msg = f"{place} is no table of gene texts: wanted is a .parquet, a .npz, or a .npy with a file of names"
        raise EncoderError(msg)
    content = place.read_bytes()
    try:
        genes, rows = readers[ending](content)
    except (ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, pa.ArrowInvalid) as error:
        msg = f"{place} cannot be read as a table of gene texts ({type(error).__name__}: {error})"
        raise EncoderError(msg) from None
    _check(genes, rows, place)
    digest = hashlib.sha256("\n".join(genes).encode() + content).hexdigest()
    at = {gene: row for row, gene in enumerate(genes)}
    return TableText(np.ascontiguousarray(rows, dtype=np.float32), at, str(place), digest)


def _parquet(content: bytes) -> Table:
    table = pq.read_table(pa.BufferReader(content), columns=["gene", "vector"])
    return [str(gene) for gene in table["gene"].to_pylist()], np.array(table["vector"].to_pylist(), dtype=np.float32)


def _npz(content: bytes) -> Table:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return [str(gene) for gene in arrays["genes"].tolist()], arrays["vectors"]


def _npy(content: bytes, place: StoragePath, names: StoragePath | None) -> Table:
    if names is None:
        msg = f"{place} holds rows without symbols, and a text belongs to its gene by name: give a file of names"
        raise EncoderError(msg)
    lines = names.read_bytes().decode("utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()], np.load(io.BytesIO(content), allow_pickle=False)


def _check(genes: list[str], rows: np.ndarray, place: StoragePath) -> None:
    if rows.ndim != 2 or rows.dtype.kind != "f" or len(rows) != len(genes) or not rows.size:  # noqa: PLR2004 -- a table
        msg = (
            f"{place} holds {rows.dtype} {rows.shape} for {len(genes)} genes: a row of floating numbers each is wanted"
        )
        raise EncoderError(msg)
    twice = [gene for gene, times in Counter(genes).items() if times > 1]
    bad = [gene for gene, row in zip(genes, rows, strict=True) if not np.isfinite(row).all()]
    if twice or bad:
        seen = f"{len(twice)} genes more than once ({some(twice)})" if twice else f"nan or infinity for {some(bad)}"
        msg = f"{place} holds {seen}: each gene has one row of numbers"
        raise EncoderError(msg)
