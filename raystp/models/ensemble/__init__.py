"""Ensembles: the mean of finished models."""
