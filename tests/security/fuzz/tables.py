"""Targets: slide tables, lists and other tables of users; positions and counts of spots."""

import csv
import importlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raystp.expression.readers.legacy_st import parse_legacy_st
from raystp.expression.readers.source import SectionSource
from raystp.expression.readers.stimage.reader import parse_stimage
from raystp.expression.readers.tissue_positions import read_tissue_positions
from raystp.slides.table import read_slide_table
from raystp.storage import StoragePath
from tests.expression.readers.mutations import mutate_text
from tests.expression.toy_layouts import positions_table, toy, write
from tests.interop.sections.foreign import stimage_folder
from tests.security.fuzz.changes import change_bytes, change_json, change_zip
from tests.security.fuzz.target import Change, Execute, Prepare, Target, known, of_file, of_folder
from tests.slides.inputs.test_qupath import image
from tests.test_text_fuzz import FILES, SLIDES, mutated

SLIDE_TABLES = ("slides.csv", "slides.tsv")


def _slides(file: Path) -> object:
    return read_slide_table(str(file), None, "store")


def _rows() -> list[list[str]]:
    return list(csv.reader(io.StringIO(SLIDES)))


def _parquet() -> list[bytes]:
    header, *rows = _rows()
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({name: [row[n] for row in rows] for n, name in enumerate(header)}), sink)
    return [bytes(sink.getvalue())]


def _workbook() -> list[bytes]:
    book, sink = importlib.import_module("openpyxl").Workbook(), io.BytesIO()
    for row in _rows():
        book.active.append(row)
    book.save(sink)
    return [sink.getvalue()]


def _project() -> list[bytes]:
    images = [image("file:///slides/a.svs", "a.svs"), image("s3://b/c.svs", "c.svs", rotated={"rotation": "R90"})]
    return [json.dumps({"version": "0.5.1", "uri": "file:///old/project.qpproj", "images": images}).encode()]


def _positions() -> list[bytes]:
    table = positions_table(toy("space_ranger")).head(12)
    texts = [table.to_csv(index=False), table.to_csv(index=False, header=False), table.to_csv(sep="\t")]
    return [text.encode() for text in texts]


def _stored_places() -> list[bytes]:
    sink = io.BytesIO()
    positions_table(toy("space_ranger")).head(12).to_parquet(sink)
    return [sink.getvalue()]


def _either(first: Change, second: Change) -> Change:
    return lambda content, rng: (first, second)[int(rng.integers(2))](content, rng)


def _legacy(name: str) -> Prepare:
    def prepare(folder: Path) -> Execute:
        source = write(toy("legacy_st"), "legacy_st", folder)
        content = (folder / name).read_bytes()

        def execute(rng: np.random.Generator) -> object:
            (folder / name).write_bytes(_either(mutated, mutate_text)(content, rng))
            return parse_legacy_st(source, {})

        return execute

    return prepare


def _stimage(folder: Path) -> object:
    counts = StoragePath.of(folder / "ST" / "gene_exp" / "GSE2_a_count.csv")
    return parse_stimage(SectionSource("GSE2_a", "P", "GSE2_a", "stimage", counts, None), {})


def _change_table(file: Path, content: bytes, rng: np.random.Generator) -> None:
    file.write_bytes(_either(mutated, mutate_text)(content, rng))


def _places(file: Path) -> object:
    return read_tissue_positions(StoragePath.of(file), "x")


TEXT = _either(mutated, mutate_text)
TARGETS = (
    *(
        Target(name, "slide tables", of_file(name, known(FILES[name][0]), _either(mutated, change_bytes), _slides), 20)
        for name in SLIDE_TABLES
    ),
    Target("slides.parquet", "slide tables", of_file("slides.parquet", _parquet, change_bytes, _slides), 3),
    Target("slides.xlsx", "slide tables", of_file("slides.xlsx", _workbook, change_zip, _slides)),
    Target("project.qpproj", "slide tables", of_file("project.qpproj", _project, change_json, _slides), 8),
    *(
        Target(name, "lists and tables", of_file(name, known(content), mutated, read), 2)
        for name, (content, read) in FILES.items()
        if name not in SLIDE_TABLES
    ),
    Target("tissue_positions.csv", "position files", of_file("positions.csv", _positions, TEXT, _places), 16),
    Target(
        "tissue_positions.parquet", "position files", of_file("a.parquet", _stored_places, change_bytes, _places), 3
    ),
    Target("selection.tsv", "position files", _legacy("selection.tsv"), 4),
    Target("counts.tsv", "position files", _legacy("counts.tsv"), 2),
    Target("STimage coord and counts", "position files", of_folder(stimage_folder, _change_table, _stimage), 3),
)
