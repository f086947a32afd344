"""Kinds of tables of cases and of samples, as configs name them."""

from typing import Literal

Scale = Literal["counts", "expression", "signed"]
"""Scale of a table's values.

`counts`: raw counts, normalised to log1p of counts per ten thousand over all genes of the table. `expression`:
non-negative values (log1p of TPM, say), used unchanged. `signed`: any values (z-scores), used unchanged.
"""

Samples = Literal["tumour", "normal", "control", "all"]
"""Kinds of samples of a TCGA barcode."""
