"""Predictions to scores: metrics per gene, intervals, named protocols, pictures and a report."""
