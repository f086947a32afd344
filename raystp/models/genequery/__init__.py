"""Genequery."""
