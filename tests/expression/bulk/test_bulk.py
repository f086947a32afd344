"""Labels of cases: the same table from every kind of file, a pool of spots, and every fault in a sentence."""

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from raystp.errors import PanelError, SectionError
from raystp.expression.bulk.labels import BulkLabels, pseudo_bulk, read_bulk, variable_genes
from raystp.expression.bulk.slides import read_slide_cases, slides_of_cases, tcga_case
from raystp.storage import StoragePath

CASES, GENES = ["007", "P2", "P3"], ["ERBB2", "FASN", "MUC1"]
VALUES = np.array([[1.0, 0.0, 3.5], [2.0, 5.0, 0.25], [0.0, 1.0, 7.0]])


def _write(folder: Path, kind: str) -> StoragePath:
    path = folder / f"bulk.{kind}"
    frame = pd.DataFrame(VALUES, columns=GENES)
    frame.insert(1, "case", CASES)  # not the first column: it is found by its name
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind == "h5ad":
        names = {"obs": pd.DataFrame(index=CASES), "var": pd.DataFrame(index=GENES)}
        ad.AnnData(sp.csr_matrix(VALUES), **names).write_h5ad(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if "tsv" in kind else ",")
    return StoragePath.of(path)


def _csv(folder: Path, text: str) -> StoragePath:
    (folder / "bulk.csv").write_text(text)
    return StoragePath.of(folder / "bulk.csv")


@pytest.mark.parametrize("kind", ["csv", "tsv", "csv.gz", "parquet", "h5ad"])
def test_a_table_reads_the_same_from_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    labels = read_bulk(_write(tmp_path, kind))
    assert (labels.cases, labels.genes) == (CASES, GENES)
    np.testing.assert_array_equal(labels.values, VALUES.astype(np.float32))


def test_labels_come_in_the_order_that_is_asked_for() -> None:
    labels = BulkLabels(CASES, GENES, VALUES.astype(np.float32))
    np.testing.assert_array_equal(labels.of(["P3", "007", "P3"], ["MUC1", "ERBB2"]), [[7, 0], [3.5, 1], [7, 0]])
    with pytest.raises(SectionError, match=r"1 cases have no label \('P9'\)"):
        labels.of(["P2", "P9"])
    with pytest.raises(PanelError, match=r"1 of 1 genes of the panel are not in the table of cases.*'FASN' for 'FASM'"):
        labels.of(["P2"], ["FASM"])


def test_counts_become_what_a_spot_of_the_same_counts_is(tmp_path: Path) -> None:
    labels = read_bulk(_csv(tmp_path, "case,a,b\nP1,1,3\nP2,10,0\n"), scale="counts")
    np.testing.assert_allclose(labels.values, np.log1p([[2500, 7500], [10000, 0]]), rtol=1e-6)


def test_only_the_cases_that_are_asked_for_are_kept_and_checked(tmp_path: Path) -> None:
    place = _csv(tmp_path, "case,a\nP1,\nP2,4\nP3,5\n")
    assert read_bulk(place, cases={"P3", "P2"}).cases == ["P2", "P3"]
    with pytest.raises(SectionError, match=r"absent or not finite for scale='expression': P1/a = nan"):
        read_bulk(place)


def test_scores_may_be_negative_where_it_is_said(tmp_path: Path) -> None:
    place = _csv(tmp_path, "case,a\nP1,-1.5\nP2,4\n")
    assert read_bulk(place, scale="signed").values.tolist() == [[-1.5], [4.0]]
    with pytest.raises(SectionError, match=r"1 negative values .*P1/a = -1.5; z-scores are scale='signed'"):
        read_bulk(place)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("case,a\nP1,1\nP1,2\n", r"names 1 cases more than once \('P1'\)"),
        ("case,a,a\nP1,1,2\n", r"names 1 genes more than once \('a'\)"),
        ("case,a\nP1,high\n", "1 values of 'a' that are no numbers: 'high'"),
        ("case,a\n,1\n", "1 rows whose 'case' is empty"),
        ("patient,a\nP1,1\n", "has 0 columns 'case', .* its columns are 'patient', 'a'"),
        ("case,a\nP1,1,2\n", "cannot be read as a table|header names 2 columns"),
        ("case,a\nP1,1\nP2,1,2,3\n", "cannot be read as a table"),
        ("case\nP1\n", "1 cases and 0 genes"),
        ("case,a\n", "cannot be read as a table"),
        ("", "cannot be read as a table"),
        ("case,a\nP1,inf\n", "absent or not finite"),
    ],
)
def test_a_fault_of_the_table_is_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(SectionError, match=sentence):
        read_bulk(_csv(tmp_path, text))


