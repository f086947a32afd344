"""Small files that claim, or unpack to, 10^9 of something: each is one error, with little memory and time.

HDF5, zarr, torch and npz files of other tools: `tests/test_hdf5.py` and `tests/interop/features`. TIFF: `tests/slides`.
"""

import gzip
import hashlib
import json
import struct
import zlib
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest

from raystp.encoders.text.table import read_table_text
from raystp.errors import RaystpError, SectionError, SlideError
from raystp.expression.bulk.labels import read_bulk
from raystp.expression.genes.panel import read_panel
from raystp.expression.readers.tissue_positions import COLUMNS, read_tissue_positions
from raystp.expression.readers.visium_hd.bins import COLUMNS as BIN_COLUMNS
from raystp.expression.readers.visium_hd.bins import read_squares
from raystp.expression.readers.xenium.cells import COLUMNS as CELL_COLUMNS
from raystp.expression.readers.xenium.cells import place_cells
from raystp.hdf5 import check_hdf5
from raystp.hdf5_texts import text_bytes
from raystp.models.store import load_model
from raystp.parquet import read_foreign_parquet
from raystp.slides.open import open_slide
from raystp.slides.readers.tiff.ome import MAX_IMAGES, MAX_PLANES, read_ome
from raystp.slides.table import read_slide_table
from raystp.steps.serve.pixels import decode_images
from raystp.storage import StoragePath, text_files
from raystp.units import TilePixels
from tests.security import claims
from tests.security.bounded import bounded

Read = Callable[[Path], object]


def _slides(file: Path) -> object:
    return read_slide_table(str(file), None, "store")


def _bulk(file: Path) -> object:
    return read_bulk(StoragePath.of(file))


def _places(file: Path) -> object:
    return read_tissue_positions(StoragePath.of(file), "section 'S1'")


def _vectors(file: Path) -> object:
    return read_table_text(StoragePath.of(file))


def _image(file: Path) -> object:
    with open_slide("A1", StoragePath.of(file), given_mpp=0.5) as slide:
        return slide.thumbnail(32)


CLAIMS: dict[str, tuple[str, Callable[[], bytes], Read]] = {
    "slide table, a text in each row": ("a.parquet", lambda: claims.repeated(("slide", "path", "patient")), _slides),
    "slide table, rows": ("a.parquet", lambda: claims.many_rows(("slide", "path", "patient")), _slides),
    "slide table, empty cells of a workbook": ("a.xlsx", claims.far_cell, _slides),
    "slide table, entities of a workbook": ("a.xlsx", claims.entities, _slides),
    "positions, a text in each row": ("a.parquet", lambda: claims.repeated(COLUMNS), _places),
    "positions, rows": ("a.parquet", lambda: claims.many_rows(COLUMNS), _places),
    "cases, a text in each row": ("a.parquet", lambda: claims.repeated(("case", "A")), _bulk),
    "cases, rows": ("a.parquet", lambda: claims.many_rows(("case", "A")), _bulk),
    "gene vectors, a text in each row": ("a.parquet", lambda: claims.repeated(("gene", "vector")), _vectors),
    "gene vectors, npz": ("a.npz", claims.npz, _vectors),
    "panel, npy": ("a.npy", lambda: claims.npy((10**9,), "<U1000"), lambda file: read_panel(StoragePath.of(file))),
    "slide, png": ("a.png", claims.png, _image),
    "slide, jpeg": ("a.jpg", claims.jpeg, _image),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_small_file_that_claims_ten_to_the_ninth_is_one_error(claim: str, tmp_path: Path) -> None:
    name, make, read = CLAIMS[claim]
    file = tmp_path / name
    file.write_bytes(make())
    assert file.stat().st_size < 1 << 20
    with bounded(), pytest.raises(RaystpError) as caught:
        read(file)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("read", "texts", "numbers"),
    [
        (lambda path: read_squares(path, "section 'S1'", 2), BIN_COLUMNS[:1], BIN_COLUMNS[1:]),
        (lambda path: place_cells(path, "section 'S1'", 50.0), CELL_COLUMNS[:1], CELL_COLUMNS[1:]),
    ],
    ids=["Visium HD", "Xenium"],
)
def test_a_text_that_each_row_of_a_batch_repeats_is_not_repeated_in_memory(
    read: Callable[[StoragePath], object], texts: tuple[str, ...], numbers: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "a.parquet").write_bytes(claims.repeated_beside(texts, numbers))
    with bounded(), pytest.raises(SectionError, match=r"bytes of text from [\d,]+: a damaged or hostile file"):
        read(StoragePath.of(tmp_path / "a.parquet"))


