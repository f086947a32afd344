"""Control probes are known by their names, the same for Xenium's own files and for HEST's."""

import pytest

from raystp.expression.readers.files.controls import is_control

CONTROLS = (
    "BLANK_0069",
    "Blank-12",
    "NegControlProbe_00042",
    "NegControlCodeword_0500",
    "Negative control 3",
    "antisense_BCL2L15",
    "UnassignedCodeword_0001",
    "DeprecatedCodeword_0321",
    "Intergenic_Region_1",
    "Genomic Control 2",
)


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_probe_is_no_gene(name: str) -> None:
    assert is_control(name)


@pytest.mark.parametrize("name", ["ERBB2", "NEGR1", "BLNK", "ASPN", "DEPDC1", "UNC5B", "INTS1", "ENSG00000141736.14"])
def test_a_gene_is_no_control(name: str) -> None:
    assert not is_control(name)
