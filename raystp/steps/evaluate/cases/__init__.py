"""Scores against labels of whole cases."""