@pytest.mark.parametrize("rows", [1, 50])
def test_a_list_of_many_values_is_not_read(rows: int, tmp_path: Path) -> None:
    content = claims.long_list(rows)
    assert len(content) < 1 << 20
    (tmp_path / "a.parquet").write_bytes(content)
    with bounded(), pytest.raises(RaystpError, match=r"unpacks to 1,2\d\d,\d+,\d+ bytes .* a damaged or hostile file"):
        _vectors(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "kind", [pa.large_binary(), pa.binary_view(), pa.binary(100_000), pa.list_(pa.string())], ids=str
)
def test_text_of_any_type_is_added_up_or_refused(kind: pa.DataType) -> None:
    content = claims.texts_in(kind)
    with bounded(), pytest.raises(ValueError, match=r"damaged or hostile file|text in a list or struct"):
        read_foreign_parquet(pa.BufferReader(content), len(content))


def test_a_model_whose_header_claims_more_than_its_file_is_one_error(tmp_path: Path) -> None:
    tensors = {"w": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4 * 10**18]}}
    for header, length in ((json.dumps(tensors).encode(), 0), (b"{}", 10**15)):
        content = struct.pack("<Q", length or len(header)) + header
        (tmp_path / "model.safetensors").write_bytes(content)
        fields = {"schema_version": 1, "sha256": hashlib.sha256(content).hexdigest(), "kind": "x"}
        (tmp_path / "model.json").write_text(json.dumps({**fields, "genes": ["A"], "d_image": 2}))
        with bounded(), pytest.raises(RaystpError, match=r"model\.safetensors cannot be read"):
            load_model(StoragePath.of(tmp_path))


def test_text_is_unpacked_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "TEXT_ALLOWANCE", 1 << 20)
    packed = gzip.compress(b"slide,path,patient\n" + bytes(1 << 20))
    (tmp_path / "a.csv.gz").write_bytes(packed * 10)
    with bounded(), pytest.raises(RaystpError, match="holds over 3 MiB of text: a damaged or hostile file"):
        _slides(tmp_path / "a.csv.gz")


def test_ome_xml_of_a_million_elements_is_read_up_to_a_bound() -> None:
    pixels = '<Pixels SizeX="9" SizeY="9" SizeC="1000000" SizeZ="1000000">{}</Pixels>'
    planes = '<TiffData IFD="0" PlaneCount="1000000"/>' * 5_000
    with bounded():
        (one,) = read_ome(f"<OME><Image>{pixels.format(planes)}</Image></OME>")
        assert len(one.directories) == MAX_PLANES
        image = f"<Image>{pixels.format('')}</Image>"
        many = read_ome(f"<OME>{image * 5_000}</OME>")
    assert len(many) == MAX_IMAGES


