"""Folders of paired slides and spots, one module per data set: each is described as raystp's slide table."""
