"""Predict expression: weights of neighbours, slides without leaks, and the files of predictions."""
