"""Labels of cases: the same table from every file format, and a clear error for every fault."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from raystp.errors import PanelError, SectionError
from raystp.expression.bulk.labels import BulkLabels, read_bulk, variable_genes
from raystp.expression.bulk.slides import read_slide_cases, slides_of_cases, tcga_case, tcga_cases, tcga_sample
from raystp.storage import StoragePath

CASES, GENES = ["007", "P2", "P3"], ["ERBB2", "FASN", "MUC1"]
VALUES = np.array([[1.0, 0.0, 3.5], [2.0, 5.0, 0.25], [0.0, 1.0, 7.0]])


def _write(folder: Path, kind: str) -> StoragePath:
    path = folder / f"bulk.{kind}"
    frame = pd.DataFrame(VALUES, columns=GENES)
    frame.insert(1, "case", CASES)  # not the first column: it is found by name
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
def test_a_table_reads_the_same_from_every_file_format(tmp_path: Path, kind: str) -> None:
    labels = read_bulk(_write(tmp_path, kind))
    assert (labels.cases, labels.genes) == (CASES, GENES)
    np.testing.assert_array_equal(labels.values, VALUES.astype(np.float32))


def test_labels_are_returned_in_the_requested_order() -> None:
    labels = BulkLabels(CASES, GENES, VALUES.astype(np.float32))
    np.testing.assert_array_equal(labels.of(["P3", "007", "P3"], ["MUC1", "ERBB2"]), [[7, 0], [3.5, 1], [7, 0]])
    with pytest.raises(SectionError, match=r"1 cases have no label \('P9'\)"):
        labels.of(["P2", "P9"])
    with pytest.raises(PanelError, match=r"1 of 1 genes of the panel are not in the table of cases.*'FASN' for 'FASM'"):
        labels.of(["P2"], ["FASM"])


def test_counts_are_normalised_like_those_of_a_spot(tmp_path: Path) -> None:
    labels = read_bulk(_csv(tmp_path, "case,a,b\nP1,1,3\nP2,10,0\n"), scale="counts")
    np.testing.assert_allclose(labels.values, np.log1p([[2500, 7500], [10000, 0]]), rtol=1e-6)


def test_only_the_requested_cases_are_kept_and_checked(tmp_path: Path) -> None:
    path = _csv(tmp_path, "case,a\nP1,\nP2,4\nP3,5\n")
    assert read_bulk(path, cases={"P3", "P2"}).cases == ["P2", "P3"]
    with pytest.raises(SectionError, match=r"absent or not finite for scale='expression': P1/a = nan"):
        read_bulk(path)


def test_values_may_be_negative_with_scale_signed(tmp_path: Path) -> None:
    path = _csv(tmp_path, "case,a\nP1,-1.5\nP2,4\n")
    assert read_bulk(path, scale="signed").values.tolist() == [[-1.5], [4.0]]
    with pytest.raises(SectionError, match=r"1 negative values .*P1/a = -1.5; use scale='signed' for z-scores"):
        read_bulk(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,a\nP1,1\nP1,2\n", r"lists 1 cases more than once \('P1'\)"),
        ("case,a,a\nP1,1,2\n", r"lists 1 genes more than once \('a'\)"),
        ("case,a\nP1,high\n", "1 values of 'a' that are not numbers: 'high'"),
        ("case,a\n,1\n", "1 rows whose 'case' is empty"),
        ("patient,a\nP1,1\n", "has 0 columns 'case', .* it has 'patient', 'a'"),
        ("case,a\nP1,1,2\n", "cannot be read as a table|header has 2 columns"),
        ("case,a\nP1,1\nP2,1,2,3\n", "cannot be read as a table"),
        ("case\nP1\n", "1 cases and 0 genes"),
        ("case,a\n", "cannot be read as a table"),
        ("", "cannot be read as a table"),
        ("case,a\nP1,inf\n", "absent or not finite"),
        ("case,a\nP1,True\n", "1 values of 'a' that are not numbers: 'True'"),
        ('case,a\n"P1\nP2",1\n', "case 'P1.nP2' has a line break"),
        ('case,a\nP1,"1\nP2,2\n', "cannot be read as a table"),
        ("case,a,\nP1,1,2\n", "1 column without a name has values"),
    ],
)
def test_a_faulty_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SectionError, match=message):
        read_bulk(_csv(tmp_path, text))


def test_faulty_counts_cases_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SectionError, match="1 cases whose counts are all 0"):
        read_bulk(_csv(tmp_path, "case,a\nP1,0\nP2,3\n"), scale="counts")
    with pytest.raises(SectionError, match="counts that are not whole numbers"):
        read_bulk(_csv(tmp_path, "case,a\nP1,0.5\n"), scale="counts")
    with pytest.raises(SectionError, match=r"no label for 1 of 2 cases: 'P9'; it has 'P1'"):
        read_bulk(_csv(tmp_path, "case,a\nP1,1\n"), cases=["P1", "P9"])
    with pytest.raises(SectionError, match="transpose it, a row is a case"):
        read_bulk(_csv(tmp_path, "case,P8,P9\nERBB2,1,2\n"), cases=["P9"])
    with pytest.raises(SectionError, match="is not a table of cases"):
        read_bulk(StoragePath.of(tmp_path / "bulk.xlsx"))
    (tmp_path / "bulk.parquet").write_bytes(b"no parquet")
    with pytest.raises(SectionError, match="cannot be read as a table"):
        read_bulk(StoragePath.of(tmp_path / "bulk.parquet"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_table_of_a_spreadsheet_reads_like_a_plain_one(
    tmp_path: Path, encoding: str, separator: str, end: str
) -> None:
    lines = ["\u00a0a ,case,b,,", ",,,,", "0.5,007,1,,", "", "2, NA,3e1,,", ",,,,"]
    text = end.join(lines).replace(",", separator) + end
    (tmp_path / "bulk.csv").write_bytes(text.encode(encoding))
    labels = read_bulk(StoragePath.of(tmp_path / "bulk.csv"))
    assert (labels.cases, labels.genes, labels.values.tolist()) == (["007", "NA"], ["a", "b"], [[0.5, 1], [2, 30]])


def test_a_decimal_comma_is_read_only_where_it_is_one(tmp_path: Path) -> None:
    for text in ("case;a;b\nP1;1,234;2\n", 'case,a,b\nP1,"1,23",2\nP2,"1,234",2\n', "case\ta\tb\nP1\t0,234\t2\n"):
        assert read_bulk(_csv(tmp_path, text)).values[-1].tolist() in (
            [pytest.approx(1.234), 2],
            [pytest.approx(0.234), 2],
        )
    with pytest.raises(SectionError, match=r"'1,234' may be 1.234 or 1234; write decimal points"):
        read_bulk(_csv(tmp_path, "case\ta\nP1\t1,234\n"))
    with pytest.raises(
        SectionError, match=r"a decimal comma \('1,2'\) and with a point \('1.5'\): write decimal points"
    ):
        read_bulk(_csv(tmp_path, "case;a;b\nP1;1,2;1.5\n"))


def test_slides_are_grouped_by_case_and_a_slide_without_a_label_is_refused() -> None:
    case_of = {"s1": "P2", "s2": "P1", "s3": "P2"}
    assert slides_of_cases(case_of, ["P1", "P2", "P4"]) == {"P2": ["s1", "s3"], "P1": ["s2"]}
    with pytest.raises(SectionError, match=r"1 slides belong to cases without a label \('s2 of P1'\)"):
        slides_of_cases(case_of, ["P2"])
    with pytest.raises(SectionError, match="no slide belongs to a case"):
        slides_of_cases({}, ["P2"])


def test_the_case_of_a_tcga_slide_is_the_start_of_its_barcode() -> None:
    assert tcga_case("TCGA-AA-3488-01A-01-TS1.b1f2") == "TCGA-AA-3488"
    for name in ("slide7", "TCGA-AA-34888-01A", "TCGA_AA_3488"):
        with pytest.raises(SectionError, match="has no TCGA barcode"):
            tcga_case(name)


BARCODES = {
    "TCGA-AA-0001-01A-01-TS1": "tumour",
    "tcga-aa-0002-06A-01-TS1": "tumour",
    "TCGA-AA-0001-11A-01-BS1": "normal",
    "TCGA-AA-0003-20A": "control",
    "TCGA-AA-0004-50A": "other",
    "TCGA-AA-0005": None,
    "TCGA-AA-0006.svs": None,
    "TCGA-AA-0007-01Z-00-DX1.2B1F": "tumour",
}


def test_the_sample_code_of_a_barcode_tells_tumour_from_normal() -> None:
    assert {name: tcga_sample(name) for name in BARCODES} == BARCODES
    found = tcga_cases(BARCODES, "tumour")
    assert set(found.case_of.values()) == {f"TCGA-AA-000{number}" for number in (1, 2, 5, 6, 7)}
    assert found.left_out["TCGA-AA-0001-11A-01-BS1"] == "it is of a normal sample, and cases.samples is tumour"
    assert set(found.left_out) == {name for name, kind in BARCODES.items() if kind not in {"tumour", None}}
    assert found.summary == "3 tumour, 2 unknown, 1 normal, 1 control, 1 other"
    assert tcga_cases(BARCODES, "all").left_out == {}
    with pytest.raises(SectionError, match=r"no slide is of a normal sample .*\(1 tumour\): set cases.samples"):
        tcga_cases(["TCGA-AA-0001-01A"], "normal")


def test_variable_genes_have_the_highest_variance_between_the_given_cases() -> None:
    labels = BulkLabels(CASES, ["A", "B", "C", "D"], np.array([[0, 5, 1, 2], [4, 5, 2, 3], [8, 5, 3, 4]], np.float32))
    assert variable_genes(labels, 3) == ["A", "C", "D"]  # ties by name
    with pytest.raises(PanelError, match=r"4 genes were requested; 3 of 4 vary between the 3 training cases"):
        variable_genes(labels, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide,patient\ns1,P1\n", r"has the columns 'slide', 'patient': expected `slide` and `case`"),
        ("slide,case\ns1,P1\ns1,P2\n", "lists slide 's1' more than once"),
        ("slide,case\ns1,P1\n\ns2,\n", "line 4: `slide` or `case` is empty"),
        ("slide,case\n,,\n", "has no row"),
    ],
)
def test_a_faulty_table_of_slides_is_refused(tmp_path: Path, text: str, message: str) -> None:
    for separator in ",;\t":
        table = "\ufeffslide,stain,case\r\ns1,HE,P1\r\n,,\r\ns2,HE,P1\r\n".replace(",", separator)
        assert read_slide_cases(_csv(tmp_path, table)) == {"s1": "P1", "s2": "P1"}
    with pytest.raises(SectionError, match=message):
        read_slide_cases(_csv(tmp_path, text))
