"""Small files that claim, or unpack to, 10^9 of something: parquet, Excel workbooks, npy, npz, PNG and JPEG."""

import io
import itertools
import struct
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def repeated(names: tuple[str, ...], rows: int = 200_000, length: int = 100_000) -> bytes:
    """A parquet file of some 100 kB whose rows all have the same long text: 20 GB per column."""
    one = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * length]))
    sink = io.BytesIO()
    pq.write_table(pa.table(dict.fromkeys(names, one)), sink, store_schema=False)
    assert len(sink.getvalue()) < 1 << 20
    return sink.getvalue()


def repeated_beside(names: tuple[str, ...], numbers: tuple[str, ...]) -> bytes:
    """The same with columns of zeros beside the texts."""
    texts = pq.read_table(io.BytesIO(repeated(names)), read_dictionary=list(names))
    sink = io.BytesIO()
    zeros = dict.fromkeys(numbers, pa.array(np.zeros(texts.num_rows, np.int64)))
    pq.write_table(pa.table({**dict(zip(names, texts.columns, strict=True)), **zeros}), sink, store_schema=False)
    return sink.getvalue()


def long_list(rows: int) -> bytes:
    """A table of genes whose vectors have 10^8 values in all."""
    ends = np.linspace(0, 10**8, rows + 1).astype(np.int32)
    vectors = pa.ListArray.from_arrays(pa.array(ends), pa.array(np.zeros(10**8, np.int8)))
    sink = io.BytesIO()
    pq.write_table(pa.table({"gene": [f"G{row}" for row in range(rows)], "vector": vectors}), sink)
    return sink.getvalue()


def texts_in(kind: pa.DataType) -> bytes:
    """A table of one column of this type with 20 GB of text, of which a file has 100 kB."""
    one = pa.array([["x" * 100_000]], pa.list_(pa.string())) if pa.types.is_list(kind) else pa.array([b"x" * 100_000])
    column = pa.chunked_array([one.cast(kind)] * 20_000)
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, pa.schema({"a": kind})) as writer:
        for start in range(0, len(column), 2000):
            writer.write_table(pa.table({"a": column[start : start + 2000]}))
    return sink.getvalue()


def many_rows(names: tuple[str, ...]) -> bytes:
    """A parquet file of 10^9 rows by its footer."""
    sink = io.BytesIO()
    pq.write_table(pa.table({name: pa.nulls(1000, pa.float64()) for name in names}), sink, compression="none")
    content = sink.getvalue()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    footer = content[start:-8].replace(_varint(1000), _varint(10**9))
    return content[:start] + footer + struct.pack("<I", len(footer)) + b"PAR1"


def _varint(number: int) -> bytes:
    """A number of Thrift's compact protocol: zigzag, 7 bits a byte."""
    number, found = 2 * number, bytearray()
    while number >= 128:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def workbook(cells: str, start: str = "") -> bytes:
    """A workbook of one sheet with these rows."""
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    types = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{package}/content-types"><Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/xl/workbook.xml" ContentType="{types}.sheet.main+xml"/>'
            f'<Override PartName="/xl/s.xml" ContentType="{types}.worksheet+xml"/></Types>',
        )
        relation = f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" Type="{office}/'
        archive.writestr("_rels/.rels", f'{relation}officeDocument" Target="xl/workbook.xml"/></Relationships>')
        archive.writestr("xl/_rels/workbook.xml.rels", f'{relation}worksheet" Target="s.xml"/></Relationships>')
        sheet = '<sheets><sheet name="a" sheetId="1" r:id="r1"/></sheets>'
        archive.writestr("xl/workbook.xml", f'<workbook {main} xmlns:r="{office}">{sheet}</workbook>')
        archive.writestr("xl/s.xml", f"{start}<worksheet {main}>{cells}</worksheet>")
    return sink.getvalue()


def far_cell() -> bytes:
    corner = '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
    return workbook(f'<dimension ref="A1:XFD1048576"/><sheetData>{corner}</sheetData>')


def entities() -> bytes:
    """Entities of entities: 3 x 10^9 letters."""
    names = "abcdefghi"
    made = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in itertools.pairwise(names))
    cell = '<sheetData><row r="1"><c r="A1" t="str"><v>&i;</v></c></row></sheetData>'
    return workbook(cell, f'<!DOCTYPE x [<!ENTITY a "lol">{made}]>')


def npy(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    sink = io.BytesIO()
    np.lib.format.write_array_header_1_0(sink, {"descr": kind, "fortran_order": False, "shape": shape})
    return sink.getvalue() + bytes(64)


def npz() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("genes.npy", npy((10**9,), "<U1000"))
        archive.writestr("vectors.npy", npy((10**9, 1000)))
    return sink.getvalue()


def png() -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + bytes(64)


def jpeg() -> bytes:
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, 65_535, 65_535, 3) + b"\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    return b"\xff\xd8" + frame + b"\xff\xda" + struct.pack(">HB", 12, 3) + b"\x01\x00\x02\x00\x03\x00\x00\x3f\x00"
