"""Predictions to scores: metrics per gene, intervals, named protocols, figures and a report."""
