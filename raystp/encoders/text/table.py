"""Gene text vectors from a file: parquet, npz, or npy with a file of symbols. Nothing is unpickled."""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float32

from raystp.errors import EncoderError, RaystpError, some
from raystp.parquet import read_foreign_parquet
from raystp.storage import StoragePath
from raystp.storage.text_files import read_list

Table = tuple[list[str], Float[np.ndarray, "gene dim"]]


@dataclass(frozen=True)
class TableText:
    """A gene text encoder that looks rows up by symbol."""

    rows: Float32[np.ndarray, "known dim"]
    row_of: dict[str, int] = field(repr=False)
    origin: str
    """The file, for messages."""
    sha256: str

    @property
    def dim(self) -> int:
        """Length of a row."""
        return int(self.rows.shape[1])

    @property
    def identity(self) -> dict[str, object]:
        """Name, length and the digest of the file, independent of its path."""
        return {"name": "table", "dim": self.dim, "sha256": self.sha256}

    def encode(self, texts: Mapping[str, str]) -> Float32[np.ndarray, "gene dim"]:
        """Return the table's row of each gene, independent of its text; raises EncoderError for an unknown gene."""
        missing = [gene for gene in texts if gene not in self.row_of]
        if missing:
            msg = (
                f"{len(missing)} of {len(texts)} genes have no row in {self.origin}: {some(missing)}; it has "
                f"{some(list(self.row_of), 3)}: add rows for them, or leave these genes out"
            )
            raise EncoderError(msg)
        return self.rows[[self.row_of[gene] for gene in texts]]


def read_table_text(path: StoragePath, *, names: StoragePath | None = None) -> TableText:
    """Read rows by symbol.

    `.parquet`: columns `gene` and `vector` (lists of numbers, all of one length). `.npz`: arrays `genes` (strings) and
    `vectors`. `.npy`: only the rows; their symbols are in the file `names`, one per line. Raises EncoderError for
    another suffix, for rows that do not fit the names, and for values that are not finite numbers.
    """
    suffix = path.name.rpartition(".")[2].lower()
    readers: dict[str, Callable[[bytes], Table]] = {
        "parquet": _parse_parquet,
        "npz": _parse_npz,
        "npy": lambda content: _parse_npy(content, path, names),
    }
    if suffix not in readers:
        msg = f"{path} is not a table of gene texts: expected a .parquet, a .npz, or a .npy with a file of names"
        raise EncoderError(msg)
    content = path.read_bytes()
    try:
        genes, rows = readers[suffix](content)
    except RaystpError:  # of the symbols, or of their file
        raise
    except Exception as error:  # noqa: BLE001 -- a damaged file may raise anything in numpy, zlib or Arrow
        msg = f"{path} cannot be read as a table of gene texts ({type(error).__name__}: {error})"
        raise EncoderError(msg) from None
    _check(genes, rows, path)
    digest = hashlib.sha256("\n".join(genes).encode() + content).hexdigest()
    row_of = {gene: row for row, gene in enumerate(genes)}
    return TableText(np.ascontiguousarray(rows, dtype=np.float32), row_of, str(path), digest)


def _parse_parquet(content: bytes) -> Table:
    table = read_foreign_parquet(pa.BufferReader(content), len(content), lambda _: ["gene", "vector"])
    return [str(gene) for gene in table["gene"].to_pylist()], np.array(table["vector"].to_pylist(), dtype=np.float32)


def _parse_npz(content: bytes) -> Table:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return [str(gene) for gene in arrays["genes"].tolist()], arrays["vectors"]


def _parse_npy(content: bytes, path: StoragePath, names: StoragePath | None) -> Table:
    if names is None:
        msg = f"{path} holds rows without symbols: give a file with the symbol of each row, one per line"
        raise EncoderError(msg)
    return [gene for _, gene in read_list(names, error=EncoderError)], np.load(io.BytesIO(content), allow_pickle=False)


def _check(genes: list[str], rows: np.ndarray, path: StoragePath) -> None:
    if rows.ndim != 2 or rows.dtype.kind != "f" or len(rows) != len(genes) or not rows.size:  # noqa: PLR2004 -- a table
        msg = f"{path} holds {rows.dtype} {rows.shape} for {len(genes)} genes: expected a row of floats for each gene"
        raise EncoderError(msg)
    duplicates = [gene for gene, count in Counter(genes).items() if count > 1]
    bad = [gene for gene, row in zip(genes, rows, strict=True) if not np.isfinite(row).all()]
    if duplicates or bad:
        fault = (
            f"{len(duplicates)} genes more than once ({some(duplicates)})"
            if duplicates
            else f"nan or infinity for {some(bad)}"
        )
        msg = f"{path} holds {fault}: expected one row of finite numbers for each gene"
        raise EncoderError(msg)
