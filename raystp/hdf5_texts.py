"""Add up the lengths of an HDF5 dataset's strings of any length, before they are read.

HDF5 stores such a string once, in a heap, and in each cell a reference: its length in 4 bytes, the heap's address and a
number. Many cells may refer to one string, so 70 kB may hold 12 GB of them. HDF5 reads no more than the length of the
reference, and fails where the string has another. References are read here as plain bytes. Cells without a reference,
of a part that was never written, have the dataset's fill value.
Format: https://docs.hdfgroup.org/hdf5/v1_14/_f_m_t3.html ("Variable-Length Data").
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

CELLS = 1 << 20
"""References that are read at once from a dataset without chunks."""
SLAB = 64
"""Strings that are read at once where references cannot be: a compression other than gzip."""


def text_bytes(file: Path, dataset: h5py.Dataset, limit: int) -> int:
    """Return the bytes of all strings of a dataset that is open from `file`; a number above `limit` may be too small.

    It is 0 for a dataset without such strings, and for one whose cells could not exceed the limit.
    """
    cells = math.prod(dataset.shape or ())
    if not dataset.dtype.hasobject or cells * file.stat().st_size <= limit:
        return 0
    total = 0
    for length in _lengths(file, dataset):
        total += length
        if total > limit:
            break
    return total


def _lengths(file: Path, dataset: h5py.Dataset) -> Iterator[int]:
    """Yield the bytes of the strings of one part after another."""
    reference = 8 + dataset.file.id.get_create_plist().get_sizes()[0]
    stored, cells, filled = dataset.id.get_create_plist(), math.prod(dataset.shape), 0
    is_whole = dataset.dtype.names is None and stored.get_layout() == h5py.h5d.CONTIGUOUS
    if is_whole:
        offset = dataset.id.get_offset()
        filled = cells if offset is None else 0
        with file.open("rb") as opened:
            opened.seek(offset or 0)
            for first in range(0, cells - filled, CELLS):
                yield _sum(opened.read(min(CELLS, cells - first) * reference), reference)
    elif dataset.dtype.names is None and stored.get_layout() == h5py.h5d.CHUNKED and _is_gzip(stored):
        of_chunk, written = math.prod(dataset.chunks), _written_chunks(dataset)
        whole = math.prod(-(-side // own) for side, own in zip(dataset.shape, dataset.chunks, strict=True))
        filled = max(0, whole - len(written)) * of_chunk
        for chunk in written:
            _, content = dataset.id.read_direct_chunk(chunk.chunk_offset)
            yield _sum(
                _unpacked(content, stored, chunk.filter_mask, of_chunk * reference, reference=reference), reference
            )
    else:
        rows = max(1, SLAB * len(dataset) // cells) if dataset.shape else 1
        for first in range(0, len(dataset) if dataset.shape else 0, rows):
            yield _length(dataset[first : first + rows])
    if filled:
        yield filled * len(dataset.fillvalue)


def _written_chunks(dataset: h5py.Dataset) -> Sequence[h5py.h5d.StoreInfo]:
    """Return the chunks that are in the file: to ask for one after another by its number takes n^2 steps."""
    found: list[h5py.h5d.StoreInfo] = []
    dataset.id.chunk_iter(found.append)
    return found


def _is_gzip(stored: h5py.h5p.PropDCID) -> bool:
    known = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE}
    return {stored.get_filter(number)[0] for number in range(stored.get_nfilters())} <= known


def _unpacked(content: bytes, stored: h5py.h5p.PropDCID, mask: int, size: int, *, reference: int) -> bytes:
    """Undo the filters of a chunk, the last first; `mask` has a bit for each one that was left out."""
    for number in reversed(range(stored.get_nfilters())):
        code = stored.get_filter(number)[0]
        if mask >> number & 1:
            continue
        if code == h5py.h5z.FILTER_DEFLATE:
            content = zlib.decompressobj().decompress(content, size)
        else:
            whole = len(content) // reference
            content = np.frombuffer(content, np.uint8, whole * reference).reshape(reference, whole).T.tobytes()
    return content


def _sum(references: bytes, size: int) -> int:
    cells = len(references) // size
    lengths = np.frombuffer(references, np.uint8, cells * size).reshape(cells, size)[:, :4]
    return int(np.ascontiguousarray(lengths).view("<u4").sum(dtype=np.int64))


def _length(strings: np.ndarray) -> int:
    if strings.dtype.names is not None:
        return sum(_length(strings[name]) for name in strings.dtype.names if strings.dtype[name].hasobject)
    return sum(len(one) for one in np.ravel(strings).tolist())
