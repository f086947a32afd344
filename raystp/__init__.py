"""Spatial gene expression from H&E slides, for whole cohorts, on Ray."""