def test_faults_of_counts_of_cases_and_of_files_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(SectionError, match="1 cases without a count"):
        read_bulk(_csv(tmp_path, "case,a\nP1,0\nP2,3\n"), scale="counts")
    with pytest.raises(SectionError, match="counts that are not whole numbers"):
        read_bulk(_csv(tmp_path, "case,a\nP1,0.5\n"), scale="counts")
    with pytest.raises(SectionError, match=r"no label for 1 of 2 cases: 'P9'; it has 'P1'"):
        read_bulk(_csv(tmp_path, "case,a\nP1,1\n"), cases=["P1", "P9"])
    with pytest.raises(SectionError, match="turn the table, a row is a case"):
        read_bulk(_csv(tmp_path, "case,P8,P9\nERBB2,1,2\n"), cases=["P9"])
    with pytest.raises(SectionError, match="no table of cases that is known"):
        read_bulk(StoragePath.of(tmp_path / "bulk.xlsx"))
    (tmp_path / "bulk.parquet").write_bytes(b"no parquet")
    with pytest.raises(SectionError, match="cannot be read as a table"):
        read_bulk(StoragePath.of(tmp_path / "bulk.parquet"))


def test_pseudo_bulk_is_the_pool_of_all_spots_of_a_case_however_they_are_cut(make: Callable[..., ad.AnnData]) -> None:
    counts = np.random.default_rng(0).integers(1, 9, size=(8, 4))
    whole = pseudo_bulk({"P1": [make(counts)]}, ["g3", "g0"])
    parts = pseudo_bulk({"P1": [make(counts[:3]), make(counts[3:])]}, ["g3", "g0"])
    wanted = np.log1p(1e4 * counts.sum(axis=0) / counts.sum())[[3, 0]]
    np.testing.assert_allclose(whole.values, wanted[None], rtol=1e-6)
    np.testing.assert_array_equal(parts.values, whole.values)


def test_pseudo_bulk_knows_genes_by_name_and_what_a_case_lacks_is_zero(make: Callable[..., ad.AnnData]) -> None:
    sections = {"P1": [make([[1, 3]], ["a", "b"])], "P2": [make([[6, 4]], ["c", "a"])]}
    labels = pseudo_bulk(sections, ["a", "c"])
    np.testing.assert_allclose(labels.values, np.log1p([[2500, 0], [4000, 6000]]), rtol=1e-6)
    with pytest.raises(PanelError, match="1 of 1 genes"):
        pseudo_bulk(sections, ["z"])
    with pytest.raises(SectionError, match="there are none for 'P3'"):
        pseudo_bulk({"P3": []}, ["a"])


def test_slides_are_grouped_by_case_and_one_without_a_label_is_named() -> None:
    case_of = {"s1": "P2", "s2": "P1", "s3": "P2"}
    assert slides_of_cases(case_of, ["P1", "P2", "P4"]) == {"P2": ["s1", "s3"], "P1": ["s2"]}
    with pytest.raises(SectionError, match=r"1 slides are of cases that have no label \('s2 of P1'\)"):
        slides_of_cases(case_of, ["P2"])
    with pytest.raises(SectionError, match="no slide is said to belong to a case"):
        slides_of_cases({}, ["P2"])


def test_case_of_a_tcga_slide_is_the_head_of_its_barcode() -> None:
    assert tcga_case("TCGA-AA-3488-01A-01-TS1.b1f2") == "TCGA-AA-3488"
    for name in ("slide7", "TCGA-AA-34888-01A", "TCGA_AA_3488"):
        with pytest.raises(SectionError, match="not named by a TCGA barcode"):
            tcga_case(name)


def test_variable_genes_are_those_that_differ_most_between_the_cases_that_are_given() -> None:
    labels = BulkLabels(CASES, ["A", "B", "C", "D"], np.array([[0, 5, 1, 2], [4, 5, 2, 3], [8, 5, 3, 4]], np.float32))
    assert variable_genes(labels, 3) == ["A", "C", "D"]  # of equal ones by name
    with pytest.raises(PanelError, match=r"4 genes were asked for; 3 of 4 differ between the 3 training cases"):
        variable_genes(labels, 4)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("slide,patient\ns1,P1\n", r"has the columns 'slide', 'patient': `slide` and `case` are wanted"),
        ("slide,case\ns1,P1\ns1,P2\n", "names slide 's1' more than once"),
        ("slide,case\ns1,P1\ns2,\n", "has an empty cell in row 3"),
    ],
)
def test_a_fault_of_the_slides_table_is_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    assert read_slide_cases(_csv(tmp_path, "slide,stain,case\ns1,HE,P1\ns2,HE,P1\n")) == {"s1": "P1", "s2": "P1"}
    with pytest.raises(SectionError, match=sentence):
        read_slide_cases(_csv(tmp_path, text))
