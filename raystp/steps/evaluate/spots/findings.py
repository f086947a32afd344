"""What an evaluation against measured spots states beside the scores: differences, genes, calibration, a curve."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import pyarrow as pa

from raystp import tables
from raystp.evaluate.comparison.learning_curve import LearningCurvePoint, curve_lines, curve_parts
from raystp.evaluate.metrics.gene_scores import GeneScores, genes_csv, genes_table
from raystp.evaluate.report.parts import ReportPart
from raystp.evaluate.tables import LEARNING_CURVE
from raystp.steps.evaluate.comparison import ModelComparison
from raystp.steps.evaluate.reliability import Reliability
from raystp.steps.evaluate.report import csv_files


@dataclass(frozen=True)
class SpotFindings:
    """The results beside the scores."""

    comparison: ModelComparison
    genes: Sequence[GeneScores]
    """Scores of each gene."""
    panel: Sequence[str]
    reliability: Reliability
    curve: Sequence[LearningCurvePoint] = field(default_factory=tuple)

    @property
    def lines(self) -> list[str]:
        """Sentences for the summary."""
        return self.reliability.lines + curve_lines(self.curve)

    @property
    def curve_parts(self) -> list[ReportPart]:
        """The learning curve in the report."""
        return curve_parts(self.curve)

    @property
    def tables(self) -> dict[str, pa.Table]:
        """The tables to write, by file."""
        return {"genes.parquet": genes_table(self.genes, self.panel), **self._stored()}

    @property
    def files(self) -> Mapping[str, str]:
        """The same as CSV; of genes, the means over sections."""
        return {"genes.csv": genes_csv(self.genes, self.panel), **csv_files(self._stored())}

    def _stored(self) -> dict[str, pa.Table]:
        found = self.comparison.tables | self.reliability.tables
        if self.curve:
            found["learning_curve.parquet"] = tables.of_rows([asdict(row) for row in self.curve], LEARNING_CURVE)
        return found
