"""Score predictions against labels of whole cases: outcomes, controls, permutation null, maps, report."""

import numpy as np

from raystp.evaluate.comparison.seeds import seed_rows
from raystp.evaluate.metrics.cases import picked_rows, score_cases
from raystp.evaluate.metrics.gene_scores import case_gene_scores, genes_csv, genes_table
from raystp.evaluate.metrics.score import ScoreRow
from raystp.evaluate.report.score_tables import cases_text
from raystp.steps.evaluate.cases.config import CasesEvaluateConfig
from raystp.steps.evaluate.cases.controls import NOTES, control_outcomes
from raystp.steps.evaluate.cases.null import case_nulls
from raystp.steps.evaluate.cases.outcomes import case_outcomes, held_out_cases
from raystp.steps.evaluate.cases.report import CaseResults, cases_report
from raystp.steps.evaluate.comparison import compare_cases
from raystp.steps.evaluate.maps import score_maps
from raystp.steps.evaluate.predictions import Prediction, gene_sets_of
from raystp.steps.evaluate.report import Evaluation, csv_files


def evaluate_cases(config: CasesEvaluateConfig, models: list[Prediction]) -> Evaluation:
    """Return scores, notes, report and each gene's score; raises SectionError if no case of the table is predicted."""
    first, held = models[0], held_out_cases(config, models)
    sets = gene_sets_of(models, config.planted, config.sets)
    outcomes = case_outcomes(held, models, config.run.store)
    controls = control_outcomes(held, first, run=config.run)
    nulls = case_nulls(held, models, config.permutations, config=config)
    scored = {**outcomes, **controls}
    rows: list[ScoreRow] = []
    for name, outcome in scored.items():
        rng = np.random.default_rng(config.seed)
        rows += score_cases(first.label(name), outcome, sets, rng=rng, null=nulls.get(name), draws=config.draws)
        rows += picked_rows(first.label(name), outcome, first.genes)
    comparison = compare_cases(config, models, scored, sets, rows=rows)
    rows += seed_rows(comparison.seeds)
    text = cases_text(rows, list(dict.fromkeys(row.model for row in rows)), len(held.cases))
    maps = score_maps(config, models, [slide for case in held.cases for slide in case.slides], planted={})
    rows += maps.rows
    notes = [f"`{name}` {note}." for name, note in NOTES.items() if name in controls] + maps.lines
    genes = case_gene_scores(scored)
    results = CaseResults(held, outcomes, rows, notes, comparison, genes, sets)
    report = cases_report(config, models, results)
    return Evaluation(
        rows,
        "\n\n".join(one for one in (text, comparison.text) if one),
        notes,
        report,
        cohort=held.embed.manifest.name,
        files={"genes.csv": genes_csv(genes, first.genes), **csv_files(comparison.tables)},
        tables={"genes.parquet": genes_table(genes, first.genes), **comparison.tables},
    )
