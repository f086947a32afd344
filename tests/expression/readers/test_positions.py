"""A table of tissue positions, as Space Ranger, Excel, pandas and R write it: the same places, or a sentence."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from raystp.errors import SectionError
from raystp.expression.readers.registry import read
from tests.expression.toy_layouts import positions_table, toy, write

Write = Callable[[pd.DataFrame, Path], object]


def _csv(name: str = "tissue_positions.csv", **options: object) -> Write:
    def write_table(table: pd.DataFrame, folder: Path) -> None:
        (folder / name).write_text(table.to_csv(**{"index": False, **options}), encoding="utf-8")  # type: ignore[call-overload]

    return write_table


def _bytes(encoding: str, end: str = "\n") -> Write:
    def write_table(table: pd.DataFrame, folder: Path) -> None:
        text = table.to_csv(index=False, lineterminator=end)
        (folder / "tissue_positions.csv").write_bytes(text.encode(encoding))

    return write_table


def _r(table: pd.DataFrame, folder: Path) -> None:
    """Write as R's write.table: quotes, row names, and a header without a name for them."""
    lines = [" ".join(f'"{name}"' for name in table.columns).replace(" ", "\t")]
    for number, row in enumerate(table.itertuples(index=False), 1):
        lines.append("\t".join([f'"{number}"', f'"{row[0]}"', *map(str, row[1:])]))
    (folder / "tissue_positions.csv").write_text("\n".join(lines) + "\n")


def _seurat(table: pd.DataFrame, folder: Path) -> None:
    names = ["tissue", "row", "col", "imagerow", "imagecol"]
    table.set_index("barcode").set_axis(names, axis="columns").to_csv(folder / "tissue_positions.csv")


FORMS: dict[str, Write] = {
    "version 2": _csv(),
    "version 1": _csv("tissue_positions_list.csv", header=False),
    "semicolons": _csv(sep=";"),
    "semicolons and decimal commas": _csv(sep=";", decimal=","),
    "tabs": _csv(sep="\t"),
    "row names of pandas": _csv(index=True),
    "row names of R": _r,
    "no header, row numbers": _csv(index=True, header=False),
    "Seurat": _seurat,
    "V1 to V6": lambda table, folder: _csv()(table.set_axis([f"V{n}" for n in range(1, 7)], axis="columns"), folder),
    "barcodes as row names": lambda table, folder: _csv(index=True)(
        table.set_index("barcode").rename_axis(None), folder
    ),
    "BOM": _bytes("utf-8-sig"),
    "CRLF": _bytes("utf-8", "\r\n"),
    "UTF-16": _bytes("utf-16"),
    "parquet": lambda table, folder: table.to_parquet(folder / "tissue_positions.parquet", index=False),
    "parquet with an index": lambda table, folder: table.set_index("barcode").to_parquet(
        folder / "tissue_positions.parquet"
    ),
    "other order, more columns": lambda table, folder: _csv()(table[table.columns[::-1]].assign(note="a"), folder),
    "empty rows": lambda table, folder: (folder / "tissue_positions.csv").write_text(
        table.to_csv(index=False) + ",,,,,\n\n"
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_table_gives_the_same_places(tmp_path: Path, form: str) -> None:
    section = toy("space_ranger")
    source = write(section, "space_ranger", tmp_path)
    (tmp_path / "spatial" / "tissue_positions.csv").unlink()
    FORMS[form](positions_table(section), tmp_path / "spatial")
    found, _ = read(source)
    assert found.obs_names.tolist() == section.spots
    assert found.obsm["spatial"].tolist() == pytest.approx(section.xy)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a table of tissue positions .*: it is empty"),
        ("barcode,in_tissue,array_row,array_col,pxl_row_in_fullres\n", "it has no rows"),
        ("barcode,in_tissue,array_row,array_col,y,x\nA-1,1,0,0,5,6\n", "no column 'pxl_row_in_fullres', 'pxl_col_in_f"),
        ("A-1,1,0\n", "no header and 3 columns, not 6"),
        ("A-1,1,0,0,5,6\nB-1,1\n", "1 rows do not have its 6 columns .'B-1', '1'."),
        ("A-1,1,0,0,five,6\n", "values that are not numbers: pxl_row_in_fullres is 'five'"),
        ("PK\x03\x04", "it is an Excel workbook"),
    ],
)
def test_another_table_is_named_with_its_fault(tmp_path: Path, text: str, message: str) -> None:
    source = write(toy("space_ranger"), "space_ranger", tmp_path)
    (tmp_path / "spatial" / "tissue_positions.csv").write_text(text)
    with pytest.raises(SectionError, match=f"tissue_positions.csv .*{message}"):
        read(source)


@pytest.mark.parametrize("name", ["spatial.tar.gz", "spatial.zip", "tissue_positions.tgz"])
def test_an_archive_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    source = write(toy("space_ranger"), "space_ranger", tmp_path)
    (tmp_path / name).write_bytes(b"\x1f\x8b")
    with pytest.raises(SectionError, match=f"{name} is packed: unpack it"):
        read(type(source)("S1", "S1", "P1", "space_ranger", source.counts, source.counts / name))
