"""Genes are found by name, else by Ensembl id; what is not found is missing, and other kinds of names are an error."""

import numpy as np
import pytest

from raystp.errors import SectionError
from raystp.expression.genes.names import (
    GeneNames,
    check_shared,
    gene_aliases,
    is_ensembl_id,
    unify_names,
    without_version,
)

IDS = ("ENSG00000000001", "ENSG00000000002", "ENSG00000000003")
SYMBOLS = ("ACTB", "KRT8", "VIM")
BOTH = GeneNames(SYMBOLS, IDS)
VERSIONED = GeneNames(tuple(f"{gene}.{n}" for n, gene in enumerate(IDS, 4)))


def test_versions_of_ids_are_ignored_and_symbols_with_dots_are_not_ids() -> None:
    assert without_version("ENSG00000141510.17") == "ENSG00000141510"
    assert without_version("ENSMUSG00000059552.14") == "ENSMUSG00000059552"
    assert [without_version(name) for name in ("RP11-34P13.7", "ACTB")] == ["RP11-34P13.7", "ACTB"]
    assert [is_ensembl_id(name) for name in ("ENSG00000141510.17", "RP11-34P13.7")] == [True, False]


@pytest.mark.parametrize("panel", [SYMBOLS, IDS, VERSIONED.names])
@pytest.mark.parametrize(
    "section",
    [GeneNames(SYMBOLS), GeneNames(IDS), VERSIONED, BOTH, GeneNames(IDS, IDS), GeneNames(IDS, VERSIONED.names)],
)
def test_symbols_and_ids_mix_once_any_section_says_which_belong_together(
    panel: tuple[str, ...], section: GeneNames
) -> None:
    aliases = gene_aliases(panel, [section, BOTH])
    assert section.find(panel, aliases).tolist() == [0, 1, 2]
    assert section.find(panel[::-1], aliases).tolist() == [2, 1, 0]


def test_a_gene_that_is_not_found_has_no_column() -> None:
    assert BOTH.find(["nowhere", "VIM", "ENSG00000000009"]).tolist() == [-1, 2, -1]
    assert GeneNames(IDS).find(SYMBOLS).tolist() == [-1, -1, -1]


def test_sections_of_symbols_and_of_ids_have_one_name_per_gene() -> None:
    sections = {
        "ids": GeneNames((*VERSIONED.names, "ENSG00000000009")),
        "both": BOTH,
        "symbols": GeneNames(("VIM", "X")),
    }
    names = unify_names(sections)
    assert list(names) == list(sections)
    assert names == {"ids": [*SYMBOLS, "ENSG00000000009"], "both": list(SYMBOLS), "symbols": ["VIM", "X"]}


def test_two_columns_of_a_section_stay_two_genes() -> None:
    assert unify_names({"S": GeneNames(("A", "B"), (IDS[0], IDS[0]))}) == {"S": ["A", "B"]}


def test_a_section_with_other_names_is_refused_and_both_kinds_are_shown() -> None:
    panel, other = [*SYMBOLS, "MKI67"], GeneNames(tuple(f"ENSG{n:011d}.2" for n in range(40, 60)))
    with pytest.raises(
        SectionError, match=r"'S' shares 0 of the 4 genes.*names such as 'ACTB'.*Ensembl ids such as 'E"
    ):
        check_shared("S", other, panel, other.find(panel), others=[BOTH])
    mixed = GeneNames(("ACTB", *other.names))  # one gene of four, and the training sections know one of its 21
    with pytest.raises(SectionError, match="'S' shares 1 of the 4 genes"):
        check_shared("S", mixed, panel, mixed.find(panel), others=[BOTH])


def test_a_targeted_section_shares_few_genes_and_is_accepted() -> None:
    universe = GeneNames(tuple(f"G{n}" for n in range(100)))
    panel, targeted = [f"G{n}" for n in range(20, 60)], GeneNames(tuple(f"G{n}" for n in range(25)))
    found = targeted.find(panel)
    assert int((found >= 0).sum()) == 5
    check_shared("S", targeted, panel, found, others=[universe])
    nothing = GeneNames(tuple(f"G{n}" for n in range(10)))
    with pytest.raises(SectionError, match="shares 0 of the 40 genes"):
        check_shared("S", nothing, panel, nothing.find(panel), others=[universe])


def test_the_other_sections_are_not_read_where_half_of_the_panel_is_shared() -> None:
    def others() -> GeneNames:
        pytest.fail("read")

    panel = ["ACTB", "nowhere"]
    check_shared("S", BOTH, panel, BOTH.find(panel), others=(others() for _ in range(1)))
    assert np.array_equal(BOTH.find(panel), [0, -1])
