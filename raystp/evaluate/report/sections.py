"""Charts of a set of cases for the report, from arrays."""

from collections.abc import Sequence

import numpy as np

from raystp.evaluate.metrics.cases import CaseOutcome
from raystp.evaluate.metrics.genes import pcc_per_gene
from raystp.evaluate.report.charts import case_charts
from raystp.evaluate.report.parts import ReportChart


def case_gene_charts(outcome: CaseOutcome, panel: Sequence[str], genes: Sequence[tuple[int, str]]) -> list[ReportChart]:
    """Draw predicted against measured over cases, for genes given as column and reason."""
    pcc, _ = pcc_per_gene(outcome.predicted, outcome.measured)
    panels = [
        (
            panel[gene] + (f", PCC {pcc[gene]:.2f}" if outcome.has_correlation else "") + f": {reason}",
            np.asarray(outcome.measured[:, gene]),
            np.asarray(outcome.predicted[:, gene]),
        )
        for gene, reason in genes
    ]
    return case_charts(panels, outcome.cases)
