"""Neighbours to expression: the weights, the weighted mean, the check for leaks, and the AnnData that users open."""
