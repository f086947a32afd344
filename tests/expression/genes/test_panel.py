import json
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from raystp.errors import PanelError
from raystp.expression.genes.panel import match_panel, read_panel
from raystp.expression.genes.variable import gene_statistics, most_variable_genes
from raystp.expression.normalise import log1p_cp10k
from raystp.storage import StoragePath

Make = Callable[..., ad.AnnData]


def test_statistics_are_pooled_over_spots_and_within_sections(make: Make) -> None:
    first = make([[1, 9], [5, 5], [3, 7]], ["A", "B"])
    second = make([[2, 8], [4, 6]], ["C", "A"])
    found = gene_statistics({"first": first, "second": second})
    a1, b1 = log1p_cp10k(first.X).T.astype(np.float64)
    c2, a2 = log1p_cp10k(second.X).T.astype(np.float64)
    assert found.genes == ["A", "B", "C"]
    assert found.share.tolist() == [1.0, 1.0, 1.0]
    assert found.sections.tolist() == [2, 1, 1]
    assert found.variance == pytest.approx(
        [(3 * a1.var() + 2 * a2.var()) / 3, 3 * b1.var() / 2, 2 * c2.var()], rel=1e-4
    )


def test_an_offset_between_sections_selects_no_gene(make: Make) -> None:
    low = make([[10, 50, 940], [10, 60, 930], [10, 70, 920]], ["OFFSET", "VARIES", "REST"])
    high = make([[500, 50, 450], [500, 60, 440], [500, 70, 430]], ["OFFSET", "VARIES", "REST"])
    assert most_variable_genes({"low": low, "high": high}, 1) == ["VARIES"]


def test_rare_genes_are_left_out_and_ties_are_ordered_by_name(make: Make) -> None:
    counts = np.full((20, 4), 10)
    counts[:, 0] = 0
    counts[3, 0] = 500  # in 5 % of the spots, and by far the most variable
    counts[::2, 1] = counts[::2, 2] = 20
    sections = {"S1": make(counts, ["RARE", "Z", "Y", "FLAT"])}
    assert most_variable_genes(sections, 2) == ["Y", "Z"]
    assert most_variable_genes(sections, 1, min_share=0.05) == ["RARE"]
    with pytest.raises(PanelError, match=r"4 variable genes were requested; 3 of 4 are in at least 10%.*1 to 3"):
        most_variable_genes(sections, 4)
    with pytest.raises(PanelError, match="none are given"):
        most_variable_genes({}, 1)


def test_a_panel_keeps_its_order_and_counts_what_a_section_lacks(make: Make) -> None:
    sections = {"first": make([[1, 0, 3]], ["A", "B", "C"]), "second": make([[5, 5]], ["C", "D"])}
    match = match_panel(["C", "A"], sections)
    assert (match.genes, match.dropped, match.unmeasured) == (["C", "A"], [], {"second": ["A"]})
    match = match_panel(["C", "A"], sections, absent="common")
    assert (match.genes, match.dropped, match.unmeasured) == (["C"], ["A"], {})
    with pytest.raises(PanelError, match=r"1 of 2 genes .*\(second lacks 1\): 'A'.*panel.absent=mask"):
        match_panel(["C", "A"], sections, absent="refuse")


def test_a_gene_that_no_training_section_has_is_refused_or_dropped(make: Make) -> None:
    sections = {"train": make([[1, 2]], ["GATA3", "B"])}
    with pytest.raises(PanelError, match=r"2 of 3 genes .*: 'ERBB2', 'GATA4'; did you mean 'GATA3' for 'GATA4'\?"):
        match_panel(["ERBB2", "GATA4", "B"], sections)
    match = match_panel(["ERBB2", "GATA4", "B"], sections, absent="zero")  # where the label of an absent gene is 0
    assert (match.genes, match.dropped) == (["ERBB2", "GATA4", "B"], [])
    match = match_panel(["ERBB2", "GATA4", "B"], sections, absent="drop")
    assert (match.genes, match.dropped, match.unmeasured) == (["B"], ["ERBB2", "GATA4"], {})
    ids = [f"ENSG{n}" for n in range(9)]
    with pytest.raises(
        PanelError, match=r"9 of 9 genes .*'ENSG4' and 4 more; check that the panel uses the same gene.*Ensembl ids"
    ):
        match_panel(ids, sections, absent="drop")


