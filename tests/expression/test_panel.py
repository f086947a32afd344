import json
import math
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from raystp.errors import PanelError
from raystp.expression.align import align
from raystp.expression.normalise import log1p_cp10k
from raystp.expression.panel import choose_variable, gene_statistics, highest_mean, highest_variance, read_panel
from raystp.storage import StoragePath

Make = Callable[..., ad.AnnData]


def test_statistics_are_pooled_over_spots_and_within_sections(make: Make) -> None:
    first = make([[1, 9], [5, 5], [3, 7]], ["A", "B"])
    second = make([[2, 8], [4, 6]], ["C", "A"])
    found = gene_statistics({"first": first, "second": second})
    a1, b1 = log1p_cp10k(first.X).T.astype(np.float64)
    c2, a2 = log1p_cp10k(second.X).T.astype(np.float64)
    assert found.genes == ["A", "B", "C"]
    assert found.share.tolist() == [1.0, 0.6, 0.4]
    assert found.mean == pytest.approx([np.r_[a1, a2].mean(), b1.sum() / 5, c2.sum() / 5], rel=1e-5)
    around = [3 * a1.var() + 2 * a2.var(), 3 * b1.var(), 2 * c2.var()]
    assert found.variance == pytest.approx(np.array(around) / 3, rel=1e-4)


def test_an_offset_between_sections_chooses_no_gene(make: Make) -> None:
    low = make([[10, 50, 940], [10, 60, 930], [10, 70, 920]], ["OFFSET", "VARIES", "REST"])
    high = make([[500, 50, 450], [500, 60, 440], [500, 70, 430]], ["OFFSET", "VARIES", "REST"])
    assert choose_variable({"low": low, "high": high}, 1) == ["VARIES"]


def test_rare_genes_are_left_out_and_ties_go_by_name(make: Make) -> None:
    counts = np.full((20, 4), 10)
    counts[:, 0] = 0
    counts[3, 0] = 500  # in 5 % of the spots, and by far the most variable
    counts[::2, 1] = counts[::2, 2] = 20
    sections = {"S1": make(counts, ["RARE", "Z", "Y", "FLAT"])}
    assert choose_variable(sections, 2) == ["Y", "Z"]
    assert choose_variable(sections, 1, least_share=0.05) == ["RARE"]
    with pytest.raises(PanelError, match=r"4 variable genes were asked for; 3 of 4 are in at least 10%.*1 to 3"):
        choose_variable(sections, 4)
    with pytest.raises(PanelError, match="there are none"):
        choose_variable({}, 1)


def test_highest_sets_are_ordered_and_within_the_panel(make: Make) -> None:
    sections = {"S1": make([[1, 50, 100, 30], [9, 50, 91, 31]], ["VARIES", "B", "HIGH", "D"])}
    assert highest_mean(sections, ["VARIES", "B", "HIGH", "D"], 2) == ["HIGH", "B"]
    assert highest_mean(sections, ["D", "B"], 50) == ["B", "D"]
    assert highest_variance(sections, ["B", "VARIES", "HIGH"], 1) == ["VARIES"]
    with pytest.raises(PanelError, match="1 of 1 genes of the panel are in no training section: 'X'"):
        highest_mean(sections, ["X"])


def test_sections_are_brought_to_one_order(make: Make) -> None:
    sections = {"train": make([[1, 0, 3]], ["A", "B", "C"]), "test": make([[5, 5]], ["C", "D"])}
    aligned = align(sections, ["C", "A"], training=["train"])
    assert aligned.genes == ["C", "A"]
    assert aligned.expression["train"] == pytest.approx(np.log([[7501, 2501]]), abs=1e-5)
    assert aligned.expression["test"].tolist() == [[pytest.approx(math.log(5001)), 0.0]]
    assert aligned.filled == {"test": 1}
    assert aligned.dropped == []


def test_a_gene_that_no_training_section_has_is_refused_or_dropped(make: Make) -> None:
    sections = {"train": make([[1, 2]], ["GATA3", "B"]), "test": make([[1, 2]], ["ERBB2", "B"])}
    with pytest.raises(PanelError, match=r"2 of 3 genes .*: 'ERBB2', 'GATA4'; did you mean 'GATA3' for 'GATA4'\?"):
        align(sections, ["ERBB2", "GATA4", "B"], training=["train"])
    aligned = align(sections, ["ERBB2", "GATA4", "B"], training=["train"], absent="drop")
    assert (aligned.genes, aligned.dropped) == (["B"], ["ERBB2", "GATA4"])
    ids = [f"ENSG{n}" for n in range(9)]
    with pytest.raises(PanelError, match=r"9 of 9 genes .*'ENSG4' and 4 more; are they named as in the sections"):
        align(sections, ids, training=["train"], absent="drop")


def test_a_targeted_assay_is_never_filled(make: Make) -> None:
    sections = {"train": make([[1, 2]], ["A", "B"]), "test": make([[1]], ["A"])}
    with pytest.raises(PanelError, match=r"'test' lacks 1: a targeted assay did not measure them"):
        align(sections, ["A", "B"], training=["train"], whole_transcriptome=False)
    assert align(sections, ["A"], training=["train"], whole_transcriptome=False).filled == {}


def test_training_sections_are_named(make: Make) -> None:
    with pytest.raises(PanelError, match="no such training section 'x'; there are 'a'"):
        align({"a": make([[1]])}, ["g0"], training=["x"])
    with pytest.raises(PanelError, match="none is named"):
        align({"a": make([[1]])}, ["g0"], training=[])


def test_every_form_of_a_panel_reads_alike(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.array(["ERBB2", "GATA3"]))
    (tmp_path / "p.txt").write_text("ERBB2\r\n\n  GATA3\n")
    (tmp_path / "p.json").write_text(json.dumps({"genes": ["ERBB2", "GATA3"]}))
    for ending in ("npy", "txt", "json"):
        assert read_panel(StoragePath.of(tmp_path / f"p.{ending}")) == ["ERBB2", "GATA3"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("p.csv", b"A", "is no gene panel: wanted is a .npy"),
        ("p.txt", b"\n", "names no genes"),
        ("p.txt", b"A\nB\nA\n", "names 1 genes more than once: 'A'"),
        ("p.txt", b"\xff\xfe", "cannot be read as a gene panel: UnicodeDecodeError"),
        ("p.json", b"[1]", "cannot be read as a gene panel"),
        ("p.json", b'{"genes": [1]}', "'genes' is not a list of strings"),
        ("p.npy", b"nonsense", "cannot be read as a gene panel"),
    ],
)
def test_other_panels_are_said_so(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PanelError, match=sentence):
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
