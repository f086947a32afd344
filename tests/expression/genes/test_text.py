"""Texts of genes: by symbol from tables and sets; genes without a text are reported."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from raystp.errors import SectionError
from raystp.expression.genes.text import gene_texts, read_descriptions, read_gene_names, read_gmt
from raystp.storage import StoragePath
from tests.conftest import SHARED

GENES = SHARED / "data" / "genes"


def _file(folder: Path, name: str, content: str | bytes) -> StoragePath:
    content = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(content)
    return StoragePath.of(folder / name)


def test_names_are_read_by_symbol_and_the_first_row_with_a_name_counts(tmp_path: Path) -> None:
    rows = (
        "ensgene\tsymbol\tdescription\nE1\tA\talpha\nE2\tA\tother\nE3\t\tno symbol\nE4\tB\tNA\nE5\tB\tbeta\nE6\tC\t\n"
    )
    expected = {"A": "alpha", "B": "beta"}
    assert read_gene_names(_file(tmp_path, "t.tsv", rows)) == expected
    assert read_gene_names(_file(tmp_path, "t.tsv.gz", gzip.compress(rows.encode()))) == expected
    assert read_gene_names(_file(tmp_path, "t.csv", "symbol,description\nA,alpha\nB,beta\n")) == expected


def test_texts_of_excel_read_like_those_of_an_editor(tmp_path: Path) -> None:
    table = "symbol;description\r\nA;alpha, or a\r\n;;\r\n".encode("utf-16")
    assert read_gene_names(_file(tmp_path, "t.tsv", table)) == {"A": "alpha, or a"}
    assert read_gmt(_file(tmp_path, "s.gmt", "\ufeff# remark\r\nset\t\tA\u00a0\tB\r\n")) == {"set": ["A", "B"]}
    assert read_descriptions(_file(tmp_path, "d.txt", "\ufeffA\tone\rB\ttwo\r")) == {"A": "one", "B": "two"}


def test_gene_sets_lose_their_accession_and_keep_their_genes(tmp_path: Path) -> None:
    content = "folding (GO:0051084)\t\tA\tB,1.0\n\ntransport (of T-cells)\tremark\tB\t\n"
    assert read_gmt(_file(tmp_path, "s.gmt", content)) == {"folding": ["A", "B"], "transport (of T-cells)": ["B"]}


def test_descriptions_are_read_in_both_formats(tmp_path: Path) -> None:
    content = "A####binds DNA\nB\tbinds RNA ## and more\n\n"
    assert read_descriptions(_file(tmp_path, "d.txt", content)) == {"A": "binds DNA", "B": "binds RNA ## and more"}


def test_a_text_is_the_name_then_the_smallest_sets_in_any_order_of_genes() -> None:
    sets = {"large": ["A", "B", "C"], "small": ["A"], "mid": ["A", "B"], "also mid": ["A", "C"]}
    texts = gene_texts(["B", "A"], {"A": "alpha"}, sets)
    assert list(texts.items()) == [("B", "mid, large"), ("A", "alpha. small, also mid, mid, large")]
    assert gene_texts(["A"], {"A": "alpha"}, sets, max_sets=1) == {"A": "alpha. small"}
    assert gene_texts(["A"], {"A": "alpha"}) == {"A": "alpha"}


def test_genes_without_a_text_are_refused_dropped_or_get_their_symbol() -> None:
    genes = ["A", *(f"X{number}" for number in range(7))]
    with pytest.raises(SectionError, match="7 of 8 genes have no text: 'X0', 'X1', 'X2', 'X3', 'X4' and 2 more"):
        gene_texts(genes, {"A": "alpha"})
    assert gene_texts(genes, {"A": "alpha"}, absent="drop") == {"A": "alpha"}
    assert gene_texts(genes[:2], {"A": "alpha"}, absent="symbol") == {"A": "alpha", "X0": "X0"}


def test_malformed_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SectionError, match="no columns 'symbol' and 'description'; it has 'gene', 'name'"):
        read_gene_names(_file(tmp_path, "t.tsv", "gene\tname\nA\talpha\n"))
    with pytest.raises(SectionError, match="cannot be read as text"):
        read_gene_names(_file(tmp_path, "t.tsv.gz", gzip.compress(b"symbol\tdescription\n" * 99)[:-9]))
    with pytest.raises(SectionError, match="cannot be read as text"):
        read_gmt(_file(tmp_path, "s.gmt", b"\xff\xfe."))
    for content in ("\n# remark\n", "set\tremark\t\n"):
        with pytest.raises(SectionError, match="has no gene set"):
            read_gmt(_file(tmp_path, "s.gmt", content))
    with pytest.raises(SectionError, match="has no row with both 'symbol' and 'description'; it has 1 rows"):
        read_gene_names(_file(tmp_path, "t.tsv", "symbol\tdescription\nA\tNA\n"))
    with pytest.raises(SectionError, match="has no text"):
        read_descriptions(_file(tmp_path, "d.txt", "\n"))
    with pytest.raises(SectionError, match="line 2: a GMT line has"):
        read_gmt(_file(tmp_path, "s.gmt", "a\t\tA\nb A\n"))
    with pytest.raises(SectionError, match="line 1: a line is SYMBOL####text"):
        read_descriptions(_file(tmp_path, "d.txt", "A binds\n"))
    with pytest.raises(SectionError, match="gene 'A' has a text already"):
        read_descriptions(_file(tmp_path, "d.txt", "A####one\nA####two\n"))


@pytest.mark.skipif(not GENES.is_dir(), reason="shared/data/genes is not here")
def test_most_genes_of_a_real_panel_have_a_name_and_processes() -> None:
    names = read_gene_names(StoragePath.of(GENES / "grch38.tsv.gz"))
    sets = read_gmt(StoragePath.of(GENES / "enrichr.GO_Biological_Process_2021.gmt"))
    panel = [str(gene) for gene in np.load(GENES / "her_hvg_cut_1000.npy").tolist()]
    texts = gene_texts(panel, names, sets, absent="drop")
    assert len(panel) == 785
    assert len(texts) == 754
    assert gene_texts(["ERBB2"], names, sets)["ERBB2"].startswith("erb-b2 receptor tyrosine kinase 2. ")
    assert "GO:" not in " ".join(texts.values())
    assert sum(", " in text for text in texts.values()) > 600