@pytest.mark.parametrize(
    "encode", [str.encode, lambda text: b"\xef\xbb\xbf" + text.encode(), lambda t: t.encode("utf-16")]
)
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.txt", "# genes\r\nACTB \r\n\r\n\u00a0HLA-A,,\r\n"),
        ("p.txt", '"ACTB"\rHLA-A # class I\r'),
        ("p.json", '{"genes": ["ACTB ", "HLA-A"]}'),
        ("p.json", '\r\n["ACTB", "HLA-A"]'),
    ],
)
def test_a_panel_reads_the_same_from_any_editor(
    tmp_path: Path, name: str, text: str, encode: Callable[[str], bytes]
) -> None:
    (tmp_path / name).write_bytes(encode(text))
    assert read_panel(StoragePath.of(tmp_path / name)) == ["ACTB", "HLA-A"]


def test_a_panel_needs_training_sections() -> None:
    with pytest.raises(PanelError, match="none are given"):
        match_panel(["g0"], {})


def test_every_panel_format_reads_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.array(["ERBB2", "GATA3"]))
    (tmp_path / "p.txt").write_text("ERBB2\r\n\n  GATA3\n")
    (tmp_path / "p.json").write_text(json.dumps({"genes": ["ERBB2", "GATA3"]}))
    for ending in ("npy", "txt", "json"):
        assert read_panel(StoragePath.of(tmp_path / f"p.{ending}")) == ["ERBB2", "GATA3"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", b"A", "is not a gene panel: expected a .npy"),
        ("p.txt", b"\n", "contains no genes"),
        ("p.txt", b"A\nB\nA\n", "contains 1 genes more than once: 'A'"),
        ("p.txt", b"\xff\xfe", "contains no genes"),
        ("p.txt", b"A\n\xe4", "cannot be read as text .line 2 is not UTF-8, byte 0xe4"),
        ("p.txt", b"# genes\n", "contains no genes"),
        ("p.txt", b"A\nB,C\n", "line 2: 'B,C' has 2 cells; a list has one entry per line"),
        ("p.json", b'{"gene": ["A"]}', "'genes' is not a list of strings"),
        ("p.json", b'{"genes": ["A", " "]}', "'genes' is not a list of strings"),
        ("p.json", b"[" * 100_000, "cannot be read as a gene panel"),
        ("p.json", b"[1]", "cannot be read as a gene panel"),
        ("p.json", b'{"genes": [1]}', "'genes' is not a list of strings"),
        ("p.npy", b"nonsense", "cannot be read as a gene panel"),
    ],
)
def test_a_malformed_panel_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PanelError, match=message):
        read_panel(StoragePath.of(tmp_path / name))


def test_a_pickled_panel_is_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.array(["A", "B"], dtype=object), allow_pickle=True)
    with pytest.raises(PanelError, match="allow_pickle=False"):
        read_panel(StoragePath.of(tmp_path / "p.npy"))
    np.save(tmp_path / "q.npy", np.arange(3))
    with pytest.raises(PanelError, match="1-dimensional array of int64"):
        read_panel(StoragePath.of(tmp_path / "q.npy"))


def test_the_panel_of_several_papers_has_785_genes(real_data: Path) -> None:
    assert len(read_panel(StoragePath.of(real_data / "genes" / "her_hvg_cut_1000.npy"))) == 785


def test_the_default_panel_has_genes_that_every_section_measured(make: Make) -> None:
    rng = np.random.default_rng(0)
    whole, part = rng.integers(1, 50, (20, 4)), rng.integers(1, 50, (20, 3))
    sections = {"whole": make(whole, ["A", "B", "C", "D"]), "part": make(part, ["A", "B", "C"])}
    assert set(most_variable_genes(sections, 3)) == {"A", "B", "C"}
    with pytest.raises(
        PanelError, match=r"4 variable genes.* \(3 are; 'part' measured the fewest, 3 genes: leave it out"
    ):
        most_variable_genes(sections, 4)
    ids = {"S1": make(part, ["A", "B", "C"]), "S2": make(part, [f"ENSG{n:011d}.1" for n in range(3)])}
    with pytest.raises(
        PanelError, match=r"'S1' has names such as 'A', .*'S2' has Ensembl ids such as 'ENSG00000000000.1'"
    ):
        most_variable_genes(ids, 1)
