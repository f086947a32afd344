"""Distributions of a search space, by name. It imports no Ray."""

DISTRIBUTIONS = ("choice", "uniform", "loguniform", "quniform", "randint", "lograndint")
"""Names of Ray Tune's; the upper bound of `randint` and `lograndint` is exclusive."""
