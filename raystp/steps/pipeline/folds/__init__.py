"""Folds of a pipeline: who is held out, several folds at once, and the table of all."""
