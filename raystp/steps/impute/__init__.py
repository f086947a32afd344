"""Impute."""
