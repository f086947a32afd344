"""Mutated files of users: each reader gives a whole result or a RaystpError, never a traceback or an empty result."""

import gzip
import io
import json
import logging
from collections.abc import Callable, Sized
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import Field

from raystp.config import RunConfig, StepConfig
from raystp.encoders.text.table import read_table_text
from raystp.errors import RaystpError
from raystp.expression.bulk.labels import read_bulk
from raystp.expression.bulk.slides import read_slide_cases
from raystp.expression.genes.panel import read_panel
from raystp.expression.genes.text import read_descriptions, read_gene_names, read_gmt
from raystp.slides.table import read_slide_table
from raystp.storage import StoragePath

Read = Callable[[Path], Sized]


class FuzzConfig(StepConfig[RunConfig]):
    names: list[str] = Field(default_factory=list)
    each: dict[str, list[float]] = Field(default_factory=dict)
    run: RunConfig = Field(default_factory=RunConfig)


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, genes=np.array(["A", "B", "C"]), vectors=np.ones((3, 4), np.float32))
    return file.getvalue()


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(["ACTB", "GAPDH", "HLA-A"]))
    return file.getvalue()


def _parquet() -> bytes:
    file = pa.BufferOutputStream()
    pq.write_table(pa.table({"gene": ["A", "B"], "vector": [[1.0, 2.0], [3.0, 4.0]]}), file)
    return bytes(file.getvalue())


SLIDES = 'slide,path,patient,mpp,layout,counts,x_age\nS1,a.tif,P1,0.5,space_ranger,c,1\nS2,"b,b.tif",P 2,,,,2\n,,,,,,\n'
FILES: dict[str, tuple[bytes, Read]] = {
    "slides.csv": (SLIDES.encode(), lambda file: read_slide_table(str(file), None, "store")),
    "slides.tsv": (
        SLIDES.replace(",", "\t").encode("utf-16"),
        lambda file: read_slide_table(str(file), None, "store"),
    ),
    "panel.txt": (b"# genes\nACTB\nGAPDH # both\n\nHLA-A,\n", lambda file: read_panel(StoragePath.of(file))),
    "panel.json": (
        json.dumps({"genes": ["ACTB", "HLA-A"]}).encode(),
        lambda file: read_panel(StoragePath.of(file)),
    ),
    "panel.npy": (_npy(), lambda file: read_panel(StoragePath.of(file))),
    "sets.gmt": (b"one (GO:1)\t\tA\tB,1.0\ntwo\tx\tC\n", lambda file: read_gmt(StoragePath.of(file))),
    "names.tsv": (b"symbol\tdescription\nA\talpha\nB\tNA\n", lambda file: read_gene_names(StoragePath.of(file))),
    "texts.txt": (b"A####binds DNA\nB\tbinds RNA\n", lambda file: read_descriptions(StoragePath.of(file))),
    "bulk.csv": (
        b"case,A,B\nP1,0.5,1\n007,2,3e1\n,,\n",
        lambda file: read_bulk(StoragePath.of(file)).values,
    ),
    "bulk.tsv.gz": (
        gzip.compress(b"case\tA\tB\nP1\t0,5\t1\n007\t2\t3\n"),
        lambda file: read_bulk(StoragePath.of(file)).values,
    ),
    "cases.csv": (b"slide;case;x\ns1;P1;\ns2;P1;y\n", lambda file: read_slide_cases(StoragePath.of(file))),
    "vectors.npz": (_npz(), lambda file: read_table_text(StoragePath.of(file)).row_of),
    "vectors.parquet": (_parquet(), lambda file: read_table_text(StoragePath.of(file)).row_of),
    "config.yaml": (
        b"name: 007\nnames: [1e5, NO, &a x, *a]\neach: {P1: [0.5, 2]}\nrun:\n  store: a #b\n",
        lambda file: [FuzzConfig.load(file)],
    ),
}
TOKENS = [
    *(
        b",",
        b";",
        b"\t",
        b'"',
        b'""',
        b"'",
        b"\n",
        b"\r\n",
        b"\r",
        b"\0",
        b"#",
        b"\\",
        b":",
        b"&a",
        b"*a",
        b"<<: *a",
        b"!!",
    ),
    *(
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xe4",
        b"\xc2\xa0",
        b"\xe2\x80\x8b",
        b"\xed\xa0\x80",
        "\u2028".encode(),
        b"\x1f\x8b",
        b"PK\x03\x04",
    ),
    *(
        b"nan",
        b"inf",
        b"1e999",
        b"-1",
        b"1_0",
        b"0x1",
        b"2024-13-01",
        b"1:99",
        b"null",
        b"True",
        b"[" * 300,
        b"{",
        b"}",
        b"9" * 400,
    ),
    *(b"x" * 140_000, b"=1+1", b"slide", b"case", b"path", b"....", b"../..", b"%s{0}", b"1,234", b"0,5"),
]


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the content after one to four changes: bytes, pieces, lines, tokens, or its encoding."""
    for _ in range(rng.integers(1, 5)):
        at, to = sorted(rng.integers(0, len(content) + 1, 2).tolist())
        kind = int(rng.integers(0, 8))
        lines = content.split(b"\n")
        if kind == 0 and content:
            content = content[:at] + bytes([rng.integers(0, 256)]) + content[at + 1 :]
        elif kind == 1:
            content = content[:at] + content[to:]
        elif kind == 2:
            content = content[:to] + content[at:]
        elif kind in {3, 4}:
            content = content[:at] + TOKENS[int(rng.integers(0, len(TOKENS)))] + content[at:]
        elif kind == 5:
            content = b"\n".join(lines[i] for i in rng.permutation(len(lines)).tolist())
        elif kind == 6:
            cells = [line.split(b",") for line in lines]
            content = b"\n".join(b",".join(row[: max(1, len(row) - 1)]) for row in cells)
        else:
            encoding = ("utf-16", "utf-16-le", "latin-1", "cp1252", "utf-8-sig")[int(rng.integers(0, 5))]
            content = content.decode("utf-8", "replace").encode(encoding, "replace")
    return content


def _outcome(read: Read, file: Path) -> str:
    """Return the message of a RaystpError, or an empty text for a result that is not empty."""
    try:
        found = read(file)
    except RaystpError as error:
        return str(error) or "no message"
    except Exception as error:
        msg = f"{file.name}: {file.read_bytes()[:2000]!r}"
        raise AssertionError(msg) from error
    return "" if len(found) else f"an empty result of {file.read_bytes()!r}" * 4000


def _check(folder: Path, name: str, rng: np.random.Generator, times: int) -> None:
    valid, read = FILES[name]
    file, refused = folder / name, 0
    file.write_bytes(valid)
    assert len(read(file)) > 0
    for number in range(times):
        content = mutated(valid, rng)
        file.write_bytes(content)
        message = _outcome(read, file)
        refused += bool(message)
        assert len(message) < 4000, (number, content[:2000], message[:500])
    assert 0 < refused <= times


@pytest.mark.parametrize("name", FILES)
def test_a_mutated_file_is_read_or_refused(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "raystp")
    _check(tmp_path, name, np.random.default_rng(13), 40)


@pytest.mark.faults
@pytest.mark.parametrize("name", FILES)
def test_thousands_of_mutated_files_are_read_or_refused(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "raystp")
    _check(tmp_path, name, np.random.default_rng(131), 500)