def _strings(path: Path, rows: int, length: int, **options: object) -> None:
    """Write a dataset whose rows all refer to one string."""
    with h5py.File(path, "w") as file:
        stored = file.create_dataset("s", (rows,), h5py.string_dtype(), chunks=(rows,), **options)
        stored[0] = "x" * length
    with h5py.File(path, "r+") as file:
        _, chunk = file["s"].id.read_direct_chunk((0,))
        reference = (zlib.decompress(chunk) if options else chunk)[:16]
        file["s"].id.write_direct_chunk((0,), zlib.compress(reference * rows) if options else reference * rows)


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}])
def test_strings_that_rows_share_count_as_often_as_they_are_read(tmp_path: Path, options: dict[str, object]) -> None:
    _strings(tmp_path / "a.h5", 200_000, 60_000, **options)
    with bounded(), pytest.raises(SectionError, match=r"a.h5 declares 1200\d+ bytes of data in a file of \d+ bytes"):
        check_hdf5(tmp_path / "a.h5", "a.h5", SectionError)


@pytest.mark.parametrize("options", [{}, {"chunks": (1000,)}, {"chunks": (1000,), "compression": "gzip"}])
def test_a_long_fill_value_counts_for_each_cell_that_was_never_written(
    tmp_path: Path, options: dict[str, object]
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("s", (200_000,), h5py.string_dtype(), fillvalue="x" * 60_000, **options)
    with bounded(), pytest.raises(SectionError, match=r"a.h5 declares 1200\d+ bytes of data in a file of \d+ bytes"):
        check_hdf5(tmp_path / "a.h5", "a.h5", SectionError)


def test_an_attribute_of_many_strings_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        file.create_group("obs").attrs.create("column-order", ["x" * 300] * 5000, dtype=h5py.string_dtype())
    with pytest.raises(
        SectionError, match=r"a.h5 has 5000 strings in the attribute 'column-order' of '/obs', at most 4096"
    ):
        check_hdf5(tmp_path / "a.h5", "a.h5", SectionError)


def test_strings_in_very_small_chunks_are_added_up_in_time(tmp_path: Path) -> None:
    rows = 20_000
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("s", (rows,), h5py.string_dtype(), chunks=(1,))[:] = ["x" * 300] * rows
    with bounded():
        check_hdf5(tmp_path / "a.h5", "a.h5", SectionError)
        with h5py.File(tmp_path / "a.h5") as file:
            assert text_bytes(tmp_path / "a.h5", file["s"], 300 * rows) == 300 * rows


def test_the_bytes_of_strings_are_those_that_are_read(tmp_path: Path) -> None:
    texts = np.array([f"cell {'x' * (number % 7)}" for number in range(1000)], object)
    kinds: dict[str, dict[str, object]] = {
        "contiguous": {},
        "chunked": {"chunks": (100,)},
        "gzip": {"chunks": (300,), "compression": "gzip", "shuffle": True},
        "lzf": {"chunks": (100,), "compression": "lzf"},
    }
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, options in kinds.items():
            file.create_dataset(name, data=texts, dtype=h5py.string_dtype(), **options)
        file.create_dataset("square", data=texts.reshape(20, 50), dtype=h5py.string_dtype(), chunks=(3, 7))
        record = np.zeros(1000, np.dtype([("n", "i4"), ("text", h5py.string_dtype())]))
        record["text"] = texts
        file["record"] = record
        for name in ("filled", "partly"):
            stored = file.create_dataset(name, (1000,), h5py.string_dtype(), chunks=(100,), fillvalue=texts[0])
            texts_of_few = 300 if name == "partly" else 0
            stored[:texts_of_few] = "x" * len(texts[0])
        file["empty"] = np.zeros(0, h5py.string_dtype())
    expected = sum(map(len, texts))
    with h5py.File(tmp_path / "a.h5") as file:
        found = {name: text_bytes(tmp_path / "a.h5", file[name], 10_000) for name in file}
    assert found.pop("empty") == 0
    assert found.pop("filled") == found.pop("partly") == 1000 * len(texts[0])
    assert set(found.values()) == {expected}


def test_an_image_in_a_request_that_claims_any_size_is_refused() -> None:
    for content in (claims.png(), claims.jpeg()):
        with bounded(), pytest.raises((RaystpError, SlideError)):
            decode_images([b64encode(content).decode()], TilePixels(224))
